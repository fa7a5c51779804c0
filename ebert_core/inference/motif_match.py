"""Whether the bases that a model heeds are those of the TF's motif.

At the motif's best hit in a site's stretch, the effects of the substitutions (positions x bases) are held against the
motif's log-odds by Pearson's correlation. Both are taken relative to the mean of the four bases of their position:
effects are known up to a constant per position only, since the site's own base has none.

Legend: L bases of the stretch, M width of the motif.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.inference.mutagenesis import SiteEffects
from ebert_core.inference.windows import Floats
from ebert_core.vocabulary import NUM_BASES

# Fewer positions than this correlate by chance.
_LEAST_POSITIONS: Final = 4


@dataclass(frozen=True)
class MotifMatch:
    """A motif's best hit in a stretch, and how well effects follow it.

    Attributes:
        start, end: of the hit on the chromosome.
        strand: + or -.
        bits: log-odds score of the hit.
        share: of the best possible score.
        correlation: Pearson's, over positions x bases; NaN where the effects do not vary.
        effects, log_odds: what is correlated, relative to their position's mean, in the motif's own direction; float32
            (positions, 4).
    """

    start: int
    end: int
    strand: str
    bits: float
    share: float
    correlation: float
    effects: Floats
    log_odds: Floats


def best_hit(codes: NDArray[np.uint8], log_odds: Floats) -> tuple[int, str, float] | None:
    """(place, strand, bits) of the best hit within base codes (L,); the first of equal ones, + before -.

    A base that is not known counts 0 bits. None where the motif (M, 4) does not fit in.
    """
    width = len(log_odds)
    if len(codes) < width:
        return None
    padded = np.concatenate([log_odds, np.zeros((width, 1), dtype=log_odds.dtype)], axis=1)
    turned = padded[::-1, [3, 2, 1, 0, 4]]
    seen = np.lib.stride_tricks.sliding_window_view(np.minimum(codes, NUM_BASES), width)
    scores = [matrix[np.arange(width), seen].sum(axis=1) for matrix in (padded, turned)]
    places = [int(np.argmax(each)) for each in scores]
    strand = int(scores[1][places[1]] > scores[0][places[0]])
    return places[strand], "+-"[strand], float(scores[strand][places[strand]])


def match_motif(effects: SiteEffects, log_odds: Floats) -> MotifMatch | None:
    """A motif's best hit in a site's stretch; None where it does not fit in, or too few bases there are known."""
    hit = best_hit(effects.bases, log_odds)
    if hit is None:
        return None
    place, strand, bits = hit
    found = effects.deltas[place : place + len(log_odds)]
    if strand == "-":
        found = found[::-1, ::-1]
    known = ~np.isnan(found).any(axis=1)
    if known.sum() < _LEAST_POSITIONS:
        return None
    ours, theirs = (each[known] - each[known].mean(axis=1, keepdims=True) for each in (found, log_odds))
    start = effects.first + place
    share = bits / float(log_odds.max(axis=1).sum())
    return MotifMatch(start, start + len(log_odds), strand, bits, share, pearson(ours, theirs), ours, theirs)


def pooled_correlation(matches: Sequence[MotifMatch]) -> float:
    """Pearson's correlation over the positions x bases of all sites together; NaN without any."""
    if not matches:
        return float("nan")
    return pearson(
        np.concatenate([each.effects for each in matches]), np.concatenate([each.log_odds for each in matches])
    )


def pearson(a: Floats, b: Floats) -> float:
    """Correlation of two arrays of one shape; NaN where one is constant."""
    x, y = (np.asarray(each, dtype=np.float64).ravel() for each in (a, b))
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return float((x * y).sum() / size) if size > 0 else float("nan")
