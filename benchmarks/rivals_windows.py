"""Arithmetic of features along a chromosome's 50-bp strides: windows, distances, quantiles. No files.

Bin i begins at stride i and covers the strides i to i + 3. What lies past either end of the chromosome counts as 0 in
means and as the lowest value in maxima. S strides.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from ebert_core.vocabulary import STRIDES_PER_BIN

Track = NDArray[np.float32]


def bin_means(values: NDArray[np.floating], reach: int = 0) -> Track:
    """Mean over each bin and `reach` strides to either side; values per stride, shape (..., S)."""
    total = np.zeros((*values.shape[:-1], values.shape[-1] + 1))
    np.cumsum(values, axis=-1, dtype=np.float64, out=total[..., 1:])
    size = values.shape[-1]
    first = np.clip(np.arange(size) - reach, 0, size)
    last = np.clip(np.arange(size) + STRIDES_PER_BIN + reach, 0, size)
    width = STRIDES_PER_BIN + 2 * reach
    return ((total[..., last] - total[..., first]) / width).astype(np.float32)


def bin_maxima(values: NDArray[np.floating], reach: int = 0) -> Track:
    """The highest value in each bin and `reach` strides to either side; values per stride, shape (S,)."""
    return _maxima(values, reach, STRIDES_PER_BIN + reach)


def neighbour_maxima(values: NDArray[np.floating], reach: int) -> Track:
    """The highest value of the bins that begin at most `reach` strides away; values per bin, shape (S,)."""
    return _maxima(values, reach, reach + 1)


def _maxima(values: NDArray[np.floating], before: int, after: int) -> Track:
    """Place i: the highest of the places i - before to i + after - 1."""
    lowest = float(values.min())
    padded = np.concatenate([np.full(before, lowest), values, np.full(after - 1, lowest)]).astype(np.float32)
    size = before + after
    # The filter's window of `size` around place p begins at p - size // 2.
    return maximum_filter1d(padded, size, mode="nearest")[size // 2 :][: len(values)]


def either_side(values: NDArray[np.floating], distance: int) -> tuple[Track, Track]:
    """(higher, lower) of the values `distance` strides to the left and to the right: alike on both strands."""
    padded = np.pad(values.astype(np.float32), distance, mode="edge")
    left, right = padded[: len(values)], padded[2 * distance :]
    return np.maximum(left, right), np.minimum(left, right)


def distance_to_nearest(places: NDArray[np.floating], points: NDArray[np.floating]) -> NDArray[np.float64]:
    """From each place, how far the nearest of the points is; infinite where there are none; any unit."""
    ordered = np.concatenate([[-np.inf], np.sort(points.astype(np.float64)), [np.inf]])
    after = np.searchsorted(ordered, places)
    return np.minimum(places - ordered[after - 1], ordered[after] - places)


def runs_of(inside: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(first, end) of each run of true values, shape (runs,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
    return edges[::2], edges[1::2]


def reference_quantiles(tracks: list[NDArray[np.floating]], count: int = 1000) -> NDArray[np.float64]:
    """The mean over tracks of the quantiles of their values above 0, shape (count,), rising."""
    levels = (np.arange(count) + 0.5) / count
    return np.mean([np.quantile(np.asarray(track[track > 0], np.float64), levels) for track in tracks], axis=0)


def to_reference(track: NDArray[np.floating], own: NDArray[np.float64], reference: NDArray[np.float64]) -> Track:
    """Quantile normalisation of the values above 0; 0 stays 0.

    Args:
        own: quantiles of the track's cell type, as of `reference_quantiles([track])`.
        reference: those to reach.
    """
    # Ties in `own` would make the map ambiguous: equal values get the mean of what their quantiles map to.
    distinct, place = np.unique(own, return_inverse=True)
    mapped = np.bincount(place, weights=reference) / np.bincount(place)
    values = np.asarray(track, np.float32)
    return np.where(values > 0, np.interp(values, distinct, mapped), 0).astype(np.float32)
