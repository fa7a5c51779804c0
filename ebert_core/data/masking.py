"""Masking: what the language model must fill in.

Bases are hidden by whole tokens, in runs, before the encoder's stem sees them: a hidden base cannot be read off a
neighbouring token's motif detectors. States are hidden by whole 200-bp bins, in runs, independently of the bases.

Legend: B windows, W window_bp, L tokens, M state bins of a window.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ebert_core.config import MaskingConfig
from ebert_core.data.windows import Batch
from ebert_core.vocabulary import BASE_MASKED, STATE_UNKNOWN


@dataclass(frozen=True)
class MaskedBatch:
    """What the model sees, and what it must say.

    Attributes:
        bases: uint8 (B, W), hidden bases replaced by the mask code.
        states: uint8 (B, M), hidden states replaced by the mask code, or all unknown where states were dropped.
        base_mask: bool (B, L), tokens to predict.
        state_mask: bool (B, M), bins whose state is to be predicted: the hidden ones, and all of a window whose states
            were dropped (so the model learns what DNA alone says of the state); never where the truth is unknown.
        base_targets: uint8 (B, W), the true bases.
        state_targets: uint8 (B, M), the true states.
    """

    bases: NDArray[np.uint8]
    states: NDArray[np.uint8]
    base_mask: NDArray[np.bool_]
    state_mask: NDArray[np.bool_]
    base_targets: NDArray[np.uint8]
    state_targets: NDArray[np.uint8]


def random_spans(
    rng: np.random.Generator, shape: tuple[int, int], rate: float, mean_length: float
) -> NDArray[np.bool_]:
    """A mask of geometric runs that covers the share `rate` of each row, in expectation away from the row's start.

    Runs begin independently at every place, also before the row, so no place is favoured.
    """
    rows, length = shape
    if rate <= 0:
        return np.zeros(shape, dtype=bool)
    lead = int(np.ceil(4 * mean_length))
    row, begin = np.nonzero(rng.random((rows, lead + length)) < _begin_rate(rate, mean_length))
    end = np.minimum(begin + rng.geometric(1 / mean_length, size=len(begin)), lead + length)
    depth = np.zeros((rows, lead + length + 1), dtype=np.int32)
    np.add.at(depth, (row, begin), 1)
    np.add.at(depth, (row, end), -1)
    return np.cumsum(depth, axis=1)[:, lead : lead + length] > 0


@functools.cache
def _begin_rate(rate: float, mean_length: float) -> float:
    """Probability q that a run begins at a place, so that the share `rate` is covered.

    A place is free if no run that began k places before is longer than k: prod_k (1 - q P(length > k)) = 1 - rate, with
    P(length > k) = (1 - 1 / mean)^k for geometric lengths; solved by bisection.
    """
    longer = (1 - 1 / mean_length) ** np.arange(int(np.ceil(40 * mean_length)))
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if np.log1p(-middle * longer).sum() > np.log1p(-rate) else (low, middle)
    return high


def mask_batch(
    rng: np.random.Generator, batch: Batch, config: MaskingConfig, token_bp: int, num_states: int
) -> MaskedBatch:
    """Hide bases and states of a batch.

    Args:
        rng: the step's random numbers.
        batch: true bases and states.
        token_bp: bases per token.
        num_states: states of the state model; the mask's code is num_states + 1.
    """
    rows, window_bp = batch.bases.shape
    base_mask = random_spans(rng, (rows, window_bp // token_bp), config.dna_rate, config.dna_span_tokens)
    state_mask = random_spans(rng, batch.states.shape, config.state_rate, config.state_span_bins)
    dropped = np.asarray(rng.random(rows) < config.state_dropout)
    state_mask = (state_mask | dropped[:, None]) & (batch.states != STATE_UNKNOWN)
    states = np.where(state_mask, np.uint8(num_states + 1), batch.states)
    return MaskedBatch(
        bases=np.where(np.repeat(base_mask, token_bp, axis=1), np.uint8(BASE_MASKED), batch.bases),
        states=np.where(dropped[:, None], np.uint8(STATE_UNKNOWN), states),
        base_mask=base_mask,
        state_mask=state_mask,
        base_targets=batch.bases,
        state_targets=batch.states,
    )
