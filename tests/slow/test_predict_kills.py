"""`ebert predict` killed again and again at random moments, against an unbroken run."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ebert_cli.app import app

ROOT = Path(__file__).resolve().parents[2]
SMALL_PIECES = """
from ebert_core.inference import pieces, runs
pieces.PIECE_BINS = 20
import os, time
keeper = runs._keeper
def slowly(journal):
    keep = keeper(journal)
    def kept(scored):
        time.sleep(0.01)  # a kill should meet a run that is under way
        keep(scored)
    return kept
runs._keeper = slowly
score = runs.score_pieces
def told(pieces, *rest):
    for scored in score(pieces, *rest):
        with open(os.environ["SCORED"], "a") as handle:
            handle.write(f"{scored.piece.number}\\n")
        yield scored
runs.score_pieces = told
from ebert_cli.app import main
main()
"""


@pytest.mark.slow
def test_killed_again_and_again(toy_files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the moment: the run goes on, scores no kept piece again, and its files are those of an unbroken run."""
    monkeypatch.chdir(tmp_path)
    shape = [f"--set=encoder.{value}" for value in ("width=16", "num_layers=1", "num_heads=2", "stem_channels=8")]
    tiny = ["--set", "optimizer.warmup_fraction=0", "--threads", "1", "--quiet"]
    inputs = ["--genome", toy_files.genome, "--states", toy_files.states, "--chip", toy_files.chip]
    for command in (
        ["prepare", *inputs, "--exclude", toy_files.exclude, "--quiet"],
        ["pretrain", "--steps", 1, "--set", "valid_windows=1", "--valid-chrom", "chr2", *shape, *tiny],
        ["finetune", "--tf", "all", "--steps", 1, "--set", "valid_bp=4000", *tiny],
    ):
        assert CliRunner().invoke(app, list(map(str, command))).exit_code == 0
    scored = tmp_path / "scored"
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT), "SCORED": str(scored)}
    command = [sys.executable, "-c", SMALL_PIECES, "predict", "--tf", "CTCF,MAX", "--cell", "HepG2", "--threads", "1",
               "--format", "bigwig,narrowpeak,bedgraph,dream,npz"]  # fmt: skip
    rng, working, kills = random.Random(), tmp_path / "killed" / "CTCF+MAX.HepG2.partial", 0
    for _ in range(60):
        process = subprocess.Popen(
            [*command, "--output", "killed", "--resume"], env=environment, stderr=subprocess.PIPE, text=True
        )
        until = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < until and not (working / "run.json").exists():
            time.sleep(0.005)
        started = len(scored.read_text().splitlines()) if scored.exists() else 0
        while process.poll() is None and len(scored.read_text().splitlines() if scored.exists() else ()) == started:
            time.sleep(0.005)
        time.sleep(rng.random() * 0.3)
        process.send_signal(rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        _, said = process.communicate(timeout=60)
        assert "Traceback" not in said
        # A signal that comes while the interpreter itself ends, with all done, meets no handler of ours.
        assert process.returncode in (-signal.SIGKILL, -signal.SIGINT, -signal.SIGTERM, 143, 130, 0), said
        if process.returncode == 0 or not working.exists():
            break
        kills += 1
    assert kills > 3
    if working.exists():
        subprocess.run([*command, "--output", "killed", "--resume"], env=environment, check=True)
    again = [int(line) for line in scored.read_text().splitlines()]
    # A piece that was scored when the kill came, and not yet kept, is scored once more.
    assert len(again) - len(set(again)) <= 3 * kills
    subprocess.run([*command, "--output", "whole"], env=environment, check=True)
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert [name for name in sorted(os.listdir("killed")) if not name.endswith(".lock")] == names
    for name in names:
        ours, theirs = ((tmp_path / folder / name).read_bytes() for folder in ("killed", "whole"))
        if name.endswith(".ebert.json"):
            ours, theirs = (
                json.dumps(
                    {key: value for key, value in json.loads(text).items() if key not in ("command", "created_utc")}
                )
                for text in (ours, theirs)
            )
        assert ours == theirs, name
    shutil.rmtree(tmp_path / "killed")
