"""The demo world: a small genome whose cell types, binding and best reachable scores are known, as real files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.artifacts import publish_folder, write_json
from ebert_core.genome.assembly import Assembly
from ebert_core.reporting import SILENT, Reporter
from ebert_core.simulation import files, truth
from ebert_core.simulation.ceilings import ceilings
from ebert_core.simulation.chip import Array, chip_peaks, dnase_peaks, false_peak_rates, sigmoid
from ebert_core.simulation.config import WorldConfig
from ebert_core.simulation.factors import FACTORS, Factor, Sites, site_logits
from ebert_core.simulation.genome import Genome, build_genome, stream
from ebert_core.simulation.motifs import decoys, to_meme
from ebert_core.simulation.states import cell_states
from ebert_core.vocabulary import STRIDES_PER_BIN

Tracks = Mapping[str, NDArray[np.uint8]]

_NUM_DECOYS: Final = 6
_EXCLUDED_BP: Final = (400, 1_210, 5_000)


@dataclass(frozen=True)
class World:
    """Where the files of a demo world are, and how to split it.

    Attributes:
        folder: holds everything below.
        config: what it was made from.
    """

    folder: Path
    config: WorldConfig

    @property
    def genome(self) -> Path:
        """Plain FASTA."""
        return self.folder / "genome.fa"

    @property
    def states(self) -> Path:
        """Folder of `CELL_18_core_K27ac_mnemonics.bed.gz`."""
        return self.folder / "states"

    @property
    def chip(self) -> Path:
        """Folder of `ChIPseq.CELL.TF.{conservative.train,relaxed}.narrowPeak.gz`."""
        return self.folder / "chip"

    @property
    def accessibility(self) -> Path:
        """Folder of `CELL.narrowPeak.gz`."""
        return self.folder / "dnase"

    @property
    def motifs(self) -> Path:
        """MEME file of the TFs' motifs and of decoys."""
        return self.folder / "motifs.meme"

    @property
    def exclude(self) -> Path:
        """BED of regions never used."""
        return self.folder / "exclude.bed"

    @property
    def aliases(self) -> Path:
        """Sheet of further names of the cell types (`alias`, `cell`)."""
        return self.folder / "cells.tsv"

    @property
    def truth(self) -> Path:
        """Folder of `TF.CELL.bw`: P(bound | not ambiguous) given sequence and states."""
        return self.folder / "truth"

    @property
    def truth_without_states(self) -> Path:
        """Folder of `TF.bw`: the same given the sequence alone, cell types averaged over."""
        return self.folder / "truth_without_states"

    @property
    def summary(self) -> Path:
        """JSON: configuration, counts, and the auPRC that the best predictors are expected to reach."""
        return self.folder / "world.json"

    @property
    def assembly(self) -> Assembly:
        """Names and lengths of the chromosomes."""
        return Assembly.from_sizes(self.config.chrom_lengths)

    @property
    def chroms(self) -> tuple[str, ...]:
        """All chromosomes, in file order."""
        return tuple(name for name, _ in self.config.chrom_lengths)

    @property
    def tfs(self) -> tuple[str, ...]:
        """All transcription factors."""
        return tuple(factor.name for factor in FACTORS)

    @property
    def cells(self) -> tuple[str, ...]:
        """All cell types."""
        return self.config.cells

    @property
    def test_cell(self) -> str:
        """Cell type to hold out."""
        return self.config.test_cell

    @property
    def test_chrom(self) -> str:
        """Chromosome to hold out."""
        return self.config.test_chrom

    @property
    def validation_chrom(self) -> str:
        """Chromosome to choose the best checkpoint on."""
        return self.config.validation_chrom

    @property
    def train_cells(self) -> tuple[str, ...]:
        """All cell types but the held-out one."""
        return tuple(cell for cell in self.cells if cell != self.test_cell)

    @property
    def train_chroms(self) -> tuple[str, ...]:
        """All chromosomes but the held-out and the validation one."""
        return tuple(chrom for chrom in self.chroms if chrom not in (self.test_chrom, self.validation_chrom))

    def states_path(self, cell: str) -> Path:
        """Segmentation of a cell type."""
        return self.states / f"{cell}_18_core_K27ac_mnemonics.bed.gz"

    def peaks_path(self, tf: str, cell: str, kind: str = "conservative") -> Path:
        """Peaks of a TF in a cell type; `kind` is 'conservative' or 'relaxed'."""
        ending = "conservative.train" if kind == "conservative" else "relaxed"
        return self.chip / f"ChIPseq.{cell}.{tf}.{ending}.narrowPeak.gz"

    def accessibility_path(self, cell: str) -> Path:
        """DNase peaks of a cell type that has them."""
        return self.accessibility / f"{cell}.narrowPeak.gz"

    def truth_path(self, tf: str, cell: str) -> Path:
        """What the best predictor says of a TF in a cell type."""
        return self.truth / f"{tf}.{cell}.bw"

    def truth_without_states_path(self, tf: str) -> Path:
        """What the best predictor that sees no states says of a TF."""
        return self.truth_without_states / f"{tf}.bw"


def build_world(config: WorldConfig, folder: Path, *, overwrite: bool = False, reporter: Reporter = SILENT) -> World:
    """Draw a world and write its files; the folder appears whole or not at all.

    Raises:
        OutputExistsError: `folder` is there and may not be replaced.
    """
    with publish_folder(folder, overwrite=overwrite) as staged:
        world = World(staged, config)
        for sub in (world.states, world.chip, world.accessibility, world.truth, world.truth_without_states):
            sub.mkdir()
        genome = build_genome(config)
        _write_genome(world, genome)
        tracks = {
            cell: cell_states(stream(config, "states", cell), genome.landscape, genome.domains) for cell in world.cells
        }
        _write_cells(world, genome, tracks)
        summary = _write_binding(world, genome, tracks, reporter)
        write_json(world.summary, {"config": dataclasses.asdict(config), **summary})
    return World(folder, config)


def _write_genome(world: World, genome: Genome) -> None:
    files.write_fasta(world.genome, genome.assembly, genome.letters)
    rng = stream(world.config, "rest")
    world.motifs.write_text(to_meme([*(factor.motif for factor in FACTORS), *decoys(rng, _NUM_DECOYS)]))
    rows = []
    for chrom, length in zip(genome.assembly.chroms, genome.assembly.lengths, strict=True):
        if length > 20 * sum(_EXCLUDED_BP):
            # One region in each third of the chromosome, so that none meets another.
            third = length // 3
            for number, size in enumerate(_EXCLUDED_BP):
                start = number * third + int(rng.integers(0, third - size))
                rows.append((chrom, start, start + size, "Low_Mappability"))
    files.write_bed(world.exclude, rows)
    names = "".join(f"SIM{number}\t{cell}\n" for number, cell in enumerate(world.cells, start=1))
    world.aliases.write_text(f"alias\tcell\n{names}")


def _write_cells(world: World, genome: Genome, tracks: Tracks) -> None:
    for cell, track in tracks.items():
        files.write_segmentation(world.states_path(cell), genome.assembly, track)
        if cell in world.config.cells_without_accessibility:
            continue
        chances = [
            (sites.centre, sigmoid(site_logits(factor, sites, track)))
            for factor, sites in zip(FACTORS, genome.sites, strict=True)
        ]
        peaks = dnase_peaks(stream(world.config, "dnase", cell), track, genome.landscape.known, chances)
        files.write_accessibility(world.accessibility_path(cell), genome.assembly, peaks)


def _write_binding(world: World, genome: Genome, tracks: Tracks, reporter: Reporter) -> dict[str, Any]:
    """Peaks and truth of every TF and cell type; returns what `world.json` says of them."""
    config = world.config
    template = truth.measure_template(stream(config, "template"), config)
    hypothetical = [
        cell_states(stream(config, "hypothetical", str(number)), genome.landscape, genome.domains)
        for number in range(config.marginal_cells)
    ]
    counts: dict[str, dict[str, int]] = {factor.name: {} for factor in FACTORS}
    best: dict[str, dict[str, dict[str, float]]] = {factor.name: {} for factor in FACTORS}
    with reporter.task("simulating binding", len(FACTORS) * len(tracks), "experiments") as advance:
        for factor, sites in zip(FACTORS, genome.sites, strict=True):
            tf = factor.name
            blind = _chances(*_mean_binding(factor, sites, hypothetical, genome, config), template)
            files.write_truth(world.truth_without_states_path(tf), genome.assembly, blind.given_labelled)
            for cell, track in tracks.items():
                logits = site_logits(factor, sites, track)
                rates = false_peak_rates(track, genome.landscape.known, config)
                rng = stream(config, "chip", tf, cell)
                peaks = chip_peaks(rng, sites.centre, logits, rates, config)
                paths = world.peaks_path(tf, cell), world.peaks_path(tf, cell, "relaxed")
                files.write_idr_peaks(rng, *paths, genome.assembly, peaks)
                full = _chances((sites.centre, *_bound_and_relaxed(logits, config)), rates, template)
                files.write_truth(world.truth_path(tf, cell), genome.assembly, full.given_labelled)
                counts[tf][cell] = int(peaks.conservative.sum())
                best[tf][cell] = ceilings(genome.assembly, config.test_chrom, (full, blind), sites, track)
                advance(1, f"{tf} {cell}")
    return {
        "sites": {factor.name: len(sites) for factor, sites in zip(FACTORS, genome.sites, strict=True)},
        "conservative_peaks": counts,
        "expected_auprc_on": config.test_chrom,
        "expected_auprc": best,
    }


def _bound_and_relaxed(logits: Array, config: WorldConfig) -> tuple[Array, Array]:
    """Chances of a conservative and of any peak, from the logit of binding."""
    return sigmoid(logits), sigmoid(logits + config.relaxed_margin)


def _mean_binding(
    factor: Factor, sites: Sites, tracks: list[NDArray[np.uint8]], genome: Genome, config: WorldConfig
) -> tuple[tuple[NDArray[np.int64], Array, Array], tuple[Array, Array]]:
    """Sites and false-peak rates averaged over cell types.

    It is what somebody can know who has the sequence and where elements lie, but not which cell type uses which.
    """
    bound, relaxed = _bound_and_relaxed(np.stack([site_logits(factor, sites, track) for track in tracks]), config)
    rates = [false_peak_rates(track, genome.landscape.known, config) for track in tracks]
    strict, loose = (np.mean([rate[kind] for rate in rates], axis=0) for kind in (0, 1))
    return (sites.centre, bound.mean(axis=0), relaxed.mean(axis=0)), (strict, loose)


def _chances(
    at_sites: tuple[NDArray[np.int64], Array, Array], rates: tuple[Array, Array], template: truth.Template
) -> truth.Chances:
    return truth.bin_chances(len(rates[0]) * STRIDES_PER_BIN, at_sites, rates, template)
