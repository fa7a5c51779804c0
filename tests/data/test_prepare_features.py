"""Transcript starts, expression, gene names and reads in a dataset: they come and are replaced as other tracks do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pysam
import pytest

from ebert_core.artifacts import MANIFEST_NAME
from ebert_core.config import PrepareConfig
from ebert_core.data.builder import DatasetBuilder
from ebert_core.data.dataset import Dataset
from ebert_core.data.prepare import prepare
from ebert_core.epigenome.accessibility import cut_track
from ebert_core.errors import EbertError, InputError
from ebert_core.reporting import SILENT

LENGTHS = {"chr1": 4_000, "chr2": 2_345}
TEXTS = {
    "tss": ("starts.bed", "chr1\t1500\t1501\t.\t.\t+\nchr2\t900\t901\t.\t.\t-\n"),
    "expression": ("rpkm.tsv", "gene_id\tK562\tHepG2\nENSG1\t1\t2\nENSG2\t0\t9\n"),
    "gene_names": ("names.tsv", "id\tsymbol\nENSG1\tCTCF\n"),
}
PARTS = ("tss", "expression", "gene_names", "accessibility")


def write_bam(path: Path, places: list[int]) -> Path:
    header = pysam.AlignmentHeader.from_references(list(LENGTHS), list(LENGTHS.values()))
    with pysam.AlignmentFile(str(path), "wb", header=header) as handle:
        for place in sorted(places):
            read = pysam.AlignedSegment(header)
            read.query_name, read.query_sequence, read.cigarstring = "read", "A" * 20, "20M"
            read.reference_id, read.reference_start, read.mapping_quality = 0, place, 30
            handle.write(read)
    return path


class World:
    """A genome of two short chromosomes, and one file of each of the parts."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.output = folder, folder / "dataset"
        self.genome = folder / "genome.fa"
        self.genome.write_text("".join(f">{name}\n{'ACGTA' * (n // 5)}\n" for name, n in LENGTHS.items()))
        self.parts = {key: folder / name for key, (name, _) in TEXTS.items()}
        for key, (_, text) in TEXTS.items():
            self.parts[key].write_text(text)
        self.parts["accessibility"] = write_bam(folder / "K562.bam", [10, 20, 900])

    def prepare(self, *parts, **options):
        given = {part: self.parts[part] for part in parts}
        return prepare(PrepareConfig(output=self.output, **given, **options), SILENT)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def arrays(folder):
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*.npy")
    }


def contents(folder):
    return {name: content for name, (content, _) in arrays(folder).items()}


def test_one_part_after_the_other_equals_all_at_once(world):
    whole = world.prepare(*PARTS, genome=world.genome)
    assert {k: n for k, n in whole.added.items() if n} == {
        "tss": 1,
        "expression": 2,
        "gene_names": 1,
        "accessibility": 1,
    }
    at_once = contents(world.output)
    assert {"tss/distance.npy", "expression/K562.npy", "gene_names/names.npy", "accessibility/K562.npy"} <= set(at_once)
    world.output = world.folder / "steps"
    world.prepare(genome=world.genome)
    for part in reversed(PARTS):
        world.prepare(part)
    assert contents(world.output) == at_once


def test_the_same_files_again_change_nothing(world):
    world.prepare(*PARTS, genome=world.genome)
    before = arrays(world.output)
    again = world.prepare(*PARTS)
    assert not any(again.added.values())
    assert {k: n for k, n in again.kept.items() if n} == {
        "tss": 1,
        "expression": 2,
        "gene_names": 1,
        "accessibility": 1,
    }
    assert arrays(world.output) == before


@pytest.mark.parametrize("part", PARTS)
def test_another_file_needs_overwrite(world, digest_tree, part):
    world.prepare(*PARTS, genome=world.genome)
    before = digest_tree(world.output)
    if part == "accessibility":
        write_bam(world.parts[part], [10, 2_000])
    else:
        world.parts[part].write_text(TEXTS[part][1].replace("ENSG1", "ENSG7").replace("1500\t1501", "2000\t2001"))
    with pytest.raises(EbertError, match="the dataset already holds") as caught:
        world.prepare(part)
    assert "--overwrite" in caught.value.hint
    assert digest_tree(world.output) == before

    world.prepare(part, overwrite=True)
    after = digest_tree(world.output)
    assert len(after) == len(before), "the replaced array is gone"
    opened = Dataset.open(world.output)
    found = {
        "tss": lambda: opened.tss_distance("chr1")[40] == 0,
        "expression": lambda: opened.expression("K562", "ENSG7") == pytest.approx(np.log(2)),
        "gene_names": lambda: opened.expression("K562", "CTCF") is None,
        "accessibility": lambda: opened.accessibility("K562", "chr1")[40] > 0,
    }
    assert found[part]()


BROKEN = {
    "tss": "chr1\t10\t5\n",
    "expression": "gene_id\tK562\nENSG1\tx\n",
    "gene_names": "id\tname\n",
    "accessibility": "no BAM",
}


@pytest.mark.parametrize("part", PARTS)
def test_a_failing_part_leaves_nothing(world, digest_tree, part):
    world.parts[part].write_text(BROKEN[part])
    before = digest_tree(world.folder)
    with pytest.raises(InputError):
        world.prepare(*PARTS, genome=world.genome)
    assert digest_tree(world.folder) == before
    world.prepare(genome=world.genome)
    before = digest_tree(world.folder)
    with pytest.raises(InputError):
        world.prepare(*PARTS)
    assert digest_tree(world.folder) == before


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_missing_or_a_folder(world, part):
    world.parts[part].unlink()
    with pytest.raises(InputError, match="is not there") as caught:
        world.prepare(part, genome=world.genome)
    assert f"--{part.replace('_', '-')}" in caught.value.hint
    world.parts[part].mkdir()
    with pytest.raises(EbertError, match=r"is a folder, expected a file|holds no"):
        world.prepare(part, genome=world.genome)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_run_killed_before_its_manifest_leaves_the_old_dataset(world, monkeypatch):
    world.prepare(genome=world.genome)
    manifest, before = (world.output / MANIFEST_NAME).read_bytes(), set(contents(world.output))
    monkeypatch.setattr(DatasetBuilder, "finish", lambda self: os._exit(9))
    child = os.fork()
    if child == 0:
        world.prepare(*PARTS)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    monkeypatch.undo()
    assert (world.output / MANIFEST_NAME).read_bytes() == manifest
    opened = Dataset.open(world.output)
    assert not opened.has_tss
    assert opened.expression_cells == opened.accessibility_cells == ()
    assert len(contents(world.output)) == len(before) + 5, "arrays that nobody names"

    world.prepare("tss")
    assert set(contents(world.output)) - before == {"tss/distance.2.npy"}, "what was left is gone"
    assert Dataset.open(world.output).tss_distance("chr2")[18] == 0


def read_parts(dataset):
    dataset.tss_distance("chr1")
    dataset.expression("HepG2", "CTCF")


@pytest.mark.parametrize("name", ["tss/distance.npy", "expression/HepG2.npy", "gene_names/names.npy"])
def test_a_damaged_array_is_refused_by_name(world, name):
    world.prepare(*PARTS, genome=world.genome)
    path = world.output / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    opened = Dataset.open(world.output)
    with pytest.raises(InputError, match="does not match the digest") as caught:
        read_parts(opened)
    assert str(path) in caught.value.message


@pytest.mark.parametrize("place", [("tss", "file"), ("expression", "K562", "sources"), ("gene_names", "sha256")])
def test_a_manifest_edited_by_hand_is_told(world, place):
    world.prepare(*PARTS, genome=world.genome)
    manifest = json.loads((world.output / MANIFEST_NAME).read_text())
    inner = manifest
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = None
    (world.output / MANIFEST_NAME).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="is damaged"):
        Dataset.open(world.output)


def test_nothing_to_add_writes_nothing(world, digest_tree):
    world.prepare("tss", genome=world.genome)
    stamp = (world.output / MANIFEST_NAME).stat().st_mtime_ns
    asked = world.prepare()
    assert asked.dataset.has_tss
    assert not any([*asked.added.values(), *asked.kept.values()])
    assert (world.output / MANIFEST_NAME).stat().st_mtime_ns == stamp


def test_replicates_of_a_folder_and_of_a_sheet(world, tmp_path):
    folder = tmp_path / "reads"
    folder.mkdir()
    first = write_bam(folder / "DNASE.K562.biorep1.techrep1.bam", [10, 500])
    second = write_bam(folder / "DNASE.K562.biorep2.techrep1.bam", [20, 900, 901])
    write_bam(folder / "HepG2.bam", [77])
    dataset = world.prepare(genome=world.genome, accessibility=folder).dataset
    assert dataset.accessibility_cells == ("HepG2", "K562")
    expected, _ = cut_track([first, second], dataset.assembly)
    np.testing.assert_array_equal(dataset.flat_accessibility("K562"), expected)
    sources = dataset.manifest["accessibility"]["K562"]["sources"]
    assert [source["name"] for source in sources] == [first.name, second.name]

    sheet = tmp_path / "sheet.tsv"
    sheet.write_text(f"cell\tpath\nE123\treads/{first.name}\nk562\treads/{second.name}\n")
    assert world.prepare(accessibility=sheet).kept["accessibility"] == 1
    sheet.write_text(f"cell\tpath\nE123\treads/{first.name}\nk562\treads/{first.name}\n")
    with pytest.raises(InputError, match="is the same file as"):
        world.prepare(accessibility=sheet, overwrite=True)
    (folder / "K562.bed").write_text("chr1\t10\t20\n")
    with pytest.raises(InputError, match="is the second file for K562"):
        world.prepare(accessibility=folder, overwrite=True)
