"""`ebert finetune` with task features, from the command line to the prediction of its model."""

from __future__ import annotations

import json

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
    done = ebert(*FINETUNE, "--motifs", "m.meme", "--also", "all", "--set", "features.motifs=['MAX', 'ctcf', 'REST']")
    assert done.exit_code == 0, done.stderr
    assert "m.meme has no motif of REST" in done.stderr
    found = manifest(road)
    # The TF's own first, then the others that were asked for, each once.
    assert found["features"]["motifs"] == ["CTCF (MA0139.1)", "MAX (MA0058.3)"]
    assert found["features"]["num_tracks"] == 5
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
        (["--no-accessibility"], 0, True),
        (["--set", "features.composition=false"], 5, False),
        (["--set", "features.accessibility=false"], 0, True),
    ],
)
def test_features_from_the_command_line(road, ebert, options, num_tracks, composition):
    done = ebert(*FINETUNE, "--quiet", *options)
    assert done.exit_code == 0, done.stderr
    found = manifest(road)
    assert found["features"]["num_tracks"] == num_tracks
    assert found["features"]["composition"] == composition
    assert found["features"]["motifs"] == []
    assert found["config"]["features"]["accessibility"] == bool(num_tracks)
