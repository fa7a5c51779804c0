"""The scan's benchmark runs; the scan is as fast and as small as promised, where that does not hang on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "scan.py"
KEYS = {"dense_vs_windows", "vs_hf_fp32", "mfu", "io_share", "peak_rss_mb", "bins_per_s"}

pytestmark = pytest.mark.slow


def last_line(*options: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_quick_figures(tmp_path: Path) -> None:
    found = last_line("--quick", "--work", str(tmp_path))
    assert set(found) == KEYS
    assert found["dense_vs_windows"] >= 14
    assert found["io_share"] < 0.1
    assert found["peak_rss_mb"] < 1_500
    assert found["bins_per_s"] > 0
    assert 0 < found["mfu"] < 1
    # None where there is no transformers.
    assert found["vs_hf_fp32"] is None or found["vs_hf_fp32"] > 1


def test_memory_does_not_grow_with_the_genome(tmp_path: Path) -> None:
    """Pages of the dataset's files count, too; 160 Mb alone would be 160 MB of bases."""
    small, large = (last_line("--memory", str(size), "--work", str(tmp_path)) for size in (20, 160))
    assert large["bins"] > 7.9 * small["bins"]
    assert large["beyond_the_model_mb"] < 1_500
    assert large["beyond_the_model_mb"] < small["beyond_the_model_mb"] + 140
