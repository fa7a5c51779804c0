"""benchmarks/scan.py --memory: what a scan of a genome of many Mb holds in memory, the model's own work left out.

The genome is made up and on disk, and `ebert predict`'s own path runs over all of it: plan, windows gathered from the
dataset's files, task features, journal, bigWig and narrowPeak. Only the model's answer is made up, so it takes minutes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

_CHROM_BP: Final = 155_000_000


def memory(megabases: int, folder: Path) -> dict[str, Any]:
    """Make the genome, scan it in a process of its own, and say what that held at most, MB."""
    from scan_world import Land, make_dataset, make_model

    length = megabases * 1_000_000
    chroms = max(1, round(length / _CHROM_BP))
    dataset = make_dataset(folder, Land(length // chroms // 200 * 200, chroms))
    make_model(folder / "model", dataset, "tiny")
    started = time.monotonic()
    told = subprocess.run(
        [sys.executable, __file__, str(folder)], check=True, capture_output=True, text=True
    ).stdout.splitlines()[-1]
    return {"megabases": megabases, "wall_s": round(time.monotonic() - started), **json.loads(told)}


def child(folder: Path) -> None:
    """The scan; prints JSON."""
    import os

    from scan_writing import resident

    from ebert_core.data.dataset import Dataset
    from ebert_core.genome.regions import whole
    from ebert_core.inference import scorer
    from ebert_core.inference.calls import CallRule
    from ebert_core.inference.models import load_model
    from ebert_core.inference.output_files import OutputSet, OutputSettings
    from ebert_core.inference.pieces import make_plan, piece_bins
    from ebert_core.inference.predictor import CellStates, Request
    from ebert_core.inference.runs import Scan, describe, run_files, scan_identity
    from ebert_core.inference.targets import Target
    from ebert_core.model.device import choose_device, keep_freed_memory

    keep_freed_memory()
    device = choose_device("cpu", "auto")
    dataset = Dataset.open(folder / "dataset")
    model = load_model(folder / "model", dataset, device)
    tfs, cell = tuple(model.tfs[:1]), dataset.state_cells[0]

    def made_up(*_: object, **__: object) -> Any:
        rng, num_tfs = np.random.default_rng(0), len(tfs)

        def score(batch: Any) -> Any:
            shape = (len(batch.bases), batch.bases.shape[1] // 50 - 3, num_tfs)
            return rng.normal(-4, 2, shape).astype(np.float32)

        return score

    scorer.members_score = made_up  # type: ignore[assignment]
    model_mb = resident(os.getpid(), "VmHWM")
    cell_states = CellStates(cell, dataset.flat_states(cell), "dataset")
    request = Request(tfs, cell_states, tuple(whole(dataset.assembly)))
    plan = make_plan(dataset, request.regions, model.geometry().core_bins, piece_bins(1))
    plan_mb = resident(os.getpid(), "VmHWM")
    calls = [model.thresholds(tf).choose(CallRule.parse("f1"), tf) for tf in tfs]
    settings = OutputSettings()
    job = describe(dataset, model, request, plan, settings, calls)
    identity = scan_identity(dataset, model, request, plan, device)
    values = scorer.piece_values(dataset, model, request, device)
    names = OutputSet.named(folder / "predictions", list(tfs), cell, settings.formats)
    run_files(Scan(plan, values, identity), job, Target(names))
    most = resident(os.getpid(), "VmHWM")
    told = {
        "bins": plan.coverage.scored,
        "pieces": len(plan.pieces),
        "peak_rss_mb": round(most),
        "model_loaded_mb": round(model_mb),
        "after_plan_mb": round(plan_mb),
        "beyond_the_model_mb": round(most - model_mb),
        "cpu_s": round(time.process_time()),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    child(Path(sys.argv[1]))
