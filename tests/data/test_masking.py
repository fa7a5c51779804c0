"""What is hidden from the model: at the asked rate, truly hidden, and nothing else changed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebert_core.config import MaskingConfig
from ebert_core.data.masking import mask_batch, random_spans
from ebert_core.data.windows import Batch
from ebert_core.vocabulary import BASE_MASKED

STATES = 18


def random_batch(seed, rows=8, window_bp=2_000, unknown=0.2):
    rng = np.random.default_rng(seed)
    bases = rng.choice(np.array([0, 1, 2, 3, 4], dtype=np.uint8), size=(rows, window_bp), p=[0.3, 0.2, 0.2, 0.28, 0.02])
    states = rng.integers(1, STATES + 1, size=(rows, window_bp // 200), dtype=np.uint8)
    states[rng.random(states.shape) < unknown] = 0
    return Batch(bases, states)


def generator(seed=0):
    return np.random.Generator(np.random.Philox(seed))


@pytest.mark.parametrize("mean", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("rate", [0.02, 0.15, 0.5, 0.8])
def test_the_rate_within_sampling_error(rate, mean):
    masks = random_spans(generator(), (400, 600), rate, mean)
    # Rows are independent; a row's share scatters by its own standard error.
    shares = masks.mean(axis=1)
    error = shares.std(ddof=1) / np.sqrt(len(shares))
    assert abs(shares.mean() - rate) < 4 * error
    assert error < 0.01


@pytest.mark.parametrize("column", [0, 1, 30, 59])
def test_no_place_is_favoured(column):
    masks = random_spans(generator(1), (40_000, 60), 0.15, 3.0)
    # The first place misses runs that began more than four mean lengths before: 2 % of 15 %.
    assert masks[:, column].mean() == pytest.approx(0.15, abs=4 * np.sqrt(0.15 * 0.85 / 40_000) + 0.003 * (column < 2))


@pytest.mark.parametrize("mean", [1.0, 2.0, 6.0])
def test_runs_have_the_mean_length(mean):
    masks = random_spans(generator(2), (300, 2_000), 0.01, mean)  # so rare that runs seldom join
    begins = np.diff(np.pad(masks, ((0, 0), (1, 0))).astype(int), axis=1) == 1
    assert masks.sum() / begins.sum() == pytest.approx(mean, rel=0.1)


def test_no_rate_hides_nothing():
    assert not random_spans(generator(), (5, 50), 0.0, 2.0).any()


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.floats(0, 0.9),
    st.floats(0, 0.9),
    st.floats(0, 1),
    st.sampled_from([1, 2, 5, 10, 25, 50]),
)
def test_hidden_is_hidden_and_only_there(seed, dna_rate, state_rate, dropout, token_bp):
    batch = random_batch(seed)
    config = MaskingConfig(dna_rate=dna_rate, state_rate=state_rate, state_dropout=dropout)
    masked = mask_batch(generator(seed), batch, config, token_bp, STATES)

    assert masked.base_mask.shape == (8, 2_000 // token_bp)
    hidden = np.repeat(masked.base_mask, token_bp, axis=1)
    assert (masked.bases[hidden] == BASE_MASKED).all()
    np.testing.assert_array_equal(masked.bases[~hidden], batch.bases[~hidden])
    np.testing.assert_array_equal(masked.base_targets, batch.bases)

    dropped = (masked.states == 0).all(axis=1)
    hidden_states = masked.state_mask & ~dropped[:, None]
    assert (masked.states[hidden_states] == STATES + 1).all()
    assert (batch.states[masked.state_mask] != 0).all(), "an unknown state is nothing to be learned"
    seen = ~masked.state_mask & ~dropped[:, None]
    np.testing.assert_array_equal(masked.states[seen], batch.states[seen])
    np.testing.assert_array_equal(masked.state_mask[dropped], batch.states[dropped] != 0)
    np.testing.assert_array_equal(masked.state_targets, batch.states)
    assert (masked.bases.dtype, masked.states.dtype) == (np.uint8, np.uint8)


def test_dropout_drops_whole_windows_at_its_rate():
    batch = random_batch(0, rows=4_000, window_bp=400, unknown=0)
    masked = mask_batch(generator(), batch, MaskingConfig(state_rate=0, state_dropout=0.3), 10, STATES)
    empty = (masked.states == 0).sum(axis=1)
    assert set(empty.tolist()) == {0, 2}
    assert (empty == 2).mean() == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 4_000))
    assert not mask_batch(generator(), batch, MaskingConfig(state_dropout=1), 10, STATES).states.any()


def test_the_batch_itself_stays_as_it_was():
    batch = random_batch(4)
    bases, states = batch.bases.copy(), batch.states.copy()
    mask_batch(generator(), batch, MaskingConfig(dna_rate=0.5, state_rate=0.5), 10, STATES)
    np.testing.assert_array_equal(batch.bases, bases)
    np.testing.assert_array_equal(batch.states, states)


def test_bases_and_states_are_hidden_independently():
    batch = random_batch(5, rows=2_000, unknown=0)
    masked = mask_batch(generator(), batch, MaskingConfig(dna_rate=0.3, state_rate=0.3, state_dropout=0), 200, STATES)
    both = (masked.base_mask & masked.state_mask).mean()
    assert both == pytest.approx(masked.base_mask.mean() * masked.state_mask.mean(), abs=0.01)


def test_equal_seeds_give_equal_bytes():
    def bytes_of(seed):
        masked = mask_batch(generator(seed), random_batch(6), MaskingConfig(), 10, STATES)
        return [array.tobytes() for array in vars(masked).values()]

    assert bytes_of(1) == bytes_of(1)
    assert bytes_of(1) != bytes_of(2)
