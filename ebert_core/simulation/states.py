"""Chromatin states of one cell type: segments painted on the landscape that all cell types share.

The alphabet is Roadmap's expanded 18-state model, in its own order, codes 1..18. Letters: E elements, N bins.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.simulation.landscape import Bins, Landscape, paint

STATE_NAMES: Final = (
    "TssA", "TssFlnk", "TssFlnkU", "TssFlnkD", "Tx", "TxWk", "EnhG1", "EnhG2", "EnhA1", "EnhA2", "EnhWk",
    "ZNF/Rpts", "Het", "TssBiv", "EnhBiv", "ReprPC", "ReprPCWk", "Quies",
)  # fmt: skip
CODE: Final = {name: number for number, name in enumerate(STATE_NAMES, start=1)}
MNEMONICS: Final = tuple(f"{number}_{name}" for name, number in CODE.items())

# Background domains: share of the domains, and how often a cell type redraws the shared one.
_DOMAINS: Final = {"Quies": 0.62, "ReprPCWk": 0.16, "ReprPC": 0.08, "Het": 0.09, "ZNF/Rpts": 0.05}
_DOMAIN_REDRAWN: Final = 0.25
# An enhancer that is not active is primed (EnhWk) or poised (EnhBiv) or gone; a promoter bivalent, repressed or silent.
_PRIMED, _POISED = 0.22, 0.06
_BIVALENT, _REPRESSED = 0.35, 0.25
_FLICKER: Final = 0.004
_FLICKERS: Final = ("EnhWk", "TxWk", "ReprPCWk", "Het")


def cell_states(rng: np.random.Generator, landscape: Landscape, shared_domains: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw one cell type's state track, uint8 codes 1..18 of shape (N,).

    Args:
        rng: source of randomness.
        landscape: what cell types share.
        shared_domains: from `draw_domains`; a cell type keeps three quarters of them.
    """
    own = draw_domains(rng, landscape)
    kinds = np.where(rng.random(len(own)) < _DOMAIN_REDRAWN, own, shared_domains)
    track = np.repeat(kinds, np.diff(landscape.domain_ends, prepend=0))
    active = rng.random(len(landscape.centre)) < landscape.breadth
    fate = rng.random(len(landscape.centre))
    _paint_genes(rng, track, landscape, active & landscape.is_promoter)
    _paint_enhancers(rng, track, landscape, active, fate)
    _paint_silent_promoters(rng, track, landscape, active, fate)
    _paint_promoters(rng, track, landscape, active & landscape.is_promoter)
    flickers = np.flatnonzero(rng.random(len(track)) < _FLICKER)
    track[flickers] = np.array([CODE[name] for name in _FLICKERS], dtype=np.uint8)[
        rng.integers(0, len(_FLICKERS), size=len(flickers))
    ]
    track[~landscape.known] = CODE["Quies"]
    return track


def draw_domains(rng: np.random.Generator, landscape: Landscape) -> NDArray[np.uint8]:
    """A state code for each background domain, shape (D,)."""
    codes = np.array([CODE[name] for name in _DOMAINS], dtype=np.uint8)
    return rng.choice(codes, size=len(landscape.domain_ends), p=list(_DOMAINS.values()))


def _paint_along(
    track: NDArray[np.uint8], landscape: Landscape, who: NDArray[np.bool_], span: tuple[Bins, Bins], code: int | Bins
) -> None:
    """Paint bins `span` = (from, to), counted from the element's middle in its gene's direction, within its chromosome.

    All arguments per element, shape (E,).
    """
    forward = landscape.strand > 0
    starts = np.where(forward, landscape.centre + span[0], landscape.centre - span[1] + 1)
    ends = np.where(forward, landscape.centre + span[1], landscape.centre - span[0] + 1)
    starts, ends = np.maximum(starts, landscape.lower), np.minimum(ends, landscape.upper)
    codes = np.broadcast_to(code, starts.shape).astype(np.uint8)
    paint(track, starts[who], (ends - starts)[who], codes[who])


def _paint_genes(
    rng: np.random.Generator, track: NDArray[np.uint8], landscape: Landscape, active: NDArray[np.bool_]
) -> None:
    """Transcribed bodies: weak at both ends, strong in between for two thirds of the active genes."""
    body = landscape.body_bins
    start = np.full(len(body), 2)
    _paint_along(track, landscape, active, (start, body), CODE["TxWk"])
    head = start + (body * rng.uniform(0.05, 0.2, size=len(body))).astype(np.int64)
    tail = (body * rng.uniform(0.7, 0.95, size=len(body))).astype(np.int64)
    strong = active & (rng.random(len(body)) < 0.67)
    _paint_along(track, landscape, strong, (head, tail), CODE["Tx"])


def _paint_enhancers(
    rng: np.random.Generator,
    track: NDArray[np.uint8],
    landscape: Landscape,
    active: NDArray[np.bool_],
    fate: NDArray[np.float64],
) -> None:
    """Active ones: a core of EnhA (EnhG within a transcribed gene) between EnhWk; the others primed, poised or gone."""
    count = len(landscape.centre)
    enhancer = ~landscape.is_promoter
    core = rng.integers(2, 6, size=count)
    first, last = -(core // 2), core - core // 2
    genic = np.isin(track[landscape.centre], [CODE["Tx"], CODE["TxWk"]])
    rare = rng.random(count) < 0.3
    code = np.where(genic, np.where(rare, CODE["EnhG2"], CODE["EnhG1"]), np.where(rare, CODE["EnhA2"], CODE["EnhA1"]))
    left, right = rng.integers(0, 4, size=count), rng.integers(0, 4, size=count)
    live = enhancer & active
    _paint_along(track, landscape, live, (first - left, last + right), CODE["EnhWk"])
    _paint_along(track, landscape, live, (first, last), code)
    primed = enhancer & ~active & (fate < _PRIMED)
    poised = enhancer & ~active & (fate > 1 - _POISED)
    _paint_along(track, landscape, primed, (first, last), CODE["EnhWk"])
    _paint_along(track, landscape, poised, (first, last), CODE["EnhBiv"])


def _paint_silent_promoters(
    rng: np.random.Generator,
    track: NDArray[np.uint8],
    landscape: Landscape,
    active: NDArray[np.bool_],
    fate: NDArray[np.float64],
) -> None:
    """Bivalent promoters in a Polycomb domain, repressed ones under it; silent ones leave the background."""
    count = len(landscape.centre)
    silent = landscape.is_promoter & ~active
    bivalent = silent & (fate < _BIVALENT)
    repressed = silent & (fate > 1 - _REPRESSED)
    before, after = rng.integers(3, 12, size=count), rng.integers(3, 20, size=count)
    _paint_along(track, landscape, bivalent | repressed, (-before, after), CODE["ReprPC"])
    core = rng.integers(2, 5, size=count)
    first, last = -(core // 2), core - core // 2
    flank = rng.integers(0, 3, size=(2, count))
    _paint_along(track, landscape, bivalent, (first - flank[0], last + flank[1]), CODE["EnhBiv"])
    _paint_along(track, landscape, bivalent, (first, last), CODE["TssBiv"])


def _paint_promoters(
    rng: np.random.Generator, track: NDArray[np.uint8], landscape: Landscape, active: NDArray[np.bool_]
) -> None:
    """TssA between its flanks: upstream and downstream states, or the plain flank for a third of the promoters."""
    count = len(landscape.centre)
    core = rng.integers(2, 5, size=count)
    first, last = -(core // 2), core - core // 2
    plain = rng.random(count) < 0.33
    upstream, downstream = rng.integers(1, 4, size=count), rng.integers(1, 4, size=count)
    _paint_along(
        track,
        landscape,
        active,
        (first - upstream, first),
        np.where(plain, CODE["TssFlnk"], CODE["TssFlnkU"]),
    )
    _paint_along(
        track,
        landscape,
        active,
        (last, last + downstream),
        np.where(plain, CODE["TssFlnk"], CODE["TssFlnkD"]),
    )
    _paint_along(track, landscape, active, (first, last), CODE["TssA"])


def segments(track: NDArray[np.uint8]) -> tuple[Bins, Bins, NDArray[np.uint8]]:
    """Runs of equal state of one chromosome: (start bins, end bins, codes); they tile the track, which may be empty."""
    starts = np.flatnonzero(np.concatenate([[True], track[1:] != track[:-1]])[: len(track)])
    return starts, np.append(starts[1:], len(track))[: len(starts)], track[starts]
