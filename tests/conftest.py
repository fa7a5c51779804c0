"""The toy world: a genome, segmentations, peaks and accessibility of a few kB, and the dataset prepared from them."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyBigWig
import pytest

from ebert_core.config import PrepareConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.prepare import prepare
from ebert_core.epigenome.state_models import BUILT_IN

if TYPE_CHECKING:
    from ebert_core.inference.models import LoadedModel
    from ebert_core.inference.predictor import Request
    from ebert_core.model.device import Device

ROOT = Path(__file__).resolve().parents[1]

# The second length is no multiple of 50 or 200; the third sequence is shorter than a bin.
TOY_CHROMS = {"chr1": 60_000, "chr2": 41_337, "chrShort": 150}
TOY_N_RUN = ("chr1", 20_000, 23_010)
TOY_EXCLUDED = [("chr1", 40_010, 40_790), ("chr1", 40_700, 41_000), ("chr2", 9_000, 9_200)]
TOY_MOTIFS = {"CTCF": "CCACCAGGGGGCGC", "MAX": "ACCACGTGGT"}
# File name of the segmentation -> the name under which its cell type is kept.
TOY_CELLS = {"E116": "GM12878", "HepG2": "HepG2", "MyCell": "MyCell"}
TOY_LABELLED = [("CTCF", "GM12878"), ("CTCF", "HepG2"), ("MAX", "GM12878"), ("MAX", "HepG2")]


@dataclass(frozen=True)
class ToyFiles:
    """Paths of the toy world's files; `sequences` holds the letters of its chromosomes as they stand in the FASTA."""

    folder: Path
    genome: Path
    states: Path
    chip: Path
    accessibility: Path
    exclude: Path
    sequences: dict[str, str]

    def config(self, output: Path) -> PrepareConfig:
        """Everything of the toy world, to be prepared in `output`."""
        return PrepareConfig(
            output=output,
            genome=self.genome,
            states=self.states,
            chip=self.chip,
            accessibility=self.accessibility,
            exclude=(self.exclude,),
        )


def _toy_sequences(rng: np.random.Generator) -> tuple[dict[str, str], dict[str, list[tuple[str, int]]]]:
    """Letters per chromosome, and where a motif of each TF begins."""
    sequences, sites = {}, {tf: [] for tf in TOY_MOTIFS}
    for chrom, length in TOY_CHROMS.items():
        letters = rng.choice(np.frombuffer(b"ACGT", dtype=np.uint8), size=length)
        for place in range(1_000, length - 1_000, 1_300):
            tf = list(TOY_MOTIFS)[int(rng.integers(2))]
            start = place + int(rng.integers(200))
            letters[start : start + len(TOY_MOTIFS[tf])] = np.frombuffer(TOY_MOTIFS[tf].encode(), dtype=np.uint8)
            sites[tf].append((chrom, start))
        letters[length // 3 : length // 3 + 60] |= 0x20  # soft-masked
        letters[length // 2] = ord("R")
        sequences[chrom] = letters.tobytes().decode()
    chrom, start, end = TOY_N_RUN
    sequences[chrom] = sequences[chrom][:start] + "N" * (end - start) + sequences[chrom][end:]
    return sequences, sites


def _write_segmentation(path: Path, rng: np.random.Generator) -> None:
    labels = [state.label for state in BUILT_IN["roadmap18"].states]
    rows = []
    for chrom, length in TOY_CHROMS.items():
        start = 0
        while start < length // 200 * 200:
            end = min(start + 200 * int(rng.integers(1, 12)), length // 200 * 200)
            rows.append(f"{chrom}\t{start}\t{end}\t{labels[int(rng.integers(18))]}\n")
            start = end
    path.write_bytes(gzip.compress("".join(rows).encode(), mtime=0))


def _write_peaks(path: Path, sites: list[tuple[str, int]], rng: np.random.Generator) -> None:
    rows = []
    for chrom, site in sites:
        if rng.random() < 0.8:
            start = site - 150 + int(rng.integers(20))
            rows.append(f"{chrom}\t{start}\t{start + 300}\t.\t0\t.\t{rng.uniform(1, 50):.3f}\t-1\t-1\t150\n")
    path.write_bytes(gzip.compress("".join(rows).encode(), mtime=0))


def _write_bigwig(path: Path, rng: np.random.Generator) -> None:
    with pyBigWig.open(str(path), "w") as handle:
        handle.addHeader(list(TOY_CHROMS.items()))
        for chrom, length in TOY_CHROMS.items():
            ends = np.unique(np.append(rng.integers(1, length, size=length // 150), length))
            starts = np.concatenate([[0], ends[:-1]])
            kept = rng.random(len(starts)) < 0.7
            kept[0] = True
            handle.addEntries(
                [chrom] * int(kept.sum()),
                starts[kept].tolist(),
                ends=ends[kept].tolist(),
                values=rng.gamma(1.0, 3.0, size=int(kept.sum())).tolist(),
            )


@pytest.fixture(scope="session")
def toy_files(tmp_path_factory: pytest.TempPathFactory) -> ToyFiles:
    """Input files of the toy world; do not change them."""
    folder = tmp_path_factory.mktemp("toy")
    rng = np.random.default_rng(20)
    sequences, sites = _toy_sequences(rng)
    genome = folder / "toy.fa"
    genome.write_text(
        "".join(
            f">{chrom} toy\n" + "".join(f"{letters[at : at + 60]}\n" for at in range(0, len(letters), 60))
            for chrom, letters in sequences.items()
        )
    )
    states, chip, accessibility = folder / "states", folder / "chip", folder / "accessibility"
    for made in (states, chip, accessibility):
        made.mkdir()
    for cell in TOY_CELLS:
        _write_segmentation(states / f"{cell}_18_core_K27ac_mnemonics.bed.gz", rng)
    for tf, cell in TOY_LABELLED:
        _write_peaks(chip / f"{tf}.{cell}.narrowPeak.gz", sites[tf], rng)
    _write_peaks(accessibility / "GM12878.narrowPeak.gz", sites["CTCF"] + sites["MAX"], rng)
    _write_bigwig(accessibility / "HepG2.bigWig", rng)
    exclude = folder / "exclude.bed"
    exclude.write_text("".join(f"{chrom}\t{start}\t{end}\n" for chrom, start, end in TOY_EXCLUDED))
    return ToyFiles(folder, genome, states, chip, accessibility, exclude, sequences)


@pytest.fixture(scope="session")
def toy_dataset(toy_files: ToyFiles, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The toy world as a dataset of all kinds of arrays; do not change it."""
    return prepare(toy_files.config(tmp_path_factory.mktemp("prepared") / "dataset")).dataset


@pytest.fixture(scope="session")
def predict_whole() -> Callable[..., dict[str, np.ndarray]]:
    """A function: dataset, model, request, device -> probabilities (N, T) per chromosome, NaN where a bin gets none."""
    from ebert_core.inference.pieces import make_plan, score_pieces
    from ebert_core.inference.scorer import piece_values

    def predict(dataset: Dataset, model: LoadedModel, request: Request, device: Device) -> dict[str, np.ndarray]:
        plan = make_plan(dataset, request.regions, model.geometry().core_bins, 100_000)
        shapes = {chrom: max(0, (dataset.assembly.length(chrom) - 200) // 50 + 1) for chrom in plan.chroms}
        tables = {chrom: np.full((bins, len(request.tfs)), np.nan, np.float32) for chrom, bins in shapes.items()}
        values = piece_values(dataset, model, request, device)
        for scored in score_pieces(plan.pieces, values, lambda amount, note="": None):
            tables[scored.piece.chrom][scored.piece.bins] = scored.probabilities
        return tables

    return predict


@pytest.fixture(scope="session")
def digest_tree() -> Callable[[Path], dict[str, str]]:
    """A function: folder -> SHA-256 of every file below it by relative path ('dir' for a folder)."""

    def digest(folder: Path) -> dict[str, str]:
        return {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            if path.is_file()
            else "dir"
            for path in sorted(folder.rglob("*"))
        }

    return digest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real hg19 files, from EBERT_REAL_DATA; the test is skipped where it is not there."""
    folder = Path(os.environ.get("EBERT_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "genome").is_dir():
        pytest.skip(f"no real hg19 files in {folder}; name their folder with EBERT_REAL_DATA")
    return folder
