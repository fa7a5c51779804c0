"""What the road reaches on real hg19 data: ten TFs in K562 on chr22, both held out, beside the baselines.

    python benchmarks/real_road.py            three seeds, about an hour on 2 cores
    python benchmarks/real_road.py --quick    one seed, a few steps: shows only that the script works

Runs examples/real_chr20_22.sh (data: EBERT_REAL_DATA, default ../shared/data), measuring each command. Last line: JSON
with seconds and peak memory per command, and mean and spread (largest minus smallest) of auPRC per TF and row of the
report.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run_once(seed: int, quick: bool, folder: Path) -> tuple[dict[str, float], list[dict[str, object]]]:
    """(auPRC per row of the report, measures per command) of one run of the example."""
    measures = folder / "measures.jsonl"
    wrapped = f"{sys.executable} {ROOT / 'benchmarks' / 'measure_command.py'} {Path(sys.executable).parent / 'ebert'}"
    environment = {
        **os.environ,
        "EBERT": wrapped,
        "EBERT_MEASURES": str(measures),
        "EBERT_SEED": str(seed),
        "EBERT_ENSEMBLE": "1",
    }
    environment.setdefault("EBERT_REAL_DATA", str(ROOT.parent / "shared" / "data"))
    if quick:
        environment["EBERT_QUICK"] = "1"
    example = ROOT / "examples" / "real_chr20_22.sh"
    subprocess.run([example, folder / "road"], check=True, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    evaluations = json.loads((folder / "road" / "report" / "report.json").read_text())["evaluations"]
    return (
        {f"{each['tf']}: {row['name']}": row["measures"]["auprc"] for each in evaluations for row in each["rows"]},
        [json.loads(line) for line in measures.read_text().splitlines()],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    seeds = options.seeds[:1] if options.quick else options.seeds
    runs, commands = [], []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            auprc, measured = run_once(seed, options.quick, Path(folder))
        runs.append(auprc)
        commands.append(measured)
        print(f"seed {seed}: {json.dumps(auprc)}\n{json.dumps(measured)}", flush=True)
    summary = {
        name: {
            "mean": round(statistics.mean(run[name] for run in runs), 3),
            "spread": round(max(run[name] for run in runs) - min(run[name] for run in runs), 3),
        }
        for name in runs[0]
    }
    print(json.dumps({"seeds": seeds, "commands": commands[0], "auprc": summary}))


if __name__ == "__main__":
    main()
