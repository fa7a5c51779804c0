"""What benchmarks/scan.py scans: a dataset of real or random bases with made-up tracks, and a model of random weights.

Speed depends neither on what the weights are nor on what the tracks say.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from ebert_core.config import PRESETS, EncoderConfig, FeatureConfig, FinetuneConfig, PrepareConfig, finetune_defaults
from ebert_core.data.dataset import Dataset
from ebert_core.data.prepare import prepare
from ebert_core.data.task_features import TrackSpec
from ebert_core.epigenome.state_models import BUILT_IN
from ebert_core.inference.calls import ThresholdTable
from ebert_core.model.checkpoint import features_entry, save, vocabulary_entry
from ebert_core.model.encoder import Encoder
from ebert_core.model.fusion import BindingModel, BindingShape
from ebert_core.model.stride_features import MotifScan
from ebert_core.model.trees import Trees

CELLS: Final = ("GM12878", "HeLa-S3", "K562")
TFS: Final = tuple(f"TF{number}" for number in range(10))
STATES: Final = 18
# Motifs: 44 of the common families (config.COMMON_MOTIFS) and one per TF, as wide as JASPAR's.
NUM_MOTIFS: Final = 44 + len(TFS)
WIDTHS: Final = (7, 21)
# Of chr22 of hg19, without gaps.
REAL_START: Final = 30_000_000
# ENCODE-DREAM's (docs/definitions.md).
GENOME_BINS: Final = 60_519_747
_LETTERS: Final = np.frombuffer(b"ACGT", dtype=np.uint8)
_LINE: Final = 60
_CHUNK: Final = 1_000_000


@dataclass(frozen=True)
class Land:
    """Chromosomes of a made-up genome: `chroms` of `length` bp each."""

    length: int
    chroms: int = 1

    @property
    def names(self) -> list[str]:
        return [f"chr{number + 1}" for number in range(self.chroms)]


def real_genome() -> Path | None:
    """hg19's chr20 to chr22, where they lie (EBERT_REAL_DATA, default ../shared/data)."""
    data = Path(os.environ.get("EBERT_REAL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    path = data / "genome" / "hg19.chr20_21_22.fa.gz"
    return path if path.is_file() else None


def make_dataset(folder: Path, land: Land) -> Dataset:
    """States, accessibility and transcript starts at random; bases of chr22 where these are to be had and suffice."""
    rng = np.random.default_rng(0)
    genome, states, peaks = folder / "genome.fa", folder / "states", folder / "peaks"
    states.mkdir(parents=True)
    peaks.mkdir()
    write_genome(genome, land, rng)
    labels = [state.label for state in BUILT_IN["roadmap18"].states]
    for cell in CELLS:
        with (states / f"{cell}_18_core_K27ac_mnemonics.bed").open("w", encoding="ascii") as handle:
            for chrom in land.names:
                edges = np.unique(rng.integers(1, land.length // 200, size=land.length // 4_000)) * 200
                ends = [*edges.tolist(), land.length // 200 * 200]
                rows = zip([0, *ends], ends, rng.integers(STATES, size=len(ends)).tolist(), strict=False)
                handle.writelines(f"{chrom}\t{start}\t{end}\t{labels[state]}\n" for start, end, state in rows)
        with (peaks / f"{cell}.narrowPeak").open("w", encoding="ascii") as handle:
            for chrom in land.names:
                starts = np.sort(rng.choice(land.length // 1_000, land.length // 30_000, replace=False)) * 1_000
                strengths = rng.exponential(5, size=len(starts)) + 1
                rows_of = zip(starts.tolist(), strengths.tolist(), strict=True)
                handle.writelines(
                    f"{chrom}\t{start}\t{start + 300}\t.\t0\t.\t{strength:.2f}\t-1\t-1\t150\n"
                    for start, strength in rows_of
                )
    tss = folder / "tss.bed"
    tss.write_text(
        "".join(f"{c}\t{at}\t{at + 1}\n" for c in land.names for at in range(1_000, land.length - 1, 50_000))
    )
    dataset = prepare(
        PrepareConfig(output=folder / "dataset", genome=genome, states=states, accessibility=peaks, tss=tss)
    ).dataset
    genome.unlink()
    return dataset


def write_genome(path: Path, land: Land, rng: np.random.Generator) -> None:
    """A FASTA of chr22's bases, or of random ones, repeated where a chromosome is longer than what there is."""
    import pysam

    real = real_genome()
    if real is None:
        letters = _LETTERS[rng.integers(0, 4, _CHUNK)].tobytes()
    else:
        with pysam.FastaFile(str(real)) as fasta:
            letters = fasta.fetch("chr22", REAL_START, REAL_START + min(land.length, 4 * _CHUNK)).upper().encode()
    with path.open("wb") as handle:
        for name in land.names:
            handle.write(f">{name}\n".encode())
            written = 0
            while written < land.length:
                part = letters[: min(len(letters) // _LINE * _LINE, land.length - written)]
                handle.write(b"".join(part[at : at + _LINE] + b"\n" for at in range(0, len(part), _LINE)))
                written += len(part)


def random_model(config: EncoderConfig, finetune: FinetuneConfig, num_tracks: int) -> BindingModel:
    """A model of random weights that listens to its encoder, with as many motifs as `--motifs` gives ten TFs."""
    rng = np.random.default_rng(1)
    widths = rng.integers(*WIDTHS, size=NUM_MOTIFS, endpoint=True)
    motifs = MotifScan([rng.normal(size=(width, 4)).astype(np.float32) for width in widths])
    shape = BindingShape(finetune.fusion, True, (NUM_MOTIFS, motifs.kernels.shape[2]), num_tracks)
    torch.manual_seed(0)
    module = BindingModel(Encoder(config, STATES), len(TFS), shape, motifs).eval()
    torch.nn.init.normal_(module.head.from_tokens.weight, std=0.05)
    if finetune.trees:
        module.grow(random_trees(module, finetune.trees))
    return module


def random_trees(module: BindingModel, number: int) -> Trees:
    """So many trees per TF with random questions about the model's own task features."""
    trees = Trees(module.head.out.out_features, number)
    trees.asked.random_(0, 3 * (module.shape.num_features + module.head.num_states))
    trees.threshold.normal_()
    trees.value.normal_(std=0.02)
    return trees


def make_model(folder: Path, dataset: Dataset, size: str) -> None:
    """A model folder as `ebert finetune --motifs` leaves it, with random weights."""
    config = PRESETS[size].encoder
    finetune = finetune_defaults(config, motifs=True)
    spec = TrackSpec.choose(dataset, FeatureConfig())
    module = random_model(config, finetune, len(spec.channels))
    table = ThresholdTable(np.array([0.9, 0.5, 0.1]), np.array([0.9, 0.6, 0.2]), np.array([0.2, 0.6, 1.0]), 10, 90)
    body = {
        "tfs": list(TFS),
        "config": finetune.model_dump(),
        "encoder": config.model_dump(),
        "features": features_entry(module.shape, [f"motif{number}" for number in range(NUM_MOTIFS)], spec.to_json()),
        "vocabulary": vocabulary_entry(config, dataset.require_state_model()),
        "data": {
            "tfs": list(TFS),
            "cells": list(CELLS[:2]),
            "valid_cells": [CELLS[1]],
            "train": [[dataset.assembly.chroms[0], 0, 100_000]],
            "valid": [[dataset.assembly.chroms[0], 100_000, 200_000]],
            "assembly": dataset.assembly.to_json(),
        },
        "calibration": {tf: {"slope": 1.0, "intercept": -2.0, "thresholds": table.to_json()} for tf in TFS},
        "started_from": {"scratch": config.model_dump()},
    }
    folder.mkdir(parents=True)
    save(folder, "model", module, body)
