"""`ebert predict`: what it writes, where it calls sites, and what it refuses."""

from __future__ import annotations

import contextlib
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyBigWig
import pytest
from typer.testing import CliRunner

from ebert_cli.app import app
from ebert_core.artifacts import exclusive_lock
from ebert_core.data.dataset import Dataset
from ebert_core.genome.labels import BOUND, UNBOUND
from ebert_core.inference.calls import ThresholdTable

PREDICT = ("predict", "--tf", "CTCF", "--cell", "HepG2", "--threads", "1", "--overwrite")
Ebert = Callable[..., object]


@pytest.fixture(scope="module")
def tuned(walked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The walked road with a model that learnt enough to rank bins, so that its threshold table has many rows."""
    folder = tmp_path_factory.mktemp("tuned") / "road"
    shutil.copytree(walked, folder)
    with contextlib.chdir(folder):
        tiny = ["--set", "optimizer.warmup_fraction=0", "--set", "valid_bp=4000", "--threads", "1", "--quiet"]
        done = CliRunner().invoke(app, ["finetune", "--tf", "CTCF", "--steps", "100", "--overwrite", *tiny])
    assert done.exit_code == 0, done.output
    assert len(table(folder).thresholds) > 10
    return folder


@pytest.fixture
def road(tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the working folder."""
    folder = Path(shutil.copytree(tuned, tmp_path / "road"))
    monkeypatch.chdir(folder)
    return folder


def sidecar(folder: Path) -> dict:
    return json.loads((folder / "predictions" / "CTCF.HepG2.ebert.json").read_text())


def table(folder: Path) -> ThresholdTable:
    manifest = json.loads((folder / "models" / "CTCF" / "ebert.json").read_text())
    return ThresholdTable.from_json(manifest["calibration"]["CTCF"]["thresholds"])


def test_all_formats_from_one_scan(ebert: Ebert, road: Path) -> None:
    done = ebert(*PREDICT, "--format", "bigwig,dream", "--format", "narrowPeak")
    assert done.exit_code == 0, done.stderr
    names = {"CTCF.HepG2.bw", "CTCF.HepG2.narrowPeak", "F.CTCF.HepG2.tab.gz", "CTCF.HepG2.unscored.bed"}
    assert {path.name for path in (road / "predictions").iterdir()} == {*names, "CTCF.HepG2.ebert.json"}
    told = sidecar(road)
    assert set(told["files"]) == names
    with gzip.open(road / "predictions" / "F.CTCF.HepG2.tab.gz", "rt") as handle:
        rows = [line.split("\t") for line in handle.read().splitlines()]
    bins = Dataset.open(road / "dataset").benchmark_bins()
    assert [(row[0], int(row[1])) for row in rows] == [
        (chrom, start) for chrom in sorted(bins.chroms) for start in bins.starts(chrom).tolist()
    ]
    unscored = 0
    with pyBigWig.open(str(road / "predictions" / "CTCF.HepG2.bw")) as opened:
        for chrom, start, _, text in rows:
            value = np.float32(opened.values(chrom, int(start) + 75, int(start) + 76)[0])
            unscored += bool(np.isnan(value))
            assert np.float32(float(text)) == (0 if np.isnan(value) else value)
    assert told["submission"] == {"rows": len(rows), "unscored": unscored}
    assert unscored > 0
    assert f"{len(rows):,} rows of a submission; {unscored:,} of them are 0" in done.stderr
    assert f"the dataset has {len(rows):,} bins of the benchmark, a whole submission has 60,519,747" in done.stderr


def test_the_sidecar_says_what_the_model_has_seen(road: Path) -> None:
    told = sidecar(road)
    manifest = json.loads((road / "models" / "CTCF" / "ebert.json").read_text())
    assert told["trained_on"]["window_bp"] == manifest["config"]["window_bp"]
    assert told["trained_on"]["regions"] == [*manifest["data"]["train"], *manifest["data"]["valid"]]
    checkpoint = json.loads((road / "pretrained" / "ebert.json").read_text())["data"]
    assert told["pretrained_on"] == {
        "cells": checkpoint["cells"],
        "regions": [*checkpoint["train"], *checkpoint["valid"]],
    }


@pytest.mark.parametrize("goal", ["f1", "recall=0.5", "precision", "fdr", "threshold=0.25"])
def test_sites_are_called_where_asked(ebert: Ebert, road: Path, goal: str) -> None:
    best = float(table(road).precision.max())
    rule = {"precision": f"precision={best - 1e-6:.7f}", "fdr": f"fdr={1 - best + 1e-6:.6f}"}.get(goal, goal)
    done = ebert(*PREDICT, "--call-at", rule, "--chrom", "chr2:0-4000")
    assert done.exit_code == 0, done.stderr
    told = sidecar(road)["call"]
    assert told["rule"].partition("=")[0] == rule.partition("=")[0]
    assert f"CTCF: sites are called at probability >= {told['threshold']:.3g} ({told['rule']}; " in done.stderr
    if goal == "threshold=0.25":
        assert told["threshold"] == 0.25
    else:
        assert told["threshold"] in table(road).thresholds
        row = table(road).thresholds.tolist().index(told["threshold"])
        assert (told["precision"], told["recall"]) == (table(road).precision[row], table(road).recall[row])
    with pyBigWig.open(str(road / "predictions" / "CTCF.HepG2.bw")) as opened:
        values = np.array([value for *_, value in opened.intervals("chr2")], np.float32)
    sites = (road / "predictions" / "CTCF.HepG2.narrowPeak").read_text().splitlines()
    assert bool(sites) == bool((values >= told["threshold"]).any())
    assert all(float(site.split("\t")[6]) >= told["threshold"] * (1 - 1e-5) for site in sites)


def test_the_table_tells_what_predict_does_on_the_validation_part(ebert: Ebert, road: Path) -> None:
    """Predictions for the validation cells and regions, held against their labels, give the model's own table."""
    data = json.loads((road / "models" / "CTCF" / "ebert.json").read_text())["data"]
    dataset = Dataset.open(road / "dataset")
    scores, bound = [], []
    for cell in data["valid_cells"]:
        assert ebert("predict", "--tf", "CTCF", "--cell", cell, "--threads", "1", "--overwrite").exit_code == 0
        with pyBigWig.open(str(road / "predictions" / f"CTCF.{cell}.bw")) as opened:
            for chrom, first, last in data["valid"]:
                labels = dataset.labels("CTCF", cell, chrom)
                for start in range(-(-first // 50) * 50, last - 199, 50):
                    if labels[start // 50] in (BOUND, UNBOUND):
                        scores.append(opened.values(chrom, start + 75, start + 76)[0])
                        bound.append(labels[start // 50] == BOUND)
    known, found, is_bound = table(road), np.array(scores), np.array(bound)
    assert (known.num_bound, known.num_unbound) == (is_bound.sum(), (~is_bound).sum())
    for row, threshold in enumerate(known.thresholds):
        # The last digit of a probability may depend on which windows share a batch.
        more, fewer = found >= threshold * (1 - 1e-5), found >= threshold * (1 + 1e-5)
        assert fewer[is_bound].mean() <= known.recall[row] <= more[is_bound].mean()
        called = known.recall[row] * is_bound.sum() / known.precision[row]
        assert fewer.sum() - 1e-6 <= called <= more.sum() + 1e-6


def test_evaluate_says_that_bins_were_left_out(ebert: Ebert, road: Path) -> None:
    score = ("evaluate", "--chrom", "chr2", "--allow-seen", "--no-baselines")
    assert ebert(*PREDICT, "-q").exit_code == 0
    with pyBigWig.open("predictions/CTCF.HepG2.bw") as opened:
        middle = float(np.median([row[2] for row in opened.intervals("chr2")]))
    assert ebert(*PREDICT, "--min-score", f"{middle:.9f}", "-q").exit_code == 0
    assert "has no score for" in ebert(*score).stderr
    done = ebert(*score, "--missing", "zero")
    assert done.exit_code == 0, done.stderr
    report = json.loads((road / "report" / "report.json").read_text())
    assert any("(--min-score)" in note for note in report["evaluations"][0]["notes"])


FAULTS = {
    "an unknown format": (["--format", "bigwig,dreem"], "unknown format 'dreem'", "did you mean dream?"),
    "no format": (["--format", ","], "--format ',' names nothing", ""),
    "some bins of a submission": (["--format", "Dream", "--chrom", "chr2"], "a submission holds every bin", "--format"),
    "regions of a submission": (["--format", "dream", "--regions", "x.bed"], "a submission holds every bin", ""),
    "a file's format for a pipe": (["--format", "npz", "-o", "-"], "unknown format of a stream 'npz'", "known: bed"),
    "a shard for a pipe": (["--shard", "1/2", "-o", "-"], "--shard is for files", "leave one"),
    "a pipe that goes on": (["--resume", "-o", "-"], "--resume is for files", "leave one"),
    "rounded rows": (["--round", "3", "-o", "-"], "--round is for bedgraph", "leave one"),
    "a least score of nothing": (["--min-score", "0.5", "--format", "dream"], "--min-score is for bigwig", "leave"),
    "a least score in percent": (["--min-score", "50"], "--min-score 50 is no probability", "up to 1"),
    "no shard": (["--shard", "3/2"], "--shard '3/2': expected a number", "--shard 2/8"),
    "a rule for a pipe": (["--call-at", "f1", "-o", "-"], "--call-at is for files", "leave one"),
    "a rule without sites": (["--call-at", "f1", "--format", "bigwig"], "leaves the sites out", "add narrowpeak"),
    "no rule": (["--call-at", "precison=0.8"], "unknown calling rule 'precison'", "did you mean precision?"),
    "an empty rule": (["--call-at", ""], "unknown calling rule ''", "precision=0.8"),
    "a percentage": (["--call-at", "precision=80"], "expected precision= and a number from 0 to 1", ""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(ebert: Ebert, road: Path, digest_tree: Callable[[Path], dict], fault: str) -> None:
    arguments, message, hint = FAULTS[fault]
    before = digest_tree(road)
    done = ebert(*PREDICT, *arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert hint in done.stderr.partition("hint: ")[2]
    assert digest_tree(road) == before


def test_a_precision_that_was_never_reached(ebert: Ebert, road: Path, digest_tree: Callable[[Path], dict]) -> None:
    path = road / "models" / "CTCF" / "ebert.json"
    manifest = json.loads(path.read_text())
    known = ThresholdTable(np.array([0.5, 0.1]), np.array([0.625, 0.5]), np.array([0.5, 1.0]), 4, 9)
    manifest["calibration"]["CTCF"]["thresholds"] = known.to_json()
    path.write_text(json.dumps(manifest))
    before = digest_tree(road)
    done = ebert(*PREDICT, "--call-at", "precision=0.8")
    assert done.exit_code == 1
    assert "CTCF: no threshold reaches precision=0.8 on the model's 4 bound validation bins" in done.stderr
    assert "hint: ask for less, for example --call-at precision=0.62" in done.stderr
    assert digest_tree(road) == before


def test_a_model_without_a_threshold_table(ebert: Ebert, road: Path) -> None:
    path = road / "models" / "CTCF" / "ebert.json"
    manifest = json.loads(path.read_text())
    del manifest["calibration"]["CTCF"]["thresholds"]
    path.write_text(json.dumps(manifest))
    done = ebert(*PREDICT, "--model", "models/CTCF")
    assert done.exit_code == 1
    assert "models/CTCF/ebert.json: is damaged or of another version of ebert (no 'thresholds')" in done.stderr
    assert "ebert finetune" in done.stderr


def test_another_run_is_writing(ebert: Ebert, road: Path) -> None:
    with exclusive_lock(road / "predictions" / "CTCF.HepG2.bw"):
        done = ebert(*PREDICT, "--chrom", "chr2:0-4000")
    assert done.exit_code == 1
    assert "error: another run is writing predictions/CTCF.HepG2.bw" in done.stderr
