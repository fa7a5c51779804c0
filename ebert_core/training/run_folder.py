"""Where a run lives while it lasts: `NAME.partial` beside its output `NAME`, which appears whole at the end."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import nn

from ebert_core.artifacts import exclusive_lock, publish_folder, refuse_existing
from ebert_core.errors import EbertError
from ebert_core.model.checkpoint import save
from ebert_core.training.distributed import ALONE, Ranks
from ebert_core.training.loop import JOURNAL_FILE, LoopConfig, Surroundings, train
from ebert_core.training.progress import Meter
from ebert_core.training.resume import LoopState, refuse_other_run, resume_points
from ebert_core.training.steps import Objective


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

    @property
    def working(self) -> Path:
        """Where the run lives while it lasts."""
        return self.output.with_name(f"{self.output.name}.partial")


@dataclass(frozen=True)
class Publication:
    """What a run publishes.

    Attributes:
        kind: `checkpoint` or `model`.
        fingerprint: digest of what makes the run what it is; only a run of the same may resume it.
        module: is given the best weights.
        body: of the manifest, made after that.
    """

    kind: str
    fingerprint: str
    module: nn.Module
    body: Callable[[LoopState], dict[str, Any]]


def train_and_publish(
    objective: Objective,
    config: LoopConfig,
    around: Surroundings,
    target: RunTarget,
    publication: Publication,
    meter: Meter | None = None,
) -> None:
    """Run the loop in the target's working folder and publish the best weights.

    Raises:
        EbertError: as `open_run` and `train`.
    """
    with open_run(target, publication.kind, around.ranks) as working:
        refuse_other_run(working, same=not (working / ENSEMBLE_FILE).exists())
        state, best = train(objective, config, around, working, publication.fingerprint, meter)
        if not around.ranks.is_first:
            return
        publication.module.load_state_dict(best)
        body = publication.body(state)
        finish_run(working, target, lambda folder: save(folder, publication.kind, publication.module, body))


# In the working folder of an ensemble; its members are runs of their own beside it.
ENSEMBLE_FILE: Final = "ensemble.json"


@contextlib.contextmanager
def open_run(target: RunTarget, kind: str, ranks: Ranks = ALONE) -> Iterator[Path]:
    """Yield the working folder of a run that makes a `kind`, and keep other runs from it meanwhile.

    Raises:
        OutputExistsError: the output is there and may not be replaced.
        EbertError: the output is not a `kind`, another run is writing it, or an unfinished run is there and neither
            `overwrite` nor `resume` was given.
    """
    with _locked(target, kind) if ranks.is_first else contextlib.nullcontext():
        ranks.largest(0)  # the folder is there for all once rank 0 has come here
        yield target.working


@contextlib.contextmanager
def _locked(target: RunTarget, kind: str) -> Iterator[None]:
    refuse_existing(target.output, target.overwrite, kind=kind)
    with exclusive_lock(target.output):
        working = target.working
        if working.exists() and target.overwrite and not target.resume:
            shutil.rmtree(working)
        if (resume_points(working) or (working / ENSEMBLE_FILE).exists()) and not target.resume:
            raise EbertError(
                f"{working} holds an unfinished run", "pass --resume to go on, or --overwrite to start it anew"
            )
        working.mkdir(exist_ok=True)
        yield


def finish_run(working: Path, target: RunTarget, write: Callable[[Path], None]) -> None:
    """Publish what `write` puts into a folder, with the run's journal, and remove the working folder."""
    with publish_folder(target.output, overwrite=target.overwrite) as staged:
        shutil.copyfile(working / JOURNAL_FILE, staged / JOURNAL_FILE)
        write(staged)
    shutil.rmtree(working, ignore_errors=True)
