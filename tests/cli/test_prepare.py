"""`ebert prepare` as typed: what its options reach, and what it says on which stream."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ebert_core.data.dataset import Dataset


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def inputs(toy_files):
    return ["--genome", toy_files.genome, "--states", toy_files.states, "--chip", toy_files.chip]


def test_a_new_dataset_appears_in_the_working_folder(here, ebert, toy_files):
    done = ebert("prepare", *inputs(toy_files), "-a", toy_files.accessibility, "-x", toy_files.exclude)
    assert done.exit_code == 0
    assert done.stdout == "", "there is no data to print"
    assert [path.name for path in here.iterdir()] == ["dataset"]
    for words in (
        "genome: custom, 3 sequence(s), 101,487 bp",
        "exclusion list: 2 regions, 1,190 bp",
        "state model: roadmap18, 18 states",
        "warning: chip: no file has a peak on chrShort",
        "dataset: custom, 3 sequence(s); states of 3 cell types; accessibility of 2; "
        "labels of 2 TFs in 4 TF x cell pairs",
    ):
        assert words in done.stderr
    dataset = Dataset.open(here / "dataset")
    assert dataset.cells == ("GM12878", "HepG2", "MyCell")
    assert len(dataset.label_pairs) == 4


def test_every_option_reaches_the_dataset(here, ebert, toy_files):
    (here / "more.bed").write_text("chr2\t5\t10\n")
    (here / "aliases.tsv").write_text("alias\tcell\nhepatocyte\tHepG2\n")
    (here / "mine.tsv").write_text("number\tname\tcolor\n1\tOn\t#ff0000\n2\tOff\t#ffffff\n")
    (here / "mine.bed").write_text("chr2\t0\t400\t2_Off\n")
    done = ebert(
        "prepare", "-g", toy_files.genome, "-s", "mine.bed", "--state-model", "mine.tsv", "-c", "chr2,1",
        "-c", "chrShort", "-x", toy_files.exclude, "-x", "more.bed", "--aliases", "aliases.tsv", "-o", "elsewhere/set",
        "-q",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    dataset = Dataset.open(here / "elsewhere" / "set")
    assert dataset.assembly.chroms == ("chr2", "chr1", "chrShort")
    assert [array.tolist() for array in dataset.excluded("chr2")] == [[5, 9_000], [10, 9_200]]
    assert dataset.state_model.states[1].name == "Off"
    assert dataset.states("mine", "chr2")[:3].tolist() == [2, 2, 0]
    assert dataset.manifest["aliases"] == {"hepatocyte": "HepG2"}


def test_quiet_says_warnings_only(here, ebert, toy_files):
    done = ebert("prepare", "--quiet", *inputs(toy_files))
    assert done.exit_code == 0
    lines = done.stderr.splitlines()
    assert lines
    assert all(line.startswith("warning: ") for line in lines)


def test_a_second_run_says_what_was_kept(here, ebert, toy_files):
    assert ebert("prepare", *inputs(toy_files)).exit_code == 0
    again = ebert("prepare", "--states", toy_files.states, "--chip", toy_files.chip)
    assert again.exit_code == 0
    assert "3 state track(s) were there already and were kept" in again.stderr
    assert "4 label set(s) were there already and were kept" in again.stderr
    more = ebert("prepare", "--accessibility", toy_files.accessibility)
    assert "accessibility of 2" in more.stderr
    assert "kept" not in more.stderr


def test_overwrite_replaces_one_track(here, ebert, toy_files):
    assert ebert("prepare", "-q", *inputs(toy_files)).exit_code == 0
    (here / "HepG2_18_core_mnemonics.bed").write_text("chr1\t0\t200\t7_EnhG1\n")
    refused = ebert("prepare", "-q", "--states", "HepG2_18_core_mnemonics.bed")
    assert refused.exit_code == 1
    assert "already holds states of HepG2, from HepG2_18_core_K27ac_mnemonics.bed.gz" in refused.stderr
    assert ebert("prepare", "-q", "--states", "HepG2_18_core_mnemonics.bed", "--overwrite").exit_code == 0
    assert Dataset.open(here / "dataset").states("HepG2", "chr1")[:2].tolist() == [7, 0]


def test_the_manifest_keeps_the_command_line(here, toy_files):
    command = [sys.executable, "-m", "ebert_cli", "prepare", "--genome", str(toy_files.genome)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "\x1b" not in done.stderr, "no colour and no bar in a pipe"
    manifest = json.loads((here / "dataset" / "ebert.json").read_text())
    assert manifest["command"][1:] == ["prepare", "--genome", str(toy_files.genome)]


@pytest.mark.real
def test_real_chromosomes(here, ebert, real_data):
    done = ebert(
        "prepare", "--genome", real_data / "genome" / "hg19.chr20_21_22.fa.gz",
        "--states", real_data / "states" / "roadmap18", "--accessibility", real_data / "dnase",
        "--exclude", real_data / "annotation" / "wgEncodeDacMapabilityConsensusExcludable.bed.gz",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "hg19, 3 sequence(s)" in done.stderr
    dataset = Dataset.open(here / "dataset")
    assert {"K562", "GM12878", "HeLa-S3", "MCF-7", "liver"} <= set(dataset.state_cells)
    assert dataset.accessibility_cells == ("GM12878", "HUVEC", "HeLa-S3", "K562")
