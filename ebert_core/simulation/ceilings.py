"""How well the bound bins of a chromosome can be told from the unbound ones, before any label is drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ebert_core.genome.assembly import Assembly
from ebert_core.genome.bins import benchmark_bin_starts
from ebert_core.simulation.chip import Array
from ebert_core.simulation.factors import Sites
from ebert_core.simulation.truth import Chances
from ebert_core.vocabulary import BIN_BP, STATE_BIN_BP, STRIDE_BP, STRIDES_PER_BIN


def expected_auprc(score: Array, bound: Array, unbound: Array) -> float:
    """The auPRC (average precision) that a score is expected to reach, from the outcomes' probabilities.

    Precision at each threshold is taken as a ratio of expectations; bins of equal score share a threshold.

    Args:
        score: what orders the bins, shape (bins,).
        bound, unbound: probabilities of the two outcomes, shape (bins,).
    """
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    hits, misses = np.cumsum(bound[order])[ends], np.cumsum(unbound[order])[ends]
    gained = np.diff(hits, prepend=0)
    return float((gained * hits / np.maximum(hits + misses, 1e-300)).sum() / max(hits[-1], 1e-300))


def motif_alone(sites: Sites, num_strides: int) -> Array:
    """Score (bits) of the best site whose middle lies in each bin, -1 where there is none; shape (num_strides,)."""
    best = np.full(num_strides, -1.0)
    for back in range(STRIDES_PER_BIN):
        np.maximum.at(best, np.maximum(sites.centre // STRIDE_BP - back, 0), sites.score)
    return best


def states_alone(chances: Chances, track: NDArray[np.uint8]) -> Array:
    """P(bound | not ambiguous, state at the bin's middle), shape (N,)."""
    middles = np.arange(len(chances.bound)) * STRIDE_BP + BIN_BP // 2
    states = track[np.minimum(middles // STATE_BIN_BP, len(track) - 1)]
    bound = np.bincount(states, chances.bound)
    return (bound / np.maximum(bound + np.bincount(states, chances.unbound), 1e-300))[states]


def ceilings(
    assembly: Assembly, chrom: str, truths: tuple[Chances, Chances], sites: Sites, track: NDArray[np.uint8]
) -> dict[str, float]:
    """Expected auPRC of the best and of poorer predictors on the benchmark's bins of one chromosome.

    Args:
        assembly: the world's.
        chrom: where to measure.
        truths: outcomes given (sequence and states, sequence alone).
        sites: of the factor.
        track: state codes of the cell type.
    """
    nothing = np.empty(0, np.int64)
    bins = (assembly.offset(chrom) + benchmark_bin_starts(assembly.length(chrom), (nothing, nothing))) // STRIDE_BP
    full, blind = truths
    scores = {
        "with_states": full.given_labelled,
        "without_states": blind.given_labelled,
        "motif_alone": motif_alone(sites, len(full.bound)),
        "states_alone": states_alone(full, track),
    }
    bound, unbound = full.bound[bins], full.unbound[bins]
    return {name: round(expected_auprc(score[bins], bound, unbound), 4) for name, score in scores.items()} | {
        "bound_share": round(float(bound.mean()), 6)
    }
