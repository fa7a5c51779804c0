"""Base codes: letters there and back, and the other strand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from ebert_core.vocabulary import BASE_MASKED, BASE_N, decode_bases, encode_bases, reverse_complement

CODES = npst.arrays(np.uint8, npst.array_shapes(max_dims=3, max_side=20), elements=st.integers(0, 5))
WATSON_CRICK = str.maketrans("ACGT", "TGCA")


@given(CODES)
def test_the_other_strand_twice_is_the_same(codes):
    np.testing.assert_array_equal(reverse_complement(reverse_complement(codes)), codes)


@given(st.text(alphabet="ACGTN", max_size=50))
def test_the_other_strand_in_letters(text):
    codes = reverse_complement(encode_bases(text.encode()))
    assert decode_bases(codes) == text.translate(WATSON_CRICK)[::-1]


@given(st.text(alphabet="ACGTN", max_size=50))
def test_letters_come_back_whatever_their_case(text):
    assert decode_bases(encode_bases(text.encode())) == text
    assert decode_bases(encode_bases(text.lower().encode())) == text


def test_every_other_byte_is_unknown():
    codes = encode_bases(bytes(range(256)))
    known = {letter: code for code, pair in enumerate(("Aa", "Cc", "Gg", "Tt")) for letter in pair.encode()}
    assert codes.tolist() == [known.get(byte, BASE_N) for byte in range(256)]


def test_a_masked_base_stays_masked():
    assert reverse_complement(np.array([0, BASE_MASKED, BASE_N], dtype=np.uint8)).tolist() == [BASE_N, BASE_MASKED, 3]
    assert decode_bases(np.array([0, BASE_MASKED, BASE_N], dtype=np.uint8)) == "A?N"
