"""The baseline of the ENCODE-DREAM challenge's organisers: a logistic model inside accessible regions, 0 outside.

A bin is open where it touches an open stride. Of a track made from peaks, which is exactly 0 on at least half of its
strides, the strides above 0 are open; of a track of signal, its most accessible 2 % of strides. Closed bins score 0.
An open bin is described by the scores of the motif's hits in it (mean, maximum and five upper quantiles) and by its
accessibility; a logistic model of these, learned from the open bins of other cell types, gives its score.

Source: the organisers' baseline script. It differs in three things: it summarised hits over the bin and 400 bp on
either side, took coverage as it is, and weighted the two classes equally. Here the bin alone, ln(1 + mean signal) and
the classes as they are, which gives probabilities. Accessibility is standardised within each cell type, over its open
bins, so that the depth and kind of the assay cancel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.data.dataset import Dataset
from ebert_core.evaluation.motif_hits import hit_scores
from ebert_core.genome.intervals import Positions
from ebert_core.genome.labels import BOUND, UNBOUND
from ebert_core.vocabulary import STRIDE_BP, STRIDES_PER_BIN

QUANTILES: Final = (0.99, 0.95, 0.90, 0.75, 0.50)
MAX_TRAINING_BINS: Final = 1_000_000
# About the share of a genome that DNase peaks cover.
OPEN_SHARE: Final = 0.02
# As scikit-learn's C = 1: nothing beside thousands of bins, enough where the classes could be told apart exactly.
RIDGE: Final = 1.0
# Every 7th stride of the genome says how a track is distributed: 8.7 M of the 61 M in a human genome.
_SAMPLED: Final = 7
_BINS_AT_ONCE: Final = 10_000
_ROWS_AT_ONCE: Final = 100_000
_MAX_STEPS: Final = 100
_MAX_HALVINGS: Final = 40
# A step that promises to lower the loss by less than this share of it is the last one.
_PRECISION: Final = 1e-12

Floats = NDArray[np.float32] | NDArray[np.float64]


class NothingToLearn(Exception):
    """Why there is no model."""


@dataclass(frozen=True)
class OpenBins:
    """What is open in a cell type, and how accessible open bins are there.

    Attributes:
        is_signal: whether the track is one of signal, not of peaks.
        lowest: the lowest value of an open stride, ln(1 + signal).
        mean, sd: of ln(1 + mean signal) of open bins; sd is 1 where they are all alike.
    """

    is_signal: bool
    lowest: np.float32
    mean: float
    sd: float

    @classmethod
    def of(cls, track: NDArray[np.float16]) -> OpenBins:
        """From the track of a cell type on the flat axis, shape (flat_bp / 50,)."""
        values = np.asarray(track[::_SAMPLED], np.float32)
        is_signal = bool(2 * np.count_nonzero(values) > len(values))
        above_zero = np.finfo(np.float32).tiny
        lowest = np.float32(max(np.quantile(values, 1 - OPEN_SHARE), above_zero) if is_signal else above_zero)
        strides = np.arange(0, max(len(track) - STRIDES_PER_BIN + 1, 0), _SAMPLED)
        coverage = _coverage(track, strides[_highest(track, strides) >= lowest]).astype(np.float64)
        if len(coverage) == 0:
            return cls(is_signal, lowest, 0.0, 1.0)
        return cls(is_signal, lowest, float(coverage.mean()), float(coverage.std()) or 1.0)

    def find(self, track: NDArray[np.float16], strides: Positions) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Which bins are open, and how accessible these are.

        Args:
            track: of a chromosome, shape (strides,).
            strides: number of the bin's first stride, shape (N,).

        Returns:
            (bool of shape (N,), standardised accessibility of the open bins, float32 of shape (number of open bins,)).
        """
        is_open = _highest(track, strides) >= self.lowest
        return is_open, ((_coverage(track, strides[is_open]) - self.mean) / self.sd).astype(np.float32)


def _highest(track: NDArray[np.float16], strides: Positions) -> NDArray[np.float32]:
    """Highest value of the four strides of the bins that begin at some strides, shape (N,)."""
    out = track[strides].astype(np.float32)
    for step in range(1, STRIDES_PER_BIN):
        np.maximum(out, track[strides + step].astype(np.float32), out=out)
    return out


def _coverage(track: NDArray[np.float16], strides: Positions) -> NDArray[np.float32]:
    """ln(1 + mean signal) of the bins that begin at some strides, shape (N,)."""
    total = np.zeros(len(strides), np.float32)
    for step in range(STRIDES_PER_BIN):
        total += np.expm1(track[strides + step].astype(np.float32))
    return np.log1p(total / STRIDES_PER_BIN)


def hit_summaries(codes: NDArray[np.uint8], starts: Positions, log_odds: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean, maximum and the five quantiles of the scores of a motif's hits within each bin.

    Quantiles are Cunnane's (1978), as of scipy's `mquantiles`, which the organisers used.

    Returns:
        float32 of shape (N, 7); arguments as of `motif_hits.hit_scores`.
    """
    out = np.empty((len(starts), 2 + len(QUANTILES)), np.float32)
    for first in range(0, len(starts), _BINS_AT_ONCE):
        scores = np.sort(hit_scores(codes, starts[first : first + _BINS_AT_ONCE], log_odds), axis=1)
        here = out[first : first + _BINS_AT_ONCE]
        here[:, 0], here[:, 1] = scores.mean(axis=1), scores[:, -1]
        num_hits = scores.shape[1]
        for column, share in enumerate(QUANTILES, start=2):
            place = min(max(num_hits * share + 0.4 + 0.2 * share, 1.0), float(num_hits))  # counted from 1
            below = min(int(place), num_hits - 1) if num_hits > 1 else 1
            above = min(below + 1, num_hits)
            here[:, column] = scores[:, below - 1] + np.float32(place - below) * (
                scores[:, above - 1] - scores[:, below - 1]
            )
    return out


@dataclass(frozen=True)
class OrganisersModel:
    """What was learned.

    Attributes:
        log_odds: of the motif, shape (width, 4).
        centre, scale: mean and standard deviation of the hits' summaries over the training bins, shape (7,).
        weights: of the standardised summaries and of accessibility, shape (8,).
        intercept: of the logits.
    """

    log_odds: NDArray[np.float32]
    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    weights: NDArray[np.float64]
    intercept: float

    def scores(
        self, dataset: Dataset, cell: str, chrom: str, starts: Positions, open_bins: OpenBins
    ) -> NDArray[np.float32]:
        """The probability that a bin is bound, 0 where it is closed; float32 of shape (N,)."""
        is_open, accessibility = open_bins.find(dataset.accessibility(cell, chrom), starts // STRIDE_BP)
        summaries = hit_summaries(dataset.sequence(chrom), starts[is_open], self.log_odds)
        logits = ((summaries - self.centre) / self.scale) @ self.weights[:-1] + accessibility * self.weights[-1]
        out = np.zeros(len(starts), np.float32)
        out[is_open] = _sigmoid(logits + self.intercept)
        return out


def learn(
    dataset: Dataset, tf: str, chroms_of: Mapping[str, Sequence[str]], log_odds: NDArray[np.float32]
) -> OrganisersModel:
    """Learn from the open, bound or unbound bins of some cell types.

    Of more than a million bins a million are taken, evenly spread.

    Args:
        chroms_of: cell type with labels of the TF and accessibility -> chromosomes to learn from.
        log_odds: of the TF's motif, shape (width, 4); width at most 200.

    Raises:
        NothingToLearn: none of the open bins is bound, or none unbound; or the fit did not converge.
    """
    open_bins = {cell: OpenBins.of(dataset.flat_accessibility(cell)) for cell in chroms_of}
    parts = [(cell, chrom) for cell, chroms in chroms_of.items() for chrom in chroms]
    # Two passes, so that no more than the chosen bins are ever held.
    sizes = [len(_open_labelled(dataset, tf, *part, open_bins[part[0]])[0]) for part in parts]
    total = sum(sizes)
    chosen = np.arange(min(total, MAX_TRAINING_BINS)) * total // max(min(total, MAX_TRAINING_BINS), 1)
    summaries, accessibility, bound = [], [], []
    for part, first, size in zip(parts, np.cumsum([0, *sizes[:-1]]).tolist(), sizes, strict=True):
        strides, is_bound, coverage = _open_labelled(dataset, tf, *part, open_bins[part[0]])
        taken = chosen[np.searchsorted(chosen, first) : np.searchsorted(chosen, first + size)] - first
        summaries.append(hit_summaries(dataset.sequence(part[1]), strides[taken] * STRIDE_BP, log_odds))
        accessibility.append(coverage[taken])
        bound.append(is_bound[taken])
    return _fit(log_odds, np.concatenate(summaries), np.concatenate(accessibility), np.concatenate(bound))


def _open_labelled(
    dataset: Dataset, tf: str, cell: str, chrom: str, open_bins: OpenBins
) -> tuple[Positions, NDArray[np.bool_], NDArray[np.float32]]:
    """(first stride, whether bound, accessibility) of the open bins that are bound or unbound."""
    labels = dataset.labels(tf, cell, chrom)
    strides = np.flatnonzero((labels == BOUND) | (labels == UNBOUND))
    is_open, coverage = open_bins.find(dataset.accessibility(cell, chrom), strides)
    return strides[is_open], labels[strides[is_open]] == BOUND, coverage


def _fit(
    log_odds: NDArray[np.float32],
    summaries: NDArray[np.float32],
    accessibility: NDArray[np.float32],
    bound: NDArray[np.bool_],
) -> OrganisersModel:
    if bound.all() or not bound.any():
        raise NothingToLearn(
            f"none of the {len(bound):,} open bins to learn from is {'un' if bound.any() else ''}bound"
        )
    centre, scale = summaries.mean(axis=0, dtype=np.float64), summaries.std(axis=0, dtype=np.float64)
    scale[scale == 0] = 1.0
    features = np.concatenate([(summaries - centre) / scale, accessibility[:, None]], axis=1, dtype=np.float32)
    weights, intercept = fit_logistic(features, bound)
    return OrganisersModel(log_odds, centre, scale, weights, intercept)


def fit_logistic(features: Floats, bound: NDArray[np.bool_], ridge: float = RIDGE) -> tuple[NDArray[np.float64], float]:
    """Logistic regression by Newton's method with halved steps.

    Minimised is the sum of the log losses + ridge / 2 x the sum of the squared weights; the intercept is free.

    Args:
        features: shape (N, F).
        bound: shape (N,); some are, some are not.
        ridge: above 0.

    Returns:
        (weights, float64 of shape (F,); intercept).

    Raises:
        NothingToLearn: no convergence.
    """
    penalty = np.append(np.full(features.shape[1], ridge), 0.0)
    solution = np.zeros(features.shape[1] + 1)
    solution[-1] = np.log(bound.sum() / (~bound).sum())
    loss = _loss(solution, features, bound, penalty)
    for _ in range(_MAX_STEPS):
        gradient, hessian = _derivatives(solution, features, bound, penalty)
        step = np.linalg.solve(hessian, gradient)
        if float(gradient @ step) <= _PRECISION * loss:
            return solution[:-1], float(solution[-1])
        for _ in range(_MAX_HALVINGS):
            lower = _loss(solution - step, features, bound, penalty)
            if lower <= loss:
                break
            step /= 2
        solution, loss = solution - step, lower
    raise NothingToLearn(f"the logistic model did not converge in {_MAX_STEPS} steps")


def _pieces(features: Floats, bound: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Some rows at a time, with a column of ones."""
    for first in range(0, len(bound), _ROWS_AT_ONCE):
        rows = features[first : first + _ROWS_AT_ONCE]
        yield (
            np.concatenate([rows, np.ones((len(rows), 1))], axis=1, dtype=np.float64),
            bound[first : first + len(rows)],
        )


def _loss(
    solution: NDArray[np.float64], features: Floats, bound: NDArray[np.bool_], penalty: NDArray[np.float64]
) -> float:
    total = float(penalty @ solution**2) / 2
    for rows, labels in _pieces(features, bound):
        logits = rows @ solution
        total += float(np.logaddexp(0, np.where(labels, -logits, logits)).sum())
    return total


def _derivatives(
    solution: NDArray[np.float64], features: Floats, bound: NDArray[np.bool_], penalty: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    gradient, hessian = penalty * solution, np.diag(penalty)
    for rows, labels in _pieces(features, bound):
        probability = _sigmoid(rows @ solution)
        gradient += rows.T @ (probability - labels)
        hessian += (rows * (probability * (1 - probability))[:, None]).T @ rows
    return gradient, hessian


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return (1 + np.tanh(logits / 2)) / 2  # overflows nowhere
