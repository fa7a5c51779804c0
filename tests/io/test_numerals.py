"""Numbers read by the column, against Python's own int() and float()."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebert_core.io import numerals
from ebert_core.io.numerals import PADDING, decimals, digits, words_before


def column(texts):
    """(bytes, starts, ends) of a column of fields, one a line."""
    text = b" " * PADDING + "".join(f"{field}\n" for field in texts).encode()
    data = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    return data, np.concatenate([[PADDING], ends[:-1] + 1]), ends


def is_whole(text):
    return text.isascii() and text.isdigit() and 1 <= len(text) <= 18


WHOLE = st.one_of(st.integers(0, 10**18 - 1).map(str), st.text("0123456789", max_size=19))
ODD = st.text("0123456789 +-.:/;,eE_x\tA", max_size=19)


@given(st.lists(st.one_of(WHOLE, ODD.filter(lambda text: "\n" not in text)), min_size=1, max_size=30))
def test_whole_numbers_are_those_of_int(texts):
    values, good = digits(*column(texts))
    assert good.tolist() == [is_whole(text) for text in texts]
    assert [int(value) for value in values[good]] == [int(text) for text in texts if is_whole(text)]


@pytest.mark.parametrize("width", range(1, 19))
def test_one_wrong_letter_anywhere_is_seen(width):
    for letter in "/:\x00\x7f\xaf\xb0\xba\xff":
        for at in range(width):
            text = "9" * at + letter + "9" * (width - at - 1)
            data, _, ends = column(["7" * width])
            data = data.copy()
            data[ends[0] - width : ends[0]] = np.frombuffer(text.encode("latin-1"), np.uint8)
            assert digits(data, ends - width, ends)[1].tolist() == [False]


def test_no_numbers():
    nothing = np.empty(0, np.int64)
    assert digits(np.full(PADDING, 32, np.uint8), nothing, nothing)[0].tolist() == []
    assert decimals(np.full(PADDING, 32, np.uint8), nothing, nothing)[0].tolist() == []


def agree(texts):
    values, good = decimals(*column(texts))
    assert values.dtype == np.float64
    for text, value, read in zip(texts, values.tolist(), good.tolist(), strict=True):
        if read:
            assert repr(value) == repr(float(text)), text  # so that -0.0 is not 0.0
    return good


REAL = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(0, 1).map(repr),
    st.floats(-1, 1, width=32).map(repr),
    st.tuples(st.floats(-10, 10), st.integers(0, 20)).map(lambda pair: f"{pair[0]:.{pair[1]}f}"),
    st.tuples(st.floats(0, 1), st.integers(1, 17)).map(lambda pair: f"{pair[0]:.{pair[1]}g}"),
    st.tuples(st.floats(0, 1), st.integers(1, 17)).map(lambda pair: f"{pair[0]:.{pair[1]}e}"),
)


@given(st.lists(REAL, min_size=1, max_size=30))
def test_what_is_read_equals_float(texts):
    agree(texts)


@given(st.lists(st.text("0123456789.+-eE", max_size=26), min_size=1, max_size=30))
def test_what_is_read_is_a_number(texts):
    agree(texts)


@given(st.integers(0, 10**19 - 1), st.integers(1, 22))
def test_long_fractions_are_read_without_double_rounding(number, places):
    agree([f"0.{number:0{places}d}"[: places + 2], f"{number % 10}.{number:0{places}d}"[: places + 2]])


def test_halfway_cases_are_left_to_the_careful_reader():
    # 2^53 + 1 lies halfway between two float64, and so do these multiples of it.
    halfway = [f"{(2**53 + 1) * 5**k:0{k + 2}d}" for k in range(1, 3)]
    texts = [f"{text[:-k] or '0'}.{text[-k:]}" for k, text in enumerate(halfway, start=1)]
    texts += [f"0.{(2 * n + 1) * 5**3 * 2**50:022d}" for n in range(8)]
    agree(texts)


@pytest.mark.parametrize("wide", [True, False])
def test_usual_probabilities_are_all_read_here(monkeypatch, wide):
    monkeypatch.setattr(numerals, "_HAS_64_BITS", wide and numerals._HAS_64_BITS)
    values = np.random.default_rng(0).beta(0.3, 3, 2_000).tolist()
    for form in (".6f", ".6g", ".9g", ".3e", "1.15f"):
        good = agree([f"{value:{form}}" for value in values])
        assert good.mean() > 0.97, form
    if wide and numerals._HAS_64_BITS:
        # Seventeen digits: all but those with a power below -22 in all, and a few near a halfway.
        assert agree([repr(value) for value in values if value > 1e-4]).mean() > 0.99
    assert agree(["0", "1", "0.0", "1.0", "-0.5", "0.25", "1e-05", "5e-22", "9.5e+10"]).all()


def test_words_tell_texts_apart():
    data, starts, ends = column(["chr1", "chr2", "chr10", "chr1", "1", "", "chr1"])
    words = words_before(data, ends, ends - starts).tolist()
    assert words[0] == words[3] == words[6]
    assert len(set(words)) == 5
