"""Plain baselines of the two objectives, on arrays: an order-k Markov chain of bases, and "as the nearest shown state".

The chain says P(base | the k bases before it). It is scored at the hidden bases, but is given the true bases before
them, also where those are hidden from the encoder: it is a generous baseline. It sees nothing to the right.

Legend: B windows, W window_bp, M state bins of a window, n asked-for bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.data.masking import IGNORED
from ebert_core.vocabulary import BASE_N, NUM_BASES, STATE_UNKNOWN

ORDERS: Final = tuple(range(3, 12))
"""Orders to choose among; the table of the last holds 4^12 probabilities, 67 MB."""

# Observations that a shorter context is worth: contexts seen less often lean on it. Half and twice as many gave more
# bits at orders 10 and 11, fitted on 20 Mbp of human chr20 and scored on chr22.
_PRIOR: Final = 128.0


@dataclass(frozen=True)
class MarkovChain:
    """Probabilities of a base after 0, 1, .. k bases.

    Attributes:
        tables: for each order o, float32 (4^o, 4): row c is the context whose bases are the digits of c in base 4, the
            nearest base last.
    """

    tables: tuple[NDArray[np.float32], ...]

    @classmethod
    def fit(cls, windows: NDArray[np.uint8], order: int) -> MarkovChain:
        """Count every base that has `order` known bases before it, in windows (B, W) of base codes.

        Each order's estimate leans on that of the order below: (n(context, base) + a p(base | shorter context)) /
        (n(context) + a) with a = 128, the mean of a Dirichlet posterior (MacKay and Peto 1995).
        """
        codes, lengths = contexts(windows, order)
        whole = (lengths == order) & (windows < BASE_N)
        places = codes[whole] * NUM_BASES + windows[whole]
        counts = [np.bincount(places, minlength=NUM_BASES ** (order + 1)).reshape(-1, NUM_BASES)]
        for _ in range(order):
            # The farthest base is the first digit of a row's number.
            counts.append(counts[-1].reshape(NUM_BASES, -1, NUM_BASES).sum(axis=0))
        tables, table = [], np.full((1, NUM_BASES), 1 / NUM_BASES, dtype=np.float32)
        for length, count in enumerate(reversed(counts)):
            shorter = np.tile(table, (NUM_BASES, 1)) if length else table
            table = ((count + _PRIOR * shorter) / (count.sum(axis=1, keepdims=True) + _PRIOR)).astype(np.float32)
            tables.append(table)
        return cls(tuple(tables))

    def bits(self, windows: NDArray[np.uint8], hidden: NDArray[np.bool_], order: int) -> float:
        """Mean of -log2 P over the hidden bases.

        Args:
            windows: true base codes (B, W), in the direction in which the encoder reads them.
            hidden: (B, W), bases to score; N is left out.
            order: longest context to use, at most that of the fit. After fewer known bases, at a window's start or
                after an N, the context is as long as they are.

        Returns:
            Bits per base; NaN where there is no base to score.
        """
        codes, lengths = contexts(windows, order)
        scored = hidden & (windows < BASE_N)
        codes, lengths, bases = codes[scored], lengths[scored], windows[scored]
        total = 0.0
        for length in range(order + 1):
            here = lengths == length
            total -= float(np.log2(self.tables[length][codes[here], bases[here]], dtype=np.float64).sum())
        return total / len(bases) if len(bases) else float("nan")


@dataclass(frozen=True)
class MarkovBaseline:
    """What the chain reaches.

    Attributes:
        order: the best at the bases of the held-out windows that are not hidden.
        bits_per_base: at the hidden bases of the held-out windows.
    """

    order: int
    bits_per_base: float


def markov_baseline(
    train: NDArray[np.uint8], held_out: NDArray[np.uint8], hidden: NDArray[np.bool_], orders: Sequence[int] = ORDERS
) -> MarkovBaseline:
    """Fit on training windows, choose the order by the shown bases of held-out windows, score their hidden ones.

    Args:
        train: true base codes of training windows (B, W); 20 Mbp take seconds.
        held_out: true base codes of held-out windows (B', W').
        hidden: (B', W'), their hidden bases.
        orders: to choose among.
    """
    chain = MarkovChain.fit(train, max(orders))
    order = min(orders, key=lambda order: chain.bits(held_out, ~hidden, order))
    return MarkovBaseline(order, chain.bits(held_out, hidden, order))


def contexts(windows: NDArray[np.uint8], order: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The bases before each place.

    Args:
        windows: base codes (B, W).
        order: how many at most; up to 14.

    Returns:
        The context as a number in base 4, its nearest base the last digit, and its length: `order`, or fewer where the
        window begins or an N stands before; both int32 (B, W).
    """
    codes, lengths = np.zeros(windows.shape, dtype=np.int32), np.zeros(windows.shape, dtype=np.int32)
    for back in range(1, min(order, windows.shape[1] - 1) + 1):
        before = windows[:, :-back]
        goes_on = (lengths[:, back:] == back - 1) & (before < BASE_N)
        codes[:, back:] += np.where(goes_on, before.astype(np.int32) << (2 * (back - 1)), 0)
        lengths[:, back:] += goes_on
    return codes, lengths


def neighbour_states(shown: NDArray[np.uint8], num_states: int) -> NDArray[np.uint8]:
    """For each bin the nearest shown state; of two as near, the left one.

    Args:
        shown: state codes as the model sees them (B, M): 1 .. num_states count as shown, unknown and masked do not.

    Returns:
        uint8 (B, M), 1 .. num_states. A window without any shown state gets the commonest of all the windows' (1 where
        none shows any).
    """
    is_shown = (shown != STATE_UNKNOWN) & (shown <= num_states)
    common = np.bincount(shown[is_shown], minlength=num_states + 1)[1:].argmax() + 1
    places = np.arange(shown.shape[1])
    far = 2 * shown.shape[1]
    left = np.maximum.accumulate(np.where(is_shown, places, -far), axis=1)
    right = np.minimum.accumulate(np.where(is_shown, places, 2 * far)[:, ::-1], axis=1)[:, ::-1]
    nearest = np.where(places - left <= right - places, left, right)
    found = np.take_along_axis(shown, np.clip(nearest, 0, shown.shape[1] - 1), axis=1)
    return np.where(is_shown.any(axis=1, keepdims=True), found, common).astype(np.uint8)


def neighbour_accuracy(
    shown: NDArray[np.uint8], index: NDArray[np.int64], targets: NDArray[np.int64], num_states: int
) -> float:
    """Share of the asked-for bins whose state is that of the nearest shown bin.

    Args:
        shown: state codes as the model sees them (B, M).
        index: (n,), asked-for bins among the B * M.
        targets: (n,), state code - 1, or IGNORED.

    Returns:
        NaN where no target counts.
    """
    counts = targets != IGNORED
    said = neighbour_states(shown, num_states).reshape(-1)[index[counts]].astype(np.int64) - 1
    return float((said == targets[counts]).mean()) if counts.any() else float("nan")
