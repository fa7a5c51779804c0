"""What the demo reaches: auPRC in a held-out cell type on a held-out chromosome, over several worlds and runs.

    python benchmarks/demo.py            three seeds, about 10 minutes on 2 cores
    python benchmarks/demo.py --quick    one seed, a few steps, under a minute: shows only that the script works

Each seed draws another world and other weights. Last line: JSON with, per TF, the mean and the spread (largest minus
smallest) of auPRC with states, without states, of the best motif hit, of the best reachable, and of the share reached.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

QUICK = ["--pretrain-steps", "5", "--finetune-steps", "20"]


def figures_of(report: Path) -> dict[str, dict[str, float]]:
    """TF -> name -> auPRC of one demo run."""
    result = {}
    for evaluation in json.loads(report.read_text())["evaluations"]:
        auprc = {row["name"]: row["measures"]["auprc"] for row in evaluation["rows"]}
        ours = auprc[f"{evaluation['tf']}.{evaluation['cell']}.bw"]
        result[evaluation["tf"]] = {
            "with_states": ours,
            "without_states": auprc["without states"],
            "motif": auprc["best motif hit"],
            "reachable": auprc["best reachable"],
            "share": ours / auprc["best reachable"],
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    seeds = options.seeds[:1] if options.quick else options.seeds
    runs: list[dict[str, dict[str, float]]] = []
    seconds: list[float] = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            command = [sys.executable, "-m", "ebert_cli", "demo", "--output", f"{folder}/demo", "--seed", str(seed)]
            subprocess.run(command + (QUICK if options.quick else []), check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.monotonic() - started)
            runs.append(figures_of(Path(folder) / "demo" / "report" / "report.json"))
        print(f"seed {seed} ({seconds[-1]:.0f} s): {json.dumps(runs[-1])}", flush=True)
    summary = {
        tf: {
            name: {
                "mean": round(statistics.mean(run[tf][name] for run in runs), 3),
                "spread": round(max(run[tf][name] for run in runs) - min(run[tf][name] for run in runs), 3),
            }
            for name in runs[0][tf]
        }
        for tf in runs[0]
    }
    print(json.dumps({"seeds": seeds, "seconds": [round(value) for value in seconds], "auprc": summary}))


if __name__ == "__main__":
    main()
