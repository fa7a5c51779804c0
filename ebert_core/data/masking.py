"""Masking: which places of a window are hidden, the same number in every window.

Places are hidden in runs: tokens of bases, and 200-bp bins of states, independently of each other. A window is taken as
a circle for it. As many gaps as hidden places are drawn, each zero with probability 1 - 1 / mean length (the run goes
on), else exponential; scaled to the places that stay visible they lay the runs around the circle, which is then turned
by a random angle. So the count is exact, run lengths are geometric, and every place is hidden equally often, edges
included. Runs that touch are one; a run across the window's end is two.

Written in what NumPy arrays and PyTorch tensors share, and in integers: equal places on every device.

Legend: B windows, L places of a window, K hidden places.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.data.randomness import below

# A gap is looked up by 12 random bits, so a 64-bit word serves five.
_GAP_BITS: Final = 12
_GAPS_PER_WORD: Final = 64 // _GAP_BITS
_GAP_UNIT: Final = 4_096
# Fixed point of the scale: 23 bits are left for the places of a window, and the error shifts one place in 10^6.
_SCALE_BITS: Final = 40

IGNORED: Final = -100
"""The target of what cannot be learned: a base that is N, a state that is unknown. PyTorch's own default."""


def hidden_count(rate: float, length: int) -> int:
    """Places to hide of `length`: the rate's share, rounded half up; at least one where the rate is above zero."""
    return 0 if rate <= 0 else max(1, int(rate * length + 0.5))


def gap_table(mean_length: float) -> NDArray[np.int64]:
    """Gaps before a hidden place, to be looked up by 12 random bits: int64 (4096,), only their ratios matter.

    Zero in a share 1 - 1 / mean_length of the table; the rest are quantiles of the exponential distribution.
    """
    size = 1 << _GAP_BITS
    positive = max(1, round(size / mean_length))
    quantiles = -np.log1p(-(np.arange(positive) + 0.5) / positive)
    table = np.zeros(size, dtype=np.int64)
    table[size - positive :] = np.maximum(1, np.rint(quantiles * _GAP_UNIT))
    return table


class HiddenRuns:
    """Draws the hidden places of windows of one length.

    Args:
        rate: share of the places to hide.
        mean_length: of a run, places; 1 or more.
        length: L.
        convert: NumPy array -> array of the kind that `places` is given, on its device.

    Attributes:
        count: K, `hidden_count(rate, length)`.
        num_words: random words that one window needs.
    """

    def __init__(
        self, rate: float, mean_length: float, length: int, convert: Callable[[NDArray[np.int64]], Any] = np.asarray
    ) -> None:
        self.count = hidden_count(rate, length)
        self.num_words = -(-self.count // _GAPS_PER_WORD)
        self._length = length
        self._table = convert(gap_table(mean_length))
        self._shifts = convert(np.arange(_GAPS_PER_WORD, dtype=np.int64) * _GAP_BITS)
        self._order = convert(np.arange(self.count, dtype=np.int64))

    def places(self, words: Any, turn: Any) -> Any:
        """Hidden places of each window.

        Args:
            words: random int64 (B, num_words).
            turn: random numbers of 32 bits, int64 (B, 1).

        Returns:
            int64 (B, K), distinct within a row, in their order around the circle.
        """
        if self.count == 0:
            return words[:, :0]
        draws = (words[:, :, None] >> self._shifts) & ((1 << _GAP_BITS) - 1)
        reached = self._table.take(draws.reshape(len(words), -1)[:, : self.count]).cumsum(1)
        # The scale is rounded up, so that the last hidden place has all visible ones before it; it is one division per
        # window. Without any gap all hidden places are one run: nothing is scaled, so any divisor will do.
        scale = -((-((self._length - self.count) << _SCALE_BITS)) // reached[:, -1:].clip(min=1))
        places = ((reached * scale) >> _SCALE_BITS) + (below(turn, self._length) + self._order)
        return places - (places >= self._length) * self._length
