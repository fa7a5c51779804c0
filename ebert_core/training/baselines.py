"""What the held-out windows give away without a model: an order-k Markov chain, and "same state as its neighbour"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.data.batches import MaskedBatch
from ebert_core.data.markov import ORDERS, markov_baseline, neighbour_accuracy
from ebert_core.vocabulary import BASE_MASKED, NUM_BASES

# Of a chain's training windows: as much as takes seconds.
_MOST_BP: Final = 20_000_000
_WINDOWS_PER_DRAW: Final = 256


def held_out_baselines(
    draw: Callable[[int, int], MaskedBatch], held_out: MaskedBatch, num_bp: int, num_states: int
) -> dict[str, Any]:
    """The baselines of held-out windows.

    Args:
        draw: (first, count) -> training windows to fit the chain on.
        held_out: the masked windows that the model is scored on; without any shown state, none is guessed.
        num_bp: how much the model itself may read; the chain gets as much, up to 20 Mbp.
        num_states: of the state model.

    Returns:
        `markov_order`, `markov_bits_per_base` at the hidden bases, and `neighbour_state_accuracy` of hidden states; a
        figure is missing where nothing is hidden.
    """
    window_bp = held_out.bases.shape[1]
    num_windows = max(1, min(num_bp, _MOST_BP) // window_bp)
    train = np.concatenate(
        [
            draw(first, min(_WINDOWS_PER_DRAW, num_windows - first)).true_bases().cpu().numpy()
            for first in range(0, num_windows, _WINDOWS_PER_DRAW)
        ]
    )
    # A table with more contexts than bases to count says nothing.
    orders = [order for order in ORDERS if NUM_BASES ** (order + 1) <= train.size] or ORDERS[:1]
    hidden = _array(held_out.bases) == BASE_MASKED
    found: dict[str, Any] = {}
    if hidden.any():
        chain = markov_baseline(train, _array(held_out.true_bases()), hidden, orders)
        found = {"markov_order": chain.order, "markov_bits_per_base": chain.bits_per_base}
    states = _array(held_out.states)
    if not states.any():
        return found
    accuracy = neighbour_accuracy(states, _array(held_out.state_index), _array(held_out.state_targets), num_states)
    return found if np.isnan(accuracy) else {**found, "neighbour_state_accuracy": accuracy}


def _array(tensor: Any) -> NDArray[Any]:
    array: NDArray[Any] = tensor.cpu().numpy()
    return array
