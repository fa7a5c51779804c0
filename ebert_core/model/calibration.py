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
    """Logistic function without overflow, exact to float32 for small probabilities too: most bins have one."""
    return np.exp(-np.logaddexp(np.float32(0), -x)).astype(np.float32)
