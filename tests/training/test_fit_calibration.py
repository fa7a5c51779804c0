"""Platt scaling and the calling threshold, against scikit-learn and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from ebert_core.training.calibration import best_f1_threshold, fit_calibration


def simulated(seed: int, size: int, slope: float, intercept: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(1, 3, size).astype(np.float32)
    return logits, rng.random(size) < 1 / (1 + np.exp(-(slope * logits + intercept)))


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.5, -3.0), (2.0, -4.0), (0.3, 2.0)])
def test_fit_is_the_maximum_of_the_smoothed_likelihood(slope: float, intercept: float) -> None:
    """A smoothed target t is a bound bin of weight t beside an unbound one of weight 1 - t."""
    logits, bound = simulated(0, 3_000, slope, intercept)
    positives, negatives = bound.sum(), (~bound).sum()
    target = np.where(bound, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    oracle = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000)
    twice = np.concatenate([logits, logits]).astype(np.float64)[:, None]
    oracle.fit(twice, np.repeat([1, 0], len(logits)), np.concatenate([target, 1 - target]))
    found = fit_calibration(logits, bound)
    assert found.slope == pytest.approx(oracle.coef_[0, 0], rel=1e-3)
    assert found.intercept == pytest.approx(oracle.intercept_[0], rel=1e-3, abs=2e-3)


def test_many_bins_give_back_the_truth() -> None:
    logits, bound = simulated(1, 200_000, 0.7, -2.0)
    found = fit_calibration(logits, bound)
    assert found.slope == pytest.approx(0.7, abs=0.02)
    assert found.intercept == pytest.approx(-2.0, abs=0.05)
    # Probabilities mean what they say: the mean is the share of bound bins.
    assert found.probabilities(logits).mean() == pytest.approx(bound.mean(), rel=1e-3)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-50, 50, width=32), st.booleans()), min_size=2, max_size=40).filter(
        lambda rows: 0 < sum(bound for _, bound in rows) < len(rows)
    )
)
def test_fit_never_turns_an_order_around(rows: list[tuple[float, bool]]) -> None:
    logits = np.array([logit for logit, _ in rows], dtype=np.float32)
    bound = np.array([bound for _, bound in rows])
    found = fit_calibration(logits, bound)
    assert np.isfinite([found.slope, found.intercept]).all()
    assert found.slope >= 0
    ordered = found.probabilities(np.sort(logits))
    assert (np.diff(ordered) >= 0).all()
    assert ((ordered >= 0) & (ordered <= 1)).all()


def test_scores_that_carry_nothing_become_the_share_of_bound_bins() -> None:
    bound = np.array([True] + [False] * 9)
    for logits in (np.full(10, 2.5, np.float32), np.zeros(10, np.float32), np.where(bound, -5, 5).astype(np.float32)):
        probabilities = fit_calibration(logits, bound).probabilities(logits)
        assert probabilities == pytest.approx(np.full(10, 0.1), abs=0.06)
        assert len(set(probabilities.tolist())) == 1


def test_a_perfect_ranking_stays_finite() -> None:
    bound = np.arange(1_000) >= 990
    found = fit_calibration(np.where(bound, 8, -8).astype(np.float32), bound)
    assert 0 < found.slope < 10
    high, low = found.probabilities(np.array([8, -8], dtype=np.float32))
    assert high == pytest.approx(11 / 12, abs=1e-3)
    assert low == pytest.approx(1 / 992, abs=1e-4)


@pytest.mark.parametrize("scale", [1e-3, 0.1, 10, 1e3])
def test_logits_of_any_size(scale: float) -> None:
    logits, bound = simulated(2, 2_000, 1.0, 0.0)
    found = fit_calibration((logits * scale).astype(np.float32), bound)
    plain = fit_calibration(logits, bound)
    np.testing.assert_allclose(
        found.probabilities((logits * scale).astype(np.float32)), plain.probabilities(logits), atol=0.01
    )


def f1(probabilities: np.ndarray, bound: np.ndarray, threshold: float) -> float:
    called = probabilities >= threshold
    return 2 * (called & bound).sum() / (called.sum() + bound.sum())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=60).filter(
        lambda rows: 0 < sum(bound for _, bound in rows) < len(rows)
    )
)
def test_no_threshold_has_a_better_f1(rows: list[tuple[int, bool]]) -> None:
    probabilities = np.array([rank / 12 for rank, _ in rows], dtype=np.float32)
    bound = np.array([bound for _, bound in rows])
    threshold = best_f1_threshold(probabilities, bound)
    best = max(f1(probabilities, bound, float(value)) for value in np.unique(probabilities))
    assert f1(probabilities, bound, threshold) == pytest.approx(best)
    assert np.float32(threshold) in probabilities
