"""From logits to probabilities: what a model remembers of its validation part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Calibration:
    """probability = sigmoid(slope * logit + intercept)."""

    slope: float
    intercept: float

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Same shape as `logits`, float32 in [0, 1]."""
        return sigmoid(self.slope * logits.astype(np.float32) + self.intercept)


def sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logistic function without overflow."""
    return (0.5 * (1.0 + np.tanh(0.5 * x))).astype(np.float32)
