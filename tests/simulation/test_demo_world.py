"""The demo world's files: equal bytes from equal seeds, and what the field's own readers make of them."""

from __future__ import annotations

import dataclasses
import gzip
import shutil
import subprocess
import time

import numpy as np
import pyBigWig
import pyfaidx
import pytest

from ebert_core.errors import EbertError, OutputExistsError
from ebert_core.simulation.config import WorldConfig
from ebert_core.simulation.states import MNEMONICS
from ebert_core.simulation.world import build_world

needs_bedtools = pytest.mark.skipif(shutil.which("bedtools") is None, reason="bedtools is not installed")


def rows_of(path):
    return [line.split("\t") for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


def bedtools(*words):
    done = subprocess.run(["bedtools", *map(str, words)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_equal_seeds_give_equal_bytes(tmp_path, tiny_config, digest_tree):
    first = build_world(tiny_config, tmp_path / "first")
    second = build_world(tiny_config, tmp_path / "second")
    other = build_world(dataclasses.replace(tiny_config, seed=6), tmp_path / "other")
    digests = [digest_tree(world.folder) for world in (first, second, other)]
    assert digests[0] == digests[1]
    assert digests[0].keys() == digests[2].keys()
    written = {name for name, digest in digests[0].items() if digest != "dir"}
    same = {name for name in written if digests[0][name] == digests[2][name]}
    assert same == {"cells.tsv"} | ({"exclude.bed"} & same)


def test_a_small_world_takes_seconds(tmp_path, small_config):
    start = time.process_time()
    build_world(small_config, tmp_path / "world")
    assert time.process_time() - start < 5


def test_an_existing_folder_is_refused_and_can_be_replaced(tmp_path, tiny_config):
    target = tmp_path / "world"
    target.mkdir()
    (target / "mine").write_text("keep")
    with pytest.raises(OutputExistsError):
        build_world(tiny_config, target)
    assert (target / "mine").read_text() == "keep"
    assert build_world(tiny_config, target, overwrite=True).genome.is_file()
    assert not (target / "mine").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"test_chrom": "chr9"}, "unknown chromosome 'chr9'"),
        ({"test_cell": "SimBrian"}, "unknown cell type 'SimBrian'"),
        ({"cells_without_accessibility": ("K562",)}, "unknown cell type 'K562'"),
        ({"cells": ("A", "A"), "test_cell": "A", "cells_without_accessibility": ()}, "named twice"),
        ({"element_spacing_bp": 1_000}, "is not above"),
    ],
)
def test_a_wrong_config_is_refused(change, words):
    with pytest.raises(EbertError, match=words):
        WorldConfig(**change)


def test_names_and_splits(small_world):
    assert small_world.tfs == ("SIMCTCF", "SIMMAX", "SIMETS")
    assert small_world.train_cells == ("SimBlood", "SimLiver")
    assert small_world.train_chroms == ("chr3", "chrUn_1", "chrUn_2")
    assert small_world.peaks_path("SIMMAX", "SimBlood").name == (
        "ChIPseq.SimBlood.SIMMAX.conservative.train.narrowPeak.gz"
    )
    for tf in small_world.tfs:
        for cell in small_world.cells:
            assert small_world.peaks_path(tf, cell, "relaxed").is_file()
            assert small_world.truth_path(tf, cell).is_file()
    assert not small_world.accessibility_path("SimLiver").exists()
    assert len(list(small_world.accessibility.iterdir())) == 2


def test_fasta_reads_in_pyfaidx(small_world, small_genome, tmp_path):
    path = shutil.copy(small_world.genome, tmp_path)
    with pyfaidx.Fasta(str(path), strict_bounds=True) as fasta:
        assert {name: len(fasta[name]) for name in fasta.keys()} == dict(small_world.config.chrom_lengths)  # noqa: SIM118
        for name, length in small_world.config.chrom_lengths:
            expected = small_genome.letters[small_world.assembly.offset(name) :][:length]
            assert str(fasta[name][:]) == expected.tobytes().decode()
    assert max(map(len, small_world.genome.read_text().splitlines())) == 60


def test_segments_tile_every_chromosome_up_to_its_last_whole_bin(small_world):
    for cell in small_world.cells:
        reached = dict.fromkeys(small_world.chroms, 0)
        last = None
        for chrom, start, end, name in rows_of(small_world.states_path(cell)):
            assert int(start) == reached[chrom]
            assert int(end) > int(start)
            assert int(end) % 200 == 0
            assert name in MNEMONICS
            assert (chrom, name) != last
            reached[chrom], last = int(end), (chrom, name)
        assert reached == {chrom: length // 200 * 200 for chrom, length in small_world.config.chrom_lengths}


@needs_bedtools
def test_bedtools_takes_every_bed(small_world, tmp_path):
    sizes = tmp_path / "sizes"
    sizes.write_text("".join(f"{chrom}\t{length}\n" for chrom, length in small_world.config.chrom_lengths))
    files = [*small_world.states.iterdir(), *small_world.chip.iterdir(), *small_world.accessibility.iterdir()]
    for path in [*files, small_world.exclude]:
        sorted_rows = bedtools("sort", "-i", path, "-g", sizes)
        plain = tmp_path / "sorted.bed"
        plain.write_text("".join("\t".join(row[:3]) + "\n" for row in sorted_rows))
        merged = bedtools("merge", "-i", plain)
        # -sorted -g refuses chromosomes and positions that the sizes do not know.
        assert len(bedtools("intersect", "-a", plain, "-b", plain, "-u", "-sorted", "-g", sizes)) == len(sorted_rows)
        if path.parent == small_world.states or path == small_world.exclude:
            assert sum(int(row[2]) - int(row[1]) for row in merged) == sum(
                int(row[2]) - int(row[1]) for row in sorted_rows
            )
        for chrom, start, end in merged:
            assert 0 <= int(start) < int(end) <= dict(small_world.config.chrom_lengths)[chrom]


@needs_bedtools
def test_conservative_peaks_are_among_the_relaxed(small_world):
    for tf in small_world.tfs:
        strict, loose = small_world.peaks_path(tf, "SimBlood"), small_world.peaks_path(tf, "SimBlood", "relaxed")
        shared = bedtools("intersect", "-a", strict, "-b", loose, "-u", "-f", "1", "-r")
        assert len(shared) == len(rows_of(strict))
        assert len(rows_of(loose)) > 1.05 * len(rows_of(strict))


def test_peaks_are_narrow_peaks(small_world):
    low, high = small_world.config.peak_width_bp
    for tf in small_world.tfs:
        for kind, columns in (("conservative", 10), ("relaxed", 20)):
            rows = rows_of(small_world.peaks_path(tf, "SimBrain", kind))
            assert {len(row) for row in rows} == {columns}
            widths = np.array([int(row[2]) - int(row[1]) for row in rows])
            assert widths.min() >= low
            assert widths.max() <= high
            for row in rows:
                assert 0 <= int(row[4]) <= 1000
                assert 0 <= int(row[9]) < int(row[2]) - int(row[1])
                assert float(row[6]) > 0
            if kind == "conservative":
                assert min(int(row[4]) for row in rows) >= 540  # IDR 0.05
                # The challenge's files are in no order either.
                assert [int(row[1]) for row in rows] != sorted(int(row[1]) for row in rows)


def test_peaks_lie_on_sites_but_for_a_few(small_world, small_genome):
    for tf, sites in zip(small_world.tfs, small_genome.sites, strict=True):
        rows = rows_of(small_world.peaks_path(tf, "SimBlood"))
        summits = np.array([small_world.assembly.offset(row[0]) + int(row[1]) + int(row[9]) for row in rows])
        near = np.searchsorted(sites.centre, summits + 40) > np.searchsorted(sites.centre, summits - 40)
        assert 0.85 < near.mean() < 1


def test_signal_grows_with_the_motif_and_its_state(small_world):
    """Strong peaks lie where the truth is sure."""
    rows = rows_of(small_world.peaks_path("SIMETS", "SimBlood"))
    with pyBigWig.open(str(small_world.truth_path("SIMETS", "SimBlood"))) as handle:
        sure = np.array(
            [handle.values(row[0], int(row[1]) + int(row[9]), int(row[1]) + int(row[9]) + 1)[0] for row in rows]
        )
    signal = np.array([float(row[6]) for row in rows])
    assert signal[sure > 0.9].mean() > 1.15 * signal[sure < 0.6].mean()


def test_accessibility_follows_the_states(small_world):
    states = {}
    for chrom, start, end, name in rows_of(small_world.states_path("SimBlood")):
        states.setdefault(chrom, []).extend([name] * ((int(end) - int(start)) // 200))
    names = [
        states[row[0]][(int(row[1]) + int(row[9])) // 200]
        for row in rows_of(small_world.accessibility_path("SimBlood"))
    ]
    opened = sum(name.split("_")[1].startswith(("Tss", "Enh")) for name in names)
    assert 0.7 < opened / len(names) < 1


def test_truth_covers_the_central_50_bp_of_every_bin(small_world):
    with pyBigWig.open(str(small_world.truth_path("SIMMAX", "SimBrain"))) as handle:
        assert handle.chroms() == dict(small_world.config.chrom_lengths)
        for chrom, length in small_world.config.chrom_lengths:
            bins = max((length - 200) // 50 + 1, 0)
            values = np.asarray(handle.values(chrom, 0, length))
            known = np.flatnonzero(~np.isnan(values))
            assert known.tolist() == list(range(75, 75 + 50 * bins))
            assert ((values[known] >= 0) & (values[known] <= 1)).all()
            assert (values[known].reshape(bins, 50) == values[known].reshape(bins, 50)[:, :1]).all()


def test_motifs_are_meme(small_world):
    lines = small_world.motifs.read_text().splitlines()
    assert lines[0] == "MEME version 4"
    names = [line.split()[2] for line in lines if line.startswith("MOTIF")]
    assert names[:3] == list(small_world.tfs)
    assert len(names) == 9
    for at, line in enumerate(lines):
        if line.startswith("letter-probability"):
            width = int(line.split("w=")[1].split()[0])
            rows = [[float(value) for value in row.split()] for row in lines[at + 1 : at + 1 + width]]
            np.testing.assert_allclose(np.sum(rows, axis=1), 1, atol=1e-5)
            assert not any(lines[at + 1 + width : at + 2 + width])


def test_the_default_world_is_of_the_promised_size():
    config = WorldConfig()
    total = sum(length for _, length in config.chrom_lengths)
    assert 6e6 < total < 10e6
    assert all(length % 50 for _, length in config.chrom_lengths if length != 2_200_090)
