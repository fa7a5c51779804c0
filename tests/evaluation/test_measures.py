"""Measures against scikit-learn, a slow reading of the definitions, areas by hand and Davis-Goadrich's own program."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, brier_score_loss, precision_recall_curve, roc_auc_score

from ebert_core.errors import EbertError
from ebert_core.evaluation import measures
from ebert_core.evaluation.measures import FDR_PERCENTS, measure, reliability, thresholds


def slow_auprc(scores, bound):
    """Davis-Goadrich, read literally: every threshold, one true positive at a time, trapezia."""
    points, seen = [(0, 0)], sorted(set(scores.tolist()), reverse=True)
    for value in seen:
        called = scores >= value
        points.append((int((called & bound).sum()), int((called & ~bound).sum())))
    area, total = 0.0, int(bound.sum())
    for (tp0, fp0), (tp1, fp1) in itertools.pairwise(points):
        for true in range(tp0, tp1):
            ends = []
            for at in (true, true + 1):
                false = fp0 + (fp1 - fp0) * (at - tp0) / (tp1 - tp0)
                ends.append(at / (at + false) if at + false else tp1 / (tp1 + fp1))
            area += (ends[0] + ends[1]) / 2
    return area / total


def slow_recall_at_fdr(scores, bound, percent):
    precision, recall, _ = precision_recall_curve(bound, scores)
    # The last point is the artificial (1, 0). Whole percents of whole counts, so 1e-12 only mends rounding.
    good = precision[:-1] >= 1 - percent / 100 - 1e-12
    return recall[:-1][good].max(initial=0)


def check(scores, bound):
    found = measure(scores, bound)
    assert found.num_bins == len(scores)
    assert found.num_bound == bound.sum()
    assert found.auroc == pytest.approx(roc_auc_score(bound, scores), abs=1e-12)
    assert found.average_precision == pytest.approx(average_precision_score(bound, scores), abs=1e-12)
    assert found.auprc == pytest.approx(slow_auprc(scores, bound), abs=1e-12)
    for percent in FDR_PERCENTS:
        assert found.recall_at_fdr[percent] == pytest.approx(slow_recall_at_fdr(scores, bound, percent), abs=1e-12)
    return found


@st.composite
def rankings(draw):
    size = draw(st.integers(2, 60))
    kind = draw(st.sampled_from([np.float32, np.float64]))
    few = st.sampled_from([0.0, 0.25, 0.5, 1.0, -1.0])
    real = st.floats(-100, 100, width=32)
    scores = draw(hnp.arrays(kind, size, elements=draw(st.sampled_from([few, real]))))
    bound = draw(hnp.arrays(bool, size))
    bound[0], bound[-1] = True, False
    return scores, bound


@settings(deadline=None)
@given(rankings())
def test_agrees_with_the_oracles(ranking):
    check(*ranking)


@pytest.mark.parametrize(
    ("scores", "bound"),
    [
        pytest.param([1, 1, 1, 1, 1], [1, 0, 0, 1, 0], id="constant"),
        pytest.param([0, 0, 0], [0, 1, 0], id="all zero, one bound"),
        pytest.param([3, 2, 1], [1, 0, 0], id="perfect"),
        pytest.param([1, 2, 3], [1, 0, 0], id="inverted"),
        pytest.param([2, 2, 1, 1], [1, 0, 1, 0], id="two ties"),
        pytest.param([9, 5, 5, 5, 5, 1], [0, 1, 1, 1, 0, 0], id="unbound on top, then a tie"),
        pytest.param([math.inf, 1, -math.inf], [1, 0, 0], id="infinite"),
    ],
)
def test_edge_cases(scores, bound):
    if math.inf in scores:  # scikit-learn refuses infinities; only the order counts
        order = np.argsort(np.argsort(scores))
        assert measure(np.array(scores), np.array(bound, bool)) == check(order.astype(float), np.array(bound, bool))
    else:
        check(np.array(scores, np.float32), np.array(bound, bool))


def test_large_random_ranking_with_rounded_scores(monkeypatch):
    monkeypatch.setattr(measures, "_TIES_AT_ONCE", 7)  # tied groups in several portions
    rng = np.random.default_rng(3)
    bound = rng.random(20_000) < 0.02
    scores = np.round(rng.random(20_000) * 0.7 + bound * 0.4, 2).astype(np.float32)
    found = measure(scores, bound)
    assert found.auroc == pytest.approx(roc_auc_score(bound, scores), abs=1e-12)
    assert found.average_precision == pytest.approx(average_precision_score(bound, scores), abs=1e-12)
    assert found.auprc == pytest.approx(slow_auprc(scores, bound), abs=1e-12)


def test_hand_computed_auprc():
    # One unbound bin on top, then two bound and two unbound tied: false positives 1, 2, 3 at true positives 0, 1, 2, so
    # precisions 0, 1/3, 2/5 and area ((0 + 1/3) / 2 + (1/3 + 2/5) / 2) / 2.
    scores, bound = np.array([3, 2, 2, 2, 2.0]), np.array([0, 1, 1, 0, 0], bool)
    assert measure(scores, bound).auprc == pytest.approx((1 / 6 + 11 / 30) / 2, abs=1e-15)
    # A constant prediction has the precision of a coin everywhere.
    assert measure(np.zeros(8), np.arange(8) < 2).auprc == pytest.approx(0.25, abs=1e-15)
    # Bound, unbound, bound: precisions 1 to recall 1/2, then a trapezium from 1/2 to 2/3.
    assert measure(np.array([3, 2, 1.0]), np.array([1, 0, 1], bool)).auprc == pytest.approx((1 + 7 / 12) / 2, abs=1e-15)


def r_uniform(seed, count):
    """R's `set.seed(seed); runif(count)`: Mersenne twister seeded by a linear congruence."""
    seeds, value = [], seed
    for _ in range(50 + 625):
        value = (69069 * value + 1) & 0xFFFFFFFF
        seeds.append(value)
    generator = np.random.MT19937()
    state = generator.state
    state["state"] = {"key": np.array(seeds[51:], np.uint32), "pos": 624}
    generator.state = state
    return generator.random_raw(count) * 2.3283064365386963e-10


def test_auprc_equals_the_program_of_davis_and_goadrich():
    # PRROC's own test (tests/testthat/test-PR.R) holds this value of Davis and Goadrich's auc.jar for these numbers.
    numbers = r_uniform(101, 200)
    assert numbers[0] == pytest.approx(0.37219838)
    scores = np.concatenate([0.3 + 0.7 * numbers[:100], 0.6 * numbers[100:]])
    assert measure(scores, np.arange(200) < 100).auprc == pytest.approx(0.9018680216532841, abs=1e-14)


def test_recall_at_fdr_counts_equality_and_ignores_the_artificial_end():
    bound = np.array([True] * 19 + [False] * 2)
    scores = np.arange(21, 0, -1.0)
    assert measure(scores, bound).recall_at_fdr[5] == 1.0
    scores[-2] = 100  # one unbound on top: 19 of 20 is exactly 95 %
    assert measure(scores, bound).recall_at_fdr == {5: 1.0, 10: 1.0, 25: 1.0, 50: 1.0}
    worst = measure(np.array([4, 3, 2, 1.0]), np.array([0, 0, 0, 1], bool))
    assert set(worst.recall_at_fdr.values()) == {0.0}


@pytest.mark.parametrize(
    ("scores", "bound", "words"),
    [
        ([0.1, math.nan, 0.3], [1, 0, 0], "1 scores are not numbers"),
        ([0.1, 0.2], [0, 0], "none of the 2 bins is bound"),
        ([0.1, 0.2], [1, 1], "none of the 2 bins is unbound"),
        ([], [], "none of the 0 bins is bound"),
    ],
)
def test_refusals(scores, bound, words):
    with pytest.raises(EbertError, match=words):
        measure(np.array(scores, np.float32), np.array(bound, bool))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("decimals", [None, 2, 0], ids=["all distinct", "tied", "all zero"])
def test_arguments_are_left_alone_and_memory_is_bounded(kind, decimals):
    rng = np.random.default_rng(5)
    scores, bound = rng.random(1_000_000).astype(kind), rng.random(1_000_000) < 0.003
    if decimals is not None:
        scores = np.round(scores / 2.1, decimals)
    before = scores.copy()
    tracemalloc.start()
    measure(scores, bound)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(scores, before)
    assert peak < 2 * scores.nbytes


@settings(deadline=None)
@given(rankings(), st.sampled_from([20, 100, 500]))
def test_curves_are_short_monotone_and_enclose_the_reported_areas(ranking, most):
    counts = thresholds(*ranking)
    rate, roc_recall = measures.roc_curve(counts, most)
    assert len(rate) <= most
    assert (rate[0], roc_recall[0], rate[-1], roc_recall[-1]) == (0, 0, 1, 1)
    assert (np.diff(rate) >= 0).all()
    assert (np.diff(roc_recall) >= 0).all()
    recall, precision = measures.precision_recall_curve(counts, most)
    assert len(recall) <= most
    assert (np.diff(recall) > 0).all()
    assert recall[-1] == 1
    assert precision[-1] == pytest.approx(counts.num_bound / (counts.num_bound + counts.unbound[-1]))
    if most == 500:  # nothing was left out of so few bins
        assert np.trapezoid(roc_recall, rate) == pytest.approx(measure(*ranking).auroc, abs=1e-12)


def test_reliability_against_scikit_learn_and_by_hand(monkeypatch):
    monkeypatch.setattr(measures, "_PIECE", 64)
    rng = np.random.default_rng(8)
    scores = rng.random(500).astype(np.float32)
    bound = rng.random(500) < scores
    table = reliability(scores, bound)
    assert table.brier == pytest.approx(brier_score_loss(bound, scores.astype(float)), abs=1e-12)
    assert table.counts.sum() == 500
    for index in range(10):
        inside = (scores >= index / 10) & (scores < (index + 1) / 10)
        assert table.counts[index] == inside.sum()
        assert table.mean_score[index] == pytest.approx(scores[inside].mean(dtype=float))
        assert table.bound_fraction[index] == pytest.approx(bound[inside].mean())
    ends = reliability(np.array([0, 1, 1], np.float32), np.array([0, 1, 0], bool), 5)
    assert ends.counts.tolist() == [1, 0, 0, 0, 2]
    assert ends.bound_fraction[4] == 0.5
    assert np.isnan(ends.mean_score[1])


@pytest.mark.parametrize("scores", [[0.5, 1.5], [-0.1, 0.5], [0.2, math.nan]])
def test_reliability_refuses_what_is_no_probability(scores):
    with pytest.raises(EbertError, match="from 0 to 1"):
        reliability(np.array(scores), np.array([True, False]))
