"""Platt scaling: the two numbers that turn logits into probabilities that mean what they say; and what they are worth.

Training draws bound windows far more often than they occur, so raw logits are too high. Slope and intercept are fitted
on the validation part, at the true share of bound bins (Platt 1999, with his smoothed targets).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.evaluation.measures import thresholds
from ebert_core.inference.calls import ThresholdTable
from ebert_core.model.calibration import Calibration

_ITERATIONS: Final = 50
_RIDGE: Final = 1e-9


def fit_calibration(logits: NDArray[np.float32], bound: NDArray[np.bool_]) -> Calibration:
    """Maximum-likelihood slope and intercept by Newton's method.

    A slope below 0 would turn the order of the bins around; then the scores carry nothing, and the result keeps the
    slope at 0 with the share of bound bins as everybody's probability.

    Args:
        logits: shape (N,).
        bound: shape (N,); both classes must occur.
    """
    x = logits.astype(np.float64)
    positives, negatives = int(bound.sum()), int((~bound).sum())
    target = np.where(bound, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    prior = np.log(positives / negatives)
    slope, intercept = 1.0, float(prior - np.median(x))
    loss = _loss(x, target, slope, intercept)
    for _ in range(_ITERATIONS):
        p = 1 / (1 + np.exp(-np.clip(slope * x + intercept, -500, 500)))
        gradient = np.array([np.mean((p - target) * x), np.mean(p - target)])
        weight = p * (1 - p)
        cross = np.mean(weight * x)
        hessian = np.array([[np.mean(weight * x * x), cross], [cross, np.mean(weight)]]) + _RIDGE * np.eye(2)
        direction = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-6:
            tried = _loss(x, target, slope - size * direction[0], intercept - size * direction[1])
            if tried < loss:
                break
            size /= 2
        else:
            break
        slope, intercept = float(slope - size * direction[0]), float(intercept - size * direction[1])
        if loss - tried < 1e-12:
            break
        loss = tried
    return Calibration(slope, intercept) if slope > 0 else Calibration(0.0, float(prior))


def _loss(x: NDArray[np.float64], target: NDArray[np.float64], slope: float, intercept: float) -> float:
    z = slope * x + intercept
    return float(np.mean(np.logaddexp(0, z) - target * z))


def threshold_table(probabilities: NDArray[np.float32], bound: NDArray[np.bool_]) -> ThresholdTable:
    """What calling bins at chosen thresholds gives: precision and recall of each.

    Holds, for every whole percent, the lowest threshold whose precision is at least that and the highest whose recall
    is, besides the best precision and the best F1: at most 202 rows. So a rule of a whole percent gets what it would
    get from all thresholds, and any other the next percent's.

    Args:
        probabilities: shape (N,).
        bound: shape (N,); both classes must occur.
    """
    counts = thresholds(probabilities, bound)
    called = counts.bound + counts.unbound
    precision, recall = counts.bound / called, counts.bound / counts.num_bound
    f1 = 2 * counts.bound / (called + counts.num_bound)
    last = len(called) - 1
    rows = {int(np.argmax(f1)), last - int(np.argmax(precision[::-1]))}
    for percent in range(1, 101):
        # Compared in whole numbers, like `ebert_core.evaluation.measures.recall_at_fdr`.
        rows.add(int(np.argmax(100 * counts.bound >= percent * counts.num_bound)))
        rows.update(np.flatnonzero(100 * counts.bound >= percent * called)[-1:].tolist())
    kept = sorted(rows)
    return ThresholdTable(
        thresholds=counts.scores[kept].astype(np.float64),
        precision=precision[kept],
        recall=recall[kept],
        num_bound=counts.num_bound,
        num_unbound=counts.num_unbound,
    )
