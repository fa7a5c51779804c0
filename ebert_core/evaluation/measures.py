"""Exact measures of a ranking of bins: auROC, auPRC, average precision, recall at a false discovery rate.

Every one of them changes only at thresholds where a bound bin sits. So the scores are sorted once, the bound bins'
scores are looked up among them, and all measures are sums over the distinct scores of bound bins: exact with ties,
and 4 bytes a bin beyond the scores.

Sources: Davis and Goadrich, ICML 2006, for the interpolation of the precision-recall curve, with the conventions of
the R package PRROC (`auc.davis.goadrich`), which scored the ENCODE-DREAM challenge; the challenge's scoring code for
recall at a false discovery rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.errors import EbertError

FDR_PERCENTS: Final = (5, 10, 25, 50)
MAX_CURVE_POINTS: Final = 500
RELIABILITY_BINS: Final = 10
# Positives handled at a time where scores are tied; bounds the memory of a constant prediction.
_TIES_AT_ONCE: Final = 1 << 20
_PIECE: Final = 1 << 20

Floats = NDArray[np.float32] | NDArray[np.float64]
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Thresholds:
    """The ranking's counts at each distinct score of a bound bin, from the highest score down; arrays of shape (K,).

    Attributes:
        scores: the threshold itself.
        bound: bound bins that score at least the threshold (true positives), int64.
        unbound_above: unbound bins that score more than the threshold, int64.
        unbound: unbound bins that score at least the threshold (false positives), int64.
        num_bound, num_unbound: totals.
    """

    scores: Floats
    bound: NDArray[np.int64]
    unbound_above: NDArray[np.int64]
    unbound: NDArray[np.int64]
    num_bound: int
    num_unbound: int

    @property
    def bound_above(self) -> NDArray[np.int64]:
        """Bound bins that score more than the threshold, int64 of shape (K,)."""
        return np.concatenate([[0], self.bound[:-1]])


@dataclass(frozen=True)
class Measures:
    """What is reported of one ranking; all but the counts lie in [0, 1].

    Attributes:
        num_bins: bins scored; num_bound: of them bound; prevalence: their ratio, the auPRC of a coin.
        auroc: area under the ROC curve, ties count half.
        auprc: area under the precision-recall curve with Davis-Goadrich interpolation.
        average_precision: the step-wise area (scikit-learn's).
        recall_at_fdr: by percent (5, 10, 25, 50): the largest recall whose precision is at least 1 - FDR, or 0.
    """

    num_bins: int
    num_bound: int
    prevalence: float
    auroc: float
    auprc: float
    average_precision: float
    recall_at_fdr: dict[int, float]

    def as_dict(self) -> dict[str, float | int]:
        """Flat, with stable keys: the ones of report.json and report.tsv."""
        return {
            "num_bins": self.num_bins,
            "num_bound": self.num_bound,
            "prevalence": self.prevalence,
            "auroc": self.auroc,
            "auprc": self.auprc,
            "average_precision": self.average_precision,
            **{f"recall_at_{percent}_fdr": recall for percent, recall in self.recall_at_fdr.items()},
        }


def measure(scores: Floats, bound: NDArray[np.bool_]) -> Measures:
    """All measures of one ranking.

    Args:
        scores: float32 or float64 of shape (N,); higher means more likely bound. Any scale.
        bound: shape (N,).

    Raises:
        EbertError: a score is not a number, or no bin is bound, or none is unbound.
    """
    return measures_at(thresholds(scores, bound))


def thresholds(scores: Floats, bound: NDArray[np.bool_]) -> Thresholds:
    """Count bound and unbound bins at every distinct score of a bound bin; see `measure` for arguments and errors."""
    if scores.shape != bound.shape or scores.ndim != 1:
        raise ValueError(f"scores have shape {scores.shape}, labels {bound.shape}")
    ordered = np.sort(scores)
    if len(ordered) and np.isnan(ordered[-1]):  # NaN sorts last
        raise EbertError(
            f"{int(np.isnan(scores).sum()):,} scores are not numbers", "every bin needs a score to be ranked"
        )
    positives = np.sort(scores[bound])
    num_bound, num_unbound = len(positives), len(scores) - len(positives)
    if num_bound == 0 or num_unbound == 0:
        which = "bound" if num_bound == 0 else "unbound"
        raise EbertError(
            f"none of the {len(scores):,} bins is {which}, so there is no ranking to measure",
            "choose chromosomes or a pair with bins of both kinds",
        )
    first = np.concatenate([[True], positives[1:] != positives[:-1]])
    distinct = positives[first]
    above = np.flatnonzero(np.concatenate([first[1:], [True]])) + 1  # bound bins at or below, for each distinct score
    at_least = num_bound - np.flatnonzero(first)
    at_least_any = len(scores) - np.searchsorted(ordered, distinct, side="left")
    above_any = len(scores) - np.searchsorted(ordered, distinct, side="right")
    return Thresholds(
        scores=distinct[::-1],
        bound=at_least[::-1].astype(np.int64),
        unbound_above=(above_any - (num_bound - above))[::-1].astype(np.int64),
        unbound=(at_least_any - at_least)[::-1].astype(np.int64),
        num_bound=num_bound,
        num_unbound=num_unbound,
    )


def measures_at(counts: Thresholds) -> Measures:
    """All measures from the counts at the thresholds."""
    total = counts.num_bound + counts.num_unbound
    return Measures(
        num_bins=total,
        num_bound=counts.num_bound,
        prevalence=counts.num_bound / total,
        auroc=_auroc(counts),
        auprc=_auprc(counts),
        average_precision=_average_precision(counts),
        recall_at_fdr={percent: recall_at_fdr(counts, percent) for percent in FDR_PERCENTS},
    )


def _auroc(counts: Thresholds) -> float:
    gained = counts.bound - counts.bound_above
    # Pairs in which the unbound bin ranks higher count 1, tied pairs 1/2; twice that stays a whole number.
    lost = int(np.sum(gained * (counts.unbound_above + counts.unbound)))
    return 1.0 - lost / (2 * counts.num_bound * counts.num_unbound)


def _average_precision(counts: Thresholds) -> float:
    gained = counts.bound - counts.bound_above
    return float(np.sum(gained * (counts.bound / (counts.bound + counts.unbound)))) / counts.num_bound


def recall_at_fdr(counts: Thresholds, percent: int) -> float:
    """The largest recall whose precision is at least 1 - `percent` / 100, or 0; compared in whole numbers."""
    good = 100 * counts.bound >= (100 - percent) * (counts.bound + counts.unbound)
    return int(counts.bound[good].max(initial=0)) / counts.num_bound


def _auprc(counts: Thresholds) -> float:
    """Trapezia between precisions at true positives T0, T0 + 1, ..., T1 of each threshold, false positives linear.

    At T0 = 0 the precision is 0 where an unbound bin ranks above every bound one, else that of the first threshold.
    A trapezium sum over one threshold is the sum of its precisions plus half the first minus half the last.
    """
    start, gained = counts.bound_above, counts.bound - counts.bound_above
    last = counts.bound / (counts.bound + counts.unbound)
    called = start + counts.unbound_above
    first = np.where(called > 0, start / np.maximum(called, 1), last)
    area = float(np.sum(np.where(gained == 1, last, 0.0))) + float(np.sum(first - last)) / 2
    tied = np.flatnonzero(gained > 1)
    while len(tied):
        num_taken = max(1, int(np.searchsorted(np.cumsum(gained[tied]), _TIES_AT_ONCE, side="right")))
        taken, tied = tied[:num_taken], tied[num_taken:]
        group = np.repeat(taken, gained[taken])
        step = np.arange(len(group)) - np.repeat(np.cumsum(gained[taken]) - gained[taken], gained[taken]) + 1
        area += float(np.sum(_interpolated_precision(counts, group, step)))
    return area / counts.num_bound


def _interpolated_precision(
    counts: Thresholds, group: NDArray[np.int64], step: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Precision `step` true positives into threshold `group`; both of the same shape."""
    start = counts.bound_above[group]
    slope = (counts.unbound[group] - counts.unbound_above[group]) / (counts.bound[group] - start)
    true = start + step
    return true / (true + counts.unbound_above[group] + slope * step)


def precision_recall_curve(counts: Thresholds, most: int = MAX_CURVE_POINTS) -> Curve:
    """(recall, precision) of the interpolated curve, float64 of shape (at most `most`,), by rising recall."""
    true = spread_ranks(counts.num_bound, most)
    group = np.searchsorted(counts.bound, true, side="left")
    return true / counts.num_bound, _interpolated_precision(counts, group, true - counts.bound_above[group])


def spread_ranks(num_bound: int, most: int) -> NDArray[np.int64]:
    """Ranks from 1 to `num_bound`, both among them, rising, int64 of shape (at most `most`,).

    Half lie evenly along recall, half crowd towards recall 0, where the precision-recall curve moves most.
    """
    half = most // 2
    wanted = np.concatenate([np.linspace(1, num_bound, half), np.geomspace(1, num_bound, most - half)])
    return np.unique(np.rint(wanted).astype(np.int64))


def roc_curve(counts: Thresholds, most: int = MAX_CURVE_POINTS) -> Curve:
    """(false positive rate, recall), float64 of shape (at most `most`,), from (0, 0) to (1, 1)."""
    each = (most - 6) // 4  # two corners per threshold, two of them always kept, and the curve's two ends
    along_recall = np.searchsorted(counts.bound, np.linspace(1, counts.num_bound, each))
    along_rate = np.searchsorted(counts.unbound, np.linspace(0, counts.num_unbound, each))
    last = len(counts.bound) - 1
    kept = np.unique(np.minimum(np.concatenate([[0, last], along_recall, along_rate]), last))
    rate = np.stack([counts.unbound_above[kept], counts.unbound[kept]], axis=1).ravel() / counts.num_unbound
    recall = np.stack([counts.bound_above[kept], counts.bound[kept]], axis=1).ravel() / counts.num_bound
    return np.concatenate([[0.0], rate, [1.0]]), np.concatenate([[0.0], recall, [1.0]])


@dataclass(frozen=True)
class Reliability:
    """How far scores can be read as probabilities; arrays of shape (bins,), equal-width classes of [0, 1].

    Attributes:
        brier: mean squared difference between score and label (0 unbound, 1 bound).
        edges: class borders, shape (bins + 1,); a score on a border belongs to the class above, 1 to the last.
        counts: scores in each class, int64.
        mean_score, bound_fraction: NaN where a class is empty.
    """

    brier: float
    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    mean_score: NDArray[np.float64]
    bound_fraction: NDArray[np.float64]


def are_probabilities(scores: Floats) -> bool:
    """Whether every score lies in [0, 1]."""
    return len(scores) > 0 and bool(scores.min() >= 0) and bool(scores.max() <= 1)


def reliability(scores: Floats, bound: NDArray[np.bool_], num_classes: int = RELIABILITY_BINS) -> Reliability:
    """Brier score and reliability table.

    Raises:
        EbertError: a score lies outside [0, 1] or is not a number.
    """
    if not are_probabilities(scores):
        raise EbertError(
            "calibration needs scores from 0 to 1", "these scores can be ranked; they are no probabilities"
        )
    counts = np.zeros(num_classes, np.int64)
    total, positive = np.zeros(num_classes), np.zeros(num_classes)
    squares = 0.0
    for start in range(0, len(scores), _PIECE):
        score = scores[start : start + _PIECE].astype(np.float64)
        label = bound[start : start + _PIECE]
        place = np.minimum((score * num_classes).astype(np.int64), num_classes - 1)
        counts += np.bincount(place, minlength=num_classes)
        total += np.bincount(place, weights=score, minlength=num_classes)
        positive += np.bincount(place[label], minlength=num_classes)
        squares += float(np.sum((score - label) ** 2))
    shown = np.where(counts > 0, counts, np.nan)
    return Reliability(
        brier=squares / len(scores),
        edges=np.linspace(0, 1, num_classes + 1),
        counts=counts,
        mean_score=total / shown,
        bound_fraction=positive / shown,
    )
