"""The motifs of the demo world: how they are made, drawn from and found in a sequence.

Scores are log-odds in bits against a uniform background, so a motif's hits can be read as in any motif browser.
Letters below: W motif width, L sequence length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.vocabulary import BASE_N, BASES, NUM_BASES, reverse_complement

# A scan adds up tables of 6-mers (4,096 floats, which fit the first-level cache) instead of single bases.
_WORD: Final = 6
# Strength digit of a consensus column -> probability of the consensus base.
_STRENGTHS: Final = {"9": 0.97, "8": 0.92, "7": 0.82, "6": 0.70, "5": 0.58, "4": 0.46}


@dataclass(frozen=True)
class Motif:
    """A position weight matrix.

    Attributes:
        name: what MEME files and reports call it.
        probabilities: of A, C, G, T per position, float64 of shape (W, 4); rows sum to 1, none is 0.
    """

    name: str
    probabilities: NDArray[np.float64]

    @classmethod
    def from_consensus(cls, name: str, consensus: str, strengths: str) -> Motif:
        """A motif from its consensus and one digit (4 weak .. 9 strong) per position.

        Half of what the consensus base leaves goes to its transition partner (A-G, C-T), as in real matrices.
        """
        rows = np.empty((len(consensus), NUM_BASES))
        for row, base, digit in zip(rows, consensus, strengths, strict=True):
            code, rest = BASES.index(base), 1 - _STRENGTHS[digit]
            row[:] = rest / 4
            row[(code + 2) % NUM_BASES] = rest / 2
            row[code] = 1 - rest
        return cls(name, rows)

    @property
    def width(self) -> int:
        """Number of positions, bp."""
        return len(self.probabilities)

    @property
    def log_odds(self) -> NDArray[np.float64]:
        """Bits against a uniform background, shape (W, 4)."""
        return np.log2(self.probabilities * NUM_BASES)

    def sample(self, rng: np.random.Generator, count: int, sharpness: float = 1.0) -> NDArray[np.uint8]:
        """Draw `count` instances, base codes of shape (count, W), half of them on the other strand.

        Args:
            rng: source of randomness.
            count: instances wanted.
            sharpness: the matrix is raised to this power first; above 1 gives stronger sites than the matrix itself.
        """
        sharp = self.probabilities**sharpness
        cumulative = np.cumsum(sharp / sharp.sum(axis=1, keepdims=True), axis=1)[:, :-1]
        draws = rng.random((count, self.width, 1))
        instances = (draws > cumulative).sum(axis=2).astype(np.uint8)
        flipped = rng.random(count) < 0.5
        instances[flipped] = reverse_complement(instances[flipped])
        return instances


def words_of(codes: NDArray[np.uint8]) -> NDArray[np.intp]:
    """The number of the 6-mer that starts at each base, shape (L - 5,); an unknown base counts as A.

    Compute it once per sequence and hand it to `scan` for every motif.
    """
    bases = np.where(codes == BASE_N, 0, codes).astype(np.int16)
    length = len(codes) - _WORD + 1
    words = np.zeros(max(length, 0), dtype=np.int16)
    for place in range(_WORD):
        words = words * NUM_BASES + bases[place : place + length]
    return words.astype(np.intp)


def scan(words: NDArray[np.intp], motif: Motif) -> NDArray[np.float32]:
    """Score (bits) of the better strand for the motif starting at each base, shape (L - W + 1,).

    Windows with unknown bases score as if these were A; drop them afterwards.
    """
    forward = motif.log_odds
    return np.maximum(_scan_strand(words, forward), _scan_strand(words, forward[::-1, ::-1]))


def _scan_strand(words: NDArray[np.intp], log_odds: NDArray[np.float64]) -> NDArray[np.float32]:
    width = len(log_odds)
    count = len(words) + _WORD - width
    scores = np.zeros(max(count, 0), dtype=np.float32)
    covered = 0
    for start in [*range(0, width - _WORD, _WORD), width - _WORD]:
        # The last word may overlap the one before it; positions that were counted already add nothing.
        columns = [
            log_odds[start + place] if start + place >= covered else np.zeros(NUM_BASES) for place in range(_WORD)
        ]
        covered = start + _WORD
        scores += _word_table(columns)[words[start : start + len(scores)]]
    return scores


def _word_table(columns: Sequence[NDArray[np.float64]]) -> NDArray[np.float32]:
    table = np.zeros(1)
    for column in columns:
        table = (table[:, None] + column).reshape(-1)
    return table.astype(np.float32)


def decoys(rng: np.random.Generator, count: int) -> list[Motif]:
    """Motifs that nothing in the world binds, 8 to 16 bp wide."""
    found = []
    for number in range(1, count + 1):
        width = int(rng.integers(8, 17))
        consensus = "".join(rng.choice(list(BASES), width))
        found.append(Motif.from_consensus(f"DECOY{number}", consensus, "".join(rng.choice(list("45678"), width))))
    return found


def to_meme(motifs: Sequence[Motif]) -> str:
    """MEME minimal motif format, version 4."""
    lines = ["MEME version 4", "", "ALPHABET= ACGT", "", "strands: + -", "", "Background letter frequencies"]
    lines += ["A 0.25 C 0.25 G 0.25 T 0.25", ""]
    for number, motif in enumerate(motifs, start=1):
        lines.append(f"MOTIF SM{number:04d}.1 {motif.name}")
        lines.append(f"letter-probability matrix: alength= 4 w= {motif.width} nsites= 1000 E= 0")
        lines += [" ".join(f"{value:.6f}" for value in row) for row in motif.probabilities]
        lines.append("")
    return "\n".join(lines)
