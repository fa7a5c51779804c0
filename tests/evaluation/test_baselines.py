"""Baselines against counting by hand, bin by bin; and what they say where they cannot be had."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebert_core.evaluation import motif_hits
from ebert_core.evaluation.baselines import _PRIOR_BINS, _QUANTILES, Baseline, Setting, Unavailable, baselines
from ebert_core.evaluation.motif_hits import best_hits, hit_scores
from ebert_core.genome.labels import AMBIGUOUS, BOUND, UNBOUND, UNLABELLED
from ebert_core.vocabulary import BASE_N, reverse_complement

MEME = """MEME version 4

ALPHABET= ACGT

MOTIF MA1.1 CTCF
letter-probability matrix: alength= 4 w= 4
0.0 0.9 0.1 0.0
0.1 0.8 0.0 0.1
0.7 0.1 0.1 0.1
0.0 0.5 0.5 0.0
"""


@pytest.fixture
def meme(tmp_path):
    path = tmp_path / "m.meme"
    path.write_text(MEME)
    return path


def setting(dataset, **changes):
    values = {"tf": "CTCF", "cell": "HepG2", "chroms": ("chr2",), "prevalence": 0.01, "dataset": dataset, **changes}
    return Setting(**values)


def one(name, **values):
    return next(each for each in baselines(setting(**values)) if each.name == name)


def bins(dataset, tf="CTCF", cell="HepG2", chrom="chr2"):
    return np.flatnonzero(dataset.labels(tf, cell, chrom) != UNLABELLED) * 50


def slow_hit_scores(codes, starts, log_odds):
    lowest = log_odds.min(axis=1).sum()
    out = []
    for start in starts.tolist():
        scores = []
        for at in range(start, start + 201 - len(log_odds)):
            hit = codes[at : at + len(log_odds)]
            best = lowest
            for strand in () if (hit == BASE_N).any() else (hit, reverse_complement(hit)):
                best = max(best, sum(row[base] for row, base in zip(log_odds, strand.tolist(), strict=True)))
            scores.append(best)
        out.append(scores)
    return np.array(out)


def slow_best_hits(codes, starts, log_odds):
    return slow_hit_scores(codes, starts, log_odds).max(axis=1)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32), st.integers(200, 700), st.sampled_from([1, 2, 4, 5, 6, 19, 50, 51, 101, 200]), st.booleans()
)
def test_hits_against_every_position(seed, length, width, with_n):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, length).astype(np.uint8)
    if with_n:
        start = int(rng.integers(0, length))
        codes[start : start + int(rng.integers(1, 300))] = BASE_N
    log_odds = np.log2(rng.dirichlet(np.ones(4) / 2, width) + 1e-3).astype(np.float32)
    starts = np.arange(0, length - 199, 50, dtype=np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(motif_hits, "_STRIDES_AT_ONCE", 3)
        found = best_hits(codes, starts, log_odds)
    assert found.dtype == np.float32
    slow = slow_hit_scores(codes, starts, log_odds)
    np.testing.assert_allclose(found, slow.max(axis=1), rtol=1e-4, atol=1e-3)
    some = starts[1::2]
    np.testing.assert_array_equal(best_hits(codes, some, log_odds), found[1::2])
    every = hit_scores(codes, some, log_odds)
    assert every.dtype == np.float32
    assert every.shape == (len(some), 201 - width)
    np.testing.assert_allclose(every, slow[1::2].reshape(every.shape), rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(every.max(axis=1), found[1::2])


def test_a_bin_of_n_gets_the_lowest_score():
    log_odds = np.array([[1, -1, -2, 0.5], [0, -3, 1, 2]], np.float32)
    codes = np.full(250, BASE_N, np.uint8)
    assert best_hits(codes, np.array([0, 50]), log_odds).tolist() == [-5, -5]
    codes[249] = 0  # one base is not enough for a hit of two
    assert best_hits(codes, np.array([50]), log_odds).tolist() == [-5]
    assert (hit_scores(codes, np.array([50]), log_odds) == -5).all()
    for scan in (best_hits, hit_scores):
        with pytest.raises(ValueError, match="does not fit a bin"):
            scan(codes, np.array([0]), np.zeros((201, 4), np.float32))


def test_prevalence_is_constant():
    made = one("prevalence", dataset=None, prevalence=0.25)
    assert made.scores("anything", np.arange(3) * 50).tolist() == [0.25] * 3


def test_motif_of_the_tf_by_name(toy_dataset, meme):
    made = one("best motif hit", dataset=toy_dataset, motifs_path=meme)
    assert "CTCF (MA1.1)" in made.note
    starts = bins(toy_dataset)[::37]
    odds = np.log2(
        (0.99 * np.array([[float(x) for x in line.split()] for line in MEME.splitlines()[6:]]) + 0.0025) / 0.25
    )
    expected = slow_best_hits(toy_dataset.sequence("chr2"), starts, odds)
    np.testing.assert_allclose(made.scores("chr2", starts), expected, rtol=1e-4, atol=1e-4)


def test_accessibility_is_the_highest_stride(toy_dataset):
    made = one("accessibility", dataset=toy_dataset)
    starts = bins(toy_dataset)
    track = toy_dataset.accessibility("HepG2", "chr2")
    expected = [track[start // 50 : start // 50 + 4].max() for start in starts.tolist()]
    np.testing.assert_array_equal(made.scores("chr2", starts), np.array(expected, np.float32))


def counted(dataset, key):
    """bound and unbound bins of GM12878 on chr1 by key(stride), one bin at a time."""
    numbers = {}
    for stride, label in enumerate(dataset.labels("CTCF", "GM12878", "chr1").tolist()):
        if label in (BOUND, UNBOUND):
            numbers.setdefault(key(stride), [0, 0])[label == BOUND] += 1
    return numbers


def test_state_frequency(toy_dataset):
    made = one("state frequency", dataset=toy_dataset)
    assert made.note.endswith("learned in GM12878 on chr1")
    training = toy_dataset.states("GM12878", "chr1")
    numbers = counted(toy_dataset, lambda stride: training[(stride * 50 + 100) // 200])
    overall = sum(bound for _, bound in numbers.values()) / sum(map(sum, numbers.values()))
    assert overall > 0
    starts = bins(toy_dataset)
    own = toy_dataset.states("HepG2", "chr2")
    expected = []
    for start in starts.tolist():
        unbound, bound = numbers.get(own[(start + 100) // 200], (0, 0))
        expected.append((bound + overall) / (bound + unbound + 1))
    np.testing.assert_allclose(made.scores("chr2", starts), expected, rtol=1e-5)


def test_accessibility_by_state(toy_dataset):
    made = one("accessibility x state", dataset=toy_dataset)

    def classes(cell, chrom):
        edges = np.quantile(toy_dataset.flat_accessibility(cell)[::7].astype(np.float32), _QUANTILES).astype(np.float32)
        track, states = toy_dataset.accessibility(cell, chrom), toy_dataset.states(cell, chrom)

        def key(stride):
            highest = np.float32(track[stride : stride + 4].max())
            return sum(bool(edge < highest) for edge in edges), states[(stride * 50 + 100) // 200]

        return key

    numbers = counted(toy_dataset, classes("GM12878", "chr1"))
    overall = sum(bound for _, bound in numbers.values()) / sum(map(sum, numbers.values()))
    starts, own, expected = bins(toy_dataset), classes("HepG2", "chr2"), []
    for start in starts.tolist():
        level, state = own(start // 50)
        here = [pair for (other, _), pair in numbers.items() if other == level]
        bound, total = sum(pair[1] for pair in here), sum(map(sum, here))
        prior = (bound + overall) / (total + 1)
        unbound, bound = numbers.get((level, state), (0, 0))
        expected.append((bound + _PRIOR_BINS * prior) / (bound + unbound + _PRIOR_BINS))
    np.testing.assert_allclose(made.scores("chr2", starts), expected, rtol=1e-5)
    assert len(set(expected)) > 20


def test_mean_of_training_cells(toy_dataset):
    made = one("mean of training cells", dataset=toy_dataset)
    starts = bins(toy_dataset)
    values = {UNBOUND: 0.0, AMBIGUOUS: 0.5, BOUND: 1.0}
    expected = [values[label] for label in toy_dataset.labels("CTCF", "GM12878", "chr2")[starts // 50].tolist()]
    np.testing.assert_array_equal(made.scores("chr2", starts), np.array(expected, np.float32))
    assert set(expected) == {0.0, 0.5, 1.0}


def test_organisers_logistic(toy_dataset, meme):
    made = one("organisers' logistic", dataset=toy_dataset, motifs_path=meme)
    # GM12878 has peaks, HepG2 a bigWig; test_organisers.py has the figures.
    assert made.note == (
        "logistic in the hits of CTCF (MA1.1) and mean accessibility, 0 outside the most accessible 2% of strides, "
        "learned in GM12878 on chr1"
    )
    scores = made.scores("chr2", bins(toy_dataset))
    assert 0 < (scores > 0).mean() < 0.2
    assert scores.max() < 1
    assert len(set(scores.tolist())) > 10
    other = one("organisers' logistic", dataset=toy_dataset, motifs_path=meme, cell="GM12878", chroms=("chr1",))
    assert "0 outside accessibility peaks, learned in HepG2 on chr2" in other.note


class OnlyLabels:
    """A dataset of three cell types with labels and nothing else."""

    has_sequence = True
    state_model = None
    state_cells = accessibility_cells = ()
    label_pairs = (("CTCF", "A"), ("CTCF", "B"), ("CTCF", "C"), ("MAX", "D"))

    def assayed_chroms(self, tf, cell):
        return ("chr1", "chr2") if cell != "C" else ("chr1",)

    def labels(self, tf, cell, chrom):
        return np.array({"B": [3, 3, 1, 0], "C": [1, 2, 0, 0]}[cell], np.uint8)


def test_mean_over_cells_that_were_assayed():
    made = one("mean of training cells", dataset=OnlyLabels(), cell="A", chroms=("chr1", "chr2"))
    starts = np.array([0, 50, 100, 150])
    assert made.scores("chr1", starts).tolist() == [0.5, 0.75, 0, 0]
    assert made.scores("chr2", starts).tolist() == [1, 1, 0, 0]
    chosen = one("mean of training cells", dataset=OnlyLabels(), cell="A", chroms=("chr1",), training_cells=("C", "X"))
    assert chosen.scores("chr1", starts).tolist() == [0, 0.5, 0, 0]
    gone = one("mean of training cells", dataset=OnlyLabels(), cell="A", chroms=("chr2",), training_cells=("C",))
    assert gone.reason == "chr2 has no CTCF labels in another cell type"


def reasons(**values):
    return {each.name: each.reason for each in baselines(setting(**values)) if isinstance(each, Unavailable)}


def test_reasons(toy_dataset, meme):
    no_file = "no motif file; give one with --motifs"
    assert reasons(dataset=toy_dataset) == {"best motif hit": no_file, "organisers' logistic": no_file}
    without = reasons(dataset=None)
    assert len(without) == 6
    assert set(without.values()) == {"no dataset; name one with --dataset"}
    bare = reasons(dataset=OnlyLabels(), cell="A", chroms=("chr1",))
    assert bare["accessibility"] == "the dataset has no accessibility of A"
    assert bare["state frequency"] == bare["accessibility x state"] == "the dataset has no states of A"
    lonely = reasons(dataset=OnlyLabels(), tf="MAX", cell="D", chroms=("chr1",))
    assert lonely["mean of training cells"] == "no other cell type has MAX labels"
    assert reasons(dataset=toy_dataset, tf="REST", motifs_path=meme)["best motif hit"] == "m.meme has no motif of REST"
    everywhere = reasons(dataset=toy_dataset, chroms=("chr1", "chr2"))
    assert everywhere["state frequency"].startswith("every labelled chromosome is evaluated")
    no_tracks = reasons(dataset=toy_dataset, training_cells=())
    assert no_tracks["state frequency"] == "no other cell type has CTCF labels to learn from"
    assert reasons(dataset=toy_dataset, cell="MyCell")["accessibility"] == "the dataset has no accessibility of MyCell"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tf": "REST"}, "m.meme has no motif of REST"),
        ({"cell": "MyCell"}, "the dataset has no accessibility of MyCell"),
        ({"chroms": ("chr1", "chr2")}, "every labelled chromosome is evaluated, so none is left to learn from"),
        ({"training_cells": ()}, "no other cell type has CTCF labels to learn from"),
    ],
)
def test_reasons_of_the_organisers_logistic(toy_dataset, meme, changes, reason):
    assert reasons(dataset=toy_dataset, motifs_path=meme, **changes)["organisers' logistic"] == reason


def test_organisers_logistic_without_a_cell_type_to_learn_in(toy_dataset, meme, monkeypatch):
    monkeypatch.setattr(type(toy_dataset), "accessibility_cells", ("HepG2",))
    found = reasons(dataset=toy_dataset, motifs_path=meme)
    assert found["organisers' logistic"] == "none of GM12878 has accessibility to learn from"


def test_organisers_logistic_without_bound_bins(toy_dataset, meme, monkeypatch):
    learned = toy_dataset.labels("CTCF", "GM12878", "chr1")
    monkeypatch.setattr(toy_dataset, "labels", lambda *_: np.where(learned == BOUND, AMBIGUOUS, learned))
    found = reasons(dataset=toy_dataset, motifs_path=meme)
    assert found["organisers' logistic"].endswith("open bins to learn from is bound")


def test_a_motif_longer_than_a_bin(toy_dataset, tmp_path):
    path = tmp_path / "long.meme"
    path.write_text("MEME version 4\nMOTIF X CTCF\nletter-probability matrix: w= 201\n" + "0.25 0.25 0.25 0.25\n" * 201)
    found = reasons(dataset=toy_dataset, motifs_path=path)
    assert found["best motif hit"] == found["organisers' logistic"] == "the motif CTCF (X) is longer than a bin"


def test_order_and_kinds(toy_dataset, meme):
    made = baselines(setting(toy_dataset, motifs_path=meme))
    assert [each.name for each in made] == [
        "prevalence", "best motif hit", "accessibility", "state frequency", "accessibility x state",
        "mean of training cells", "organisers' logistic",
    ]  # fmt: skip
    starts = bins(toy_dataset)
    for each in made:
        assert isinstance(each, Baseline)
        scores = each.scores("chr2", starts)
        assert scores.dtype == np.float32
        assert scores.shape == starts.shape
        assert np.isfinite(scores).all()
    assert dataclasses.is_dataclass(made[0])


def test_a_dataset_without_sequence_has_no_motif_baselines(toy_dataset, meme, monkeypatch):
    monkeypatch.setattr(type(toy_dataset), "has_sequence", False)
    for name in ("best motif hit", "organisers' logistic"):
        found = one(name, dataset=toy_dataset, motifs_path=meme)
        assert isinstance(found, Unavailable)
        assert "holds no sequence" in found.reason
