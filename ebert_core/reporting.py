"""How the core speaks while it works, without knowing a terminal.

Long functions take a `Reporter`. This one is silent; the command line passes one that draws progress on stderr.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

Advance = Callable[..., None]
"""`advance(amount, note="")`: report `amount` more units of work done, with an optional short note."""


class Reporter:
    """Says nothing; subclass it to show progress."""

    def log(self, text: str) -> None:
        """A line of information."""

    def warn(self, text: str) -> None:
        """A line that the user should read before trusting the result."""

    @contextlib.contextmanager
    def task(self, description: str, total: float, unit: str) -> Iterator[Advance]:
        """Announce `total` units of work; yields the function to call as they get done."""
        yield lambda amount, note="": None


SILENT = Reporter()
