"""The three transcription factors of the demo world, and where they can bind.

A site is a motif hit above a low score. Its chance to carry a conservative ChIP peak in a cell type is

    sigmoid(slope * (score - midpoint) + preference[state of the cell type at the site's middle base]),

so binding needs both a good motif and the right chromatin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.genome.assembly import Assembly
from ebert_core.simulation.motifs import Motif, scan
from ebert_core.simulation.states import STATE_NAMES
from ebert_core.vocabulary import BASE_N, STATE_BIN_BP

STATE_CLASSES: Final[Mapping[str, tuple[str, ...]]] = {
    "promoter": ("TssA",),
    "promoter flank": ("TssFlnk", "TssFlnkU", "TssFlnkD"),
    "enhancer": ("EnhA1", "EnhA2", "EnhG1", "EnhG2"),
    "weak enhancer": ("EnhWk",),
    "bivalent": ("TssBiv", "EnhBiv"),
    "transcribed": ("Tx", "TxWk"),
    "repressed": ("ReprPC", "ReprPCWk", "Het", "ZNF/Rpts"),
    "quiescent": ("Quies",),
}
OPEN_CLASSES: Final = ("promoter", "promoter flank", "enhancer", "weak enhancer")


@dataclass(frozen=True)
class Factor:
    """One transcription factor.

    Attributes:
        motif: what it reads.
        midpoint: score (bits) at which half the sites of a state of preference 0 are bound.
        slope: logit per bit.
        cutoff: a weaker hit is no site, bits.
        preference: logit added per state class.
        planted: chance of a planted instance per (promoter, enhancer).
    """

    motif: Motif
    midpoint: float
    slope: float
    cutoff: float
    preference: Mapping[str, float]
    planted: tuple[float, float]

    @property
    def name(self) -> str:
        """The motif's name, which is the factor's."""
        return self.motif.name

    @property
    def preference_by_code(self) -> NDArray[np.float64]:
        """Logit added per state code, shape (19,); code 0 (unknown) gets no binding."""
        by_name = {name: self.preference[kind] for kind, names in STATE_CLASSES.items() for name in names}
        return np.array([-np.inf, *(by_name[name] for name in STATE_NAMES)])


@dataclass(frozen=True)
class Sites:
    """Where a factor can bind; sorted.

    Attributes:
        centre: flat position of the hit's middle base, int64 of shape (sites,).
        score: of the better strand, bits, shape (sites,).
    """

    centre: NDArray[np.int64]
    score: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.centre)


FACTORS: Final = (
    Factor(
        motif=Motif.from_consensus("SIMCTCF", "GTCCAATGAGGCGTTCAGA", "4687999898999897864"),
        midpoint=28.0,
        slope=0.4,
        cutoff=12.0,
        preference={
            "promoter": -0.3, "promoter flank": 0.0, "enhancer": 0.3, "weak enhancer": -1.0, "bivalent": -1.5,
            "transcribed": -4.0, "repressed": -7.0, "quiescent": -5.0,
        },
        planted=(0.55, 0.55),
    ),
    Factor(
        motif=Motif.from_consensus("SIMMAX", "GACCACGTGGTA", "567999999764"),
        midpoint=16.2,
        slope=0.6,
        cutoff=8.0,
        preference={
            "promoter": 0.5, "promoter flank": -0.3, "enhancer": -2.0, "weak enhancer": -4.0, "bivalent": -3.0,
            "transcribed": -6.0, "repressed": -8.0, "quiescent": -7.0,
        },
        planted=(0.95, 0.45),
    ),
    Factor(
        motif=Motif.from_consensus("SIMETS", "TAACCGGAAGTCAT", "46789999998764"),
        midpoint=19.5,
        slope=0.5,
        cutoff=8.5,
        preference={
            "promoter": -3.0, "promoter flank": -1.5, "enhancer": 0.5, "weak enhancer": -1.0, "bivalent": -3.0,
            "transcribed": -6.0, "repressed": -8.0, "quiescent": -7.0,
        },
        planted=(0.45, 0.8),
    ),
)  # fmt: skip


def find_sites(codes: NDArray[np.uint8], words: NDArray[np.intp], factor: Factor, assembly: Assembly) -> Sites:
    """Every site of a factor in the finished sequence.

    Of hits that share a base only the best is a site (an E-box reads the same on both strands, one base apart).

    Args:
        codes: base codes on the flat axis, shape (L,).
        words: `motifs.words_of(codes)`.
        factor: whose sites.
        assembly: where chromosomes end; a hit crosses none.
    """
    width = factor.motif.width
    scores = scan(words, factor.motif)
    starts = np.flatnonzero(scores >= factor.cutoff)
    chrom, _ = assembly.locate(starts)
    known = (codes[starts[:, None] + np.arange(width)] < BASE_N).all(axis=1)
    starts = starts[known & (starts + width <= assembly.offsets[chrom + 1])]
    found = scores[starts].astype(np.float64)
    best = _local_best(starts, found, width)
    return Sites(starts[best] + width // 2, found[best])


def _local_best(starts: NDArray[np.int64], scores: NDArray[np.float64], reach: int) -> NDArray[np.bool_]:
    """Which hits no better one (or equal one further left) starts within `reach` bp of."""
    best = np.ones(len(starts), dtype=bool)
    for step in range(1, reach):
        near = starts[step:] - starts[:-step] < reach
        if not near.any():
            break
        left_wins = scores[:-step] >= scores[step:]
        best[step:] &= ~(near & left_wins)
        best[:-step] &= ~(near & ~left_wins)
    return best


def site_logits(factor: Factor, sites: Sites, track: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Logit of each site's chance to be bound in a cell type with this state track, shape (sites,)."""
    states = track[sites.centre // STATE_BIN_BP]
    return factor.slope * (sites.score - factor.midpoint) + factor.preference_by_code[states]


def open_bins(track: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Bins in open chromatin (active promoters, their flanks, enhancers), shape of `track`."""
    names = {name for kind in OPEN_CLASSES for name in STATE_CLASSES[kind]}
    return np.array([False, *(name in names for name in STATE_NAMES)])[track]
