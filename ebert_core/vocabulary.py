"""What a token is: the codes of bases and of chromatin states, and how a token covers the genome.

Bases are single bytes: A 0, C 1, G 2, T 3, and 4 for everything else (N and the IUPAC ambiguity letters). In the model
a sixth code hides a base. States are single bytes too: 0 is "unknown" (no data at this place, or a cell type without
any state track), 1..S are the states of the state model in its own order; in the model S + 1 hides a state.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

BASES: Final = "ACGT"
NUM_BASES: Final = 4
BASE_N: Final = 4
BASE_MASKED: Final = 5

STATE_UNKNOWN: Final = 0

# Ground truth of the geometry; every array of a dataset is laid on multiples of these (docs/definitions.md).
STATE_BIN_BP: Final = 200
BIN_BP: Final = 200
STRIDE_BP: Final = 50
STRIDES_PER_BIN: Final = BIN_BP // STRIDE_BP

_COMPLEMENT: Final = np.array([3, 2, 1, 0, 4, 5], dtype=np.uint8)


def _base_codes() -> NDArray[np.uint8]:
    codes = np.full(256, BASE_N, dtype=np.uint8)
    for code, base in enumerate(BASES):
        codes[ord(base)] = codes[ord(base.lower())] = code
    return codes


BASE_CODES: Final = _base_codes()
"""Lookup table, shape (256,): the code of every ASCII letter; soft-masked (lower-case) bases count as bases."""


def encode_bases(letters: bytes) -> NDArray[np.uint8]:
    """ASCII letters -> base codes, uint8 of shape (len(letters),)."""
    return BASE_CODES[np.frombuffer(letters, dtype=np.uint8)]


def decode_bases(codes: NDArray[np.uint8]) -> str:
    """Base codes -> upper-case letters; N for 4, '?' for a masked base."""
    return bytes(np.frombuffer(b"ACGTN?", dtype=np.uint8)[codes]).decode("ascii")


def reverse_complement(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The other strand, read in its own direction, along the last axis; N stays N, masked stays masked."""
    return _COMPLEMENT[codes[..., ::-1]]
