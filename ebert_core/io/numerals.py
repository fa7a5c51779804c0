"""Numbers written in decimal, read from text by the column: eight digits at a time, as one 64-bit word.

A word holds eight letters, the first in the lowest byte. Neighbouring digits are joined to pairs, pairs to fours, fours
to one number, by three multiplications for a whole column (Lemire, "Quickly parsing eight digits", 2022).

Positions are byte offsets into the text, of which the first `PADDING` bytes must not belong to a number.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

PADDING: Final = 24
"""How many bytes before a number's end may be looked at."""

_WORD: Final = 8
# More could be beyond 64 bits.
_MOST_DIGITS: Final = 18
_ZEROS: Final = np.uint64(0x3030303030303030)
# Added to a byte, 0x76 carries 10 and all above it into the highest bit.
_ABOVE_NINE: Final = np.uint64(0x7676767676767676)
_HIGHEST: Final = np.uint64(0x8080808080808080)
# By number of letters: the bytes of a word that hold its last so many letters.
_LAST: Final = np.array([0, *(2**64 - 2 ** (64 - 8 * letters) for letters in range(1, 9))], np.uint64)
# All up to 10^22 are exact as float64; 10.0 ** n need not be.
_TENS: Final = np.array([float(10**n) for n in range(23)])
_WHOLE_TENS: Final = np.array([10**n if n <= _MOST_DIGITS else 0 for n in range(len(_TENS))], np.uint64)
_MOST_EXACT: Final = np.uint64(1 << 53)
_HAS_64_BITS: Final = np.finfo(np.longdouble).nmant == 63
_DOT, _MINUS, _PLUS, _E = (ord(letter) for letter in ".-+e")

Letters = NDArray[np.uint8]
Places = NDArray[np.int64]
Mask = NDArray[np.bool_]


def words_before(text: Letters, ends: Places, widths: Places) -> NDArray[np.uint64]:
    """The last `widths` (0 to 8) letters before each end as one number, the same for the same letters."""
    windows = np.ndarray((len(text) - _WORD + 1,), "<u8", text, strides=(1,))
    return np.asarray(windows[ends - _WORD] & _LAST[widths], dtype=np.uint64)


def digits(text: Letters, starts: Places, ends: Places) -> tuple[NDArray[np.uint64], Mask]:
    """Whole numbers of 1 to 18 digits.

    Args:
        text: uint8, all bytes.
        starts, ends: of each number, shape (N,).

    Returns:
        (values, which of them are such a number; the others mean nothing), both of shape (N,).
    """
    widths = ends - starts
    good = (widths > 0) & (widths <= _MOST_DIGITS)
    return _joined(text, ends, widths if good.all() else np.where(good, widths, 0), good), good


def _joined(text: Letters, ends: Places, widths: Places, good: Mask) -> NDArray[np.uint64]:
    """The numbers in the last 0 to 22 letters before each end; what is none below 10^19 is taken out of `good`."""
    value = _up_to_eight(text, ends, np.minimum(widths, _WORD), good)
    if (most := widths.max(initial=0)) > _WORD:
        rest = np.clip(widths - _WORD, 0, _WORD)
        value += _up_to_eight(text, ends - _WORD, rest, good) * np.uint64(10**_WORD)
    if most > 2 * _WORD:
        rest = np.maximum(widths - 2 * _WORD, 0)
        high = _up_to_eight(text, ends - 2 * _WORD, rest, good)
        good &= high < 1000
        value += high * np.uint64(10 ** (2 * _WORD))
    return value


def _up_to_eight(text: Letters, ends: Places, widths: Places, good: Mask) -> NDArray[np.uint64]:
    word = words_before(text, ends, widths) ^ (_ZEROS & _LAST[widths])
    good &= ((word + _ABOVE_NINE) | word) & _HIGHEST == 0
    word = word * np.uint64(10) + (word >> np.uint64(8))
    word = ((word & np.uint64(0x00FF00FF00FF00FF)) * np.uint64(6553601)) >> np.uint64(16)
    return np.asarray(((word & np.uint64(0x0000FFFF0000FFFF)) * np.uint64(42949672960001)) >> np.uint64(32), np.uint64)


def decimals(text: Letters, starts: Places, ends: Places) -> tuple[NDArray[np.float64], Mask]:
    """Numbers such as 7, 0.25, -1.5 and 3.2e-05: one digit, a fraction or none, an exponent of two digits or none.

    Args:
        text: uint8, all bytes.
        starts, ends: of each number, shape (N,); behind the last there is at least one more byte.

    Returns:
        (values, which of them are read and correctly rounded; the others mean nothing), both of shape (N,). What is not
        read may still be a number.
    """
    minus = text[starts] == _MINUS
    first = starts + minus
    powered = (text[ends - 4] == _E) & (ends - 4 > first)
    last = ends - 4 * powered
    whole = text[first] - np.uint8(ord("0"))
    dotted = text[np.minimum(first + 1, len(text) - 1)] == _DOT
    places = last - first - 2
    good = (whole <= 9) & ((dotted & (places > 0) & (places < len(_TENS))) | (places == -1))
    good &= (places <= _MOST_DIGITS) | (whole == 0)
    places = np.maximum(places if good.all() else np.where(good, places, 0), 0)
    value = _joined(text, last, places, good) + whole * _WHOLE_TENS[places]
    if len(rows := np.flatnonzero(powered)):
        fine = np.ones(len(rows), bool)
        power = _up_to_eight(text, ends[rows], np.full(len(rows), 2), fine).astype(np.int64)
        sign = text[ends[rows] - 3]
        places[rows] += np.where(sign == _MINUS, power, -power)
        good[rows] &= fine & ((sign == _MINUS) | (sign == _PLUS)) & (np.abs(places[rows]) < len(_TENS))
        places[~good] = 0
    result, exact = _scaled(value, places)
    return np.where(minus, -result, result), good & exact


def _scaled(value: NDArray[np.uint64], places: Places) -> tuple[NDArray[np.float64], Mask]:
    """(value / 10^places, where that is known to be correctly rounded), for up to 22 places on either side.

    One operation on two exact numbers rounds correctly (Clinger, "How to read floating point numbers accurately",
    1990): 10^22 and whole numbers up to 2^53 are exact. Longer ones are scaled in the 64 bits of x86's long double and
    then rounded a second time, which can go wrong only where the first result is halfway between two float64.
    """
    result = value / _TENS[np.maximum(places, 0)]
    up = np.flatnonzero(places < 0)
    result[up] *= _TENS[-places[up]]
    exact = value <= _MOST_EXACT
    if _HAS_64_BITS and len(rows := np.flatnonzero(~exact & (places >= 0))):
        wide = value[rows].astype(np.longdouble) / _TENS[places[rows]].astype(np.longdouble)
        result[rows] = wide.astype(np.float64)
        exact[rows] = np.abs(wide - result[rows]) != np.spacing(result[rows]) / 2
    return result, exact
