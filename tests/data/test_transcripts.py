"""Distances to transcript starts: against every pair of stride and start, and against bedtools."""

from __future__ import annotations

import gzip
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebert_core.config import PrepareConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.prepare import prepare
from ebert_core.data.transcripts import FARTHEST_BP, distance_to_starts
from ebert_core.errors import EbertError, InputError
from ebert_core.genome.assembly import Assembly
from ebert_core.io.bed import read_transcript_starts

ASSEMBLY = Assembly(("chr1", "chr2"), (1_000, 777))


def pair_by_pair(starts, length):
    distances = []
    for first in range(0, length, 50):
        bases = range(first, min(first + 50, length))
        distances.append(min((min(abs(base - start) for base in (bases[0], bases[-1])) if start not in bases else 0
                              for start in starts), default=FARTHEST_BP))  # fmt: skip
    return distances


@given(st.lists(st.integers(0, 999), max_size=6), st.integers(0, 80))
def test_distances_equal_those_of_every_pair(places, shorter):
    length = 1_000 - shorter
    starts = sorted({place for place in places if place < length})
    distance = distance_to_starts(np.array(starts, dtype=np.int64), length)
    assert distance.dtype == np.uint16
    assert distance.tolist() == pair_by_pair(starts, length)


def test_the_cap():
    distance = distance_to_starts(np.array([0]), 140_000)
    assert distance[[0, 1, 1310, 1311, -1]].tolist() == [0, 50, 65_500, FARTHEST_BP, FARTHEST_BP]


@pytest.mark.skipif(shutil.which("bedtools") is None, reason="bedtools is not on this machine")
def test_distances_equal_those_of_bedtools(tmp_path):
    rng = np.random.default_rng(6)
    starts = np.unique(rng.integers(0, 41_337, size=40))
    (tmp_path / "starts.bed").write_text("".join(f"chr1\t{start}\t{start + 1}\n" for start in starts))
    strides = "".join(f"chr1\t{at}\t{min(at + 50, 41_337)}\n" for at in range(0, 41_337, 50))
    (tmp_path / "strides.bed").write_text(strides)
    command = ["bedtools", "closest", "-d", "-t", "first", "-a", "strides.bed", "-b", "starts.bed"]
    rows = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.splitlines()
    assert distance_to_starts(starts, 41_337).tolist() == [int(row.split("\t")[-1]) for row in rows]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("chr1\t9\t10\nchr1\t5\t6\nchr1\t9\t10\nchr2\t0\t1\n", {"chr1": [5, 9], "chr2": [0]}),
        ("1\t9\t10\t.\t.\t-\nchr7\t5\t6\t.\t.\t+\n", {"chr1": [9]}),
        ("chr1\t100\t200\tx\t0\t+\nchr1\t300\t400\tx\t0\t-\nchr1\t7\t8\t.\t.\t.\n", {"chr1": [7, 100, 399]}),
    ],
)
def test_starts_of_a_bed_file(tmp_path, text, expected):
    for name, content in (("a.bed", text.encode()), ("a.bed.gz", gzip.compress(text.encode()))):
        (tmp_path / name).write_bytes(content)
        starts, _ = read_transcript_starts(tmp_path / name, ASSEMBLY)
        assert {chrom: places.tolist() for chrom, places in starts.items()} == expected


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("chr1\t5\t6\nchr1\t5\t90\n", 2, "is 85 bp long and has no strand"),
        ("chr1\t5\t90\tgene\t0\t.\n", 1, "is 85 bp long and has no strand"),
        ("chr1\t5\t6\tgene\t0\t1\n", 1, "strand is '1', expected"),
        ("chr1\t5\t1006\tgene\t0\t+\n", 1, "past the end of chr1"),
        ("", None, "has no data lines"),
    ],
)
def test_starts_that_cannot_be(tmp_path, text, line, problem):
    (tmp_path / "a.bed").write_text(text)
    with pytest.raises(InputError, match=problem) as caught:
        read_transcript_starts(tmp_path / "a.bed", ASSEMBLY)
    assert caught.value.line == line
    assert caught.value.hint


def test_in_a_dataset(toy_files, tmp_path, said):
    (tmp_path / "starts.bed").write_text("chr1\t25000\t25001\t.\t.\t-\nchr2\t41336\t41337\t.\t.\t+\n")
    config = PrepareConfig(output=tmp_path / "dataset", genome=toy_files.genome, tss=tmp_path / "starts.bed")
    prepare(config, said)
    dataset = Dataset.open(tmp_path / "dataset")
    assert dataset.has_tss
    assert dataset.tss_distance("chr1").tolist() == pair_by_pair([25_000], 60_000)
    assert dataset.tss_distance("chr2").tolist() == pair_by_pair([41_336], 41_337)
    assert dataset.tss_distance("chrShort").tolist() == [FARTHEST_BP] * 3
    flat = dataset.flat_tss_distance
    assert (flat.dtype, flat.shape) == (np.uint16, (dataset.assembly.flat_bp // 50,))
    assert flat[-1] == FARTHEST_BP, "padding"
    assert dataset.feature_digests([])["tss"] == dataset.manifest["tss"]["sha256"]
    assert any("no transcript starts on chrShort" in text for text in said.warned)


def test_a_dataset_without_says_how_to_add_them(toy_dataset):
    assert not toy_dataset.has_tss
    with pytest.raises(EbertError, match="holds no transcript starts") as caught:
        toy_dataset.tss_distance("chr1")
    assert "--tss" in caught.value.hint


@pytest.mark.real
def test_real_starts(real_data):
    assembly = Assembly.from_sizes([("chr22", 51_304_566)])
    starts, notes = read_transcript_starts(
        real_data / "annotation" / "wgEncodeGencodeBasicV19.txStart.bed.gz", assembly
    )
    assert 0 < (distance_to_starts(starts["chr22"], 51_304_566) == 0).sum() <= len(starts["chr22"])
    assert notes
