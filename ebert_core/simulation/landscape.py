"""What all cell types of the demo world share: gaps, promoters, enhancers, genes, background domains, composition.

Positions are flat (see `ebert_core.genome.assembly`), in 200-bp bins unless the name ends in `_bp`. Letters below:
E regulatory elements, D background domains, N bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.genome.assembly import Assembly
from ebert_core.genome.intervals import any_overlap, merge
from ebert_core.simulation.config import WorldConfig
from ebert_core.simulation.sequence import ENHANCER, ISLAND, ISOCHORES
from ebert_core.vocabulary import STATE_BIN_BP

Bins = NDArray[np.int64]

# Human chromosomes begin and end with 10 kb of N and have a long gap at the centromere; small ones have neither.
_TELOMERE_BP: Final = 10_000
_CENTROMERE_BP: Final = 41_350
_GAPPED_FROM_BP: Final = 200_000
_EDGE_BINS: Final = 12
_ELEMENT_REACH_BINS: Final = 4
_ISOCHORE_MEAN_BINS: Final = 800
_GENE_BODY_MEDIAN_BINS: Final = 30
# Share of (promoters, enhancers) that nearly every cell type uses; and the chance to be active of these and of others.
_UBIQUITOUS_SHARE: Final = (0.3, 0.08)
_UBIQUITOUS_BREADTH: Final = 0.92
_SPECIFIC_BREADTH: Final = 0.33
_ISLAND_CONTRAST: Final = 0.2


@dataclass(frozen=True)
class Landscape:
    """The genome as every cell type inherits it.

    Attributes:
        known: bins that are not in an assembly gap, bool of shape (N,).
        centre: middle bin of each element, shape (E,).
        lower, upper: first bin of the element's chromosome, and the one after its last, shape (E,).
        is_promoter: promoter or enhancer, bool of shape (E,).
        strand: direction of the promoter's gene, +1 or -1, shape (E,).
        breadth: chance to be active in a cell type, shape (E,).
        body_bins: length of the promoter's gene, shape (E,); 0 for an enhancer.
        island_bp: length of the CpG island around the element's middle, shape (E,); 0 where there is none.
        domain_ends: where background domains end, shape (D,).
    """

    known: NDArray[np.bool_]
    centre: Bins
    lower: Bins
    upper: Bins
    is_promoter: NDArray[np.bool_]
    strand: Bins
    breadth: NDArray[np.float64]
    body_bins: Bins
    island_bp: Bins
    domain_ends: Bins

    @property
    def num_bins(self) -> int:
        """N."""
        return len(self.known)

    @property
    def centre_bp(self) -> Bins:
        """Flat position of each element's middle, shape (E,)."""
        return self.centre * STATE_BIN_BP + STATE_BIN_BP // 2


def gaps_bp(assembly: Assembly) -> tuple[Bins, Bins]:
    """(starts, ends) of the runs of N on the flat axis, bp: telomeres, centromeres and the padding after each end."""
    runs = []
    for chrom, length in zip(assembly.chroms, assembly.lengths, strict=True):
        offset = assembly.offset(chrom)
        runs.append((offset + length, offset + -(-length // STATE_BIN_BP) * STATE_BIN_BP))
        if length >= _GAPPED_FROM_BP:
            middle = offset + int(length * 0.4)
            runs += [
                (offset, offset + _TELOMERE_BP),
                (middle, middle + _CENTROMERE_BP),
                (offset + length - _TELOMERE_BP, offset + length),
            ]
    starts, ends = np.array([run for run in runs if run[1] > run[0]], dtype=np.int64).reshape(-1, 2).T
    return merge(starts, ends)


def build_landscape(rng: np.random.Generator, assembly: Assembly, config: WorldConfig) -> Landscape:
    """Draw the elements, genes and domains of a genome."""
    num_bins = assembly.flat_bp // STATE_BIN_BP
    bin_starts = np.arange(num_bins, dtype=np.int64) * STATE_BIN_BP
    known = ~any_overlap(*gaps_bp(assembly), bin_starts, bin_starts + STATE_BIN_BP)
    centre = _element_centres(rng, assembly, config)
    near = any_overlap(*gaps_bp(assembly), (centre - _EDGE_BINS) * STATE_BIN_BP, (centre + _EDGE_BINS) * STATE_BIN_BP)
    centre = centre[~near]
    index, _ = assembly.locate(centre * STATE_BIN_BP)

    count = len(centre)
    is_promoter = rng.random(count) < config.promoter_share
    ubiquitous = rng.random(count) < np.where(is_promoter, *_UBIQUITOUS_SHARE)
    body = 4 + rng.lognormal(np.log(_GENE_BODY_MEDIAN_BINS), 0.7, size=count).astype(np.int64)
    island = rng.integers(600, 1501, size=count)
    # More of the ubiquitous promoters lie in islands than of the others; together `island_share` of them do.
    ubiquity = _UBIQUITOUS_SHARE[0]
    more = np.where(ubiquitous, 1 - ubiquity, -ubiquity) * _ISLAND_CONTRAST
    in_island = rng.random(count) < config.island_share + more
    return Landscape(
        known=known,
        centre=centre,
        lower=assembly.offsets[index] // STATE_BIN_BP,
        upper=assembly.offsets[index + 1] // STATE_BIN_BP,
        is_promoter=is_promoter,
        strand=np.where(rng.random(count) < 0.5, 1, -1),
        breadth=np.where(ubiquitous, _UBIQUITOUS_BREADTH, _SPECIFIC_BREADTH),
        body_bins=np.where(is_promoter, body, 0),
        island_bp=np.where(is_promoter & in_island, island, 0),
        domain_ends=_renewal(rng, num_bins, shape=1.3, mean=60),
    )


def _element_centres(rng: np.random.Generator, assembly: Assembly, config: WorldConfig) -> Bins:
    """Bins at distances of a fixed least spacing plus an exponential rest."""
    least = config.element_least_spacing_bp / STATE_BIN_BP
    rest = (config.element_spacing_bp - config.element_least_spacing_bp) / STATE_BIN_BP
    found = []
    for first, last in zip(assembly.offsets[:-1] // STATE_BIN_BP, assembly.offsets[1:] // STATE_BIN_BP, strict=True):
        room = int(last - first) - 2 * _EDGE_BINS
        gaps = least + rng.exponential(rest, size=max(int(room / least) + 1, 0))
        places = first + _EDGE_BINS + np.cumsum(gaps).astype(np.int64)
        found.append(places[places < last - _EDGE_BINS])
    return np.concatenate(found)


def _renewal(rng: np.random.Generator, length: int, shape: float, mean: float) -> Bins:
    """Ends of consecutive pieces with gamma-distributed lengths that fill [0, length)."""
    pieces = 1 + rng.gamma(shape, mean / shape, size=int(4 * length / mean) + 16).astype(np.int64)
    ends = np.cumsum(pieces)
    return np.append(ends[ends < length], length)


def composition_classes(rng: np.random.Generator, landscape: Landscape) -> NDArray[np.uint8]:
    """Composition class of every base (see `sequence.COMPOSITIONS`), uint8 of shape (N * 200,)."""
    ends = _renewal(rng, landscape.num_bins, shape=4, mean=_ISOCHORE_MEAN_BINS)
    kinds = rng.integers(0, len(ISOCHORES), size=len(ends)).astype(np.uint8)
    classes = np.repeat(kinds, np.diff(ends, prepend=0) * STATE_BIN_BP)
    length = np.where(landscape.is_promoter, landscape.island_bp, rng.integers(500, 1001, size=len(landscape.centre)))
    kind = np.where(landscape.is_promoter, ISLAND, ENHANCER).astype(np.uint8)
    paint(classes, landscape.centre_bp - length // 2, length, kind)
    return classes


def paint(track: NDArray[np.uint8], starts: Bins, lengths: Bins, codes: NDArray[np.uint8] | int) -> None:
    """Fill intervals of a track with codes, in place; of two that overlap, the later wins. Lengths <= 0 are skipped."""
    lengths = np.maximum(lengths, 0)
    firsts = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    track[firsts + np.arange(len(firsts))] = np.repeat(np.broadcast_to(codes, lengths.shape), lengths)


def repeat_room(landscape: Landscape) -> NDArray[np.bool_]:
    """Bins where repeats may lie: known, and 800 bp or more from every element's middle; shape (N,)."""
    bins = np.arange(landscape.num_bins, dtype=np.int64)
    starts, ends = merge(landscape.centre - _ELEMENT_REACH_BINS, landscape.centre + _ELEMENT_REACH_BINS + 1)
    return landscape.known & ~any_overlap(starts, ends, bins, bins + 1)
