"""Random words by counter, against SplitMix64 in Python's own integers."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from ebert_core.data.randomness import StepKey, below, high_half, low_half, random_words, step_key

ALL = 2**64 - 1


def splitmix(counter, mixed, number):
    """Python's integers have no sign and no end: everything is cut to 64 bits by hand."""
    z = (counter + 0x9E3779B97F4A7C15 * number) & ALL
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & ALL
    z ^= mixed & ALL
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & ALL
    return z ^ (z >> 31)


@given(st.integers(0, ALL), st.integers(0, ALL), st.integers(0, ALL), st.integers(0, 2**62))
def test_words_equal_python_integers(seed, stream, step, first):
    key = step_key(seed, stream, step)
    counters = np.arange(first, first + 20).reshape(4, 5)
    words = random_words(key, counters)
    expected = [splitmix(key.counter & ALL, key.mixed, number) for number in range(first, first + 20)]
    assert [word & ALL for word in words.ravel().tolist()] == expected
    assert torch.equal(random_words(key, torch.from_numpy(counters)), torch.from_numpy(words))
    assert (high_half(words) << 32 | low_half(words)).tolist() == words.tolist()
    assert high_half(words).min() >= 0


def test_without_the_second_key_it_is_the_published_generator():
    # The first outputs of the authors' C code with seed 1234567.
    words = random_words(StepKey(1234567, 0), np.arange(1, 6))
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [word & ALL for word in words.tolist()][:4] == published


def test_keys_differ():
    keys = {step_key(seed, stream, step) for seed in range(5) for stream in range(5) for step in range(5)}
    assert len(keys) == 125
    assert len({number for key in keys for number in key}) == 250


def test_words_are_even():
    words = random_words(step_key(0, 0, 0), np.arange(200_000))
    assert len(np.unique(words)) == len(words)
    # Each bit is set half of the time, and neighbours' bits do not agree more often than not.
    bits = (words[:, None] >> np.arange(64)) & 1
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(len(words))
    assert np.abs((bits[1:] == bits[:-1]).mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(len(words))
    counts = np.bincount(below(low_half(words), 100), minlength=100)
    assert ((counts - 2_000) ** 2 / 2_000).sum() < 160  # 99 degrees of freedom: above it once in 10^4


@given(st.integers(1, 2**31), st.integers(0, 2**32 - 1))
def test_below_stays_below(limit, number):
    assert below(np.array([number]), limit).tolist() == [number * limit // 2**32]
    assert below(np.array([2**32 - 1]), limit).tolist() == [limit - 1 if limit > 1 else 0]
