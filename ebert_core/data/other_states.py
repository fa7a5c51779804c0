"""How common each chromatin state is at a place among other cell types: active everywhere, somewhere or nowhere.

Legend: B windows, n strides of a window, K states of the alphabet, C other cell types.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.vocabulary import STRIDES_PER_BIN

# A state that all others share is as strong a signal as open chromatin of middling strength.
_SCALE: Final = 2.0


def state_shares(
    tracks: Sequence[NDArray[np.uint8]], strides: NDArray[np.int64], num_states: int
) -> NDArray[np.float32]:
    """Share of the cell types that are in each state, of those whose state is known; 2 stands for all.

    Args:
        tracks: state codes of the C cell types on the flat axis, 0 unknown, 1 .. K.
        strides: flat strides that do not fall along a window, (B, n).
        num_states: K.

    Returns:
        (B, n, K); 0 throughout where no cell type's state is known.
    """
    first = strides[:, :1] // STRIDES_PER_BIN
    bins = first + np.arange((strides.shape[1] + 2 * STRIDES_PER_BIN - 2) // STRIDES_PER_BIN)
    bins = np.minimum(bins, strides.max(initial=0) // STRIDES_PER_BIN)
    codes = np.stack([track[bins] for track in tracks]).astype(np.int64)
    # One count over all windows, bins and cell types: each bin has K + 1 places of its own.
    codes += np.arange(bins.size).reshape(bins.shape) * (num_states + 1)
    counts = np.bincount(codes.ravel(), minlength=bins.size * (num_states + 1))
    known = counts.reshape(*bins.shape, num_states + 1)[..., 1:].astype(np.float32)
    shares = _SCALE * known / np.maximum(known.sum(axis=-1, keepdims=True), 1)
    found: NDArray[np.float32] = np.take_along_axis(shares, (strides // STRIDES_PER_BIN - first)[..., None], axis=1)
    return found
