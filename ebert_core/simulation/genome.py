"""The inherited part of a demo world: one genome, its sequence and where factors can bind on it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.genome.assembly import Assembly
from ebert_core.simulation.config import WorldConfig
from ebert_core.simulation.factors import FACTORS, Sites, find_sites
from ebert_core.simulation.landscape import (
    Landscape,
    build_landscape,
    composition_classes,
    gaps_bp,
    paint,
    repeat_room,
)
from ebert_core.simulation.motifs import words_of
from ebert_core.simulation.sequence import (
    letters_of,
    markov_sequence,
    markov_tables,
    paste_repeats,
    plant,
    repeat_families,
    sprinkle_ambiguity,
)
from ebert_core.simulation.states import draw_domains
from ebert_core.vocabulary import BASE_CODES, BASE_N

_PLANT_SPREAD_BP: Final = 220
_PLANT_APART_BP: Final = 25
_EDGE_BP: Final = 100
_NUM_AMBIGUOUS: Final = 40


@dataclass(frozen=True)
class Genome:
    """The inherited part of a world: layout, finished sequence, sites.

    Attributes:
        assembly: names and lengths.
        landscape: what cell types share.
        letters: ASCII on the flat axis.
        sites: per factor, in the order of FACTORS.
        domains: the background domains' shared state codes.
    """

    assembly: Assembly
    landscape: Landscape
    letters: NDArray[np.uint8]
    sites: tuple[Sites, ...]
    domains: NDArray[np.uint8]


def stream(config: WorldConfig, *names: str) -> np.random.Generator:
    """An independent source of randomness per purpose, so that changing one part of the world leaves the others."""
    return np.random.default_rng([config.seed, *(zlib.crc32(name.encode()) for name in names)])


def build_genome(config: WorldConfig) -> Genome:
    """Draw layout and sequence, and find the sites."""
    assembly = Assembly.from_sizes(config.chrom_lengths)
    landscape = build_landscape(stream(config, "landscape"), assembly, config)
    rng = stream(config, "sequence")
    classes = composition_classes(rng, landscape)
    tables = markov_tables(rng, config.markov_order)
    codes = markov_sequence(rng, classes, tables)
    families = repeat_families(rng, tables, [factor.motif for factor in FACTORS])
    repeats = paste_repeats(rng, codes, repeat_room(landscape), config.repeat_share, families)
    _plant_sites(stream(config, "sites"), codes, landscape, config)
    gap_starts, gap_ends = gaps_bp(assembly)
    paint(codes, gap_starts, gap_ends - gap_starts, BASE_N)
    letters = letters_of(codes, repeats)
    sprinkle_ambiguity(rng, letters, rng.choice(np.flatnonzero(codes < BASE_N), size=_NUM_AMBIGUOUS, replace=False))
    codes = BASE_CODES[letters]  # what a reader of the FASTA will see
    words = words_of(codes)
    sites = tuple(find_sites(codes, words, factor, assembly) for factor in FACTORS)
    return Genome(assembly, landscape, letters, sites, draw_domains(stream(config, "domains"), landscape))


def _plant_sites(rng: np.random.Generator, codes: NDArray[np.uint8], landscape: Landscape, config: WorldConfig) -> None:
    """Motif instances in elements, at most one per factor and never overlapping, and strays outside of elements."""
    slots = np.arange(-_PLANT_SPREAD_BP, _PLANT_SPREAD_BP + 1, _PLANT_APART_BP)
    count = len(landscape.centre)
    chosen = np.argsort(rng.random((count, len(slots))), axis=1)[:, : len(FACTORS)]
    element_bounds = np.concatenate([[-len(codes)], landscape.centre_bp, [2 * len(codes)]])
    num_strays = round(config.stray_sites_per_mb * len(codes) / 1e6)
    for number, factor in enumerate(FACTORS):
        present = rng.random(count) < np.where(landscape.is_promoter, *factor.planted)
        in_elements = (landscape.centre_bp + slots[chosen[:, number]])[present]
        strays = rng.integers(_EDGE_BP, len(codes) - _EDGE_BP, size=num_strays)
        after = np.searchsorted(element_bounds, strays)
        distance = np.minimum(strays - element_bounds[after - 1], element_bounds[after] - strays)
        places = np.concatenate([in_elements, strays[distance > 2 * _PLANT_SPREAD_BP]])
        plant(codes, places, factor.motif.sample(rng, len(places), config.site_sharpness))
