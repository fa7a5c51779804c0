"""What a training example is: which window, which cell type, which places are hidden.

Every number is a function of (seed, stream, step, example number). Written in what NumPy arrays and PyTorch tensors
share, and in integers: NumPy draws a CPU's small batches with a third of the overhead, a GPU draws its own.

Legend: B examples, L tokens and M state bins of a window, K hidden tokens, J hidden bins, S states, C cell types.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebert_core.config import MaskingConfig
from ebert_core.data.masking import HiddenRuns
from ebert_core.data.randomness import LOW_32, WORDS_PER_EXAMPLE, StepKey, below, high_half, low_half, random_words
from ebert_core.errors import EbertError
from ebert_core.vocabulary import STATE_UNKNOWN

Convert = Callable[[NDArray[Any]], Any]

CANDIDATES: Final = 8
"""Pairs looked at for each example where rare states are favoured: a state is met at most so many times as often."""

_LARGEST_ODDS: Final = 1 << 20
# Words of an example: two for the pair, the turns, the dropped states and the choice; then candidates; then runs.
_FIXED_WORDS: Final = 3


class Drawn(NamedTuple):
    """What was drawn for B examples; int64 but `kept`.

    Attributes:
        rows: (B,), the window begins at flat bin `rows`.
        cells: (B,), index of the cell type.
        tokens: (B, K), hidden tokens.
        bins: (B, J), hidden state bins.
        kept: bool (B, 1), whether the window's states are shown at all.
    """

    rows: Any
    cells: Any
    tokens: Any
    bins: Any
    kept: Any


class RareStates(NamedTuple):
    """How windows with rare states are favoured.

    Attributes:
        states: uint8 (C * bins of the flat axis,), the state tracks one after the other.
        odds: int64 (S + 1,) by state code.
    """

    states: Any
    odds: Any


class Examples:
    """Draws examples.

    Args:
        rows: flat bins (start / 200) of the windows that may be read, int64.
        flat_bins: bins of the flat axis.
        lengths: (L, M).
        masking: rates and run lengths.
        cell_weights: how often each cell type is drawn relative to the others.
        convert: NumPy array -> array of the kind to draw with.

    Attributes:
        tokens, bins: the hidden runs of tokens and of state bins.
        rare: set to favour windows with rare states; None draws all alike.
    """

    def __init__(
        self,
        rows: NDArray[np.int64],
        flat_bins: int,
        lengths: tuple[int, int],
        masking: MaskingConfig,
        cell_weights: Sequence[float],
        convert: Convert = np.asarray,
    ) -> None:
        self.tokens = HiddenRuns(masking.dna_rate, masking.dna_span_tokens, lengths[0], convert)
        self.bins = HiddenRuns(masking.state_rate, masking.state_span_bins, lengths[1], convert)
        self.rare: RareStates | None = None
        self._flat_bins, self._num_bins, self._num_rows = flat_bins, lengths[1], len(rows)
        self._rows = convert(rows)
        self._cell_ends = convert(_shares(cell_weights))
        self._dropout = int(masking.state_dropout * (LOW_32 + 1))
        most = _FIXED_WORDS + 2 * CANDIDATES + self.tokens.num_words + self.bins.num_words
        self._lanes = convert(np.arange(most, dtype=np.int64))

    def draw(self, key: StepKey, examples: Any) -> Drawn:
        """Draw the examples with these numbers, int64 (B,)."""
        spare = 0 if self.rare is None else 2 * CANDIDATES
        num_words = _FIXED_WORDS + spare + self.tokens.num_words + self.bins.num_words
        words = random_words(key, examples[:, None] * WORDS_PER_EXAMPLE + self._lanes[:num_words])
        if self.rare is None:
            rows, cells = self._pairs(words[:, :1])
        else:
            rows, cells = self._favoured(self.rare, words[:, _FIXED_WORDS:], low_half(words[:, 2:3]))
        runs = words[:, _FIXED_WORDS + spare :]
        return Drawn(
            rows[:, 0],
            cells[:, 0],
            self.tokens.places(runs[:, : self.tokens.num_words], high_half(words[:, 1:2])),
            self.bins.places(runs[:, self.tokens.num_words :], low_half(words[:, 1:2])),
            high_half(words[:, 2:3]) >= self._dropout,
        )

    def survey(self, key: StepKey, examples: Any, states: Any) -> Any:
        """State codes of one random bin of each example's pair, (B,)."""
        words = random_words(key, examples[:, None] * WORDS_PER_EXAMPLE + self._lanes[:2])
        return self._look(states, *self._pairs(words[:, :1]), words[:, 1:2])[:, 0]

    def _pairs(self, words: Any) -> tuple[Any, Any]:
        """Random words (B, n) -> (flat bins of windows, cell types), each (B, n)."""
        cells = (low_half(words)[:, :, None] >= self._cell_ends).sum(2)
        return self._rows.take(below(high_half(words), self._num_rows)), cells

    def _look(self, states: Any, rows: Any, cells: Any, words: Any) -> Any:
        """State code of one random bin of each pair."""
        return states.take(rows + cells * self._flat_bins + below(high_half(words), self._num_bins))

    def _favoured(self, rare: RareStates, words: Any, choice: Any) -> tuple[Any, Any]:
        """One of CANDIDATES pairs per example, by the odds of the state of a random bin; each (B, 1)."""
        rows, cells = self._pairs(words[:, :CANDIDATES])
        seen = self._look(rare.states, rows, cells, words[:, CANDIDATES : 2 * CANDIDATES])
        # Adding a zero of int64 makes indices of the bytes.
        ends = rare.odds.take(seen + self._lanes[:1]).cumsum(1)
        # The number of candidates whose share ends at or below the number is the chosen one; 0/1 weights pick it.
        chosen = (ends <= below(choice, ends[:, -1:])).sum(1)[:, None] == self._lanes[:CANDIDATES]
        return (rows * chosen).sum(1)[:, None], (cells * chosen).sum(1)[:, None]


def odds_of(counts: NDArray[np.integer[Any]], exponent: float) -> NDArray[np.int64]:
    """Counts by state code (S + 1,) -> integer odds, frequency^-exponent; unknown is as the commonest state."""
    weights = np.maximum(counts, 1).astype(np.float64) ** -exponent
    weights[STATE_UNKNOWN] = weights[1:].min()
    return np.maximum(1, np.rint(weights / weights.max() * _LARGEST_ODDS)).astype(np.int64)


def _shares(weights: Sequence[float]) -> NDArray[np.int64]:
    """Weights -> the ends of their shares of 0 .. 2^32."""
    array = np.asarray(weights, dtype=np.float64)
    if not (np.isfinite(array).all() and (array >= 0).all() and array.sum() > 0):
        raise EbertError(f"{array.tolist()} are no weights of cell types", "give numbers of zero or more, not all zero")
    return np.rint(np.cumsum(array) / array.sum() * (LOW_32 + 1)).astype(np.int64)
