"""Stops: holding one back while weights and counters change together, and those that ask to be started again.

SIGINT means "leave" (exit 130). SIGTERM, SIGUSR1 and the end of `--max-time` mean "save and leave, to be started
again": the run ends with `Requeue`, which the command line turns into exit code 75.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

from ebert_core.errors import EbertError

_STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)
# The higher the number, the stronger: what several ranks heard is settled by the largest.
_REASONS: Final = {
    signal.SIGALRM: (1, "--max-time is over"),
    signal.SIGUSR1: (2, "SIGUSR1"),
    signal.SIGTERM: (3, "SIGTERM"),
    signal.SIGINT: (4, "SIGINT"),
}
_INTERRUPT: Final = _REASONS[signal.SIGINT][0]


class Requeue(KeyboardInterrupt):
    """The run was asked to save and to be started again.

    Attributes:
        reason: what asked for it.
        saved_step: the optimiser step that was saved; None where the run had not begun.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.saved_step: int | None = None


class AnotherRankFailed(EbertError):
    """Ends a rank without a word: another one has told what went wrong."""


class Stops:
    """What this process was asked to do.

    Attributes:
        heard: the strongest stop so far; 0 is none.
    """

    def __init__(self) -> None:
        self.heard = 0
        self._deferred = False

    @contextlib.contextmanager
    def deferred(self, several: bool) -> Iterator[None]:
        """With several ranks, stops within the block only set `heard`, to be obeyed by all at the same step.

        One rank alone stops at once, wherever it is.
        """
        self._deferred = several
        try:
            yield
        finally:
            self._deferred = False

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """The handler of every stop."""
        self.heard = max(self.heard, _REASONS[signal.Signals(number)][0])
        if not self._deferred:
            self.obey(_REASONS[signal.Signals(number)][0])

    @staticmethod
    def obey(heard: int) -> None:
        """Raise what a stop means; nothing where there was none.

        Raises:
            KeyboardInterrupt: SIGINT.
            Requeue: any other stop.
        """
        if heard == _INTERRUPT:
            raise KeyboardInterrupt
        for strength, reason in _REASONS.values():
            if heard == strength:
                raise Requeue(reason)


@contextlib.contextmanager
def taken_stops(max_seconds: float | None = None) -> Iterator[Stops]:
    """Take the stops of this process while the block runs.

    Args:
        max_seconds: ask for a stop after so much time (of the wall clock); None never does.
    """
    found = Stops()
    if threading.current_thread() is not threading.main_thread():
        yield found  # Python handles signals in the main thread only
        return
    previous = {number: signal.signal(number, found.on_signal) for number in _STOPS}
    try:
        if max_seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, max_seconds)
        yield found
    finally:
        if max_seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Stops that arrive within the block take effect at its end.

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
