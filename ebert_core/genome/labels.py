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

from ebert_core.genome.intervals import Positions, merge
from ebert_core.vocabulary import BIN_BP, STRIDES_PER_BIN

UNLABELLED: Final = 0
UNBOUND: Final = 1
AMBIGUOUS: Final = 2
BOUND: Final = 3
LABEL_LETTERS: Final = "-UAB"

Counts = NDArray[np.int16]


def label_bins(
    starts: Positions, conservative: tuple[Positions, Positions], relaxed: tuple[Positions, Positions]
) -> NDArray[np.uint8]:
    """Label codes (1 unbound, 2 ambiguous, 3 bound) of bins.

    Args:
        starts: bin starts, rising, shape (N,).
        conservative: (starts, ends) of the peaks that call a bin bound; any order.
        relaxed: (starts, ends) of the peaks that keep a bin from being called unbound; any order.

    Returns:
        uint8 of shape (N,).
    """
    strong = _count_half_overlaps(*merge(*conservative), starts)
    weak = _count_overlaps(*merge(*relaxed), starts)
    labels = np.full(len(starts), UNBOUND, dtype=np.uint8)
    labels[(strong | weak) != 0] = AMBIGUOUS
    labels[(strong == 1) & (weak == 1)] = BOUND
    return labels


def _count_half_overlaps(peak_starts: Positions, peak_ends: Positions, starts: Positions) -> Counts:
    """Peaks (disjoint) that cover half of each bin or have half of themselves inside it; shape (N,).

    A peak qualifies iff its overlap with the bin is at least t = min(bin, peak length) / 2. For a peak [p, q) that
    means bin start <= q - t and bin end >= p + t, so the bins of one peak are a run. Positions are whole, so t may be
    rounded up.
    """
    least = (np.minimum(BIN_BP, peak_ends - peak_starts) + 1) // 2
    first = np.searchsorted(starts, peak_starts + least - BIN_BP, side="left")
    return _count_runs(first, np.searchsorted(starts, peak_ends - least, side="right"), len(starts))


def _count_overlaps(peak_starts: Positions, peak_ends: Positions, starts: Positions) -> Counts:
    """Peaks that share at least 1 bp with each bin; shape (N,)."""
    first = np.searchsorted(starts, peak_starts - BIN_BP, side="right")
    return _count_runs(first, np.searchsorted(starts, peak_ends, side="left"), len(starts))


def _count_runs(first: Positions, end: Positions, size: int) -> Counts:
    """In how many of the runs [first, end) each of `size` places lies.

    Peaks are few beside bins, so it is they that are searched for; no bin meets more disjoint peaks than it has bp.
    """
    change = np.zeros(size + 1, dtype=np.int16)
    np.add.at(change, first, 1)
    np.subtract.at(change, end, 1)
    return np.cumsum(change[:-1], dtype=np.int16)


def pack_labels(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Four 2-bit labels per byte, the first in the lowest bits; shape (N,) -> (N / 4,). N must be a multiple of 4."""
    quads = labels.reshape(-1, STRIDES_PER_BIN)
    return np.asarray(quads[:, 0] | quads[:, 1] << 2 | quads[:, 2] << 4 | quads[:, 3] << 6, dtype=np.uint8)


_UNPACKED: Final = (np.arange(256)[:, None] >> np.array([0, 2, 4, 6]) & 3).astype(np.uint8)


def unpack_labels(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The inverse of `pack_labels`; shape (..., M) -> (..., 4 M)."""
    return np.take(_UNPACKED, packed, axis=0).reshape(*packed.shape[:-1], -1)


def lay_packed(packed: NDArray[np.uint8], places: Positions, labels: NDArray[np.uint8]) -> None:
    """Write labels into a packed array, in place.

    Args:
        packed: shape (M,), four labels a byte.
        places: which of its 4 M labels, rising, shape (N,).
        labels: codes, shape (N,).
    """
    if len(places):
        first, last = places[0] // STRIDES_PER_BIN, places[-1] // STRIDES_PER_BIN + 1
        some = unpack_labels(packed[first:last])
        some[places - first * STRIDES_PER_BIN] = labels
        packed[first:last] = pack_labels(some)


def count_packed(packed: NDArray[np.uint8]) -> Positions:
    """How many of the labels are unlabelled, unbound, ambiguous, bound; int64 of shape (4,)."""
    in_byte = np.stack([(code == _UNPACKED).sum(axis=1) for code in range(len(LABEL_LETTERS))])
    return np.asarray(in_byte @ np.bincount(packed, minlength=len(_UNPACKED)), dtype=np.int64)
