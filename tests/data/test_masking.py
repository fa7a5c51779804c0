"""Which places are hidden: exactly so many, in runs of the asked length, no place more often than another."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebert_core.data.masking import HiddenRuns, gap_table, hidden_count


def drawn(runs, rows, seed=0):
    rng = np.random.default_rng(seed)
    words = rng.integers(-(2**63), 2**63, size=(rows, runs.num_words))
    return words, rng.integers(0, 2**32, size=(rows, 1))


def as_mask(places, length):
    mask = np.zeros((len(places), length), dtype=bool)
    np.put_along_axis(mask, places, True, axis=1)
    return mask


def circular_runs(mask):
    """Lengths of all runs, those across the end joined; no row may be all hidden."""
    lengths = []
    for row in mask:
        free = int(np.flatnonzero(~row)[0])
        parts = "".join("x" if hidden else " " for hidden in np.roll(row, -free)).split()
        lengths += [len(part) for part in parts]
    return np.array(lengths)


@pytest.mark.parametrize(
    ("rate", "length", "count"),
    [(0, 100, 0), (0.15, 100, 15), (0.15, 200, 30), (0.15, 500, 75), (0.15, 10, 2), (0.15, 2, 1), (0.001, 5, 1),
     (0.25, 10, 3), (0.99, 10, 10)],
)  # fmt: skip
def test_the_count(rate, length, count):
    assert hidden_count(rate, length) == count


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.floats(0, 0.99), st.floats(1, 50), st.integers(1, 300))
def test_exactly_so_many_distinct_places(seed, rate, mean, length):
    runs = HiddenRuns(rate, mean, length)
    places = runs.places(*drawn(runs, 20, seed))
    assert places.shape == (20, runs.count)
    assert places.dtype == np.int64
    if runs.count:
        assert places.min() >= 0
        assert places.max() < length
        assert all(len(set(row)) == runs.count for row in places.tolist())


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.floats(0.01, 0.9), st.floats(1, 20), st.integers(2, 80))
def test_equal_to_fractions_one_window_at_a_time(seed, rate, mean, length):
    """The same law by exact fractions; fixed point may move one place in about 10^6 by one."""
    runs = HiddenRuns(rate, mean, length)
    words, turns = drawn(runs, 10, seed)
    table = gap_table(mean).tolist()
    for word, turn, found in zip(words.tolist(), turns[:, 0].tolist(), runs.places(words, turns).tolist(), strict=True):
        bits = [(number >> (12 * part)) % 4_096 for number in word for part in range(5)][: runs.count]
        gaps = [table[index] for index in bits]
        first, expected = turn * length // 2**32, []
        for place in range(runs.count):
            share = Fraction(sum(gaps[: place + 1]), sum(gaps) or 1)
            expected.append((first + place + int(share * (length - runs.count))) % length)
        assert found == expected


@pytest.mark.parametrize("mean", [1.0, 2.0, 5.0, 40.0])
@pytest.mark.parametrize("length", [10, 100])
def test_no_place_is_favoured(mean, length):
    rows = 100_000
    places = HiddenRuns(0.15, mean, length).places(*drawn(HiddenRuns(0.15, mean, length), rows, 1))
    # One hidden place of each window, so that the draws are independent: even over all places, edges included.
    one = places[np.arange(rows), np.arange(rows) % places.shape[1]]
    counts = np.bincount(one, minlength=length)
    expected = rows / length
    # Twice the degrees of freedom or more is met less than once in 10^4 draws, by the tail of chi-square.
    assert ((counts - expected) ** 2 / expected).sum() < {10: 34, 100: 160}[length]
    share = as_mask(places, length).mean(axis=0)
    rate = hidden_count(0.15, length) / length
    assert np.abs(share - rate).max() < 5 * np.sqrt(rate * (1 - rate) / rows)


@pytest.mark.parametrize("mean", [1.0, 2.0, 6.0])
def test_runs_are_geometric(mean):
    runs = HiddenRuns(0.03, mean, 4_000)  # so few that runs seldom touch, so many that none is all of them
    lengths = circular_runs(as_mask(runs.places(*drawn(runs, 400, 2)), 4_000))
    assert lengths.mean() == pytest.approx(mean, rel=0.08)
    for length in (1, 2, 3):
        expected = (1 - 1 / mean) ** (length - 1) / mean
        assert (lengths == length).mean() == pytest.approx(expected, abs=0.04)


def test_at_the_usual_rate_runs_are_about_as_long():
    runs = HiddenRuns(0.15, 2.0, 500)
    lengths = circular_runs(as_mask(runs.places(*drawn(runs, 400, 3)), 500))
    assert 2.0 < lengths.mean() < 2.3  # some touch


def test_gaps_are_exponential():
    """Visible stretches between runs of one: as 15 random numbers cut a circle of 85 places."""
    runs = HiddenRuns(0.15, 1.0, 100)
    mask = as_mask(runs.places(*drawn(runs, 4_000, 4)), 100)
    lengths = circular_runs(~mask)
    # A piece is longer than g with probability (1 - g / 85)^14; rounded down to places it is 10 where g is 9 to 10.
    longer = (lengths >= 10).sum() / (4_000 * 15)
    assert longer == pytest.approx((1 - 9.5 / 85) ** 14, rel=0.03)


@pytest.mark.parametrize("rate", [0.0, 0.15, 0.6])
def test_tensors_give_the_same_places(rate):
    runs, of_tensors = HiddenRuns(rate, 3.0, 77), HiddenRuns(rate, 3.0, 77, torch.from_numpy)
    words, turns = drawn(runs, 50, 5)
    found = of_tensors.places(torch.from_numpy(words), torch.from_numpy(turns))
    assert torch.equal(found, torch.from_numpy(runs.places(words, turns)))


def test_the_table_of_gaps():
    for mean in (1.0, 2.0, 3.3, 100.0, 1e9):
        table = gap_table(mean)
        assert (table > 0).mean() == pytest.approx(max(1 / mean, 1 / 4_096), abs=1 / 4_096)
        positive = table[table > 0] / 4_096
        assert (np.diff(positive) >= 0).all()
        if len(positive) > 1_000:
            assert positive.mean() == pytest.approx(1, rel=0.01)
            assert np.median(positive) == pytest.approx(np.log(2), rel=0.01)
