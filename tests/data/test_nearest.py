"""Stand-ins for missing states: a made-up cell type finds its own epigenome, and so do real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ebert_core.config import PrepareConfig
from ebert_core.data.nearest import evidence_of, nearest_epigenomes
from ebert_core.data.prepare import prepare
from ebert_core.errors import EbertError, UnknownNameError

BINS = 500


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Three epigenomes that differ in where they are active, and the open chromatin of two of them."""
    folder = tmp_path_factory.mktemp("nearest")
    (folder / "genome.fa").write_text(f">chr1\n{'ACGT' * (BINS * 50)}\n")
    for name in ("states", "access"):
        (folder / name).mkdir()
    rng = np.random.default_rng(1)
    common, own = rng.random(BINS) < 0.03, {cell: rng.random(BINS) < 0.06 for cell in ("K562", "HepG2", "A549")}
    for cell, places in own.items():
        active = common | places
        rows = [f"chr1\t{200 * i}\t{200 * i + 200}\t{'1_TssA' if on else '18_Quies'}\n" for i, on in enumerate(active)]
        (folder / "states" / f"{cell}_18_core_mnemonics.bed").write_text("".join(rows))
        rows = [f"chr1\t{200 * i + 30}\t{200 * i + 170}\n" for i in np.flatnonzero(active & (rng.random(BINS) < 0.8))]
        (folder / "access" / ("Blood.bed" if cell == "K562" else f"{cell}.bed")).write_text("".join(rows))
    (folder / "access" / "A549.bed").unlink()
    config = PrepareConfig(output=folder / "dataset", genome=folder / "genome.fa", states=folder / "states")
    prepare(config)
    return prepare(PrepareConfig(output=folder / "dataset", accessibility=folder / "access")).dataset


def test_a_cell_type_without_states_finds_the_epigenome_it_is_of(world):
    found = nearest_epigenomes(world, "blood")
    assert (found[0].cell, found[0].epigenome) == ("K562", "E123")
    assert found[0].score > 2 * found[1].score
    assert all(0 <= neighbour.score <= 1 for neighbour in found)


def test_by_accessibility_its_own_states_come_first(world):
    assert nearest_epigenomes(world, "HepG2", "accessibility")[0].cell == "HepG2"


def test_by_states_it_is_not_its_own_neighbour(world):
    assert evidence_of(world, "HepG2") == "states"
    assert {each.cell for each in nearest_epigenomes(world, "E118")} == {"K562", "A549"}


def test_what_cannot_be_compared(world, toy_files, tmp_path):
    with pytest.raises(UnknownNameError, match="unknown cell type 'H1'"):
        nearest_epigenomes(world, "H1")
    bare = prepare(PrepareConfig(output=tmp_path / "a", genome=toy_files.genome, accessibility=toy_files.accessibility))
    with pytest.raises(EbertError, match="holds no chromatin states"):
        nearest_epigenomes(bare.dataset, "HepG2")
    alone = toy_files.states / "HepG2_18_core_K27ac_mnemonics.bed.gz"
    config = PrepareConfig(output=tmp_path / "b", genome=toy_files.genome, states=alone, chip=toy_files.chip)
    dataset = prepare(config).dataset
    with pytest.raises(EbertError, match="HepG2 is the only cell type with states"):
        nearest_epigenomes(dataset, "HepG2")
    with pytest.raises(EbertError, match="neither states nor accessibility of GM12878") as caught:
        nearest_epigenomes(dataset, "GM12878")
    assert "--accessibility" in caught.value.hint


@pytest.mark.real
def test_real_open_chromatin_finds_its_own_epigenome(real_data: Path, tmp_path):
    sizes = tmp_path / "chr22.chrom.sizes"
    sizes.write_text("chr22\t51304566\n")
    config = PrepareConfig(
        output=tmp_path / "dataset", genome=sizes, states=real_data / "states" / "roadmap18",
        accessibility=real_data / "dnase",
    )  # fmt: skip
    dataset = prepare(config).dataset
    for cell in ("GM12878", "HeLa-S3", "K562", "HUVEC"):
        assert nearest_epigenomes(dataset, cell, "accessibility")[0].cell == cell
