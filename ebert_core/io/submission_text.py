"""The letters of a submission's rows, made and compared as arrays: no loop over rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.genome.intervals import Positions
from ebert_core.vocabulary import BIN_BP

_DIGITS: Final = 9  # significant digits that tell any two float32 apart

Letters = NDArray[np.uint8]


def place_letters(chrom: str, starts: Positions) -> Iterator[tuple[slice, Letters]]:
    """The text `chr TAB start TAB stop TAB` of bins: (bins, letters of shape (bins, width)) where widths are equal.

    Args:
        starts: rising, shape (N,).
    """
    tens = 10 ** np.arange(1, 18)
    cuts = np.concatenate([[0], np.searchsorted(starts, tens), np.searchsorted(starts, tens - BIN_BP), [len(starts)]])
    head = np.frombuffer(f"{chrom}\t".encode(), np.uint8)
    tab = np.frombuffer(b"\t", np.uint8)
    for first, end in itertools.pairwise(np.unique(cuts).tolist()):
        some = starts[first:end]
        parts = [head, _digits(some), tab, _digits(some + BIN_BP), tab]
        yield slice(first, end), _beside(parts, end - first)


def _digits(values: Positions, width: int = 0) -> Letters:
    """Decimal digits of whole numbers of one width, uint8 of shape (N, width); default: the width of the first."""
    width = width or len(str(values[0]))
    letters = np.empty((len(values), width), np.uint8)
    for column in reversed(range(width)):
        rest = values // 10
        letters[:, column] = values - 10 * rest + ord("0")
        values = rest
    return letters


def _beside(parts: list[Letters], rows: int) -> Letters:
    """Columns of letters side by side; a part of shape (width,) stands in every row."""
    return np.concatenate([np.broadcast_to(part, (rows, part.shape[-1])) for part in parts], axis=1)


def decimals(probabilities: NDArray[np.float32]) -> Letters:
    """`d.dddddddde-dd` and a newline for each value of [0, 1], which reads back as the same float32; shape (N, 15).

    The ninth digit may be one off: products of float64 are good to 16 digits, and 9 tell any two float32 apart.
    """
    values = probabilities.astype(np.float64)
    exponents = np.floor(np.log10(np.where(values > 0, values, 1))).astype(np.int64)
    digits = np.rint(values * 10.0 ** (_DIGITS - 1 - exponents)).astype(np.int64)
    carried = digits >= 10**_DIGITS
    digits, exponents = np.where(carried, digits // 10, digits), exponents + carried
    letters = _digits(digits, _DIGITS)
    point, mark, end = (np.frombuffer(text, np.uint8) for text in (b".", b"e", b"\n"))
    sign = np.where(exponents < 0, np.uint8(ord("-")), np.uint8(ord("+")))[:, None]
    parts = [letters[:, :1], point, letters[:, 1:], mark, sign, _digits(-exponents, 2), end]
    return _beside(parts, len(values))


def letters_at(text: Letters, starts: Positions, width: int) -> Letters:
    """The `width` letters from each start on, shape (N, width); 0 past the end of the text."""
    padded = np.concatenate([text, np.zeros(width, np.uint8)])
    # Every stretch of the text as one item, one letter apart: taking some is a copy per row, not a look-up per letter.
    stretches = np.ndarray((len(text) + 1,), np.dtype(f"V{width}"), padded, strides=(1,))
    return stretches[starts].view(np.uint8).reshape(-1, width)
