"""Random numbers by counter: a word is a function of (seed, stream, step, example, its number), of nothing else.

So a batch may be cut into any pieces, on any number of processes, and a resumed run repeats an unbroken one. The
functions use only what NumPy arrays and PyTorch tensors share, and only integers: equal bits on every device.

The generator is SplitMix64 (Steele, Lea and Flood 2014) read by its counter, its state joined by a second key between
the rounds, so that two steps whose counters meet do not share numbers.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final, NamedTuple

_WEYL: Final = 0x9E3779B97F4A7C15
_FIRST: Final = 0xBF58476D1CE4E5B9
_SECOND: Final = 0x94D049BB133111EB
# Words of an example lie this far from those of the next; no example needs as many.
WORDS_PER_EXAMPLE: Final = 1 << 16
LOW_32: Final = 0xFFFFFFFF


class StepKey(NamedTuple):
    """128 bits that name one step of one stream, as two signed 64-bit integers."""

    counter: int
    mixed: int


def step_key(seed: int, stream: int, step: int) -> StepKey:
    """The key of a step.

    Args:
        seed: of the run, 0 to 2^64 - 1.
        stream: what the numbers are for, 0 to 2^64 - 1.
        step: of the run, 0 to 2^64 - 1.
    """
    text = b"".join(number.to_bytes(8, "little") for number in (seed, stream, step))
    digest = hashlib.blake2b(text, digest_size=16).digest()
    return StepKey(int.from_bytes(digest[:8], "little", signed=True), int.from_bytes(digest[8:], "little", signed=True))


def random_words(key: StepKey, counters: Any) -> Any:
    """Random 64-bit words.

    Args:
        counters: int64 array or tensor of any shape: `example * WORDS_PER_EXAMPLE + word`.

    Returns:
        int64 of the same shape and kind; all 64 bits are random, so half of the words are negative.
    """
    words = counters * _signed(_WEYL) + key.counter
    words = (words ^ _shifted(words, 30)) * _signed(_FIRST) ^ key.mixed
    words = (words ^ _shifted(words, 27)) * _signed(_SECOND)
    return words ^ _shifted(words, 31)


def below(numbers: Any, limit: Any) -> Any:
    """32-bit numbers -> uniform integers in 0 .. limit - 1; limit up to 2^31, relative error up to limit / 2^32."""
    return (numbers * limit) >> 32


def high_half(words: Any) -> Any:
    """The upper 32 bits of each word, as 0 .. 2^32 - 1."""
    return (words >> 32) & LOW_32


def low_half(words: Any) -> Any:
    """The lower 32 bits of each word, as 0 .. 2^32 - 1."""
    return words & LOW_32


def _shifted(words: Any, bits: int) -> Any:
    """Shift right, filling with zeros; on int64 alone it would fill with the sign."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
