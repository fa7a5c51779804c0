"""Platt scaling and the threshold table, against scikit-learn and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_curve

from ebert_core.errors import EbertError
from ebert_core.inference.calls import CallRule, Goal, ThresholdTable
from ebert_core.training.calibration import fit_calibration, threshold_table


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


# --- threshold table

ROUNDING = 1e-9
RANKINGS = st.lists(st.tuples(st.integers(0, 40), st.booleans()), min_size=2, max_size=80).filter(
    lambda rows: 0 < sum(bound for _, bound in rows) < len(rows)
)


def ranking(rows: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([rank / 40 for rank, _ in rows], np.float32), np.array([bound for _, bound in rows])


def long_ranking(seed: int, size: int = 40_000, share: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    bound = rng.random(size) < share
    logits = rng.normal(np.where(bound, 1.0, -4.0), 2.0)
    return (1 / (1 + np.exp(-logits))).astype(np.float32), bound


def curve(probabilities: np.ndarray, bound: np.ndarray) -> dict[float, tuple[float, float]]:
    """scikit-learn's (precision, recall) at every threshold that is the score of a bound bin."""
    precision, recall, thresholds = precision_recall_curve(bound, probabilities)
    own = set(probabilities[bound].tolist())
    return {
        float(t): (p, r) for t, p, r in zip(thresholds, precision[:-1], recall[:-1], strict=True) if float(t) in own
    }


def oracle(points: dict[float, tuple[float, float]], goal: Goal, value: float) -> float | None:
    """The rule, read literally over all thresholds."""
    if goal == "precision":
        return min((t for t, (precision, _) in points.items() if precision >= value - ROUNDING), default=None)
    return max(t for t, (_, recall) in points.items() if recall >= value - ROUNDING)


def chosen(table: ThresholdTable, goal: Goal, value: float) -> float | None:
    try:
        return table.choose(CallRule(goal, value), "CTCF").threshold
    except EbertError:
        return None


@settings(max_examples=60, deadline=None)
@given(RANKINGS)
def test_rows_are_points_of_the_curve_in_order(rows: list[tuple[int, bool]]) -> None:
    probabilities, bound = ranking(rows)
    table, points = threshold_table(probabilities, bound), curve(probabilities, bound)
    for threshold, precision, recall in zip(table.thresholds, table.precision, table.recall, strict=True):
        assert points[threshold] == pytest.approx((precision, recall))
        assert np.float32(threshold) == threshold  # a threshold calls the bin that it was made from
    assert (table.num_bound, table.num_unbound) == (bound.sum(), (~bound).sum())
    assert (np.diff(table.thresholds) < 0).all()
    assert (np.diff(table.recall) > 0).all()
    assert table.recall[-1] == 1
    ThresholdTable.from_json(table.to_json())


@settings(max_examples=60, deadline=None)
@given(RANKINGS)
def test_no_threshold_has_a_better_f1(rows: list[tuple[int, bool]]) -> None:
    probabilities, bound = ranking(rows)
    call = threshold_table(probabilities, bound).choose(CallRule("f1"), "CTCF")
    f1 = [2 * (over & bound).sum() / (over.sum() + bound.sum()) for t in probabilities for over in [probabilities >= t]]
    assert call.f1 == pytest.approx(max(f1))
    over = probabilities >= call.threshold
    assert call.precision == pytest.approx(bound[over].mean())
    assert call.recall == pytest.approx(over[bound].mean())


@settings(max_examples=60, deadline=None)
@given(RANKINGS, st.integers(0, 100))
def test_a_whole_percent_gets_what_all_thresholds_would_give(rows: list[tuple[int, bool]], percent: int) -> None:
    probabilities, bound = ranking(rows)
    table, points = threshold_table(probabilities, bound), curve(probabilities, bound)
    for goal in ("precision", "recall"):
        assert chosen(table, goal, percent / 100) == oracle(points, goal, percent / 100)
    assert chosen(table, "fdr", 1 - percent / 100) == oracle(points, "precision", percent / 100)


@pytest.mark.parametrize("seed", range(2))
def test_a_long_ranking(seed: int) -> None:
    """Whole percents exactly; between them at most the next percent, with the recall that goes with it."""
    probabilities, bound = long_ranking(seed)
    table, points = threshold_table(probabilities, bound), curve(probabilities, bound)
    assert len(points) > 500
    assert 100 < len(table.thresholds) <= 202
    for tenth in range(5, 1001, 5):
        value, above = tenth / 1000, -(-tenth // 10) / 100
        for goal in ("precision", "recall"):
            found, exact, limit = chosen(table, goal, value), oracle(points, goal, value), oracle(points, goal, above)
            if tenth % 10 == 0 or exact is None:
                assert found == exact
            elif limit is not None:
                assert found is not None
                precision, recall = points[found]
                assert (precision if goal == "precision" else recall) >= value - ROUNDING
                assert points[exact][1] + ROUNDING >= recall >= points[limit][1] if goal == "precision" else True
                assert recall <= value + 0.01 + 1 / bound.sum() if goal == "recall" else True


@settings(max_examples=60, deadline=None)
@given(RANKINGS, st.floats(0, 1), st.floats(0, 1))
def test_who_asks_for_more_pays_for_it(rows: list[tuple[int, bool]], one: float, other: float) -> None:
    table = threshold_table(*ranking(rows))
    low, high = sorted((one, other))
    assert (table.choose(CallRule("recall", low), "X").threshold) >= table.choose(
        CallRule("recall", high), "X"
    ).threshold
    strict = chosen(table, "precision", high)
    if strict is not None:
        mild = chosen(table, "precision", low)
        assert mild is not None
        assert mild <= strict
        recalls = [table.choose(CallRule("threshold", t), "X").recall for t in (mild, strict)]
        assert recalls[0] >= recalls[1]
    else:
        assert table.precision.max() < high


def test_probabilities_that_are_all_alike_give_one_row() -> None:
    table = threshold_table(np.full(8, 0.25, np.float32), np.arange(8) < 2)
    assert (table.thresholds.tolist(), table.precision.tolist(), table.recall.tolist()) == ([0.25], [0.25], [1.0])
