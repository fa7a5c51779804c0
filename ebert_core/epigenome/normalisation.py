"""Quantile normalisation of accessibility tracks, so that a value means the same in every cell type.

Tracks differ in depth, in the peak caller and in kind: a narrowPeak is 0 on all but a few strides, a bigWig or a BAM is
above 0 almost everywhere. So tracks are aligned from the top: the strongest thousandth of one becomes the strongest
thousandth of the reference, however many strides either has above 0. 0 stays 0.

A track's distribution is kept as its share of strides above 0 and 256 quantiles of those, evenly spaced in the
logarithm of their rank from the top: each is about 5 % deeper than the last, from one in a million down to all. Evenly
spaced ranks would leave three of 256 for the strongest hundredth, which is where binding is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.errors import EbertError

NUM_QUANTILES: Final = 256
_SMALLEST_TAIL: Final = 1e-6
# Quantile i belongs to the strongest exp(-_STEP * i) of the strides above 0.
_STEP: Final = -math.log(_SMALLEST_TAIL) / (NUM_QUANTILES - 1)
_AT_ONCE: Final = 2**22  # values of a track that are counted at once, 32 MB as integers
_PATTERNS: Final = 1 << 16
_INFINITY: Final = 0x7C00  # bits of the float16 infinity; the bits of finite values from 0 on are below, in order

Track = NDArray[np.float16]


@dataclass(frozen=True)
class Quantiles:
    """The distribution of a track's values, or of several tracks'.

    Attributes:
        share_positive: share of strides above 0; above 0, at most 1.
        values: values above 0, never falling, one per quantile (`NUM_QUANTILES`): the i-th is the smallest of the
            strongest exp(-i c) of the strides above 0, counted from the last to the first, with
            c = ln(1e6) / (NUM_QUANTILES - 1).
    """

    share_positive: float
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 0 < self.share_positive <= 1:
            raise ValueError(f"share_positive is {self.share_positive}, expected more than 0 and at most 1")
        if len(self.values) != NUM_QUANTILES:
            raise ValueError(f"has {len(self.values)} quantiles, expected {NUM_QUANTILES}")
        if not (self.values[0] > 0 and math.isfinite(self.values[-1])):
            raise ValueError("quantiles are finite and above 0")
        if any(after < before for before, after in zip(self.values, self.values[1:], strict=False)):
            raise ValueError("quantiles never fall")

    @classmethod
    def of(cls, slices: Track | Iterable[Track]) -> Quantiles:
        """The distribution of a track, or of all its slices together; exact, in one pass and without sorting.

        Args:
            slices: float16 arrays of any shape, values 0 or more.

        Raises:
            EbertError: no value is above 0.
            ValueError: a value is negative or not finite.
        """
        counts = np.zeros(_PATTERNS, dtype=np.int64)
        for track in [slices] if isinstance(slices, np.ndarray) else slices:
            flat = track.reshape(-1)
            for first in range(0, len(flat), _AT_ONCE):
                counts += np.bincount(_bits(flat[first : first + _AT_ONCE]), minlength=_PATTERNS)
        if counts[_INFINITY:].any():
            raise ValueError("a track's values are finite and 0 or more")
        total, positive = int(counts.sum()), int(counts[1:].sum())
        if positive == 0:
            raise EbertError(
                "an accessibility track has no value above 0 where it is to be normalised",
                "give a file that covers the chosen chromosomes, or leave accessibility out",
            )
        ranks = np.minimum(np.floor(np.exp(-_STEP * np.arange(NUM_QUANTILES)) * positive), positive - 1)
        from_below = positive - 1 - ranks.astype(np.int64)
        found = np.searchsorted(np.cumsum(counts[1:]), from_below, side="right") + 1
        values = found.astype(np.uint16).view(np.float16)
        return cls(positive / total, tuple(map(float, values)))

    def to_json(self) -> dict[str, Any]:
        """For manifests; `from_json` gives the same back, to the last bit."""
        return {"share_positive": self.share_positive, "values": list(self.values)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Quantiles:
        """The inverse of `to_json`; a KeyError, TypeError or ValueError where the value is none of its."""
        return cls(float(value["share_positive"]), tuple(float(each) for each in value["values"]))

    @property
    def median(self) -> float:
        """Of the values above 0."""
        return float(self.at(np.array([math.log(2) / _STEP]))[0])

    def at(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values at places between quantiles, of the input's shape.

        Place p is the tail exp(-c p) of the strides above 0. Beyond the last it is the largest value. Before the first
        (a tail larger than all the strides above 0) it falls towards 0 as the tail grows.
        """
        inside = np.interp(places, np.arange(NUM_QUANTILES), self.values)
        return np.where(places < 0, self.values[0] * np.exp(_STEP * np.minimum(places, 0)), inside)


def reference_of(cells: Sequence[Quantiles]) -> Quantiles:
    """The distribution to which cell types are normalised: their mean value at each rank from the top.

    A cell type counts as 0 below the ranks that it has above 0 (quantile normalisation: Bolstad et al.,
    Bioinformatics 2003). The reference of one cell type, or of equal ones, is that cell type's distribution.
    """
    if not cells:
        raise ValueError("a reference needs at least one cell type")
    share = max(cell.share_positive for cell in cells)
    places = np.arange(NUM_QUANTILES, dtype=np.float64)
    total = np.zeros(NUM_QUANTILES)
    for cell in cells:
        own = places + math.log(cell.share_positive / share) / _STEP
        total += np.where(own >= 0, cell.at(own), 0.0)
    return Quantiles(share, tuple((total / len(cells)).tolist()))


class Normaliser:
    """Maps the values of one cell type's track to the reference; make it once per cell type.

    A track has 31,744 possible values (float16, 0 and more), so that the map is a table.
    """

    def __init__(self, own: Quantiles, reference: Quantiles) -> None:
        knots, values = _knots(own, reference)
        x = np.arange(_INFINITY, dtype=np.uint16).view(np.float16).astype(np.float64)
        mapped = np.interp(x, knots, values)
        mapped = np.where(x > knots[-1], values[-1] + (x - knots[-1]), mapped)
        self._table = np.full(_PATTERNS, np.nan, dtype=np.float32)
        self._table[:_INFINITY] = np.maximum.accumulate(mapped)  # rounding must not turn two values round
        self._table[0x8000] = 0.0

    def __call__(self, values: Track) -> NDArray[np.float32]:
        """Normalised values, float32 of the input's shape; NaN for what no track holds (negative, not finite)."""
        return self._table[_bits(values)].reshape(values.shape)


def _knots(own: Quantiles, reference: Quantiles) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(the distinct quantiles of a track, after 0; what each becomes). Tied quantiles stand at their middle rank."""
    distinct, first, counts = np.unique(own.values, return_index=True, return_counts=True)
    places = first + (counts - 1) / 2
    if own.share_positive != reference.share_positive:
        places += math.log(reference.share_positive / own.share_positive) / _STEP
    return np.concatenate([[0.0], distinct]), np.concatenate([[0.0], reference.at(places)])


def to_reference(values: Track, own: Quantiles, reference: Quantiles) -> NDArray[np.float32]:
    """A track, or a slice of any shape, with the reference's distribution; see `Normaliser` for many slices.

    Monotone: a higher value never becomes a lower one. A track that has the reference's distribution stays as it is,
    and 0 stays 0. A value between two quantiles lies on the line between theirs; one above the largest stays as far
    above it.
    """
    return Normaliser(own, reference)(values)


def cross_cell_mean(cells: Sequence[tuple[Track, Normaliser]]) -> NDArray[np.float32]:
    """Mean of the normalised tracks (or slices of one shape) of several cell types, float32 of that shape.

    A cell type's difference from it was a feature of strong entries of the ENCODE-DREAM challenge. Take the mean of
    training cell types only: it must not hold what is held out for testing.
    """
    if not cells:
        raise ValueError("a mean needs at least one cell type")
    total = np.zeros(cells[0][0].shape, dtype=np.float64)
    for values, normaliser in cells:
        total += normaliser(values)
    return (total / len(cells)).astype(np.float32)


def _bits(values: Track) -> NDArray[np.uint16]:
    if values.dtype != np.float16:
        raise TypeError(f"a track is float16, not {values.dtype}")
    return np.ascontiguousarray(values).reshape(-1).view(np.uint16)
