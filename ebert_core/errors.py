"""What may go wrong, in words a user can act on.

Every error a user can cause is an `EbertError`: one sentence that says what was found and what was expected, and a hint
that says what to do. The command line prints both and exits 1; nothing else of the program may print a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class EbertError(Exception):
    """A fault the user can mend.

    Args:
        message: what was found and what was expected, without a full stop.
        hint: the next thing to type or to change.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(EbertError):
    """A fault in a file: names the file and, where there is one, the 1-based line."""

    def __init__(self, path: Path | str, problem: str, hint: str = "", *, line: int | None = None) -> None:
        place = str(path) if line is None else f"{path}, line {line:,}"
        super().__init__(f"{place}: {problem}", hint)
        self.path = path
        self.line = line


class UnknownNameError(EbertError):
    """A name that nothing answers to; the hint offers the nearest names."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        names = sorted(set(known))
        super().__init__(f"unknown {what} {name!r}", suggestion(name, names) or listing(names))


class OutputExistsError(EbertError):
    """An output that is already there and that nobody allowed to be replaced."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(
            f"{path} already exists", "pass --overwrite to replace it, or choose another name with --output"
        )


class BusyError(EbertError):
    """An output that another run is writing now."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """'did you mean ...?' for the up to three nearest names, or '' where none is near."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    near = difflib.get_close_matches(name.casefold(), by_folded, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(by_folded[match] for match in near)}?" if near else ""


def listing(names: Iterable[str], most: int = 12) -> str:
    """'known: a, b, c', shortened after `most` names."""
    names = list(names)
    if not names:
        return "none is known yet"
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return f"known: {', '.join(names[:most])}{rest}"
