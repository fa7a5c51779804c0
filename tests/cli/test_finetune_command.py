"""`ebert finetune` with task features, from the command line to the prediction of its model."""

from __future__ import annotations

import json

import numpy as np
import pyBigWig
import pytest

from ebert_core.training import binding_windows

MEME = """MEME version 4

ALPHABET= ACGT

MOTIF MA0139.1 CTCF
letter-probability matrix: w= 3
0.7 0.1 0.1 0.1
0.1 0.7 0.1 0.1
0.1 0.1 0.7 0.1

MOTIF MA0058.3 MAX
letter-probability matrix: w= 2
0.25 0.25 0.25 0.25
0.1 0.1 0.1 0.7
"""
SHORT = [f"--set={setting}" for setting in ("valid_bp=4000", "window_bp=1600", "context_bp=200", "global_batch=2")]
FINETUNE = ["finetune", "--tf", "CTCF", "--steps", 1, *SHORT, "--threads", 1, "--output", "new"]


@pytest.fixture(autouse=True)
def small_background(monkeypatch):
    monkeypatch.setattr(binding_windows, "_BACKGROUND_WINDOWS", 20)


def manifest(road):
    return json.loads((road / "new" / "ebert.json").read_text())


def test_motifs_and_tfs_beside(road, ebert):
    (road / "m.meme").write_text(MEME)
    # Boosted trees are a default of --motifs, and look further around a bin.
    for_trees = [f"--set={setting}" for setting in ("window_bp=3200", "context_bp=1200", "trees=6")]
    motifs = ["--motifs", "m.meme", "--also", "all", "--set", "features.motifs=['MAX', 'ctcf', 'REST']"]
    refused = ebert(*FINETUNE, *motifs)
    assert refused.exit_code == 1
    assert "trees, a default of --motifs, take 1200 bp around a bin, and context_bp is 200" in refused.stderr
    done = ebert(*FINETUNE, *motifs, *for_trees)
    assert done.exit_code == 0, done.stderr
    assert "m.meme has no motif of REST" in done.stderr
    found = manifest(road)
    # The TF's own first, then the others that were asked for, each once.
    assert found["features"]["motifs"] == ["CTCF (MA0139.1)", "MAX (MA0058.3)"]
    assert (found["features"]["num_tracks"], found["features"]["num_trees"]) == (5, 6)
    assert (found["tfs"], found["data"]["also"]) == (["CTCF"], ["MAX"])
    for cell in ("HepG2", "MyCell"):  # the second has no accessibility
        predict = ["predict", "-q", "--tf", "CTCF", "--cell", cell, "--model", "new", "--output", "out"]
        done = ebert(*predict, "--chrom", "chr2:0-4000", "--threads", 1)
        assert done.exit_code == 0, done.stderr
        assert (road / "out" / f"CTCF.{cell}.bw").is_file()


@pytest.mark.parametrize(
    ("options", "num_tracks", "composition"),
    [
        ([], 5, True),
        (["--set", "features.other_states=true"], 23, True),
        (["--no-accessibility"], 18, True),
        (["--set", "features.composition=false"], 5, False),
        (["--set", "features.accessibility=false"], 18, True),
        (["--no-states"], 5, True),
    ],
)
def test_features_from_the_command_line(road, ebert, options, num_tracks, composition):
    done = ebert(*FINETUNE, "--quiet", *options)
    assert done.exit_code == 0, done.stderr
    found = manifest(road)
    assert found["features"]["num_tracks"] == num_tracks
    assert found["features"]["composition"] == composition
    assert found["features"]["motifs"] == []
    assert found["config"]["features"]["accessibility"] == (num_tracks in (5, 23))


def test_an_ensemble_has_a_spread(road, ebert):
    done = ebert(*FINETUNE, "--ensemble", 2, "--steps", 10)
    assert done.exit_code == 0, done.stderr
    assert "member 2 of 2, seed 1" in done.stderr
    found = manifest(road)
    assert (found["config"]["members"], sorted(found["files"])) == (2, ["weights-2.safetensors", "weights.safetensors"])
    predict = ["predict", "-q", "--tf", "CTCF", "--cell", "HepG2", "--model", "new", "--output", "out", "--threads", 1]
    done = ebert(*predict, "--chrom", "chr1:20000-26000,chr2:0-4000", "--format", "bigwig")
    assert done.exit_code == 0, done.stderr
    with pyBigWig.open(str(road / "out" / "CTCF.HepG2.bw")) as mean:
        values = np.array(mean.values("chr2", 100, 3_900))
    with pyBigWig.open(str(road / "out" / "CTCF.HepG2.spread.bw")) as spread:
        spreads = np.array(spread.values("chr2", 100, 3_900))
    assert np.array_equal(np.isnan(values), np.isnan(spreads))
    # A model that has learned nothing in ten steps gives every bin the same probability.
    assert (np.nanmax(spreads) > 0) == (found["calibration"]["CTCF"]["slope"] > 0)
    assert np.nanmax(spreads) < 0.5
    told = json.loads((road / "out" / "CTCF.HepG2.ebert.json").read_text())
    assert "CTCF.HepG2.spread.bw" in told["files"]
