"""The examples run, short, where the real data are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ebert_core.data.dataset import Dataset

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
        "EBERT_TFS": "CTCF,MAX",
    }
    subprocess.run([ROOT / "examples" / "real_chr20_22.sh", tmp_path], check=True, env=environment, cwd=ROOT)
    evaluation = json.loads((tmp_path / "report" / "report.json").read_text())["evaluations"]
    assert len(evaluation) == 2
    evaluation = next(each for each in evaluation if each["tf"] == "CTCF")
    assert evaluation["bins"]["bound"] == 5_093
    assert sum(evaluation["bins"].values()) == 1_025_608, "the challenge's bins of chr22"
    ours = evaluation["rows"][0]
    assert ours["held_out"]["status"] == "held out"
    assert ours["measures"]["auprc"] > ours["measures"]["prevalence"]
    assert (tmp_path / "predictions" / "CTCF.K562.bw").is_file(), "chr21, the blind chromosome"


@pytest.mark.slow
def test_pretrain_torchrun(toy_dataset: Dataset, tmp_path: Path) -> None:
    """Two processes under torchrun, one without: the printed figures are the same."""
    programs = Path(sys.executable).parent
    environment = {
        **os.environ,
        "EBERT": f"{sys.executable} -m ebert_cli",
        "TORCHRUN": str(programs / "torchrun"),
        "PYTHONPATH": str(ROOT),
    }
    command = [ROOT / "examples" / "pretrain_torchrun.sh", toy_dataset.path, tmp_path]
    done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    figures = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [step for _, step, _ in figures] == ["10", "20", "10", "20"]
    for (*_, two), (*_, one) in zip(figures[:2], figures[2:], strict=True):
        assert float(two) == pytest.approx(float(one), rel=1e-5)


SLURM_STANDS_IN = {
    # The stand-in for Slurm runs one task, which says what it was given and ends as it was told.
    "srun": 'shift 2; RANK= SLURM_PROCID=0 SLURM_LOCALID=0 exec "$@"',
    "scontrol": 'if [ "$1" = show ]; then echo node7; echo node8; else echo "scontrol $*"; fi',
    "ebert": 'echo "$RANK of $WORLD_SIZE at $MASTER_ADDR:$MASTER_PORT: $*"; exit "$CODE"',
}


@pytest.mark.parametrize("code", [0, 1, 75])
def test_pretrain_slurm_requeues_what_asks_for_it(tmp_path: Path, code: int) -> None:
    for name, text in SLURM_STANDS_IN.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_ID": "40123", "SLURM_NTASKS": "16"}
    environment = {
        **os.environ,
        **job,
        "SLURM_NTASKS_PER_NODE": "8",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "CODE": str(code),
    }
    command = ["bash", ROOT / "examples" / "pretrain.slurm", "--dataset", "a b"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "0 of 16 at node7:20123: pretrain --preset base --max-time 11h50m --resume --dataset a b"
    assert lines[1:] == (["scontrol requeue 40123"] if code == 75 else [])


def test_predict_slurm_scores_a_part_of_its_array(tmp_path: Path) -> None:
    (tmp_path / "ebert").write_text('#!/bin/bash\nprintf "<%s>" "$@"\nexit 3\n')
    (tmp_path / "ebert").chmod(0o755)
    job = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_CPUS_PER_TASK": "4"}
    environment = {**os.environ, **job, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["bash", ROOT / "examples" / "predict.slurm", "--tf", "CTCF", "--dataset", "a b"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout == "<predict><--shard><2/8><--threads><4><--resume><--tf><CTCF><--dataset><a b>"
