"""Holding a stop back for the moment in which weights and counters change together."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

_STOPS: Final = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """SIGINT and SIGTERM that arrive within the block take effect at its end.

    Python handles signals in the main thread only, so in any other thread nothing needs holding back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        held.append(number)

    previous = {number: signal.getsignal(number) for number in _STOPS}
    try:
        for number in previous:
            signal.signal(number, hold)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    for stop in held:
        signal.raise_signal(stop)
