"""EBERT in the development benchmark: the package's commands, as a user would type them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rivals_setting import Scores, Task, bin_strides, ebert, prepared

from ebert_core.io.predictions import Predictions
from ebert_core.vocabulary import STRIDE_BP


class Design(NamedTuple):
    """One way to pre-train and fine-tune: what the commands are told beside the turn.

    `pretrain` is what `ebert pretrain` is told beside the defaults, None for random weights. `{motifs}` in an argument
    becomes the path of the motif file. `each` fine-tunes every TF on its own.
    """

    pretrain: tuple[str, ...] | None = ()
    finetune: tuple[str, ...] = ()
    predict: tuple[str, ...] = ()
    each: bool = False


MOTIFS = ("--motifs", "{motifs}")
ALSO = ("--also", "all")
FULL = (*MOTIFS, *ALSO)
# Without trees: the network alone shows best what one thing changed does to it.
NETWORK = (*FULL, "--set", "trees=0")
# What --motifs changes beside reading motifs, so that they alone may be left out.
_LAYERS = tuple(
    f"--set={setting}"
    for setting in (
        "window_bp=12800", "context_bp=1200", "global_batch=16", "micro_batch=2", "steps=1000", "evaluate_every=250",
        "valid_bp=20000000", "fusion.num_layers=5", "fusion.dropout=0.4", "fusion.encoder_bp=1600",
        "optimizer.learning_rate=2e-3", "optimizer.ema_decay=0.998",
    )
)  # fmt: skip
DESIGNS = {
    "ebert": Design(finetune=FULL),
    "ebert_others_accessibility": Design(finetune=(*FULL, "--set", "features.own_accessibility=false")),
    "ebert_no_accessibility": Design(finetune=(*FULL, "--no-accessibility")),
    "ebert_network": Design(finetune=NETWORK),
    "ebert_scratch": Design(pretrain=None, finetune=NETWORK),
    "ebert_no_states": Design(finetune=(*NETWORK, "--no-states"), predict=("--no-states",)),
}
"""What is compared with the rivals; `ebert` is the default, with boosted trees."""
ABLATIONS = {
    "ebert_pretrained_no_states": Design(pretrain=("--no-states",), finetune=NETWORK),
    "ebert_pretrained_states_shown": Design(pretrain=("--set", "masking.state_rate=0"), finetune=NETWORK),
    "ebert_5_bp_tokens": Design(pretrain=("--set", "encoder.token_bp=5"), finetune=NETWORK),
    "ebert_head_alone": Design(finetune=(*NETWORK, "--set", "head_share=1")),
    "ebert_early_fusion": Design(finetune=(*NETWORK, "--set", "fusion.early=true")),
    "ebert_no_motifs": Design(finetune=(*ALSO, *_LAYERS)),
    "ebert_other_states": Design(finetune=(*NETWORK, "--set", "features.other_states=true")),
    "ebert_no_tss": Design(finetune=(*NETWORK, "--set", "features.tss=false")),
    "ebert_no_composition": Design(finetune=(*NETWORK, "--set", "features.composition=false")),
    "ebert_not_also": Design(finetune=(*MOTIFS, "--set", "trees=0")),
    "ebert_single_tfs": Design(finetune=(*MOTIFS, "--set", "trees=0"), each=True),
    "ebert_windows_of_3200_bp": Design(
        finetune=(*NETWORK, "--set", "window_bp=3200", "--set", "context_bp=800", "--set", "global_batch=64")
    ),
}
"""One thing changed at a time in the network alone: pre-training, what is read, tokens, windows, what is learned
together."""
EVERY = DESIGNS | ABLATIONS
PRESET = "tiny"


def checkpoint(data: Path, work: Path, threads: int, told: tuple[str, ...] = (), more: tuple[str, ...] = ()) -> Path:
    """One pre-trained once per work folder, on the sequence of all chromosomes with the states of all cell types.

    Args:
        told: of the design.
        more: for a quick run.
    """
    folder = work / "-".join(["pretrained", *(each.strip("-") for each in told if each != "--set")])
    if not folder.exists():
        resume = ["--resume"] if folder.with_name(f"{folder.name}.partial").exists() else []
        ebert("pretrain", "--preset", PRESET, "--dataset", prepared(data, work, "uniform").path, "--output", folder,
              "--threads", str(threads), *told, *more, *resume, cwd=work)  # fmt: skip
    return folder


def arguments(task: Task, design: str, start: Path | None) -> list[str]:
    """What `ebert finetune` is told of the turn and the design; the labels of the tested cell type are never read."""
    turn, chosen = task.turn, EVERY[design]
    held_out = [] if turn.setting == "within" else ["--hold-out-cell", turn.cell]
    given = [each.format(motifs=task.motifs_path) for each in chosen.finetune]
    return [
        "--dataset", str(task.dataset.path), "--chrom", turn.train_chrom,
        "--cell", ",".join(turn.train_cells), *held_out, "--hold-out-chrom", turn.chrom,
        *(["--checkpoint", str(start)] if start else ["--scratch", PRESET]), *given,
    ]  # fmt: skip


def run_ebert(task: Task, design: str, asked: list[str], seed: int, threads: int) -> dict[str, Scores]:
    """Fine-tune and predict: log-odds of every TF for the benchmark bins of the turn, float32 of shape (N,) each.

    Args:
        asked: of `arguments`, and further settings.
    """
    if EVERY[design].each and len(task.tfs) > 1:
        alone = [run_ebert(replace(task, tfs=(tf,)), design, asked, seed, threads) for tf in task.tfs]
        return {tf: found[tf] for tf, found in zip(task.tfs, alone, strict=True)}
    turn, tfs = task.turn, ",".join(task.tfs)
    name = f"{turn.name.replace(':', '-')}-{design}-{seed}"
    place, output = task.work / "models" / name, task.work / "predictions" / name
    # An interrupted run is begun anew: what it left may be of other settings.
    for left in (place, place.with_name(f"{name}.partial"), output):
        shutil.rmtree(left, ignore_errors=True)
    common = ["--threads", str(threads)]
    ebert("finetune", "--tf", tfs, *asked, "--seed", str(seed), *common, "--output", place, cwd=task.work)
    ebert("predict", "--tf", tfs, "--cell", turn.cell, "--chrom", turn.chrom, "--dataset",
          task.dataset.path, "--model", place, *EVERY[design].predict, *common, "--format", "bigwig",
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
