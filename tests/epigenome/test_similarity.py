"""Likeness of cell types: scikit-learn's homogeneity is the same measure, under another name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import homogeneity_score

from ebert_core.epigenome.similarity import explained_share, open_bins, openness_explained, states_explained

CODES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 18)), min_size=2, max_size=60)


@settings(deadline=None)
@given(CODES)
def test_explained_share_equals_scikit_learns_homogeneity(pairs):
    asked, given_ = (np.array(column, dtype=np.uint8) for column in zip(*pairs, strict=True))
    expected = homogeneity_score(asked, given_) if len(set(asked.tolist())) > 1 else 0.0
    assert explained_share(asked, given_) == pytest.approx(expected, abs=1e-9)


def test_the_ends_of_the_scale():
    asked = np.array([0, 1, 2, 0, 1, 2])
    assert explained_share(asked, asked[::-1]) == pytest.approx(explained_share(asked[::-1], asked))
    assert explained_share(asked, asked + 5) == pytest.approx(1)
    assert explained_share(asked, np.zeros(6, dtype=int)) == 0
    assert explained_share(np.zeros(6, dtype=int), asked) == 0
    assert explained_share(asked[:0], asked[:0]) == 0


def test_open_bins_of_peaks_and_of_a_signal_are_the_strongest():
    rng = np.random.default_rng(3)
    peaks = np.zeros(4_000, dtype=np.float16)
    peaks[[8, 400, 401, 2_003]] = [3, 1, 2, 5]
    assert np.flatnonzero(open_bins(peaks)).tolist() == [2, 100, 500]
    signal = rng.gamma(1, 2, size=4_000).astype(np.float16)
    found = open_bins(signal)
    strongest = signal.reshape(-1, 4).max(axis=1)
    assert 20 <= found.sum() <= 25
    assert strongest[found].min() > strongest[~found].max()
    assert not open_bins(np.zeros(40, dtype=np.float16)).any()
    assert open_bins(np.ones(4, dtype=np.float16)).tolist() == [True]


def test_unknown_states_are_left_out():
    asked = np.array([1, 2, 1, 2, 0, 1], dtype=np.uint8)
    other = np.array([3, 4, 3, 4, 4, 0], dtype=np.uint8)
    assert states_explained(asked, other) == pytest.approx(1)
    assert openness_explained(asked == 1, other) == pytest.approx(1)
    assert states_explained(asked, np.zeros(6, dtype=np.uint8)) == 0
