"""The grid of 200-bp bins, one every 50 bp: the unit of labels and of predictions.

A bin is named by its start, always a multiple of 50 on its chromosome. Two sets of bins exist:

* all bins of a chromosome: starts 0, 50, ... while the bin ends within the chromosome. Predictions cover these, minus
  bins without a single known base and bins that touch the exclusion list;
* the benchmark's bins (ENCODE-DREAM): starts 600, 650, ... below length - 600, minus the exclusion list. Labels
  cover these. `docs/definitions.md` has the source.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.genome.intervals import Positions, any_overlap
from ebert_core.vocabulary import BASE_N, BIN_BP, STRIDE_BP, STRIDES_PER_BIN

BENCHMARK_MARGIN_BP: Final = 600


def all_bin_starts(length: int) -> Positions:
    """Starts of every bin that lies within a chromosome of `length` bp; empty below 200 bp."""
    return np.arange(0, length - BIN_BP + 1, STRIDE_BP, dtype=np.int64)


def benchmark_bin_starts(length: int, excluded: tuple[Positions, Positions]) -> Positions:
    """Starts of the benchmark's bins of a chromosome.

    Args:
        length: of the chromosome, bp.
        excluded: sorted, disjoint (starts, ends) on this chromosome.
    """
    starts = np.arange(BENCHMARK_MARGIN_BP, max(length - BENCHMARK_MARGIN_BP, 0), STRIDE_BP, dtype=np.int64)
    return starts[~any_overlap(*excluded, starts, starts + BIN_BP)]


def scorable(codes: NDArray[np.uint8], starts: Positions, excluded: tuple[Positions, Positions]) -> NDArray[np.bool_]:
    """Which bins get a prediction: at least one base that is not N, and no overlap with the exclusion list.

    Args:
        codes: base codes of the whole chromosome, shape (length,).
        starts: bin starts, multiples of 50, shape (N,); every bin lies within the chromosome.
        excluded: sorted, disjoint (starts, ends) on this chromosome.
    """
    # Per stride first: a running count over single bases would take 16 bytes a base, 4 GB for chr1.
    whole = len(codes) // STRIDE_BP
    in_stride = (codes[: whole * STRIDE_BP].reshape(whole, STRIDE_BP) != BASE_N).any(axis=1)
    first = starts // STRIDE_BP
    has_base = np.zeros(len(starts), dtype=bool)
    for place in range(STRIDES_PER_BIN):
        has_base |= in_stride[first + place]
    return has_base & ~any_overlap(*excluded, starts, starts + BIN_BP)
