"""Work that goes on behind the scan's back: writing, in a thread of its own, what was scored a moment ago."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Behind(Generic[T]):
    """Hands items to `work`, one after the other, in a second thread; use it in a `with` block.

    What was put is worked on even where the block ends with an error, so that nothing that is done gets lost. An error
    of `work` is raised by the next `put` or at the end of the block; later items are dropped.

    Args:
        work: is called in the second thread only.
        waiting: items that may wait before `put` does; this bounds the memory.
    """

    def __init__(self, work: Callable[[T], None], waiting: int = 1) -> None:
        self._work = work
        self._items: queue.Queue[tuple[T] | None] = queue.Queue(waiting)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="writing")

    def __enter__(self) -> Behind[T]:
        self._thread.start()
        return self

    def put(self, item: T) -> None:
        """Queue one item."""
        self._raise()
        self._items.put((item,))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        interrupted: KeyboardInterrupt | None = None
        told = False
        # The files may not be closed under the thread's hands: a further Ctrl-C waits for the piece at hand.
        while self._thread.is_alive():
            try:
                if not told:
                    self._items.put(None)
                    told = True
                self._thread.join()
            except KeyboardInterrupt as stop:
                interrupted = stop
        if kind is None:
            if interrupted:
                raise interrupted
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            if self._error is None:
                try:
                    self._work(item[0])
                except BaseException as error:
                    self._error = error
