"""Block bootstrap against resampling done with the bins themselves, scikit-learn and worlds whose truth is known."""

from __future__ import annotations

import math
import tracemalloc
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, roc_auc_score

from ebert_core.errors import EbertError
from ebert_core.evaluation import bootstrap
from ebert_core.evaluation.bootstrap import (
    MEASURES,
    Blocks,
    blocks_of,
    differences,
    draw,
    intervals,
    replicate_measures,
)
from ebert_core.evaluation.measures import measure, thresholds


def even_blocks(num_bins, num_blocks):
    return Blocks(np.linspace(0, num_bins, num_blocks + 1).astype(np.int64), 1_000_000)


def replicates(scores, bound, blocks, drawn):
    return replicate_measures(scores, bound, thresholds(scores, bound), blocks, drawn)


def slow_replicates(scores, bound, blocks, drawn):
    """Lay the drawn blocks' bins end to end and measure those."""
    found = {key: [] for key in MEASURES}
    parts = list(blocks.slices())
    for times in drawn:
        index = [np.arange(len(scores))[part] for part, often in zip(parts, times, strict=True) for _ in range(often)]
        bins = np.concatenate([np.zeros(0, int), *index])
        mixed = bound[bins].any() and not bound[bins].all()
        figures = measure(scores[bins], bound[bins]).as_dict() if mixed else {}
        if mixed:
            assert figures["auroc"] == pytest.approx(roc_auc_score(bound[bins], scores[bins]), abs=1e-12)
            precision = average_precision_score(bound[bins], scores[bins])
            assert figures["average_precision"] == pytest.approx(precision, abs=1e-12)
        for key in MEASURES:
            found[key].append(figures.get(key, math.nan))
    return {key: np.array(values) for key, values in found.items()}


def peaks(seed, num_bins=60_000, num_blocks=50, prevalence=0.03, strength=3.0):
    """Scores as a predictor gives them: runs of bound bins, some blocks easier than others, most bins near 0."""
    rng = np.random.default_rng(seed)
    blocks = even_blocks(num_bins, num_blocks)
    bound = np.repeat(rng.random(num_bins // 6) < prevalence, 6)
    block = np.repeat(np.arange(num_blocks), np.diff(blocks.edges))
    rise = np.repeat(rng.normal(strength, 1.2, num_bins // 6), 6) + rng.normal(0, 0.5, num_blocks)[block]
    logits = rng.normal(0, 1, num_bins) + np.where(bound, rise, 0) - 4
    return (1 / (1 + np.exp(-logits))).astype(np.float32), bound, blocks


@st.composite
def resamplings(draw_from):
    size = draw_from(st.integers(2, 40))
    few = st.sampled_from([0.0, 0.25, 0.5, 1.0, -1.0])
    values = st.one_of(few, st.floats(-100, 100, width=32))
    kind = draw_from(st.sampled_from([np.float32, np.float64]))
    scores = draw_from(hnp.arrays(kind, size, elements=draw_from(st.sampled_from([few, values, st.just(0.5)]))))
    bound = draw_from(hnp.arrays(bool, size, elements=draw_from(st.sampled_from([st.booleans(), st.just(False)]))))
    bound[0], bound[-1] = True, False
    cuts = draw_from(st.sets(st.integers(1, size - 1), max_size=6)) if size > 1 else set()
    blocks = Blocks(np.array([0, *sorted(cuts), size]), 1_000_000)
    drawn = draw_from(hnp.arrays(np.int32, (4, len(blocks)), elements=st.integers(0, 3)))
    return scores, bound, blocks, drawn


@settings(deadline=None)
@given(resamplings())
def test_a_resample_has_the_measures_of_its_bins_laid_end_to_end(resampling):
    found, expected = replicates(*resampling), slow_replicates(*resampling)
    for key in MEASURES:
        np.testing.assert_allclose(found.values[key], expected[key], atol=1e-12, rtol=0, equal_nan=True)
    assert found.num_left_out == np.isnan(expected["auroc"]).sum()


@settings(deadline=None)
@given(resamplings())
def test_every_block_once_is_the_figure_itself(resampling):
    scores, bound, blocks, _ = resampling
    found = replicates(scores, bound, blocks, np.ones((1, len(blocks)), np.int32))
    exact = measure(scores, bound).as_dict()
    for key in MEASURES:
        assert found.point[key] == exact[key]
        assert found.values[key][0] == pytest.approx(exact[key], abs=1e-12)


def test_many_ties_and_many_draws_at_once_against_the_bins_themselves(monkeypatch):
    monkeypatch.setattr(bootstrap, "_CELLS_AT_ONCE", 700)  # resamples in several portions
    scores, bound, blocks = peaks(1, num_bins=6000, num_blocks=12)
    scores = np.round(scores, 2)
    drawn = draw(len(blocks), 100, seed=4)[:30]
    found, expected = replicates(scores, bound, blocks, drawn), slow_replicates(scores, bound, blocks, drawn)
    for key in MEASURES:
        np.testing.assert_allclose(found.values[key], expected[key], atol=1e-12, rtol=0)


@pytest.mark.parametrize("prevalence", [0.03, 0.3])
def test_coarse_classes_against_one_class_per_score(monkeypatch, prevalence):
    scores, bound, blocks = peaks(2, prevalence=prevalence)
    drawn = draw(len(blocks), 200)
    with monkeypatch.context() as patch:
        patch.setattr(bootstrap, "_MAX_CLASSES", 1 << 30)
        exact = replicates(scores, bound, blocks, drawn)
    num_scores = len(thresholds(scores, bound).scores)
    monkeypatch.setattr(bootstrap, "_MAX_CLASSES", num_scores // 8)
    coarse = replicates(scores, bound, blocks, drawn)
    assert coarse.point == exact.point
    assert not np.array_equal(coarse.values["auprc"], exact.values["auprc"])
    sharp, rough = intervals(exact), intervals(coarse)
    for key in MEASURES:
        # One class holds up to half a percent of recall here, ten times as much as in a benchmark's 20,000 bound bins.
        tolerance = (0.1 if key.startswith("recall") else 0.02) * (sharp[key].upper - sharp[key].lower)
        assert rough[key].lower == pytest.approx(sharp[key].lower, abs=tolerance)
        assert rough[key].upper == pytest.approx(sharp[key].upper, abs=tolerance)
        if not key.startswith("recall"):
            np.testing.assert_allclose(coarse.values[key], exact.values[key], atol=2 * tolerance, rtol=0)
    once = replicates(scores, bound, blocks, np.ones((1, len(blocks)), np.int32))
    assert {key: value[0] for key, value in once.values.items()} == pytest.approx(exact.point, abs=1e-15)


@pytest.mark.parametrize(
    ("scores", "bound", "auroc", "auprc"),
    [
        pytest.param(np.zeros(60), np.arange(60) % 5 == 0, 0.5, 0.2, id="constant"),
        pytest.param(np.arange(60) % 5 == 0, np.arange(60) % 5 == 0, 1.0, 1.0, id="perfect"),
    ],
)
def test_scores_that_leave_nothing_to_chance(scores, bound, auroc, auprc):
    blocks = even_blocks(60, 6)  # every block has two bound and eight unbound bins
    found = replicates(scores.astype(np.float32), bound, blocks, draw(6, 100))
    assert intervals(found)["auroc"] == bootstrap.Interval(auroc, auroc)
    assert intervals(found)["auprc"].lower == pytest.approx(auprc, abs=1e-15)
    assert intervals(found)["auprc"].upper == pytest.approx(auprc, abs=1e-15)


def test_one_bound_bin_leaves_out_the_resamples_without_it():
    scores, bound = np.arange(40, dtype=np.float32), np.arange(40) == 33
    drawn = draw(10, 500, seed=2)
    found = replicates(scores, bound, even_blocks(40, 10), drawn)
    assert found.num_left_out == (drawn[:, 8] == 0).sum()
    assert 0 < found.num_left_out < 500
    assert not math.isnan(intervals(found)["recall_at_50_fdr"].lower)


def test_intervals_and_differences_against_the_bins_themselves():
    scores, bound, blocks = peaks(3, num_bins=3000, num_blocks=15, prevalence=0.1)
    rival = np.round(scores + np.random.default_rng(0).normal(0, 0.2, len(scores)), 1).astype(np.float32)
    drawn = draw(len(blocks), 100, seed=7)
    first, second = replicates(scores, bound, blocks, drawn), replicates(rival, bound, blocks, drawn)
    ours, theirs = (slow_replicates(which, bound, blocks, drawn) for which in (scores, rival))
    found = differences(("A", first), ("B", second), level=0.8)
    assert [difference.measure for difference in found] == list(MEASURES)
    for difference in found:
        key = difference.measure
        change = ours[key] - theirs[key]
        assert (difference.first, difference.second) == ("A", "B")
        assert difference.value == first.point[key] - second.point[key]
        assert difference.share_above == np.mean(change > 0) + np.mean(change == 0) / 2
        expected = np.percentile(change, [10, 90])
        assert [difference.interval.lower, difference.interval.upper] == pytest.approx(expected, abs=1e-12)
        own = intervals(first, level=0.8)[key]
        assert [own.lower, own.upper] == pytest.approx(np.percentile(ours[key], [10, 90]), abs=1e-12)
    assert found[1].verdict == "better"


def test_a_prediction_does_not_differ_from_itself():
    scores, bound, blocks = peaks(4, num_bins=6000)
    drawn = draw(len(blocks), 100)
    first, second = (replicates(scores, bound, blocks, drawn) for _ in range(2))
    for difference in differences(("A", first), ("again", second)):
        assert difference.value == 0
        assert difference.interval == bootstrap.Interval(0, 0)
        assert difference.share_above == 0.5
        assert difference.verdict == "undecided"


@pytest.mark.slow
def test_intervals_cover_the_truth_and_blocks_are_why():
    # Bound bins of a block share a shift: their score is 1 + 0.8 shift + noise, that of unbound bins noise. So auROC of
    # the whole world is Phi(1 / sqrt(0.64 + 1 + 1)), and of a second prediction without the noise Phi(1 / sqrt(1.64)).
    num_blocks, size, repeats = 50, 40, 200
    truth = NormalDist().cdf(1 / math.sqrt(2.64))
    gain = NormalDist().cdf(1 / math.sqrt(1.64)) - truth
    blocks, rng = even_blocks(num_blocks * size, num_blocks), np.random.default_rng(11)
    inside = {"blocks": 0, "bins": 0, "difference": 0}
    for repeat in range(repeats):
        bound = rng.random(num_blocks * size) < 0.2
        shift = np.repeat(rng.normal(0, 0.8, num_blocks), size)
        better = np.where(bound, 1 + shift, rng.normal(0, 1, len(bound)))
        scores = np.where(bound, 1 + shift + rng.normal(0, 1, len(bound)), rng.normal(0, 1, len(bound)))
        drawn = draw(num_blocks, 200, seed=repeat)
        mixed = rng.permutation(len(bound))  # blocks of bins from everywhere: as if bins were independent
        ours = replicates(scores, bound, blocks, drawn)
        found = intervals(ours)["auroc"]
        inside["blocks"] += found.lower <= truth <= found.upper
        found = intervals(replicates(scores[mixed], bound[mixed], blocks, drawn))["auroc"]
        inside["bins"] += found.lower <= truth <= found.upper
        found = differences(("better", replicates(better, bound, blocks, drawn)), ("A", ours))[0].interval
        inside["difference"] += found.lower <= gain <= found.upper
    # 95 % of 200 is 190, with a standard error of 3; percentile intervals of 50 blocks fall short by a little.
    assert inside["blocks"] >= 180
    assert inside["difference"] >= 180
    assert inside["bins"] < 150


def test_blocks_against_a_walk_along_the_bins():
    rng = np.random.default_rng(6)
    starts = {
        chrom: np.sort(rng.choice(length // 50, count, replace=False)) * 50
        for chrom, length, count in [("chr1", 9_000_000, 40), ("chr2", 600_000, 9), ("chr3", 3_000_000, 30)]
    } | {"chr4": np.zeros(0, np.int64), "chr5": np.array([2_999_950, 3_000_000])}
    names = [(chrom, start // 1_000_000) for chrom, here in starts.items() for start in here.tolist()]
    blocks = blocks_of(starts)
    assert [set(names[part]) for part in blocks.slices()] == [{name} for name in dict.fromkeys(names)]
    assert blocks.edges[-1] == len(names)
    assert len(blocks) == len(set(names))
    assert len(blocks_of({})) == 0
    assert len(blocks_of(starts, 100_000_000)) == 4
    with pytest.raises(ValueError, match="chr1 do not rise"):
        blocks_of({"chr1": np.array([5_000_000, 0])})


def test_a_draw_is_with_replacement_and_repeatable():
    drawn = draw(40, 5000, seed=3)
    assert drawn.shape == (5000, 40)
    assert (drawn.sum(axis=1) == 40).all()
    assert np.array_equal(drawn, draw(40, 5000, seed=3))
    assert not np.array_equal(drawn, draw(40, 5000, seed=4))
    # Multinomial: mean 1, variance 1 - 1/B, covariance -1/B; 5,000 rows give each to a few hundredths.
    covariance = np.cov(drawn, rowvar=False)
    assert drawn.mean(axis=0) == pytest.approx(np.ones(40), abs=0.06)
    assert np.diag(covariance).mean() == pytest.approx(1 - 1 / 40, abs=0.02)
    assert covariance[~np.eye(40, dtype=bool)].mean() == pytest.approx(-1 / 40, abs=0.002)


def test_refusals():
    with pytest.raises(EbertError, match="99 resamples are too few") as refusal:
        draw(40, 99)
    assert refusal.value.hint == "100 or more; 1,000 is usual"
    scores, bound = np.arange(10.0), np.arange(10) > 7
    counts = thresholds(scores, bound)
    for blocks, drawn in [(even_blocks(9, 3), draw(3)), (even_blocks(10, 3), draw(4))]:
        with pytest.raises(ValueError, match="10 scores"):
            replicate_measures(scores, bound, counts, blocks, drawn)


def test_too_few_blocks_with_bound_bins_are_told():
    blocks, bound = even_blocks(100, 10), np.zeros(100, bool)
    bound[[3, 4, 10, 29, 99]] = True
    assert blocks.too_few(bound) == (
        "no confidence intervals: the bound bins lie in 4 of 10 blocks of 1,000,000 bp, and resampling needs 5 blocks "
        "with bound bins"
    )
    bound[50] = True
    assert blocks.too_few(bound) is None


def exact_trapezia(gained, start, above, inside):
    def precision(step):
        called = start + above + step * (1 + Fraction(inside - above, gained))
        return (start + step) / called if called else Fraction(gained, gained + inside - above)

    return float(sum(precision(step) + precision(step + 1) for step in range(gained)) / 2)


@settings(deadline=None)
@given(
    st.integers(1, 60),
    st.one_of(st.integers(0, 30), st.integers(0, 500_000)),
    st.one_of(st.integers(0, 30), st.integers(0, 60_000_000)),
    st.one_of(st.integers(0, 30), st.integers(0, 60_000_000)),
)
def test_trapezia_in_closed_form_against_a_sum_of_fractions(gained, start, above, tied):
    counts = (np.array([float(value)]) for value in (gained, start, above, above + tied))
    exact = exact_trapezia(gained, start, above, above + tied)
    # An area of g trapezia is some part of g; it is divided by all bound bins, at least s + g.
    assert bootstrap._trapezia(*counts)[0] == pytest.approx(exact, abs=1e-12 * (start + gained))
    nothing = (np.array([float(value)]) for value in (0, start, above, above + tied))
    assert bootstrap._trapezia(*nothing)[0] == 0


def test_memory_is_bounded_and_arguments_are_left_alone():
    scores, bound, blocks = peaks(5, num_bins=900_000, num_blocks=45, prevalence=0.003)
    counts, drawn, before = thresholds(scores, bound), draw(45), scores.copy()
    tracemalloc.start()
    replicate_measures(scores, bound, counts, blocks, drawn)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(scores, before)
    assert peak < 64 << 20
