"""What a run has scored so far, on disk: a killed run goes on from it, and the shards of a run are joined from it.

A folder of three files:

* `run.json` says what is scored (`Run`);
* `scores.bin` holds, piece after piece, NumPy arrays (`.npy`, one after the other): runs of scored bins, of bins of N
  only and of excluded bins, probabilities, and the spread where there is one;
* `journal.jsonl` has a line per piece that is safely in `scores.bin`: `piece`, `chrom`, `offset`, `bytes`, `sha256`.

Whatever follows the last whole line, in either file, was being written when the run was killed; it is cut off.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.artifacts import explain_os_errors, read_json, write_json
from ebert_core.errors import EbertError, InputError
from ebert_core.inference.pieces import Piece, Scored

RUN_FILE: Final = "run.json"
SCORES_FILE: Final = "scores.bin"
JOURNAL_FILE: Final = "journal.jsonl"
JOURNAL_FORMAT: Final = 1
_KIND: Final = "unfinished predictions"


class DamagedJournalError(InputError):
    """A folder of scores that cannot be gone on with."""

    def __init__(self, folder: Path, name: str, problem: str) -> None:
        super().__init__(folder / name, problem, f"remove {folder} and predict again")


class Journal:
    """An opened folder of scores; use it in a `with` block.

    Attributes:
        folder: where it lies.
        run: what `run.json` says.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any], lines: dict[int, dict[str, Any]], size: int) -> None:
        self.folder = folder
        self.run = run
        self._lines = lines
        self._journal_end = size
        self._scores = (folder / SCORES_FILE).open("rb")
        self._end = max((line["offset"] + line["bytes"] for line in lines.values()), default=0)

    @classmethod
    def create(cls, folder: Path, run: Mapping[str, Any]) -> Journal:
        """Begin a journal; what is in the folder is replaced."""
        with explain_os_errors(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / SCORES_FILE).touch()
            (folder / JOURNAL_FILE).touch()
            write_json(folder / RUN_FILE, run_file(run))
            return cls(folder, run, {}, 0)

    @classmethod
    def open(cls, folder: Path) -> Journal:
        """Open a journal for reading and, after a kill, for going on.

        Raises:
            InputError: it is no journal, of another version, or damaged.
        """
        run = read_run(folder)
        path = folder / JOURNAL_FILE
        lines: dict[int, dict[str, Any]] = {}
        try:
            size = (folder / SCORES_FILE).stat().st_size
            whole, newline, _ = path.read_bytes().rpartition(b"\n")
            for text in whole.split(b"\n") if newline else ():
                line = json.loads(text)
                if line["offset"] + line["bytes"] > size:
                    raise DamagedJournalError(folder, SCORES_FILE, "is shorter than its journal says")
                lines[int(line["piece"])] = line
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedJournalError(folder, JOURNAL_FILE, f"is damaged or missing ({error})") from None
        return cls(folder, run, lines, len(whole) + len(newline))

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scores.close()

    def __contains__(self, number: object) -> bool:
        return number in self._lines

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def numbers(self) -> list[int]:
        """The pieces that are in it, rising."""
        return sorted(self._lines)

    def append(self, scored: Scored) -> None:
        """Keep a piece: once this returns, no kill loses it.

        Raises:
            EbertError: no space is left, or the folder may not be written to; the journal stays as it was.
        """
        piece = scored.piece
        arrays: list[NDArray[Any]] = [piece.wanted, piece.all_n, piece.excluded, scored.probabilities]
        data = _packed(arrays if scored.spread is None else [*arrays, scored.spread])
        line = {
            "piece": piece.number,
            "chrom": piece.chrom,
            "offset": self._end,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        text = (json.dumps(line) + "\n").encode()
        with explain_os_errors(self.folder):
            _append(self.folder / SCORES_FILE, self._end, data)
            _append(self.folder / JOURNAL_FILE, self._journal_end, text)
        self._lines[piece.number] = line
        self._end += len(data)
        self._journal_end += len(text)

    def read(self, number: int) -> Scored:
        """A piece as it was kept.

        Raises:
            DamagedJournalError: its bytes are not those that were written.
        """
        line = self._lines[number]
        self._scores.seek(line["offset"])
        data = self._scores.read(line["bytes"])
        if hashlib.sha256(data).hexdigest() != line["sha256"]:
            raise DamagedJournalError(self.folder, SCORES_FILE, f"piece {number} does not match its digest")
        handle = io.BytesIO(data)
        arrays: list[NDArray[Any]] = []
        while handle.tell() < len(data):
            arrays.append(np.load(handle, allow_pickle=False))
        wanted, all_n, excluded, probabilities, *spread = arrays
        piece = Piece(number, line["chrom"], wanted, all_n, excluded)
        return Scored(piece, probabilities, spread[0] if spread else None)


def run_file(run: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a `run.json`."""
    return {"kind": _KIND, "format_version": JOURNAL_FORMAT, **run}


def read_run(folder: Path) -> dict[str, Any]:
    """What a folder's `run.json` says; `InputError` where there is none or another version wrote it."""
    path = folder / RUN_FILE
    if not path.is_file():
        raise InputError(folder, f"has no {RUN_FILE}, so it holds no predictions", "make it anew with `ebert predict`")
    run = read_json(path)
    fits = isinstance(run, dict) and all(isinstance(run.get(key, {}), dict) for key in ("scan", "job"))
    if not fits or run.get("kind") != _KIND or run.get("format_version") != JOURNAL_FORMAT:
        raise DamagedJournalError(folder, RUN_FILE, "is of another version of ebert, or damaged")
    return run


def is_journal(folder: Path) -> bool:
    """Whether a run began to keep its scores here."""
    return (folder / RUN_FILE).is_file()


def _packed(arrays: list[NDArray[Any]]) -> bytes:
    handle = io.BytesIO()
    for array in arrays:
        np.save(handle, np.ascontiguousarray(array), allow_pickle=False)
    return handle.getvalue()


def _append(path: Path, size: int, data: bytes) -> None:
    """Cut the file to `size` bytes and write what follows; on return it is on the disk, else it is cut again."""
    with path.open("r+b", buffering=0) as handle:
        handle.truncate(size)
        handle.seek(size)
        try:
            left = memoryview(data)
            while left:
                left = left[handle.write(left) :]
            os.fsync(handle.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                handle.truncate(size)
            raise


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The keys in which two descriptions differ, sorted."""
    return sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))


def require_same(folder: Path, ours: Mapping[str, Any], theirs: Mapping[str, Any], hint: str) -> None:
    """`EbertError` where a folder's scores are of another request; it names what differs."""
    if keys := differing(ours, theirs):
        raise EbertError(f"{folder} is of another request: it differs in {', '.join(keys)}", hint)
