"""Platt scaling: the two numbers that turn logits into probabilities that mean what they say.

Training draws bound windows far more often than they occur, so raw logits are too high. Slope and intercept are fitted
on the validation part, at the true share of bound bins (Platt 1999, with his smoothed targets).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.evaluation.measures import thresholds
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


def best_f1_threshold(probabilities: NDArray[np.float32], bound: NDArray[np.bool_]) -> float:
    """The threshold at which calling bins `>=` it gives the best F1; probabilities and bound of shape (N,)."""
    counts = thresholds(probabilities, bound)
    precision = counts.bound / (counts.bound + counts.unbound)
    recall = counts.bound / counts.num_bound
    return float(counts.scores[np.argmax(2 * precision * recall / np.maximum(precision + recall, _RIDGE))])
