"""Block bootstrap: how far a measure, or the difference of two predictions, would move on other stretches of genome.

Neighbouring bins overlap and share peaks, so whole blocks are drawn with replacement, not bins. Per prediction the
bins are counted once, by block and class of score; a resample is then a vector of multiplicities times these counts,
and every measure follows from the counts cumulated from the top. Classes are delimited by distinct scores of bound
bins. With one class per distinct score the figures are those of the resampled bins themselves, ties included; where
there are more distinct scores than classes, a class counts as tied.

Letters: R resamples, B blocks, K classes, N bins.

Sources: Künsch, Annals of Statistics 17 (1989), for the bootstrap of blocks; Efron and Tibshirani, An Introduction to
the Bootstrap (1993), chapter 13, for percentile intervals.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.errors import EbertError
from ebert_core.evaluation.measures import FDR_PERCENTS, Floats, Thresholds, measures_at, spread_ranks
from ebert_core.evaluation.results import Difference, Interval
from ebert_core.genome.intervals import Positions

BLOCK_BP: Final = 1_000_000
REPLICATES: Final = 1_000
LEVEL: Final = 0.95
# Fewer resamples leave the 2.5 % ends of an interval to its two or three most extreme values.
MIN_REPLICATES: Final = 100
# Four blocks have no more than 35 distinct resamples, C(2B - 1, B) of them; five have 126.
MIN_BLOCKS: Final = 5
MEASURES: Final = ("auroc", "auprc", "average_precision", *(f"recall_at_{percent}_fdr" for percent in FDR_PERCENTS))

_MAX_CLASSES: Final = 2048
_SERIES_FROM: Final = 10
# Classes of all resamples worked on at once: 2 MB per float64 array, about a core's cache.
_CELLS_AT_ONCE: Final = 1 << 18

Values = NDArray[np.float64]
Counts = NDArray[np.float32]
Multiplicities = NDArray[np.int32]


@dataclass(frozen=True)
class Blocks:
    """Stretches of the genome that are drawn together.

    Attributes:
        edges: int64 of shape (B + 1,); block b holds the bins edges[b] to edges[b + 1] of all chromosomes end to end.
        block_bp: length of a block; a bin belongs to the one in which it begins.
    """

    edges: NDArray[np.int64]
    block_bp: int

    def __len__(self) -> int:
        return len(self.edges) - 1

    def slices(self) -> Iterator[slice]:
        """Where each block's bins lie."""
        return (slice(start, end) for start, end in itertools.pairwise(self.edges.tolist()))

    def too_few(self, bound: NDArray[np.bool_]) -> str | None:
        """Why intervals would mean nothing, as a sentence; None where they can be had. `bound` has shape (N,)."""
        having = np.unique(np.searchsorted(self.edges, np.flatnonzero(bound), side="right"))
        if len(having) >= MIN_BLOCKS:
            return None
        return (
            f"no confidence intervals: the bound bins lie in {len(having)} of {len(self)} blocks of "
            f"{self.block_bp:,} bp, and resampling needs {MIN_BLOCKS} blocks with bound bins"
        )


@dataclass(frozen=True)
class Replicates:
    """One prediction's measures on every resample.

    Attributes:
        point: key of `MEASURES` -> figure over all bins, exact.
        values: key of `MEASURES` -> float64 of shape (R,); NaN where a resample has no bound or no unbound bin.
    """

    point: dict[str, float]
    values: dict[str, Values]

    @property
    def num_left_out(self) -> int:
        """Resamples without a bound or without an unbound bin."""
        return int(np.isnan(self.values["auroc"]).sum())


def blocks_of(starts: Mapping[str, Positions], block_bp: int = BLOCK_BP) -> Blocks:
    """Cut bins into blocks that begin at multiples of `block_bp` on each chromosome; those without bins are no blocks.

    Args:
        starts: chromosome -> bin starts in bp, rising, int64 of shape (N of the chromosome,).

    Raises:
        ValueError: starts that do not rise, since a block would then be in pieces.
    """
    firsts, at = [np.zeros(0, np.int64)], 0
    for chrom, here in starts.items():
        if (here[1:] < here[:-1]).any():
            raise ValueError(f"the bins of {chrom} do not rise")
        borders = np.arange(0, here[-1] + 1, block_bp) if len(here) else np.zeros(0, np.int64)
        firsts.append(at + np.unique(np.searchsorted(here, borders)))
        at += len(here)
    return Blocks(np.append(np.concatenate(firsts), at), block_bp)


def require_enough(replicates: int) -> None:
    """Refuse fewer resamples than an interval needs (`EbertError`)."""
    if replicates < MIN_REPLICATES:
        raise EbertError(
            f"{replicates} resamples are too few for an interval", f"{MIN_REPLICATES} or more; {REPLICATES:,} is usual"
        )


def draw(num_blocks: int, replicates: int = REPLICATES, seed: int = 0) -> Multiplicities:
    """How often each block is in each resample: `num_blocks` of them drawn with replacement, `replicates` times over.

    Use one draw for all predictions of an evaluation, so that their differences are paired.

    Returns:
        int32 of shape (R, B); every row sums to B.

    Raises:
        EbertError: fewer than 100 replicates.
    """
    require_enough(replicates)
    drawn = np.random.default_rng(seed).integers(num_blocks, size=(replicates, num_blocks))
    place = drawn + num_blocks * np.arange(replicates)[:, None]
    times = np.bincount(place.ravel(), minlength=replicates * num_blocks)
    return times.reshape(replicates, num_blocks).astype(np.int32)


def replicate_measures(
    scores: Floats, bound: NDArray[np.bool_], counts: Thresholds, blocks: Blocks, drawn: Multiplicities
) -> Replicates:
    """Every measure on every resample.

    Where classes are coarser than the distinct scores, each measure is moved by what the classes take from the figure
    over all bins, and cut to [0, 1].

    Args:
        scores: float32 or float64 of shape (N,), higher means more likely bound.
        bound: shape (N,).
        counts: `measures.thresholds(scores, bound)`, which also refuses scores that are not numbers.
        blocks: of these N bins.
        drawn: shape (R, B), from `draw`.
    """
    if not len(scores) == len(bound) == blocks.edges[-1] or drawn.shape[1] != len(blocks):
        raise ValueError(f"{len(scores)} scores, {len(bound)} labels, {len(blocks)} blocks, draws {drawn.shape}")
    table = _count(scores, bound, counts, blocks)
    exact = measures_at(counts).as_dict()
    point = {key: float(exact[key]) for key in MEASURES}
    coarse = _measures(table, np.ones((1, len(blocks)), np.int32))
    values = _measures(table, drawn)
    if table.is_coarse:
        values = {key: np.clip(value + (point[key] - coarse[key][0]), 0, 1) for key, value in values.items()}
    return Replicates(point, values)


def intervals(replicates: Replicates, level: float = LEVEL) -> dict[str, Interval]:
    """Percentile interval of each of `MEASURES`, from the resamples that have bound and unbound bins."""
    return {key: _interval(value, level) for key, value in replicates.values.items()}


def differences(
    first: tuple[str, Replicates], second: tuple[str, Replicates], level: float = LEVEL
) -> tuple[Difference, ...]:
    """First minus second on each of `MEASURES`, paired: both are (name, replicates) of one draw on the same bins."""
    (name, ours), (other, theirs) = first, second
    found = []
    for key in MEASURES:
        change = ours.values[key] - theirs.values[key]
        kept = change[~np.isnan(change)]
        found.append(
            Difference(
                first=name,
                second=other,
                measure=key,
                value=ours.point[key] - theirs.point[key],
                interval=_interval(change, level),
                share_above=float(np.mean(kept > 0) + np.mean(kept == 0) / 2),
            )
        )
    return tuple(found)


def _interval(values: Values, level: float) -> Interval:
    lower, upper = np.quantile(values[~np.isnan(values)], [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(lower), float(upper))


@dataclass(frozen=True)
class _Table:
    """Counts per block, cumulated from the highest score down; classes are columns.

    Attributes:
        bound: bound bins in or above each class, shape (B, K); all of them at the last.
        above: unbound bins that score more than the best bound bin of each class, shape (B, K).
        inside: unbound bins above each class or in it, shape (B, K); some score less than every bound bin.
        num_unbound: shape (B,).
        is_coarse: whether a class holds several distinct scores of bound bins.
    """

    # Whole numbers, and sums of them over blocks stay exact below 2^24; beyond, false positives round by 1e-7.
    bound: Counts
    above: Counts
    inside: Counts
    num_unbound: Counts
    is_coarse: bool


def _count(scores: Floats, bound: NDArray[np.bool_], counts: Thresholds, blocks: Blocks) -> _Table:
    """Sort each block by itself and look the classes up in it: no bin is touched twice."""
    last = _classes(counts)
    lowest = counts.scores[last][::-1]
    highest = counts.scores[np.concatenate([[0], last[:-1] + 1])][::-1]
    shape = (len(blocks), len(last))
    bound_table, above, inside = (np.empty(shape, np.float32) for _ in range(3))
    num_unbound = np.empty(len(blocks), np.float32)
    for block, here in enumerate(blocks.slices()):
        ordered = np.sort(scores[here])
        positives = np.sort(scores[here][bound[here]])
        below = np.searchsorted(positives, lowest)
        num_unbound[block] = len(ordered) - len(positives)
        bound_table[block] = (len(positives) - below)[::-1]
        inside[block] = num_unbound[block] - (np.searchsorted(ordered, lowest) - below)[::-1]
        above[block] = len(ordered) - np.searchsorted(ordered, highest, side="right")[::-1]
    above[:, 1:] -= bound_table[:, :-1]
    return _Table(bound_table, above, inside, num_unbound, len(last) < len(counts.scores))


def _classes(counts: Thresholds) -> NDArray[np.int64]:
    """Index of the lowest distinct score of each class, rising, shape (K,)."""
    num_scores = len(counts.scores)
    if num_scores <= _MAX_CLASSES:
        return np.arange(num_scores)
    return np.unique(np.searchsorted(counts.bound, spread_ranks(counts.num_bound, _MAX_CLASSES)))


def _measures(table: _Table, times: Multiplicities) -> dict[str, Values]:
    """Key of `MEASURES` -> shape (R,), for multiplicities of shape (R, B); NaN without a bound or an unbound bin."""
    at_once = max(1, _CELLS_AT_ONCE // table.bound.shape[1])
    pieces = [
        _measures_of_piece(table, times[start : start + at_once].astype(np.float32))
        for start in range(0, len(times), at_once)
    ]
    return {key: np.concatenate([piece[key] for piece in pieces]) for key in MEASURES}


def _measures_of_piece(table: _Table, times: Counts) -> dict[str, Values]:
    """The formulas of `measures`, along the last axis; whole numbers stay whole, being below 2^53."""
    bound, above, inside, num_unbound = (
        np.asarray(times @ counts, np.float64) for counts in (table.bound, table.above, table.inside, table.num_unbound)
    )
    num_bound = bound[:, -1]
    start = np.concatenate([np.zeros((len(bound), 1)), bound[:, :-1]], axis=1)
    gained, called = bound - start, bound + inside
    with np.errstate(divide="ignore", invalid="ignore"):
        values = {
            "auroc": 1 - np.einsum("rk,rk->r", gained, above + inside) / (2 * num_bound * num_unbound),
            "auprc": _trapezia(gained, start, above, inside).sum(axis=1) / num_bound,
            "average_precision": np.einsum("rk,rk->r", gained, bound / np.maximum(called, 1)) / num_bound,
        }
        for percent in FDR_PERCENTS:
            good = 100 * bound >= (100 - percent) * called
            values[f"recall_at_{percent}_fdr"] = np.max(bound, axis=1, where=good, initial=0) / num_bound
    both = (num_bound > 0) & (num_unbound > 0)
    return {key: np.where(both, value, np.nan) for key, value in values.items()}


def _trapezia(gained: Values, start: Values, above: Values, inside: Values) -> Values:
    """Davis-Goadrich area of each class, times the number of bound bins: one-wide trapezia, in closed form.

    i true positives into a class, precision is (s + i) / (s + a + d i), with s = `start`, a = `above` and d = 1 +
    (inside - above) / gained. With x = (s + a) / d that is (1 + (s - x) / (x + i)) / d, and the trapezia of 1 / (x + i)
    from i = 0 to g sum to psi(x + g) - psi(x) + (1 / (x + g) - 1 / x) / 2, psi being the digamma function.

    Args:
        gained, start, above, inside: per class, the bound bins in it and above it, the unbound ones above it, and
            those above it or in it; any shape.
    """
    some = gained > 0
    d = 1 + (inside - above) / np.where(some, gained, 1)
    x = (start + above) / d
    series = np.where(x >= _SERIES_FROM, x, _SERIES_FROM)
    sums = np.log1p(gained / series) + _beyond_logarithm(series + gained) - _beyond_logarithm(series)
    small = np.nonzero((x < _SERIES_FROM) & (x > 0) & some)
    sums[small] = _digamma_with_half(x[small] + gained[small]) - _digamma_with_half(x[small])
    # At x = 0 nothing ranks above the class: precision is 1 / d all along it, and s - x = 0.
    return np.where(some, (gained + (start - x) * sums) / d, 0.0)


def _beyond_logarithm(x: Values) -> Values:
    """psi(x) + 1 / (2 x) - ln x for x of at least 10, to within 3e-14: the asymptotic series."""
    square = 1 / (x * x)
    return -square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square * (1 / 240 - square / 132))))


def _digamma_with_half(x: Values) -> Values:
    """psi(x) + 1 / (2 x) for any x above 0, shape (M,); psi(x) = psi(x + 1) - 1 / x, ten times over."""
    steps = x[:, None] + np.arange(_SERIES_FROM)
    far = x + _SERIES_FROM
    return np.log(far) + _beyond_logarithm(far) - np.sum(1 / steps + 1 / (steps + 1), axis=1) / 2
