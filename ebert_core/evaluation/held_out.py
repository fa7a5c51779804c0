"""The leak guard: what a prediction's model was trained on, held against what is evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ebert_core.epigenome.cell_types import same_cell
from ebert_core.errors import EbertError
from ebert_core.genome.assembly import synonyms
from ebert_core.genome.intervals import Positions, any_overlap, merge
from ebert_core.vocabulary import BIN_BP


@dataclass(frozen=True)
class HeldOut:
    """Verdict on one prediction.

    Attributes:
        status: 'held out' where neither the cell type nor any evaluated chromosome was trained on for this TF; 'seen'
            where either was; 'unknown' where the prediction does not say.
        text: the verdict with its reason, for people.
        same_cell: whether the cell type was trained on for this TF.
        trained_bins: chromosome -> evaluated bins that lie in a training region or whose window would reach into one;
            a chromosome of which only other parts were trained on stands with 0, one never trained on is absent.
    """

    status: Literal["held out", "seen", "unknown"]
    text: str
    same_cell: bool = False
    trained_bins: dict[str, int] = field(default_factory=dict)


def held_out(sidecar: Mapping[str, Any] | None, pair: tuple[str, str], bins: Mapping[str, Positions]) -> HeldOut:
    """Judge a prediction by its sidecar.

    Args:
        sidecar: what the prediction says of itself, or None; `trained_on` holds tfs, cells, regions
            ([chrom, start, end], bp; validation parts too) and window_bp.
        pair: (TF, cell type) that is evaluated.
        bins: chromosome -> starts of the evaluated bins, rising.
    """
    trained = (sidecar or {}).get("trained_on")
    if not trained:
        return HeldOut("unknown", "unknown whether held out: the file does not say what it was trained on")
    tf, cell = pair
    if tf.casefold() not in {name.casefold() for name in trained["tfs"]}:
        return HeldOut("held out", f"held out: not trained on {tf}{_pretrained(sidecar, cell, bins)}")
    cell_seen = any(same_cell(cell, name) for name in trained["cells"])
    reach = int(trained.get("window_bp", 0))
    regions = {
        chrom: np.array([(start, end) for name, start, end in trained["regions"] if name in spellings], np.int64)
        for chrom, spellings in _spelt(bins).items()
    }
    counts = {chrom: _near(regions[chrom], starts, reach) for chrom, starts in bins.items() if len(regions[chrom])}
    if not cell_seen and not counts:
        text = "held out: neither the cell type nor the chromosomes were trained on"
        return HeldOut("held out", f"{text}{_pretrained(sidecar, cell, bins)}")
    where = ", ".join(_told(chrom, count, len(bins[chrom])) for chrom, count in counts.items())
    if cell_seen and counts:
        text = f"seen: trained on {cell}, {where}"
    elif cell_seen:
        text = f"seen: trained on {cell}, on other chromosomes"
    else:
        text = f"seen: trained on {where}, in other cell types"
    return HeldOut("seen", text, cell_seen, counts)


def _spelt(chroms: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Chromosome -> its spellings: a model that was trained on `1` has seen chr1."""
    return {chrom: (chrom, *synonyms(chrom)) for chrom in chroms}


def _near(regions: Positions, starts: Positions, reach: int) -> int:
    widened = merge(regions[:, 0] - reach, regions[:, 1] + reach)
    return int(any_overlap(*widened, starts, starts + BIN_BP).sum())


def _told(chrom: str, count: int, total: int) -> str:
    if count == total:
        return chrom
    return f"{count:,} of {total:,} bins of {chrom}" if count else f"other parts of {chrom}"


def _pretrained(sidecar: Mapping[str, Any] | None, cell: str, bins: Iterable[str]) -> str:
    """What pre-training read of the evaluated chromosomes and cell type: it learns from no labels, but say it."""
    pretrained = (sidecar or {}).get("pretrained_on") or {}
    chroms = {name for name, _, _ in pretrained.get("regions", ())}
    read = [chrom for chrom, spellings in _spelt(bins).items() if not chroms.isdisjoint(spellings)]
    if any(same_cell(cell, name) for name in pretrained.get("cells", ())):
        read.append(f"the states of {cell}")
    return f"; pre-training read {', '.join(read)}, without labels" if read else ""


def refuse_seen(verdicts: Mapping[str, HeldOut], labelled: Sequence[str], pair: tuple[str, str]) -> None:
    """Refuse figures that would show memory.

    Args:
        verdicts: prediction -> verdict.
        labelled: chromosomes that could be evaluated instead.
        pair: (TF, cell type) that is evaluated.

    Raises:
        EbertError: a prediction was seen.
    """
    for name, verdict in verdicts.items():
        if verdict.status != "seen":
            continue
        unseen = [chrom for chrom in labelled if chrom not in verdict.trained_bins]
        way = f"--chrom {','.join(unseen[:3])} was not trained on; or " if unseen and not verdict.same_cell else ""
        raise EbertError(
            f"{name} is not held out for {pair[0]} in {pair[1]}; {verdict.text}",
            f"{way}--allow-seen scores it all the same, marked as seen",
        )
