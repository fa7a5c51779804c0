"""One rank of several, for test_distributed.py: pre-trains as the jobs say, one after the other in one process group.

    rank_program.py DATASET JOBS       (JOBS: JSON, a list of tables; RANK, WORLD_SIZE ... in the environment)

A job has `config` (of PretrainConfig), `output`, and may have `resume`, `stop_at` (step before which all ranks stop),
`small_memory_on` (a rank on which only single windows fit), `not_finite_on` (a rank whose loss is NaN at its step 3),
`fails_on` (a rank that raises at its step 3), `killed` (a rank that is killed there), `never_better` (the first
evaluation is the best), `stops_evaluation` (all ranks stop in the first one). Rank 0 prints a JSON line per job.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import typer

from ebert_cli.console import ConsoleReporter, guarded
from ebert_core import artifacts
from ebert_core.config import PretrainConfig
from ebert_core.data.dataset import Dataset
from ebert_core.errors import EbertError
from ebert_core.model.device import choose_device
from ebert_core.reporting import SILENT
from ebert_core.training import loop
from ebert_core.training.distributed import Ranks, joined
from ebert_core.training.loop import Surroundings
from ebert_core.training.pretrain import LanguageLosses, MaskedLanguageObjective, PretrainData, pretrain
from ebert_core.training.run_folder import RunTarget


def make_trouble(job: dict[str, Any], ranks: Ranks) -> Any:
    """What goes wrong in a job, as patches."""
    draw, forward, steps = MaskedLanguageObjective.draw, LanguageLosses.forward, []
    evaluate, scores = MaskedLanguageObjective.evaluate, itertools.count()

    def drawn(self: Any, step: int, first: int, count: int) -> Any:
        steps.append(step)
        if step == job.get("stop_at"):
            raise KeyboardInterrupt
        if step == 3 and ranks.rank == job.get("fails_on"):
            raise EbertError("the disk fell off", "put it back")
        if step == 3 and ranks.rank == job.get("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        return draw(self, step, first, count)

    def said(self: Any, batch: Any) -> Any:
        if self.training and ranks.rank == job.get("small_memory_on") and len(batch.bases) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sick = self.training and ranks.rank == job.get("not_finite_on") and steps[-1] == 3
        return forward(self, batch) * (float("nan") if sick else 1.0)

    def evaluated(self: Any, ranks: Ranks) -> Any:
        if job.get("stops_evaluation"):
            raise KeyboardInterrupt
        figures = evaluate(self, ranks)
        return {**figures, "score": -next(scores)} if job.get("never_better") else figures

    return mock.patch.multiple(MaskedLanguageObjective, draw=drawn, evaluate=evaluated), mock.patch.multiple(
        LanguageLosses, forward=said
    )


class Told(ConsoleReporter):
    """Keeps warnings."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@guarded
def main(dataset: str, jobs: str) -> None:
    torch.set_num_threads(1)
    with joined(timedelta(seconds=60)) as ranks:
        data = PretrainData.choose(Dataset.open(Path(dataset)), [], [], [], [])
        for job in json.loads(jobs):
            told = Told()
            around = Surroundings(choose_device("cpu", "fp32"), told if ranks.is_first else SILENT, ranks)
            config = PretrainConfig.model_validate(job["config"])
            error = None
            drawing, saying = make_trouble(job, ranks)
            with drawing, saying:
                try:
                    pretrain(data, config, RunTarget(Path(job["output"]), resume=job.get("resume", False)), around)
                except KeyboardInterrupt:
                    error = "interrupted"
                except EbertError as fault:
                    if "fails_on" in job:
                        raise
                    error = fault.message
            if ranks.is_first:
                print(json.dumps({"warnings": told.warnings, "error": error}), flush=True)


if __name__ == "__main__":
    loop._LOG_EVERY = 1  # type: ignore[misc]
    artifacts._flush = lambda path: None
    try:
        main(*sys.argv[1:])
    except typer.Exit as leaving:
        sys.exit(leaving.exit_code)
