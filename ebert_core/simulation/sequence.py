"""The DNA of the demo world: Markov background with isochores and CpG islands, repeats, planted sites, gaps.

Everything lies on the assembly's flat axis (see `ebert_core.genome.assembly`): one uint8 array of base codes for the
whole genome. Letters below: C composition classes, L length of the flat axis in bp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.simulation.motifs import Motif, scan, words_of
from ebert_core.vocabulary import NUM_BASES, STATE_BIN_BP, reverse_complement

Codes = NDArray[np.uint8]


@dataclass(frozen=True)
class Composition:
    """What a stretch of DNA is made of.

    Attributes:
        gc: share of G and C before CpG depletion.
        cpg_ratio: factor on the chance that a G follows a C (observed over expected CpG, roughly).
    """

    gc: float
    cpg_ratio: float


# Human isochores run from 35 to 55 % GC and hold a fifth of the CpGs expected by chance; islands hold most of them.
ISOCHORES: Final = (Composition(0.38, 0.2), Composition(0.42, 0.2), Composition(0.46, 0.22), Composition(0.51, 0.25))
ISLAND: Final = len(ISOCHORES)
ENHANCER: Final = ISLAND + 1
COMPOSITIONS: Final = (*ISOCHORES, Composition(0.65, 0.85), Composition(0.52, 0.3))

_LANE_BP: Final = 1024
_LEVELS: Final = 256
_CONTEXT_SPREAD: Final = 0.12
_REPEAT_SLOT_BINS: Final = 5
_REPEAT_DIVERGENCE: Final = 0.12
_REPEAT_LENGTHS_BP: Final = (290, 310, 950)
_CONSENSUS_TRIES: Final = 16
_IUPAC: Final = b"RYKMSWBDHV"


def markov_tables(rng: np.random.Generator, order: int) -> NDArray[np.uint8]:
    """Next-base tables of the composition classes, uint8 of shape (C, 4 ** order, 256).

    Row (class, context) holds each base in proportion to its probability (in 256ths), so a random byte picks the next
    base with one lookup. The chains are symmetric under reverse complement, as double-stranded DNA is.
    """
    contexts = NUM_BASES**order
    spread = np.exp(_CONTEXT_SPREAD * rng.standard_normal((contexts, NUM_BASES)))
    tables = np.empty((len(COMPOSITIONS), contexts, _LEVELS), dtype=np.uint8)
    for table, composition in zip(tables, COMPOSITIONS, strict=True):
        at, gc = (1 - composition.gc) / 2, composition.gc / 2
        chances = spread * np.array([at, gc, gc, at])
        by_last = chances.reshape(-1, NUM_BASES, NUM_BASES)  # a view: (rest of the context, last base, next base)
        by_last[:, 1, 2] *= composition.cpg_ratio
        # What deamination took from CpG it gave to TpG and CpA.
        by_last[:, 3, 2] *= 1 + 0.25 * (1 - composition.cpg_ratio)
        by_last[:, 1, 0] *= 1 + 0.25 * (1 - composition.cpg_ratio)
        by_last[:, [0, 3], [0, 3]] *= 1.15
        chances = _strand_symmetric(chances / chances.sum(axis=1, keepdims=True), order)
        ends = np.rint(np.cumsum(chances, axis=1) * _LEVELS)[:, None, :-1]
        table[:] = (np.arange(_LEVELS)[None, :, None] >= ends).sum(axis=2)
    return tables


def _strand_symmetric(chances: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """The chain whose words have the mean frequency of a word and its reverse complement in the given chain."""
    words = np.full(len(chances), 1 / len(chances))
    for _ in range(100):  # power iteration; these chains mix within tens of steps
        words = (words[:, None] * chances).reshape(NUM_BASES, -1).sum(axis=0)
    joint = (words[:, None] * chances).reshape((NUM_BASES,) * (order + 1))
    joint = joint + joint.transpose()[(slice(None, None, -1),) * (order + 1)]
    flat: NDArray[np.float64] = joint.reshape(chances.shape)
    return flat / flat.sum(axis=1, keepdims=True)


def markov_sequence(rng: np.random.Generator, classes: NDArray[np.uint8], tables: NDArray[np.uint8]) -> Codes:
    """Draw one base per position, base codes of shape (L,).

    The axis is cut into lanes of 1,024 bp that grow side by side; a lane starts from a random context.

    Args:
        rng: source of randomness.
        classes: composition class of each base, shape (L,).
        tables: from `markov_tables`.
    """
    num_contexts = tables.shape[1]
    lanes = -(-len(classes) // _LANE_BP)
    padded = np.zeros(lanes * _LANE_BP, dtype=np.int32)
    padded[: len(classes)] = classes
    rows = np.ascontiguousarray(padded.reshape(lanes, _LANE_BP).T) * num_contexts
    dice = rng.integers(0, _LEVELS, size=(_LANE_BP, lanes), dtype=np.uint8)
    context = rng.integers(0, num_contexts, size=lanes, dtype=np.int32)
    lookup = tables.reshape(-1)
    drawn = np.empty((_LANE_BP, lanes), dtype=np.uint8)
    for step in range(_LANE_BP):
        drawn[step] = lookup[(rows[step] + context) * _LEVELS + dice[step]]
        context = (context * NUM_BASES + drawn[step]) % num_contexts
    return np.ascontiguousarray(drawn.T).reshape(-1)[: len(classes)]


def paste_repeats(
    rng: np.random.Generator,
    codes: Codes,
    free_bins: NDArray[np.bool_],
    share: float,
    families: Sequence[Codes],
) -> NDArray[np.bool_]:
    """Overwrite about `share` of the axis with diverged copies of repeat families; returns where, shape (L,).

    Args:
        rng: source of randomness.
        codes: base codes, changed in place.
        free_bins: 200-bp bins that repeats may cover, shape (L / 200,).
        share: wanted fraction of the axis.
        families: consensus sequence of each repeat family, at most 1,000 bp.
    """
    inside = np.zeros(len(codes), dtype=bool)
    slots = free_bins[: len(free_bins) // _REPEAT_SLOT_BINS * _REPEAT_SLOT_BINS].reshape(-1, _REPEAT_SLOT_BINS)
    open_slots = rng.permutation(np.flatnonzero(slots.all(axis=1)))
    wanted = int(share * len(codes))
    for consensus in families:
        length = len(consensus)
        # Long families are mostly truncated at their beginning (as LINEs are), short ones whole.
        shortest = length // 4 if length > 500 else length
        count = min(len(open_slots), round(wanted / len(families) / ((shortest + length) / 2)))
        chosen, open_slots = open_slots[:count], open_slots[count:]
        lengths = rng.integers(shortest, length + 1, size=count)
        shifts = rng.integers(0, _REPEAT_SLOT_BINS * STATE_BIN_BP - lengths + 1)
        places = np.arange(length)[None, :] - (length - lengths)[:, None]
        used = places >= 0
        copies = np.broadcast_to(consensus, used.shape).copy()
        changed = rng.random(used.shape) < _REPEAT_DIVERGENCE
        copies[changed] = (copies[changed] + rng.integers(1, NUM_BASES, size=int(changed.sum()))) % NUM_BASES
        flipped = rng.random(count) < 0.5
        copies[flipped], used[flipped] = reverse_complement(copies[flipped]), used[flipped, ::-1]
        places[flipped] = np.arange(length)
        targets = ((chosen * _REPEAT_SLOT_BINS * STATE_BIN_BP + shifts)[:, None] + places)[used]
        codes[targets] = copies[used]
        inside[targets] = True
    return inside


def repeat_families(rng: np.random.Generator, tables: NDArray[np.uint8], motifs: Sequence[Motif]) -> list[Codes]:
    """Consensus sequences of three repeat families.

    Each is the one of 16 draws whose best motif hit is the weakest: a repeat must not carry sites by the hundred.
    """
    families = []
    for length in _REPEAT_LENGTHS_BP:
        tries = [markov_sequence(rng, np.ones(length, dtype=np.uint8), tables) for _ in range(_CONSENSUS_TRIES)]
        hits = [max(float(scan(words_of(each), motif).max()) for motif in motifs) for each in tries]
        families.append(tries[int(np.argmin(hits))])
    return families


def plant(codes: Codes, centres: NDArray[np.int64], instances: Codes) -> None:
    """Write motif instances into the sequence, in place.

    Args:
        codes: base codes of the flat axis.
        centres: flat position of each instance's middle base, shape (count,).
        instances: base codes, shape (count, W).
    """
    width = instances.shape[1]
    codes[(centres - width // 2)[:, None] + np.arange(width)] = instances


def letters_of(codes: Codes, lower: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """ASCII letters of base codes; lower case where `lower`, shape (L,)."""
    letters = np.frombuffer(b"ACGTN", dtype=np.uint8)[codes]
    return letters + (lower & (codes < NUM_BASES)).astype(np.uint8) * np.uint8(ord("a") - ord("A"))


def sprinkle_ambiguity(rng: np.random.Generator, letters: NDArray[np.uint8], places: NDArray[np.int64]) -> None:
    """Put a random IUPAC ambiguity letter at each place, in place."""
    letters[places] = np.frombuffer(_IUPAC, dtype=np.uint8)[rng.integers(0, len(_IUPAC), size=len(places))]
