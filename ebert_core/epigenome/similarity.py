"""How alike two cell types are, told from chromatin states or from open chromatin alone.

The measure is the uncertainty coefficient (Theil, 1970): the share of one variable's entropy that another explains,
U(x | y) = I(x; y) / H(x), counted over 200-bp bins. It needs no list of what is an active state, so it holds for any
state model, and bins that never change say nothing.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.vocabulary import STATE_UNKNOWN, STRIDES_PER_BIN

# About the share of the genome's bins within a cell type's DNase peaks.
OPEN_SHARE: Final = 0.02


def explained_share(asked: NDArray[Any], given: NDArray[Any]) -> float:
    """U(asked | given), 0 to 1: the share of the entropy of one array of small codes that another explains.

    Args:
        asked, given: non-negative whole numbers of shape (N,).

    Returns:
        0 where `asked` never changes.
    """
    if len(asked) == 0:
        return 0.0
    rows, columns = int(asked.max()) + 1, int(given.max()) + 1
    pairs = asked.astype(np.int32) * columns + given
    joint = np.bincount(pairs, minlength=rows * columns).reshape(rows, columns) / len(asked)
    entropy = _entropy(joint.sum(axis=1))
    if entropy == 0:
        return 0.0
    return float(min(max((entropy + _entropy(joint.sum(axis=0)) - _entropy(joint.ravel())) / entropy, 0.0), 1.0))


def _entropy(shares: NDArray[np.float64]) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def open_bins(accessibility: NDArray[np.float16], share: float = OPEN_SHARE) -> NDArray[np.bool_]:
    """Which 200-bp bins are open: the `share` with the strongest stride, and of these only what is above 0.

    So peaks and a continuous signal are told alike. Bins that tie with the weakest of them are open, too.

    Args:
        accessibility: a track, float16 of shape (4 N,).

    Returns:
        bool of shape (N,).
    """
    strongest = accessibility.reshape(-1, STRIDES_PER_BIN).max(axis=1)
    rank = min(int(share * len(strongest)), len(strongest) - 1)
    threshold = np.partition(strongest, len(strongest) - 1 - rank)[len(strongest) - 1 - rank]
    return (strongest > 0) & (strongest >= threshold)


def openness_explained(is_open: NDArray[np.bool_], states: NDArray[np.uint8]) -> float:
    """How well a state track explains which bins are open in some cell type, 0 to 1; bins without a state are left out.

    Args:
        is_open: `open_bins`, of shape (N,).
        states: state codes, uint8 of shape (N,).
    """
    known = states != STATE_UNKNOWN
    return explained_share(is_open[known], states[known])


def states_explained(asked: NDArray[np.uint8], given: NDArray[np.uint8]) -> float:
    """How well one state track explains another, 0 to 1, where both are known; codes of shape (N,)."""
    known = (asked != STATE_UNKNOWN) & (given != STATE_UNKNOWN)
    return explained_share(asked[known], given[known])
