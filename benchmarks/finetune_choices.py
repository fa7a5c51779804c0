"""How fine-tuning depends on where it starts and on how its steps are cut, at equal base pairs, on the demo world.

    python benchmarks/finetune_choices.py            three seeds, about 15 minutes on 2 cores
    python benchmarks/finetune_choices.py --quick    one seed, a few steps, under a minute: only that it works

Every variant reads 800 x 12.8 kb. Figures: mean auPRC over TFs and training cell types on the validation chromosome.
Last line: JSON with mean and spread (largest minus smallest) per variant.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from ebert_core.simulation.config import WorldConfig
from ebert_core.simulation.world import build_world

STEPS = 800
# Weights as BERT draws them, and motif detectors of unit response: what the code had first.
FIXED_WEIGHTS = """
import torch
from ebert_core.model import encoder, heads

def draw(layer, gain=1.0):
    torch.nn.init.normal_(layer.weight, std=0.02)
    if layer.bias is not None:
        torch.nn.init.zeros_(layer.bias)

encoder.initialise_linear = heads.initialise_linear = draw
encoder._STEM_GAIN = 1.0
from ebert_cli.app import main
main()
"""
# Name -> (settings, how many times fewer steps than STEPS).
VARIANTS: dict[str, tuple[list[str], int]] = {
    "from scratch": (["--scratch", "tiny"], 1),
    "after 200 steps of pre-training": ([], 1),
    "windows of 3,200 bp": (["--scratch", "tiny", "--set", "window_bp=3200", "--set", "global_batch=4",
                             "--set", "micro_batch=4"], 1),
    "from scratch, weights of a fixed 0.02": (["--scratch", "tiny"], 1),
    "a quarter of the steps, four times as large": (["--scratch", "tiny", "--set", "global_batch=32"], 4),
}  # fmt: skip


def ebert(folder: Path, *arguments: str, code: str = "from ebert_cli.app import main; main()") -> None:
    """Run one command in `folder`."""
    subprocess.run([sys.executable, "-c", code, *arguments, "--quiet"], cwd=folder, check=True)


def validation_auprc(model: Path) -> float:
    """Mean over the model's TFs and validation cell types."""
    measures = json.loads((model / "ebert.json").read_text())["validation"]
    return statistics.mean(values["auprc"] for values in measures.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    seeds, steps = (options.seeds[:1], 20) if options.quick else (options.seeds, STEPS)
    found: dict[str, list[float]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        world = build_world(WorldConfig(), folder / "world")
        ebert(folder, "prepare", "--genome", "world/genome.fa", "--states", "world/states", "--chip", "world/chip",
              "--exclude", "world/exclude.bed")  # fmt: skip
        split = ["--hold-out-cell", world.test_cell, "--hold-out-chrom", world.test_chrom]
        split += ["--valid-chrom", world.validation_chrom, "--tf", "all"]
        for seed in seeds:
            pretrained = f"pretrained{seed}"
            ebert(folder, "pretrain", "--steps", str(min(200, steps)), "--seed", str(seed), "--output", pretrained)
            for index, (variant, (settings, fewer)) in enumerate(VARIANTS.items()):
                output = f"models/{index}-{seed}"
                how = {"code": FIXED_WEIGHTS} if "0.02" in variant else {}
                ebert(folder, "finetune", *split, *settings, "--checkpoint", pretrained, "--seed", str(seed),
                      "--steps", str(steps // fewer), "--set", f"evaluate_every={steps}",
                      "--output", output, **how)  # fmt: skip
                found[variant].append(validation_auprc(folder / output))
                print(f"seed {seed}, {variant}: {found[variant][-1]:.3f}", flush=True)
    summary = {
        variant: {"mean": round(statistics.mean(values), 3), "spread": round(max(values) - min(values), 3)}
        for variant, values in found.items()
    }
    print(json.dumps({"seeds": seeds, "steps": steps, "validation_auprc": summary}))


if __name__ == "__main__":
    main()
