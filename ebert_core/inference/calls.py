"""From a track of probabilities to called sites: runs of bins over a threshold become narrowPeak rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from ebert_core.vocabulary import BIN_BP, STRIDE_BP


@dataclass(frozen=True)
class Site:
    """A called site.

    Attributes:
        chrom, start, end: union of the 200-bp bins of the run, clipped so that neighbouring sites do not overlap.
        probability: of the run's best bin.
        summit: offset of the best bin's centre from `start`, bp.
    """

    chrom: str
    start: int
    end: int
    probability: float
    summit: int


def call_sites(chrom: str, probabilities: NDArray[np.float32], threshold: float) -> list[Site]:
    """Merge neighbouring bins over a threshold into non-overlapping sites.

    Bins that begin less than 200 bp apart overlap, so a run goes on over gaps of up to three bins.

    Args:
        probabilities: of the bins at strides 0, 1, ... of the chromosome, shape (N,); NaN where not scored.
        threshold: a bin counts when its probability is at least this.
    """
    with np.errstate(invalid="ignore"):
        over = np.flatnonzero(probabilities >= threshold)
    if len(over) == 0:
        return []
    breaks = np.flatnonzero(np.diff(over) > BIN_BP // STRIDE_BP - 1) + 1
    sites = []
    for run in np.split(over, breaks):
        best = run[np.argmax(probabilities[run])]
        start, end = int(run[0]) * STRIDE_BP, int(run[-1]) * STRIDE_BP + BIN_BP
        sites.append(Site(chrom, start, end, float(probabilities[best]), int(best) * STRIDE_BP + BIN_BP // 2 - start))
    return sites


def write_narrow_peak(sites: Iterable[Site], handle: TextIO) -> None:
    """Ten columns: name `.`, score 0-1000, signalValue = probability, no p or q value (-1), summit offset."""
    for site in sites:
        score = min(1000, round(1000 * site.probability))
        handle.write(
            f"{site.chrom}\t{site.start}\t{site.end}\t.\t{score}\t.\t{site.probability:.6g}\t-1\t-1\t{site.summit}\n"
        )
