"""The demo's promise over three worlds: states help, EBERT beats the motif, the best reachable is near."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_three_seeds_reach_what_the_demo_promises() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "demo.py", "--seeds", "1", "2", "3"],
        check=True,
        capture_output=True,
        text=True,
    )
    figures = json.loads(done.stdout.splitlines()[-1])["auprc"]
    assert len(figures) == 3
    for tf, named in figures.items():
        means = {name: value["mean"] for name, value in named.items()}
        assert means["with_states"] > means["without_states"] > means["motif"], (tf, means)
        assert means["with_states"] <= means["reachable"] + 0.02, (tf, means)
    assert max(named["share"]["mean"] for named in figures.values()) >= 0.8, figures
