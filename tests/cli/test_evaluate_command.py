"""`ebert evaluate` as typed: what it prints, what it writes, and how it fails."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from ebert_cli import evaluation_tables
from ebert_cli.app import app
from ebert_core.evaluation.results import Difference, Interval
from ebert_core.genome.bins import all_bin_starts
from ebert_core.genome.labels import BOUND


@pytest.fixture
def folder(tmp_path, toy_dataset, toy_files, monkeypatch):
    """A working folder with two predictions of CTCF in HepG2 on chr2, and no dataset."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    starts = all_bin_starts(toy_dataset.assembly.length("chr2"))
    bound = toy_dataset.labels("CTCF", "HepG2", "chr2")[starts // 50] == BOUND
    for name, noise in (("mine", 0.8), ("theirs", 3.0)):
        scores = bound + np.random.default_rng(1).random(len(starts)) * noise
        rows = zip(starts.tolist(), (scores / 4).tolist(), strict=True)
        (tmp_path / f"{name}.tab").write_text("".join(f"chr2\t{a}\t{a + 200}\t{b:.4f}\n" for a, b in rows))
    shutil.copy(toy_files.chip / "CTCF.HepG2.narrowPeak.gz", tmp_path / "peaks.narrowPeak.gz")
    (tmp_path / "empty.bed").write_text("")
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], catch_exceptions=False)


def test_table_report_and_streams(folder, toy_dataset):
    common = [
        "mine.tab",
        "--tf",
        "CTCF",
        "--cell",
        "hepg2",
        "--dataset",
        toy_dataset.path,
        "--compare",
        "other=theirs.tab",
    ]
    done = run(*common)
    assert done.exit_code == 0, done.output
    assert "CTCF in HepG2 on chr2" in done.stdout
    for words in (
        "mine.tab",
        "other",
        "prevalence",
        "state frequency",
        "auPRC",
        "10 % FDR",
        "unknown whether held out",
    ):
        assert words in done.stdout
    assert "best motif hit, organisers' logistic are not available: no motif file" in " ".join(done.stdout.split())
    assert "report/report.html" in done.stderr
    assert sorted(path.name for path in (folder / "report").iterdir()) == [
        "ebert.json", "report.html", "report.json", "report.tsv", "states.tsv",
    ]  # fmt: skip

    again = run(*common)
    assert again.exit_code == 1
    assert "already exists" in again.stderr
    quiet = run(*common, "--overwrite", "--quiet").stderr.splitlines()
    assert len(quiet) == 1
    assert quiet[0].startswith("warning: no confidence intervals: the bound bins lie in 1 of 1 blocks")

    tsv = run(*common, "--format", "tsv", "-o", "-")
    assert tsv.stdout == (folder / "report" / "report.tsv").read_text()
    assert [line["name"] for line in csv.DictReader(tsv.stdout.splitlines(), delimiter="\t")][:2] == [
        "mine.tab",
        "other",
    ]
    content = json.loads(run(*common, "--format", "json", "-o", "-", "--no-baselines").stdout)
    assert [row["kind"] for row in content["evaluations"][0]["rows"]] == ["prediction", "comparison"]


def test_peaks_with_a_dataset_give_the_same_figures(folder, toy_dataset):
    common = [
        "mine.tab",
        "--tf",
        "CTCF",
        "--cell",
        "HepG2",
        "--dataset",
        toy_dataset.path,
        "--format",
        "tsv",
        "-o",
        "-",
    ]
    assert run(*common).stdout == run(*common, "--peaks", "peaks.narrowPeak.gz").stdout


@pytest.mark.parametrize("format_", ["table", "tsv"])
def test_a_reader_that_goes_away_does_not_cost_the_report(folder, toy_dataset, format_):
    options = ["--tf", "CTCF", "--cell", "HepG2", "--dataset", toy_dataset.path, "--no-baselines", "--quiet"]
    command = [sys.executable, "-m", "ebert_cli", "evaluate", "mine.tab", *options, "--format", format_]
    with subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        told = process.stderr.read().decode()
    assert process.returncode == 0, told
    assert [line for line in told.splitlines() if not line.startswith("warning: ")] == []
    assert (folder / "report" / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "dataset dataset is not there"),
        (["mine.tab", "--peaks", "peaks.narrowPeak.gz"], "does not say which TF and cell type"),
        (["mine.tab", "--peaks", "p", "--labels", "l"], "give one truth"),
        (["mine.tab", "--peaks", "peaks.narrowPeak.gz", "--tf", "A", "--cell", "B"], "sizes of the chromosomes"),
        (["--placement", "middle"], "unknown placement 'middle'"),
        (["--missing", "skip"], "unknown treatment of missing scores 'skip'"),
        (["--format", "xml"], "unknown format 'xml'"),
        (["mine.tab", "--peaks", "empty.bed", "--tf", "CTCF", "--cell", "HepG2", "--dataset", "DATASET"], "empty.bed"),
        (["gone.tab", "--tf", "CTCF", "--cell", "HepG2", "--dataset", "DATASET"], "gone.tab: is not there"),
        (["mine.tab", "--tf", "CTFC", "--cell", "HepG2", "--dataset", "DATASET"], "unknown TF 'CTFC'"),
        (["mine.tab", "--tf", "CTCF", "--cell", "HepG", "--dataset", "DATASET"], "did you mean HepG2"),
        (
            ["mine.tab", "--tf", "CTCF", "--cell", "HepG2", "--dataset", "DATASET", "--chrom", "chr1"],
            "has no score for",
        ),
        (["--dataset", "DATASET"], "no predictions in predictions"),
        (["mine.tab", "--tf", "CTCF", "--cell", "HepG2", "--dataset", "DATASET", "--motifs", "no.meme"], "no.meme"),
    ],
)
def test_errors_are_one_line_and_a_hint(folder, toy_dataset, arguments, words):
    done = run(*[toy_dataset.path if argument == "DATASET" else argument for argument in arguments])
    assert done.exit_code == 1
    assert done.stdout == ""
    assert words in done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning")]
    assert lines[0].startswith("error: ")
    assert len(lines) == 2
    assert lines[1].startswith("hint: ")
    assert not (folder / "report").exists()


def test_text_from_stdin(folder, toy_dataset):
    pair = ["--tf", "CTCF", "--cell", "HepG2", "--dataset", toy_dataset.path, "--no-baselines"]
    text = (folder / "mine.tab").read_text()
    arguments = ["evaluate", "-", *map(str, pair), "--format", "tsv", "-o", "-"]
    piped = CliRunner().invoke(app, arguments, input=text, catch_exceptions=False)
    filed = run("mine.tab", *pair, "--format", "tsv", "-o", "-")
    assert piped.stdout == filed.stdout.replace("mine.tab", "stdin")


@pytest.mark.parametrize(
    ("value", "lower", "upper", "share", "words"),
    [
        (0.2, 0.1, 0.3, 1.0, "a is better than b: auPRC +0.200 (+0.100 to +0.300), above it in 100.0%"),
        (0.1, -0.1, 0.3, 0.7, "a cannot be told from b: auPRC +0.100 (-0.100 to +0.300), above it in 70.0%"),
        (0.0, 0.0, 0.0, 0.5, "a and b have the same auPRC, in every resample"),
    ],
)  # fmt: skip
def test_what_is_said_of_two_files(value, lower, upper, share, words):
    said = evaluation_tables._comparison(Difference("a", "b", "auprc", value, Interval(lower, upper), share))
    assert said.removesuffix(" of the resamples") == words
