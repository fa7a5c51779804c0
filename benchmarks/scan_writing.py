"""What benchmarks/scan.py measures of a whole run: the time to write its files, and the memory of `ebert predict`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from scan_programs import Program, Scene

from ebert_core.data.dataset import Dataset
from ebert_core.inference.calls import CallRule
from ebert_core.inference.output_files import OutputSet, OutputSettings
from ebert_core.inference.pieces import Piece, Scored, make_plan, piece_bins
from ebert_core.inference.predictor import Request
from ebert_core.inference.runs import Scan, describe, run_files, scan_identity
from ebert_core.inference.targets import Target
from ebert_core.reporting import Advance


def writing(scene: Scene, folder: Path) -> Program:
    """All that a run does beside scoring: plan, journal, bigWig and narrowPeak, of probabilities that are there."""
    rng = np.random.default_rng(0)
    tfs = scene.request.tfs
    made = (rng.random((len(scene.piece.bins), len(tfs))) ** 8).astype(np.float32)

    def values(piece: Piece, advance: Advance) -> Scored:
        advance(len(piece.bins), piece.chrom)
        return Scored(piece, made[: len(piece.bins)])

    def program() -> int:
        geometry = scene.model.geometry()
        plan = make_plan(scene.dataset, scene.request.regions, geometry.core_bins, piece_bins(len(tfs)))
        settings = OutputSettings()
        calls = [scene.model.thresholds(tf).choose(CallRule.parse("f1"), tf) for tf in tfs]
        identity = scan_identity(scene.dataset, scene.model, scene.request, plan, scene.device)
        job = describe(scene.dataset, scene.model, scene.request, plan, settings, calls)
        names = OutputSet.named(folder, list(tfs), scene.request.cell.name, settings.formats)
        run_files(Scan(plan, values, identity), job, Target(names, overwrite=True))
        return plan.coverage.scored

    return program


def peak_of_predict(dataset: Dataset, model: Path, request: Request, output: Path) -> float:
    """Most memory that `ebert predict` of the request holds, MB."""
    region = request.regions[0]
    command = [sys.executable, "-m", "ebert_cli", "predict", "--tf", ",".join(request.tfs), "--cell", request.cell.name,
               "--dataset", str(dataset.path), "--model", str(model), "--threads", "1", "--output", str(output),
               "--chrom", f"{region.chrom}:{region.start}-{region.end}", "--quiet"]  # fmt: skip
    return most_memory(command)


def most_memory(command: list[str]) -> float:
    """Run a command; its largest resident set, MB (what `wait4` tells would count the parent's, too)."""
    child, most = subprocess.Popen(command), 0.0
    while child.poll() is None:
        most = max(most, resident(child.pid, "VmHWM"))
        time.sleep(0.05)
    if child.returncode:
        sys.exit(f"{' '.join(command)} failed")
    return most


def resident(pid: int, what: str) -> float:
    """A number of /proc/PID/status, MB."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0.0
    line = next((line for line in status.splitlines() if line.startswith(what)), f"{what}: 0 kB")
    return int(line.split()[1]) * 1024 / 1e6
