"""Probabilities from logits, against 64-bit arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from ebert_core.model.calibration import Calibration, sigmoid


def test_sigmoid_keeps_its_precision_in_both_tails() -> None:
    x = np.linspace(-80, 80, 3201).astype(np.float32)
    expected = np.exp(-np.logaddexp(0, -x.astype(np.float64)))
    assert sigmoid(x).dtype == np.float32
    np.testing.assert_allclose(sigmoid(x), expected, rtol=2e-5)


def test_unlikely_bins_keep_their_order() -> None:
    """Most bins of a genome have tiny probabilities; rounding them to 0 would make one tie of them."""
    x = np.arange(-40, 0, 0.05, dtype=np.float32)
    assert (np.diff(sigmoid(x)) > 0).all()


def test_sigmoid_is_quiet_at_the_limits() -> None:
    with np.errstate(all="raise", under="ignore"):
        found = sigmoid(np.array([-3e38, -1e4, 0, 1e4, 3e38], dtype=np.float32))
    assert found.tolist() == [0, 0, 0.5, 1, 1]


@pytest.mark.parametrize(("slope", "intercept"), [(0.7, -3.0), (2.0, 1.0), (0.0, -1.0)])
def test_calibration_is_slope_and_intercept(slope: float, intercept: float) -> None:
    logits = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    expected = 1 / (1 + np.exp(-(slope * logits.astype(np.float64) + intercept)))
    found = Calibration(slope, intercept).probabilities(logits)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)
