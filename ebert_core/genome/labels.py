"""Bound, unbound, ambiguous: the rule of the ENCODE-DREAM challenge, on arrays of one chromosome.

Both peak sets are merged first. For a 200-bp bin, c counts the merged conservative peaks that cover at least half of
the bin or have at least half of themselves inside it, and r counts the merged relaxed peaks with any overlap. The bin
is bound iff c = r = 1, unbound iff c = r = 0, ambiguous otherwise. Source: the organisers' labelling script, as written
down in docs/definitions.md.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.genome.intervals import Positions, count_overlaps, merge
from ebert_core.vocabulary import BIN_BP, STRIDES_PER_BIN

UNLABELLED: Final = 0
UNBOUND: Final = 1
AMBIGUOUS: Final = 2
BOUND: Final = 3
LABEL_LETTERS: Final = "-UAB"


def label_bins(
    starts: Positions, conservative: tuple[Positions, Positions], relaxed: tuple[Positions, Positions]
) -> NDArray[np.uint8]:
    """Label codes (1 unbound, 2 ambiguous, 3 bound) of bins.

    Args:
        starts: bin starts, shape (N,).
        conservative: (starts, ends) of the peaks that call a bin bound; any order.
        relaxed: (starts, ends) of the peaks that keep a bin from being called unbound; any order.

    Returns:
        uint8 of shape (N,).
    """
    ends = starts + BIN_BP
    strong = _count_half_overlaps(*merge(*conservative), starts)
    weak = count_overlaps(*merge(*relaxed), starts, ends)
    labels = np.full(len(starts), AMBIGUOUS, dtype=np.uint8)
    labels[(strong == 0) & (weak == 0)] = UNBOUND
    labels[(strong == 1) & (weak == 1)] = BOUND
    return labels


def _count_half_overlaps(peak_starts: Positions, peak_ends: Positions, starts: Positions) -> Positions:
    """Peaks (sorted, disjoint) that cover half of each bin or have half of themselves inside it; shape (N,).

    A peak qualifies iff its overlap with the bin is at least t = min(bin, peak length) / 2. For a peak [p, q) that
    means bin start <= q - t and bin end >= p + t, so the bins of one peak are a run, and the count is a difference of
    two sorted ranks. Lengths are doubled to stay in integers.
    """
    threshold = np.minimum(BIN_BP, peak_ends - peak_starts)
    earliest = 2 * peak_starts + threshold - 2 * BIN_BP
    latest = 2 * peak_ends - threshold
    return np.searchsorted(np.sort(earliest), 2 * starts, side="right") - np.searchsorted(
        np.sort(latest), 2 * starts, side="left"
    )


def pack_labels(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Four 2-bit labels per byte, the first in the lowest bits; shape (N,) -> (N / 4,). N must be a multiple of 4."""
    quads = labels.reshape(-1, STRIDES_PER_BIN)
    return np.asarray(quads[:, 0] | quads[:, 1] << 2 | quads[:, 2] << 4 | quads[:, 3] << 6, dtype=np.uint8)


def unpack_labels(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The inverse of `pack_labels`; shape (..., M) -> (..., 4 M)."""
    shifts = np.array([0, 2, 4, 6], dtype=np.uint8)
    return np.asarray(packed[..., None] >> shifts & 3, dtype=np.uint8).reshape(*packed.shape[:-1], -1)
