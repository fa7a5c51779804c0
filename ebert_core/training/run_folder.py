"""Where a run lives while it lasts: `NAME.partial` beside its output `NAME`, which appears whole at the end."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ebert_core.artifacts import exclusive_lock, publish_folder, refuse_existing
from ebert_core.errors import EbertError
from ebert_core.training.loop import JOURNAL_FILE, resume_points


@dataclass(frozen=True)
class RunTarget:
    """Where a run's result goes, and what may be done to what is there.

    Attributes:
        output: folder to publish.
        overwrite: replace a finished output, start an unfinished run anew.
        resume: go on with an unfinished run; one that was stopped before its first resume point begins anew.
    """

    output: Path
    overwrite: bool = False
    resume: bool = False


@contextlib.contextmanager
def open_run(target: RunTarget, kind: str) -> Iterator[Path]:
    """Yield the working folder of a run that makes a `kind`, and keep other runs from it meanwhile.

    Raises:
        OutputExistsError: the output is there and may not be replaced.
        EbertError: the output is not a `kind`, another run is writing it, or an unfinished run is there and neither
            `overwrite` nor `resume` was given.
    """
    refuse_existing(target.output, target.overwrite, kind=kind)
    with exclusive_lock(target.output):
        working = target.output.with_name(f"{target.output.name}.partial")
        if working.exists() and target.overwrite and not target.resume:
            shutil.rmtree(working)
        if resume_points(working) and not target.resume:
            raise EbertError(
                f"{working} holds an unfinished run", "pass --resume to go on, or --overwrite to start it anew"
            )
        working.mkdir(exist_ok=True)
        yield working


def finish_run(working: Path, target: RunTarget, write: Callable[[Path], None]) -> None:
    """Publish what `write` puts into a folder, with the run's journal, and remove the working folder."""
    with publish_folder(target.output, overwrite=target.overwrite) as staged:
        shutil.copyfile(working / JOURNAL_FILE, staged / JOURNAL_FILE)
        write(staged)
    shutil.rmtree(working, ignore_errors=True)
