"""The examples run, short, where the real data are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REAL_DATA = Path(os.environ.get("EBERT_REAL_DATA", ROOT.parent / "shared" / "data"))


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"real hg19 files not found in {REAL_DATA}; set EBERT_REAL_DATA")
def test_real_chr20_22(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "EBERT": str(Path(sys.executable).parent / "ebert"),
        "EBERT_REAL_DATA": str(REAL_DATA),
        "EBERT_QUICK": "1",
    }
    subprocess.run([ROOT / "examples" / "real_chr20_22.sh", tmp_path], check=True, env=environment, cwd=ROOT)
    evaluation = json.loads((tmp_path / "report" / "report.json").read_text())["evaluations"][0]
    assert evaluation["bins"]["bound"] == 5_093
    assert sum(evaluation["bins"].values()) == 1_025_608, "the challenge's bins of chr22"
    ours = evaluation["rows"][0]
    assert ours["held_out"]["status"] == "held out"
    assert ours["measures"]["auprc"] > ours["measures"]["prevalence"]
    assert (tmp_path / "predictions" / "CTCF.K562.bw").is_file(), "chr21, the blind chromosome"
