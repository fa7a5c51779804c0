"""Arithmetic on sorted arrays of intervals: 0-based, half-open, int64, one chromosome (or the flat axis) at a time.

Everything is a few `searchsorted` calls, so ten integers are enough to test it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]


def merge(starts: Positions, ends: Positions) -> tuple[Positions, Positions]:
    """Sort and join intervals that overlap or touch.

    Returns:
        (starts, ends) of the disjoint, sorted union; shape (number of merged intervals,).
    """
    if len(starts) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    order = np.argsort(starts, kind="stable")
    starts, reach = starts[order], np.maximum.accumulate(ends[order])
    first = np.concatenate([[True], starts[1:] > reach[:-1]])
    last = np.concatenate([first[1:], [True]])
    return starts[first].astype(np.int64), reach[last].astype(np.int64)


def complement(starts: Positions, ends: Positions, lower: int, upper: int) -> tuple[Positions, Positions]:
    """What sorted, disjoint intervals leave of [lower, upper)."""
    gaps_from = np.concatenate([[lower], np.clip(ends, lower, upper)])
    gaps_to = np.concatenate([np.clip(starts, lower, upper), [upper]])
    kept = gaps_to > gaps_from
    return gaps_from[kept], gaps_to[kept]


def cut_out(regions: NDArray[np.int64], lower: int, upper: int) -> tuple[Positions, Positions]:
    """(starts, ends) of the (start, end) rows that begin within [lower, upper), counted from `lower`."""
    here = (regions[:, 0] >= lower) & (regions[:, 0] < upper)
    return regions[here, 0] - lower, regions[here, 1] - lower


def count_overlaps(starts: Positions, ends: Positions, query_starts: Positions, query_ends: Positions) -> Positions:
    """How many of the sorted, disjoint intervals share at least 1 bp with each query; shape of `query_starts`."""
    return np.searchsorted(starts, query_ends, side="left") - np.searchsorted(ends, query_starts, side="right")


def any_overlap(
    starts: Positions, ends: Positions, query_starts: Positions, query_ends: Positions
) -> NDArray[np.bool_]:
    """Whether each query shares at least 1 bp with any of the sorted, disjoint intervals."""
    return count_overlaps(starts, ends, query_starts, query_ends) > 0


def first_overlap_with_previous(starts: Positions, ends: Positions) -> int | None:
    """Index of the first of the start-sorted intervals that begins before an earlier one ends, or None."""
    # All before the first clash are disjoint, so it is with the neighbour.
    clash = np.flatnonzero(starts[1:] < ends[:-1])
    return int(clash[0]) + 1 if len(clash) else None
