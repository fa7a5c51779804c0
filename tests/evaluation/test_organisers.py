"""The organisers' baseline against scipy's quantiles, scikit-learn's regression, and the whole of it bin by bin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats.mstats import mquantiles
from sklearn.linear_model import LogisticRegression

from ebert_core.evaluation import organisers
from ebert_core.evaluation.organisers import (
    OPEN_SHARE,
    QUANTILES,
    NothingToLearn,
    OpenBins,
    fit_logistic,
    hit_summaries,
    learn,
)
from ebert_core.genome.labels import BOUND, UNBOUND
from ebert_core.vocabulary import BASE_N, reverse_complement

LOG_ODDS = np.log2(np.random.default_rng(3).dirichlet(np.ones(4), 6) / 0.25 + 0.05).astype(np.float32)


def slow_hits(codes, start, log_odds):
    """Scores of all hits within one bin, the better strand."""
    lowest = float(log_odds.min(axis=1).sum())
    out = []
    for at in range(start, start + 201 - len(log_odds)):
        hit = codes[at : at + len(log_odds)]
        strands = [] if (hit == BASE_N).any() else [hit, reverse_complement(hit)]
        scores = [sum(float(row[base]) for row, base in zip(log_odds, strand, strict=True)) for strand in strands]
        out.append(max([lowest, *scores]))
    return np.array(out)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32), st.sampled_from([1, 5, 19, 150, 199, 200]), st.booleans())
def test_hit_summaries_against_scipy(seed, width, with_n):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, 700).astype(np.uint8)
    if with_n:
        codes[300:420] = BASE_N
    log_odds = np.log2(rng.dirichlet(np.ones(4) / 2, width) + 1e-2).astype(np.float32)
    starts = np.sort(rng.choice(np.arange(0, 501, 50), 5, replace=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(organisers, "_BINS_AT_ONCE", 2)
        found = hit_summaries(codes, starts, log_odds)
    assert found.dtype == np.float32
    for row, start in zip(found, starts.tolist(), strict=True):
        hits = slow_hits(codes, start, log_odds)
        expected = [hits.mean(), hits.max(), *mquantiles(hits, prob=QUANTILES)]
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=2e-3)


def theirs(features, bound, ridge):
    model = LogisticRegression(C=1 / ridge, tol=1e-10, max_iter=10_000, solver="newton-cholesky")
    model.fit(features.astype(np.float64), bound)
    return [*model.coef_[0], model.intercept_[0]]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.integers(4, 300), st.integers(1, 8), st.sampled_from([1e-3, 1.0, 50.0]))
def test_logistic_regression_against_scikit_learn(seed, num_rows, num_features, ridge):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_rows, num_features)).astype(np.float32)
    features[:, -1] += features[:, 0]  # features that go together, as quantiles do
    logits = 2 * features @ rng.normal(size=num_features) - 2
    bound = rng.random(num_rows) < 1 / (1 + np.exp(-logits))
    bound[:2] = [True, False]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(organisers, "_ROWS_AT_ONCE", 37)
        weights, intercept = fit_logistic(features, bound, ridge)
    np.testing.assert_allclose([*weights, intercept], theirs(features, bound, ridge), rtol=1e-3, atol=1e-4)
    # At the minimum the loss is flat in every direction, whoever found it.
    left_over = 1 / (1 + np.exp(-(features @ weights + intercept))) - bound
    np.testing.assert_allclose(features.T @ left_over + ridge * weights, 0, atol=1e-4)
    assert left_over.sum() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("case", ["apart", "rare", "constant", "far"])
def test_logistic_regression_of_hard_cases(case):
    rng = np.random.default_rng(1)
    features = rng.normal(size=(2000, 3))
    bound = features[:, 0] > 1  # the classes can be told apart exactly
    if case == "rare":
        bound = np.arange(2000) == 7
    if case == "constant":
        features[:, 1] = 0
    if case == "far":
        features[:20, 2] = 1e3
    found = fit_logistic(features, bound)
    np.testing.assert_allclose([*found[0], found[1]], theirs(features, bound, 1.0), rtol=1e-4, atol=1e-5)


def test_no_convergence_is_told(monkeypatch):
    monkeypatch.setattr(organisers, "_MAX_STEPS", 1)
    with pytest.raises(NothingToLearn, match="did not converge in 1 steps"):
        fit_logistic(np.arange(20.0)[:, None], np.arange(20) % 3 == 0)


@pytest.mark.parametrize("share_of_zeros", [0.98, 0.5])
def test_what_is_open_in_a_track_of_peaks(share_of_zeros):
    rng = np.random.default_rng(5)
    values = np.where(rng.random(70_000) < share_of_zeros + 0.01, 0, rng.random(70_000) + 1e-4).astype(np.float16)
    track = OpenBins.of(values)
    assert not track.is_signal
    strides = np.arange(len(values) - 3)
    is_open, coverage = track.find(values, strides)
    slow = [bool((values[stride : stride + 4] > 0).any()) for stride in strides.tolist()]
    assert is_open.tolist() == slow
    level = np.array([np.log1p(np.expm1(values[i : i + 4].astype(float)).mean()) for i in np.flatnonzero(slow)])
    sampled = level[np.isin(np.flatnonzero(slow), np.arange(0, len(values), 7))]
    np.testing.assert_allclose(coverage, (level - sampled.mean()) / sampled.std(), rtol=1e-3, atol=1e-3)


def test_what_is_open_in_a_track_of_signal():
    values = np.random.default_rng(6).gamma(1, 1, 70_000).astype(np.float16)
    values[::3] = 0
    track = OpenBins.of(values)
    assert track.is_signal
    assert (values >= track.lowest).mean() == pytest.approx(OPEN_SHARE, rel=0.1)
    is_open, coverage = track.find(values, np.array([0, 5, 900]))
    assert is_open.tolist() == [bool((values[i : i + 4] >= track.lowest).any()) for i in (0, 5, 900)]
    assert len(coverage) == is_open.sum()
    # A signal that is the same nearly everywhere: ties are open, zeros never.
    flat = np.ones(700, np.float16)
    flat[:100] = 0
    assert OpenBins.of(flat).find(flat, np.array([0, 96, 97, 300]))[0].tolist() == [False, False, True, True]


def test_a_track_without_any_signal_has_no_open_bin():
    for values in (np.zeros(100, np.float16), np.zeros(2, np.float16)):
        track = OpenBins.of(values)
        assert (track.is_signal, track.mean, track.sd) == (False, 0.0, 1.0)
        is_open, coverage = track.find(np.zeros(100, np.float16), np.arange(90))
        assert not is_open.any()
        assert len(coverage) == 0


class World:
    """Three cell types on two chromosomes; labels of cell type E and of chromosome 2 are not to be read."""

    def __init__(self, seed=11, share_bound=0.2):
        rng = np.random.default_rng(seed)
        self.codes = {chrom: rng.integers(0, 4, 30_000).astype(np.uint8) for chrom in ("1", "2", "3")}
        self.tracks, self.label_codes = {}, {}
        for cell, depth in (("A", 1.0), ("B", 5.0), ("E", 2.0)):
            for chrom in self.codes:
                signal = np.where(rng.random(600) < 0.15, depth * rng.gamma(2, 1, 600), 0)
                self.tracks[cell, chrom] = np.log1p(signal).astype(np.float16)
                labels = np.where(rng.random(600) < share_bound, BOUND, rng.integers(0, 3, 600)).astype(np.uint8)
                labels[-3:] = 0
                self.label_codes[cell, chrom] = labels

    def sequence(self, chrom):
        return self.codes[chrom]

    def accessibility(self, cell, chrom):
        return self.tracks[cell, chrom]

    def flat_accessibility(self, cell):
        return np.concatenate([self.tracks[cell, chrom] for chrom in self.codes])

    def labels(self, tf, cell, chrom):
        assert (tf, cell != "E", chrom != "2") == ("T", True, True)
        return self.label_codes[cell, chrom]


def slow_features(world, cell, chrom, stride):
    """(summaries, ln(1 + mean signal)) of a bin, None where it is closed."""
    four = world.tracks[cell, chrom][stride : stride + 4].astype(float)
    if four.max() == 0:
        return None
    hits = slow_hits(world.codes[chrom], stride * 50, LOG_ODDS)
    return [hits.mean(), hits.max(), *mquantiles(hits, prob=QUANTILES)], np.log1p(np.expm1(four).mean())


def slow_level(world, cell):
    flat = world.flat_accessibility(cell).astype(float)
    windows = [flat[stride : stride + 4] for stride in range(0, len(flat) - 3, 7)]
    levels = [np.log1p(np.expm1(four).mean()) for four in windows if four.max() > 0]
    return np.mean(levels), np.std(levels)


def slow_scores(world, parts, starts):
    """The whole baseline for cell type E, chromosome 2, by scikit-learn."""
    summaries, levels, bound = [], [], []
    for cell, chrom in parts:
        mean, sd = slow_level(world, cell)
        for stride, label in enumerate(world.label_codes[cell, chrom].tolist()):
            if label in (UNBOUND, BOUND) and (found := slow_features(world, cell, chrom, stride)):
                summaries.append(found[0])
                levels.append((found[1] - mean) / sd)
                bound.append(label == BOUND)
    summaries = np.array(summaries)
    centre, scale = summaries.mean(axis=0), summaries.std(axis=0)
    features = np.column_stack([(summaries - centre) / scale, levels])
    *weights, intercept = theirs(features, np.array(bound), 1.0)
    mean, sd = slow_level(world, "E")
    out = []
    for start in starts.tolist():
        found = slow_features(world, "E", "2", start // 50)
        if found is None:
            out.append(0.0)
        else:
            logit = np.append((np.array(found[0]) - centre) / scale, (found[1] - mean) / sd) @ weights + intercept
            out.append(1 / (1 + np.exp(-logit)))
    return np.array(out), len(bound)


def test_the_whole_baseline_against_a_slow_one():
    world, starts = World(), np.arange(0, 29_800, 50)
    parts = [("A", "1"), ("A", "3"), ("B", "1")]
    model = learn(world, "T", {"A": ("1", "3"), "B": ("1",)}, LOG_ODDS)
    found = model.scores(world, "E", "2", starts, OpenBins.of(world.flat_accessibility("E")))
    expected, num_bins = slow_scores(world, parts, starts)
    assert num_bins > 300
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-5)
    assert ((found == 0) == (expected == 0)).all()
    assert 0.2 < (found > 0).mean() < 0.8


def test_bins_to_learn_from_are_evenly_spread(monkeypatch):
    world = World()
    learned = []

    def remember(log_odds, summaries, accessibility, bound):
        learned.append((summaries, accessibility, bound))

    monkeypatch.setattr(organisers, "_fit", remember)
    chroms = {"A": ("1", "3"), "B": ("3",)}
    learn(world, "T", chroms, LOG_ODDS)
    num_bins = len(learned[0][2])
    for most in (1, 7, num_bins - 1, num_bins):
        monkeypatch.setattr(organisers, "MAX_TRAINING_BINS", most)
        learn(world, "T", chroms, LOG_ODDS)
        taken = [number * num_bins // most for number in range(most)]
        assert len(set(taken)) == most
        for all_of_them, some in zip(learned[0], learned[-1], strict=True):
            np.testing.assert_array_equal(some, all_of_them[taken])


@pytest.mark.parametrize(("share_bound", "what"), [(0.0, "bound"), (1.0, "unbound")])
def test_nothing_to_learn(share_bound, what):
    with pytest.raises(NothingToLearn, match=f"open bins to learn from is {what}$"):
        learn(World(share_bound=share_bound), "T", {"A": ("1",)}, LOG_ODDS)


def test_nothing_open_to_learn_from():
    world = World()
    world.tracks = {key: np.zeros_like(track) for key, track in world.tracks.items()}
    with pytest.raises(NothingToLearn, match="none of the 0 open bins"):
        learn(world, "T", {"A": ("1",)}, LOG_ODDS)
