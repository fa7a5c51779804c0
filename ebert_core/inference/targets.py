"""Where a run of `ebert predict` writes, which part of it this process does, and what may be done to what is there."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from ebert_core.artifacts import explain_os_errors, refuse_existing, require_place
from ebert_core.errors import EbertError
from ebert_core.inference.journal import is_journal
from ebert_core.inference.output_files import OutputSet


@dataclass(frozen=True)
class Shard:
    """Which part of a run this one does: `number` (from 1) of `of`."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"shard {self.number} of {self.of}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`2/8`; `EbertError` where it is no such thing."""
        found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise EbertError(f"--shard {text!r}: expected a number and how many there are", "for example --shard 2/8")
        return cls(int(found[1]), int(found[2]))


@dataclass(frozen=True)
class Target:
    """Where a run writes, and what may be done to what is there.

    Attributes:
        names: its files.
        shard: None writes the files, else what is kept for `merge`.
        ranks: the shards are those of ranks that run beside each other, and the last of them writes the files.
        overwrite: replace finished outputs, start an unfinished run anew.
        resume: go on with an unfinished run; where there is none, begin.
    """

    names: OutputSet
    shard: Shard | None = None
    overwrite: bool = False
    resume: bool = False
    ranks: bool = False

    @property
    def working(self) -> Path:
        """Where the run lives while it lasts."""
        return self.names.working if self.shard is None else self.output.with_name(f"{self.output.name}.partial")

    @property
    def output(self) -> Path:
        """Folder of the finished shard."""
        assert self.shard is not None
        place = self.names.rank if self.ranks else self.names.shard
        return place(self.shard.number, self.shard.of)

    @property
    def resumes(self) -> bool:
        """Whether there is a run to go on with, and that was asked for."""
        return self.resume and is_journal(self.working)

    @property
    def finished(self) -> bool:
        """Whether a resumed run finds its shard finished, and is not to replace it."""
        stays = self.ranks or not self.overwrite
        return self.resume and stays and self.shard is not None and is_journal(self.output)

    def refuse_existing(self) -> None:
        """Refuse what the run would replace; what a resumed run had published when it was killed is its own.

        Raises:
            OutputExistsError: an output is there.
            EbertError: an unfinished run is there, or the folder may not be written to.
        """
        require_place(self.names.working)
        if self.resumes or self.finished:
            return
        if self.shard is None or self.ranks:
            self._refuse_other_run()
            self.names.refuse_existing(self.overwrite or (self.resume and bool(self.names.ranks)))
        if self.shard is not None:
            refuse_existing(self.output, self.overwrite)
        if is_journal(self.working) and not self.overwrite:
            raise EbertError(
                f"{self.working} holds an unfinished run", "pass --resume to go on, or --overwrite to start it anew"
            )

    def _refuse_other_run(self) -> None:
        """`EbertError` where an unfinished run of the same outputs is of another number of ranks."""
        of = self.shard.of if self.shard else 1
        theirs = {int(folder.name.removesuffix(".partial").rpartition("-")[2]) for folder in self.names.ranks}
        if is_journal(self.names.working):
            theirs.add(1)
        if not self.overwrite and (others := theirs - {of}):
            raise EbertError(
                f"{self.names.working} holds an unfinished run of {max(others)} rank(s), this one has {of}",
                "go on with as many (--devices, --resume), or pass --overwrite to start anew",
            )

    def forget(self) -> None:
        """Remove what is left of earlier runs; for the first of several ranks, before any begins."""
        with explain_os_errors(self.names.working):
            shutil.rmtree(self.names.working, ignore_errors=True)
