"""References without training of a model: the package's own baselines, on the benchmark's bins."""

from __future__ import annotations

import sys

from rivals_setting import Scores, Task, bin_strides

from ebert_core.evaluation.baselines import Setting, Unavailable, baselines
from ebert_core.vocabulary import STRIDE_BP

# Design -> name of the package's baseline.
SIMPLE = {
    "prevalence": "prevalence",
    "motif": "best motif hit",
    "accessibility_x_state": "accessibility x state",
    # Reads labels of the tested chromosome, which no other design does: a reference, not a rival.
    "training_cells_on_test_chromosome": "mean of training cells",
}
# TFs without a matrix of their own are brought to DNA by another.
MOTIF_OF = {"RAD21": "CTCF", "TAF1": "YY1"}


def simple(task: Task, design: str) -> dict[str, Scores]:
    """Scores of every TF for which the baseline can be had, float32 of shape (N,) each."""
    chrom = task.turn.chrom
    starts = bin_strides(task.dataset, chrom) * STRIDE_BP
    found = {}
    for tf in task.tfs:
        asked = MOTIF_OF.get(tf, tf) if design == "motif" else tf
        setting = Setting(
            tf=asked,
            cell=task.turn.cell,
            chroms=(chrom,),
            prevalence=0.5,
            dataset=task.dataset,
            motifs_path=task.motifs_path,
            training_cells=task.train_cells(tf),
        )
        baseline = next(each for each in baselines(setting) if each.name == SIMPLE[design])
        if isinstance(baseline, Unavailable):
            print(f"{design} of {tf} in {task.turn.name}: {baseline.reason}", file=sys.stderr)
        else:
            found[tf] = baseline.scores(chrom, starts)
    return found
