"""The benchmark of variants runs, and its two ways agree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_quick_run(tmp_path: Path) -> None:
    # Without the real data: random sequence.
    environment = {**os.environ, "EBERT_REAL_DATA": str(tmp_path), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "variants.py", "--quick", "--threads", "1"],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    figures = json.loads(done.stdout.splitlines()[-1])
    # A block of its own and some that are shared, of the eight of a window that plain reads twice.
    assert figures["vs_plain"] > 3
    assert figures["vs_plain_dense"] > 5
    for density in ("spread", "dense"):
        assert figures["small"][density]["difference"] < 0.05
        assert figures["small"][density]["variants_per_s"] > 0
