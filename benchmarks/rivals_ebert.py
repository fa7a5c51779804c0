"""EBERT in the development benchmark: the package's commands, as a user would type them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rivals_setting import Scores, Task, bin_strides, ebert, prepared

from ebert_core.io.predictions import Predictions
from ebert_core.vocabulary import STRIDE_BP


class Design(NamedTuple):
    """One way to fine-tune: from the checkpoint or from random weights, and what else the commands are told.

    `{motifs}` in an argument becomes the path of the motif file.
    """

    pretrained: bool = True
    finetune: tuple[str, ...] = ()
    predict: tuple[str, ...] = ()


MOTIFS = ("--motifs", "{motifs}")
DESIGNS = {
    "ebert": Design(finetune=MOTIFS),
    "ebert_scratch": Design(pretrained=False, finetune=MOTIFS),
    "ebert_no_states": Design(finetune=(*MOTIFS, "--no-states"), predict=("--no-states",)),
    "ebert_no_accessibility": Design(finetune=(*MOTIFS, "--no-accessibility")),
}
PRESET = "tiny"


def checkpoint(data: Path, work: Path, threads: int, more: tuple[str, ...] = ()) -> Path:
    """One pre-trained once per work folder, on the sequence of all chromosomes with the states of all cell types."""
    folder = work / "pretrained"
    if not folder.exists():
        resume = ["--resume"] if folder.with_name("pretrained.partial").exists() else []
        ebert("pretrain", "--preset", PRESET, "--dataset", prepared(data, work, "uniform").path, "--output", folder,
              "--threads", str(threads), *more, *resume, cwd=work)  # fmt: skip
    return folder


def arguments(task: Task, design: str, start: Path | None) -> list[str]:
    """What `ebert finetune` is told of the turn and the design; the labels of the tested cell type are never read."""
    turn, chosen = task.turn, DESIGNS[design]
    held_out = [] if turn.setting == "within" else ["--hold-out-cell", turn.cell]
    given = [each.format(motifs=task.motifs_path) for each in chosen.finetune]
    return [
        "--tf", ",".join(task.tfs), "--dataset", str(task.dataset.path), "--chrom", turn.train_chrom,
        "--cell", ",".join(turn.train_cells), *held_out, "--hold-out-chrom", turn.chrom,
        *(["--checkpoint", str(start)] if chosen.pretrained else ["--scratch", PRESET]), *given,
    ]  # fmt: skip


def run_ebert(task: Task, design: str, asked: list[str], seed: int, threads: int) -> dict[str, Scores]:
    """Fine-tune and predict: log-odds of every TF for the benchmark bins of the turn, float32 of shape (N,) each.

    Args:
        asked: of `arguments`, and further settings.
    """
    turn = task.turn
    name = f"{turn.name.replace(':', '-')}-{design}-{seed}"
    place, output = task.work / "models" / name, task.work / "predictions" / name
    # An interrupted run is begun anew: what it left may be of other settings.
    for left in (place, place.with_name(f"{name}.partial"), output):
        shutil.rmtree(left, ignore_errors=True)
    common = ["--threads", str(threads)]
    ebert("finetune", *asked, "--seed", str(seed), *common, "--output", place, cwd=task.work)
    ebert("predict", "--tf", ",".join(task.tfs), "--cell", turn.cell, "--chrom", turn.chrom, "--dataset",
          task.dataset.path, "--model", place, *DESIGNS[design].predict, *common, "--format", "bigwig",
          "--output", output, cwd=task.work)  # fmt: skip
    starts = bin_strides(task.dataset, turn.chrom) * STRIDE_BP
    found = {}
    for tf in task.tfs:
        with Predictions.open(output / f"{tf}.{turn.cell}.bw", task.dataset.assembly) as predictions:
            predictions.load((turn.chrom,))
            found[tf] = log_odds(predictions.scores(turn.chrom, starts))
    shutil.rmtree(output)
    return found


def log_odds(probabilities: Scores) -> Scores:
    """Logarithm of the odds; a bin without a value, N only, is as unlikely as can be."""
    safe = np.clip(np.nan_to_num(probabilities, nan=0.0).astype(np.float64), 1e-9, 1 - 1e-9)
    return np.log(safe / (1 - safe)).astype(np.float32)
