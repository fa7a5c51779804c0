"""Whether a figure is held out: what a model was trained on, held against what is evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ebert_core.genome.intervals import Positions, any_overlap, merge
from ebert_core.vocabulary import BIN_BP


@dataclass(frozen=True)
class HeldOut:
    """Verdict on one prediction.

    Attributes:
        status: 'held out' where neither the cell type nor any evaluated bin was trained on for this TF; 'seen' where
            either was; 'unknown' where the prediction does not say.
        text: the verdict with its reason, for people.
    """

    status: Literal["held out", "seen", "unknown"]
    text: str


def held_out(sidecar: Mapping[str, Any] | None, pair: tuple[str, str], bins: Mapping[str, Positions]) -> HeldOut:
    """Judge a prediction by its sidecar.

    Args:
        sidecar: what the prediction says of itself, or None; `trained_on` holds tfs, cells and regions
            ([chrom, start, end], bp).
        pair: (TF, cell type) that is evaluated.
        bins: chromosome -> starts of the evaluated bins, rising.
    """
    trained = (sidecar or {}).get("trained_on")
    if not trained:
        return HeldOut("unknown", "unknown: the file does not say what it was trained on")
    tf, cell = pair
    if tf.casefold() not in {name.casefold() for name in trained["tfs"]}:
        return HeldOut("held out", f"held out: not trained on {tf}")
    same_cell = cell.casefold() in {name.casefold() for name in trained["cells"]}
    shared = [chrom for chrom, starts in bins.items() if _any_trained(trained["regions"], chrom, starts)]
    if not same_cell and not shared:
        return HeldOut("held out", "held out: neither the cell type nor the chromosomes were trained on")
    where = ", ".join(shared)
    if same_cell and shared:
        return HeldOut("seen", f"seen: trained on {cell}, {where}")
    if same_cell:
        return HeldOut("seen", f"seen: trained on {cell}, on other chromosomes")
    return HeldOut("seen", f"seen: trained on {where}, in other cell types")


def _any_trained(regions: list[Any], chrom: str, starts: Positions) -> bool:
    here = np.array([(start, end) for name, start, end in regions if name == chrom], np.int64).reshape(-1, 2)
    return bool(any_overlap(*merge(here[:, 0], here[:, 1]), starts, starts + BIN_BP).any())
