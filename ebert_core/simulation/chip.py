"""ChIP-seq and DNase peaks: what an experiment shows of the binding in one cell type.

A site's latent enrichment is its logit plus logistic noise. Above 0 it is a conservative peak (so with probability
sigmoid(logit)), above -margin a relaxed one. On top come false peaks. Positions are flat, bp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.simulation.config import WorldConfig
from ebert_core.simulation.factors import STATE_CLASSES, open_bins
from ebert_core.simulation.states import STATE_NAMES
from ebert_core.vocabulary import STATE_BIN_BP

Array = NDArray[np.float64]
Positions = NDArray[np.int64]

# Chance of a DNase peak per 200-bp bin.
_ACCESSIBLE: Final = {
    "promoter": 0.75, "promoter flank": 0.35, "enhancer": 0.55, "weak enhancer": 0.15, "bivalent": 0.08,
    "transcribed": 0.004, "repressed": 0.001, "quiescent": 0.002,
}  # fmt: skip


@dataclass(frozen=True)
class Peaks:
    """Peaks, one element per peak, sorted by start.

    Attributes:
        start, end, summit: flat, bp; the summit is an absolute position.
        enrichment: latent strength; conservative where it is 0 or more.
    """

    start: Positions
    end: Positions
    summit: Positions
    enrichment: Array

    @property
    def conservative(self) -> NDArray[np.bool_]:
        """Which peaks pass the strict threshold."""
        return self.enrichment >= 0

    def take(self, which: NDArray[np.bool_]) -> Peaks:
        """Some of the peaks."""
        return Peaks(self.start[which], self.end[which], self.summit[which], self.enrichment[which])


def sigmoid(logits: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * logits))


def peak_shape(rng: np.random.Generator, count: int, config: WorldConfig) -> tuple[Positions, Positions]:
    """(start, end) of `count` peaks relative to their site: jittered summit, uniform width. Truth uses this too."""
    low, high = config.peak_width_bp
    limit = 3 * config.summit_jitter_bp
    jitter = np.clip(rng.normal(0, config.summit_jitter_bp, size=count), -limit, limit)
    width = rng.integers(low, high + 1, size=count)
    start = np.rint(jitter).astype(np.int64) - width // 2
    return start, start + width


def false_peak_rates(track: NDArray[np.uint8], known: NDArray[np.bool_], config: WorldConfig) -> tuple[Array, Array]:
    """Chance of a false (conservative, relaxed-only) peak per state bin, each of the track's shape; none in gaps."""
    is_open = open_bins(track)
    in_open, in_closed = config.false_peaks
    conservative = np.where(is_open, in_open / 2, 0.0)
    relaxed_only = np.where(is_open, in_open / 2, in_closed)
    return conservative * known, relaxed_only * known


def chip_peaks(
    rng: np.random.Generator, centres: Positions, logits: Array, false_rates: tuple[Array, Array], config: WorldConfig
) -> Peaks:
    """One ChIP-seq experiment: relaxed peaks, the conservative ones among them; may overlap each other.

    Args:
        rng: source of randomness.
        centres: flat position of each site, shape (sites,).
        logits: of each site's chance to be bound, shape (sites,).
        false_rates: from `false_peak_rates`.
        config: peak widths, jitter, relaxed margin.
    """
    enrichment = logits + rng.logistic(size=len(logits))
    seen = enrichment >= -config.relaxed_margin
    strict, loose = false_rates
    dice = rng.random(len(strict))
    false_bins = np.flatnonzero(dice < strict + loose)
    places = false_bins * STATE_BIN_BP + rng.integers(0, STATE_BIN_BP, size=len(false_bins))
    weak = rng.uniform(0, config.relaxed_margin, size=len(false_bins))
    # A false peak just passes the threshold it passes.
    false_enrichment = np.where((dice < strict)[false_bins], weak, -weak - 1e-6)

    site = np.concatenate([centres[seen], places])
    strength = np.concatenate([enrichment[seen], false_enrichment])
    order = np.argsort(site, kind="stable")
    start, end = peak_shape(rng, len(site), config)
    start, end, strength = site[order] + start, site[order] + end, strength[order]
    order = np.argsort(start, kind="stable")
    return Peaks(start[order], end[order], ((start + end) // 2)[order], strength[order])


def dnase_peaks(
    rng: np.random.Generator,
    track: NDArray[np.uint8],
    known: NDArray[np.bool_],
    site_chances: list[tuple[Positions, Array]],
) -> Peaks:
    """One DNase-seq experiment: peaks in open states, and at likely sites of any factor.

    Peaks depend on the sequence and the states alone, not on which sites happened to be bound, so that a predictor who
    also sees accessibility cannot do better than the truth of the world.

    Args:
        rng: source of randomness.
        track: state codes, shape (N,).
        known: bins outside assembly gaps, shape (N,).
        site_chances: per factor the (flat position, chance to be bound) of its sites.
    """
    by_name = {name: _ACCESSIBLE[kind] for kind, names in STATE_CLASSES.items() for name in names}
    chance = np.array([0.0, *(by_name[name] for name in STATE_NAMES)])[track] * known
    bins = np.flatnonzero(rng.random(len(track)) < chance)
    middles = [bins * STATE_BIN_BP + rng.integers(50, 150, size=len(bins))]
    levels = [2 + 3 * chance[bins]]
    for places, chances in site_chances:
        hit = rng.random(len(places)) < 0.9 * chances
        middles.append(places[hit] + rng.integers(-20, 21, size=int(hit.sum())))
        levels.append(np.full(int(hit.sum()), 4.0))
    middle, level = np.concatenate(middles), np.concatenate(levels)
    order = np.argsort(middle, kind="stable")
    middle, level = middle[order], level[order]
    # Peak callers report one summit per 150 bp; the first of a crowd stands for it.
    apart = np.concatenate([[True], np.diff(middle) >= 150]) if len(middle) else np.zeros(0, dtype=bool)
    middle, level = middle[apart], level[apart]
    half = rng.integers(75, 151, size=len(middle))
    return Peaks(middle - half, middle + half, middle, level + rng.normal(0, 0.5, size=len(middle)))
