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


# The toy world's sizes, and the challenge's files in small.
SIZES = "chr1\t60000\nchr2\t41337\nchrShort\t150\n"
REGIONS = "chr1\t600\t9000\nchr2\t1000\t2000\n"


def test_labels_without_a_sequence_from_peaks_to_tables_and_back(here, ebert, toy_files):
    (here / "toy.chrom.sizes").write_text(SIZES)
    (here / "regions.bed").write_text(REGIONS)
    common = ["prepare", "--genome", "toy.chrom.sizes", "--regions", "regions.bed"]
    done = ebert(*common, "--chip", toy_files.chip, "--write-labels", "tables", "-o", "a")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == ""
    for words in ("chromosome sizes alone", "regions: 182 of the benchmark's bins", "tables: 2 label table(s)"):
        assert words in done.stderr
    assert sorted(path.name for path in (here / "tables").iterdir()) == ["CTCF.labels.tsv.gz", "MAX.labels.tsv.gz"]

    again = ebert(*common, "--chip", "tables", "-o", "b")
    assert again.exit_code == 0, again.stderr
    assert "labels of 2 TFs in 4 TF x cell pairs" in again.stderr
    first, second = Dataset.open(here / "a"), Dataset.open(here / "b")
    for tf, cell in first.label_pairs:
        assert (second.flat_packed_labels(tf, cell) == first.flat_packed_labels(tf, cell)).all()

    refused = ebert("prepare", "-o", "a", "--write-labels", "tables")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "tables/CTCF.labels.tsv.gz already exists" in refused.stderr
    assert ebert("prepare", "-q", "-o", "a", "--write-labels", "tables", "--overwrite").stderr == ""


@pytest.mark.parametrize("command", ["pretrain", "finetune --tf CTCF", "predict --tf CTCF --cell K562"])
def test_what_needs_the_sequence_says_so(here, ebert, toy_files, command):
    (here / "toy.chrom.sizes").write_text(SIZES)
    done = ebert("prepare", "-q", "-g", "toy.chrom.sizes", "-s", toy_files.states, "--chip", toy_files.chip)
    assert done.exit_code == 0, done.stderr
    done = ebert(*command.split(), "--quiet")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    if command == "pretrain":
        assert "dataset dataset holds no sequence: it was made from chromosome sizes alone" in done.stderr
        assert "hint: make one from the reference: `ebert prepare --genome hg19.fa" in done.stderr


TABLE = "chr\tstart\tstop\tK562\n"


@pytest.mark.parametrize(
    ("files", "arguments", "says"),
    [
        ({"r.bed": "chr1\t600\t710\n"}, "--regions r.bed", "r.bed, line 1: region 600-710 is shorter than a bin"),
        ({"r.bed": "chr1\t0\t500\nchr1\t0\t500\n"}, "--regions r.bed", "line 2: region 0-500 overlaps 0-500 of line 1"),
        ({"r.bed": "chr1\t0\t249250600\n"}, "--regions r.bed", "line 1: end 249,250,600 is past the end of chr1"),
        ({}, "--regions no.bed", "no.bed: is not there"),
        ({"CTCF.K562.bed": ""}, "--chip CTCF.K562.bed", "CTCF.K562.bed: has no data lines"),
        ({"A.labels.tsv": TABLE + "chr1\t600\t800\tx\n"}, "--chip A.labels.tsv", "line 2: label is 'x', expected U, A"),
        (
            {"A.labels.tsv": TABLE + "chr1\t600\t800\tU\n" * 2},
            "--chip A.labels.tsv",
            "line 3: chr1:600 is out of order",
        ),
        ({"A.labels.tsv": TABLE + "chr1\t6\t206\tU\n"}, "--chip A.labels.tsv", "line 2: chr1:6-206 is no bin"),
        ({"A.labels.tsv": "chr1\t600\t800\tU\n"}, "--chip A.labels.tsv", "line 1: begins with 'chr1 600 800 U'"),
        ({"A.labels.tsv.gz": TABLE}, "--chip A.labels.tsv.gz", "is called .gz but is not gzip"),
        ({"t.chrom.sizes": "chr1\tx\n"}, "--genome t.chrom.sizes --overwrite", "line 1: length is 'x'"),
    ],
)
def test_bad_bins_and_labels_are_one_clear_error(here, ebert, files, arguments, says):
    (here / "toy.chrom.sizes").write_text(SIZES)
    for name, text in files.items():
        (here / name).write_text(text)
    done = ebert("prepare", "--quiet", "--genome", "toy.chrom.sizes", *arguments.split())
    assert (done.exit_code, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("error: ")
    assert says in lines[0]
    assert lines[1].startswith("hint: ")
    assert not (here / "dataset").exists()


def test_what_else_a_dataset_may_hold(here, ebert, toy_files):
    (here / "starts.bed").write_text("chr1\t100\t101\t.\t.\t+\n")
    (here / "rpkm.tsv").write_text("gene_id\tE116\nENSG1\t1\n")
    (here / "names.tsv").write_text("id\tsymbol\nENSG1\tCTCF\n")
    parts = ["--tss", "starts.bed", "--expression", "rpkm.tsv", "--gene-names", "names.tsv"]
    done = ebert("prepare", "-g", toy_files.genome, *parts)
    assert (done.exit_code, done.stdout) == (0, "")
    assert "transcript starts: 1 places on 1 sequence(s)" in done.stderr
    assert "warning: starts.bed: no transcript starts on chr2, chrShort" in done.stderr
    assert "distances to transcript starts; expression in 1" in done.stderr
    dataset = Dataset.open(here / "dataset")
    assert dataset.expression("GM12878", "CTCF") == pytest.approx(0.6931, abs=1e-4)
    assert dataset.tss_distance("chr1")[2] == 0
    again = ebert("prepare", *parts)
    for words in ("1 set of transcript starts", "1 expression table(s)", "1 sheet of gene names"):
        assert f"{words} were there already and were kept" in again.stderr


def test_the_nearest_epigenomes_are_a_table_on_stdout(here, ebert, toy_files):
    done = ebert("prepare", "-q", *inputs(toy_files), "-a", toy_files.accessibility, "--nearest", "E118")
    assert done.exit_code == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert lines[0] == ["cell", "epigenome", "score"]
    assert {(cell, epigenome) for cell, epigenome, _ in lines[1:]} == {("GM12878", "E116"), ("MyCell", "")}
    scores = [float(score) for _, _, score in lines[1:]]
    assert scores == sorted(scores, reverse=True)
    again = ebert("prepare", "--nearest", "hepg2")
    assert again.stdout == done.stdout
    assert "score: share of the entropy of HepG2's states that the epigenome's states explain" in again.stderr


def test_nearest_of_an_unknown_cell_type(here, ebert, toy_files):
    assert ebert("prepare", "-q", *inputs(toy_files)).exit_code == 0
    done = ebert("prepare", "-q", "--nearest", "HepG3")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "error: unknown cell type 'HepG3'\nhint: did you mean HepG2?\n"
    done = ebert("prepare", "-q", "--nearest", "HepG3", "-o", "nowhere")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("error: there is no dataset in nowhere yet")


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
