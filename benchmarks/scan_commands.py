"""benchmarks/scan.py --command: the whole `ebert predict` as it is typed, from its start to its last file."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from scan_world import CELLS, GENOME_BINS, TFS, Land, make_dataset, make_model

SIZES: Final = ("tiny", "small")


def commands(megabases: int, folder: Path) -> dict[str, Any]:
    """Wall and CPU seconds of ten TFs on a made-up chromosome, on one process and on one per core."""
    dataset = make_dataset(folder, Land(megabases * 1_000_000))
    cores = len(os.sched_getaffinity(0))
    found: dict[str, Any] = {"megabases": megabases, "tfs": len(TFS), "cores": cores}
    for size in SIZES:
        model = folder / size
        make_model(model, dataset, size)
        found[size] = {f"devices_{number}": one(dataset.path, model, number, folder) for number in sorted({1, cores})}
        print(f"{size}: {json.dumps(found[size])}", flush=True)
    return found


def one(dataset: Path, model: Path, devices: int, folder: Path) -> dict[str, Any]:
    """One run; `hours_of_dream` is the wall time at this rate for the bins of ENCODE-DREAM."""
    output = folder / "predictions"
    shutil.rmtree(output, ignore_errors=True)
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "ebert_cli", "predict", "--tf", ",".join(TFS), "--cell", CELLS[0], "--dataset", dataset,
         "--model", model, "--threads", "1", "--devices", str(devices), "--output", output],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    line = next(line for line in done.stderr.splitlines() if " bins scored;" in line)
    bins = int(line.split()[0].replace(",", ""))
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "wall_s": round(wall, 1),
        "cpu_s": round(cpu, 1),
        "bins_per_s": round(bins / wall),
        "hours_of_dream": round(GENOME_BINS / (bins / wall) / 3600, 2),
    }
