"""Motif hits in bins, both strands: all of them, or the best of each bin (51 Mb and 15 bp in about a second).

Five bases at a time are one number, so a motif costs a fifth of its width in table look-ups.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.genome.intervals import Positions
from ebert_core.vocabulary import BASE_N, BIN_BP, STRIDE_BP, STRIDES_PER_BIN

# Codes 0 to 4 (A, C, G, T, N) of five neighbouring bases: a table of 5 ** 5 numbers stays in the fastest cache.
_TOGETHER: Final = 5
_ALPHABET: Final = BASE_N + 1
_STRIDES_AT_ONCE: Final = 10_000
# Lower than any sum of log-odds; a hit over an N falls below the lowest score and is lifted to it.
_OVER_N: Final = -1e4


def best_hits(codes: NDArray[np.uint8], starts: Positions, log_odds: NDArray[np.float32]) -> NDArray[np.float32]:
    """The highest score of a hit that lies within each bin, on either strand.

    Args:
        codes: base codes of the chromosome, shape (length,).
        starts: bin starts, multiples of 50, shape (N,); every bin lies on the chromosome.
        log_odds: shape (width, 4), columns A, C, G, T; width at most 200.

    Returns:
        float32 of shape (N,); the lowest possible score where every hit covers an N.
    """
    strands, lowest = _both_strands(log_odds)
    width = len(log_odds)
    # Hits that lie within a bin begin in its first 201 - width bp: whole strides, then the beginning of one more.
    whole, rest = divmod(BIN_BP - width + 1, STRIDE_BP)
    num_strides = int(starts.max(initial=0)) // STRIDE_BP + whole + 1
    best = np.full(num_strides, lowest, np.float32)
    beginning = np.full(num_strides, lowest, np.float32)
    for first in range(0, num_strides, _STRIDES_AT_ONCE):
        last = min(first + _STRIDES_AT_ONCE, num_strides)
        scores = _scan(codes, first * STRIDE_BP, last * STRIDE_BP, strands).reshape(-1, STRIDE_BP)
        best[first:last] = np.maximum(scores.max(axis=1), lowest)
        if rest:
            beginning[first:last] = np.maximum(scores[:, :rest].max(axis=1), lowest)
    stride = starts // STRIDE_BP
    out = beginning[stride + whole]
    for step in range(whole):
        out = np.maximum(out, best[stride + step])
    return out


def hit_scores(codes: NDArray[np.uint8], starts: Positions, log_odds: NDArray[np.float32]) -> NDArray[np.float32]:
    """The score of every hit that lies within each bin, on the better strand; arguments as of `best_hits`.

    Returns:
        float32 of shape (N, 201 - width), by the hit's first bp; the lowest possible score where a hit covers an N.
            Some 800 bytes a bin: ask for few bins at a time.
    """
    strands, lowest = _both_strands(log_odds)
    # Overlapping bins share strides, so each stride is scored once.
    strides, place = np.unique(starts[:, None] // STRIDE_BP + np.arange(STRIDES_PER_BIN), return_inverse=True)
    at = strides[:, None] * STRIDE_BP + np.arange(STRIDE_BP + _TOGETHER * len(strands[0]))
    bases = np.where(at < len(codes), codes[np.minimum(at, len(codes) - 1)], np.uint8(BASE_N))
    scores = np.maximum(_score(bases, strands), lowest)
    return scores[place].reshape(len(starts), BIN_BP)[:, : BIN_BP - len(log_odds) + 1]


def _both_strands(log_odds: NDArray[np.float32]) -> tuple[list[NDArray[np.float32]], np.float32]:
    """(tables of either strand, the lowest possible score)."""
    if not 1 <= len(log_odds) <= BIN_BP:
        raise ValueError(f"a motif of {len(log_odds)} bp does not fit a bin of {BIN_BP} bp")
    return [_tables(log_odds), _tables(log_odds[::-1, ::-1])], np.float32(log_odds.min(axis=1).sum())


def _tables(log_odds: NDArray[np.float32]) -> NDArray[np.float32]:
    """For each group of five motif positions, the score of every five bases, float32 of shape (groups, 5 ** 5)."""
    groups = -(-len(log_odds) // _TOGETHER)
    padded = np.zeros((groups * _TOGETHER, _ALPHABET), np.float64)
    padded[: len(log_odds), :BASE_N] = log_odds
    padded[: len(log_odds), BASE_N] = _OVER_N
    tables = np.zeros((groups, *[_ALPHABET] * _TOGETHER))
    for position in range(_TOGETHER):
        shape = [groups] + [_ALPHABET if axis == position else 1 for axis in range(_TOGETHER)]
        tables += padded[position::_TOGETHER].reshape(shape)
    return tables.reshape(groups, -1).astype(np.float32)


def _scan(codes: NDArray[np.uint8], start: int, end: int, strands: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The better strand's score of the hit that begins at each bp of [start, end); what is past the chromosome is N."""
    reach = end - start + _TOGETHER * len(strands[0])
    bases = np.full(reach, BASE_N, np.uint8)
    here = codes[start : start + reach]
    bases[: len(here)] = here
    return _score(bases, strands)


def _score(bases: NDArray[np.uint8], strands: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The better strand's score of the hits along the last axis, but for those that begin in its last bp.

    Args:
        bases: shape (..., L).
        strands: tables of either strand, shape (groups, 5 ** 5).

    Returns:
        float32 of shape (..., L - 5 * groups).
    """
    num_fives = bases.shape[-1] - _TOGETHER
    num_hits = bases.shape[-1] - _TOGETHER * len(strands[0])
    fives = np.zeros((*bases.shape[:-1], num_fives), np.uint16)
    for position in range(_TOGETHER):
        fives *= _ALPHABET
        fives += bases[..., position : position + num_fives]
    both = []
    for tables in strands:
        score = np.zeros((*bases.shape[:-1], num_hits), np.float32)
        for group, table in enumerate(tables):
            score += table[fives[..., group * _TOGETHER : group * _TOGETHER + num_hits]]
        both.append(score)
    return np.maximum(*both)
