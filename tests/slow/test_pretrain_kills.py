"""Pre-training on two processes, killed again and again at random moments, against an unbroken run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ebert_core.data.dataset import Dataset
from ebert_core.training.journal import read_journal
from ebert_core.training.resume import resume_points

ROOT = Path(__file__).resolve().parents[2]
SHAPE = ["width=16", "num_layers=1", "num_heads=2", "stem_channels=8"]
SETTINGS = ["window_bp=1000", "global_batch=5", "micro_batch=2", "valid_windows=5", "evaluate_every=100",
            "checkpoint_every=5", "steps=250"]  # fmt: skip


@pytest.mark.slow
def test_killed_again_and_again(toy_dataset: Dataset, tmp_path: Path) -> None:
    """Whatever is killed, and whenever: the last resume point is whole, and the end is that of an unbroken run."""
    command = [sys.executable, "-m", "ebert_cli", "pretrain", "--dataset", str(toy_dataset.path), "--threads", "1",
               "--precision", "fp32", "--quiet", *(f"--set=encoder.{value}" for value in SHAPE),
               *(f"--set={value}" for value in SETTINGS)]  # fmt: skip
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
    rng, reached = random.Random(), [0]
    for _ in range(6):
        process = subprocess.Popen(
            [*command, "--devices", "2", "--resume", "--output", tmp_path / "killed"],
            env=environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        until = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < until:
            points = resume_points(tmp_path / "killed.partial")
            if points and int(points[-1].name[-8:]) > reached[-1]:
                break
            time.sleep(0.005)
        time.sleep(rng.random() * 0.5)
        process.send_signal(rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1]))
        _, said = process.communicate(timeout=60)
        assert "Traceback" not in said
        assert process.returncode in (-signal.SIGKILL, 75, 0), said
        if process.returncode == 0:
            break
        points = resume_points(tmp_path / "killed.partial")
        assert points
        step = int(points[-1].name[-8:])
        assert step > reached[-1]
        reached.append(step)
        time.sleep(0.5)  # the ranks of a killed starter go with it, and their lock with them
    if process.returncode:
        done = [*command, "--devices", "2", "--resume", "--output", tmp_path / "killed"]
        subprocess.run(done, env=environment, check=True)
    subprocess.run([*command, "--output", tmp_path / "whole"], env=environment, check=True)
    journals = [read_journal(tmp_path / name / "journal.jsonl") for name in ("killed", "whole")]
    assert [(event["event"], event["step"]) for event in journals[0]] == [
        (event["event"], event["step"]) for event in journals[1]
    ]
    for ours, theirs in zip(*journals, strict=True):
        for name in {"loss", "valid_bits_per_base"} & ours.keys():
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3), (name, ours["step"], reached)
    assert json.loads((tmp_path / "killed" / "ebert.json").read_text())["held_out"]["baselines"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]
