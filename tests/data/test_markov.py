"""The plain baselines, against counting by hand and against what a known chain must give."""

from __future__ import annotations

import collections
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebert_core.data.markov import (
    MarkovChain,
    contexts,
    markov_baseline,
    neighbour_accuracy,
    neighbour_states,
)
from ebert_core.data.masking import IGNORED

WINDOWS = st.lists(
    st.lists(st.sampled_from([0, 1, 2, 3, 3, 3, 4]), min_size=12, max_size=12), min_size=1, max_size=6
).map(lambda rows: np.array(rows, dtype=np.uint8))


def context_of(row, place, order):
    """The bases before a place, up to the window's start or an N."""
    found = []
    for before in range(place - 1, max(-1, place - 1 - order), -1):
        if row[before] == 4:
            break
        found.append(int(row[before]))
    return tuple(reversed(found))


@given(WINDOWS, st.integers(0, 8))
def test_contexts(windows, order):
    codes, lengths = contexts(windows, order)
    for b, row in enumerate(windows):
        for place in range(len(row)):
            bases = context_of(row, place, order)
            assert lengths[b, place] == len(bases)
            assert codes[b, place] == int("".join(map(str, bases)) or "0", 4)


@settings(deadline=None)
@given(WINDOWS, st.integers(0, 4))
def test_probabilities_equal_counting_by_hand(windows, order):
    counts = collections.Counter()
    for row in windows:
        for place in range(len(row)):
            bases = context_of(row, place, order)
            if len(bases) == order and row[place] < 4:
                for length in range(order + 1):
                    counts[bases[order - length :], int(row[place])] += 1

    def probability(bases, base):
        shorter = probability(bases[1:], base) if bases else 0.25
        total = sum(counts[bases, other] for other in range(4))
        return (counts[bases, base] + 128 * shorter) / (total + 128)

    chain = MarkovChain.fit(windows, order)
    assert [table.shape for table in chain.tables] == [(4**length, 4) for length in range(order + 1)]
    for table in chain.tables:
        np.testing.assert_allclose(table.sum(axis=1), 1, rtol=1e-5)
    hidden = np.random.default_rng(0).random(windows.shape) < 0.4
    said = [
        -math.log2(probability(context_of(row, place, order), int(row[place])))
        for row, asked in zip(windows, hidden, strict=True)
        for place in np.flatnonzero(asked & (row < 4))
    ]
    found = chain.bits(windows, hidden, order)
    assert found == pytest.approx(np.mean(said), rel=1e-5) if said else math.isnan(found)


def chain_of_order_two(rng, rows, length):
    """A base follows the two before it with probability 0.85; the entropy of each is known."""
    windows = rng.integers(0, 4, size=(rows, length), dtype=np.uint8)
    follows = rng.random((rows, length)) < 0.8
    for place in range(2, length):
        said = (windows[:, place - 1] * 3 + windows[:, place - 2] + 1) % 4
        windows[follows[:, place], place] = said[follows[:, place]]
    return windows


def test_a_known_chain_is_found():
    rng = np.random.default_rng(0)
    train, held_out = chain_of_order_two(rng, 400, 500), chain_of_order_two(rng, 100, 500)
    hidden = rng.random(held_out.shape) < 0.15
    baseline = markov_baseline(train, held_out, hidden, orders=range(0, 7))
    entropy = -(0.85 * math.log2(0.85) + 0.15 * math.log2(0.05))
    assert baseline.order == 2
    assert baseline.bits_per_base == pytest.approx(entropy, abs=0.03)
    assert MarkovChain.fit(train, 1).bits(held_out, hidden, 1) > entropy + 0.2


def test_random_bases_take_two_bits():
    rng = np.random.default_rng(1)
    windows = rng.integers(0, 4, size=(200, 300), dtype=np.uint8)
    baseline = markov_baseline(windows[:150], windows[150:], rng.random((50, 300)) < 0.2)
    assert baseline.order == 3
    assert baseline.bits_per_base == pytest.approx(2, abs=0.02)


def test_the_true_bases_are_used_and_not_those_to_the_right():
    rng = np.random.default_rng(2)
    windows = chain_of_order_two(rng, 50, 200)
    chain = MarkovChain.fit(windows, 2)
    hidden = np.zeros_like(windows, dtype=bool)
    hidden[:, 100] = True
    bits = chain.bits(windows, hidden, 2)
    right = windows.copy()
    right[:, 101:] = 0
    assert chain.bits(right, hidden, 2) == bits
    left = windows.copy()
    left[:, 98] = (left[:, 98] + 1) % 4
    assert chain.bits(left, hidden, 2) > bits + 0.3


def test_nothing_to_score():
    windows = np.full((2, 10), 4, dtype=np.uint8)
    assert math.isnan(MarkovChain.fit(windows, 3).bits(windows, windows == 4, 3))


@given(
    st.lists(st.lists(st.integers(0, 4), min_size=7, max_size=7), min_size=1, max_size=5).map(
        lambda rows: np.array(rows, dtype=np.uint8)
    )
)
def test_nearest_shown_state(shown):
    """States 1 to 3; 0 is unknown and 4 masked."""
    found = neighbour_states(shown, 3)
    everywhere = [state for state in shown.ravel().tolist() if 1 <= state <= 3]
    common = max((1, 2, 3), key=lambda state: (everywhere.count(state), -state))
    for row, said in zip(shown.tolist(), found.tolist(), strict=True):
        known = [place for place, state in enumerate(row) if 1 <= state <= 3]
        for place in range(7):
            nearest = min(known, key=lambda other: (abs(other - place), other), default=None)
            assert said[place] == (common if nearest is None else row[nearest])


def test_accuracy_of_the_neighbour():
    shown = np.array([[1, 4, 4, 2, 0], [0, 0, 0, 0, 0], [3, 3, 4, 1, 1]], dtype=np.uint8)
    index = np.array([1, 2, 4, 7, 12])
    # Said: 1, 2, 2, then 1 and 3 (the commonest state is 1); the third does not count.
    targets = np.array([0, 2, IGNORED, 0, 2])
    assert neighbour_accuracy(shown, index, targets, 3) == 0.75
    assert math.isnan(neighbour_accuracy(shown, index[:1], np.array([IGNORED]), 3))
