"""Binding in a held-out cell type on a held-out chromosome: EBERT beside its rivals, on real hg19 data.

    python benchmarks/mini_dream.py                     all designs, four turns, three seeds: many hours on 2 cores
    python benchmarks/mini_dream.py --designs boosting cnn --turns K562@chr22 --seeds 0
    python benchmarks/mini_dream.py --settings cross within dream
    python benchmarks/mini_dream.py --ablations         the table of ablations
    python benchmarks/mini_dream.py --quick             CTCF and MAX once, small budgets: shows that the script works

A turn K562@chr22 trains in the other two cell types on the other chromosome and tests in K562 on chr22 (`cross`).
`within` trains in the tested cell type on the other chromosome. `dream` is cross with ENCODE-DREAM peaks for CTCF
and MAX. A TF takes part where the tested cell type and one that is trained on have its labels. Bins, labels and auPRC
are those of ENCODE-DREAM. Designs choose their settings and when to stop on a held-back part of the training
chromosome, the same for all.

Designs: `prevalence`; `motif`, the best hit; `accessibility_x_state`, a table; `training_cells_on_test_chromosome`, the
mean label of the training cells at the same place, a reference that reads labels of the tested chromosome, as no rival
may; `boosting`, Anchor-like; `cnn`, FactorNet-like; both also `_no_accessibility`; EBERT's, see
rivals_ebert.py; `ebert_ensemble` and `ebert_network_ensemble`, means of their seeds.

Data: EBERT_REAL_DATA, default ../shared/data. Every finished (design, turn, seed) is a line of WORK/runs.jsonl and a
file of scores in WORK/scores, and is not repeated: another version of the code wants another WORK. Output: a table
per setting, differences paired over 1,000 resamples of 1-Mb blocks, then a line of JSON, of the setting cross at its
top: `mean_auprc` (mean over TFs, spread over seeds per design), `vs_boosting`, `vs_cnn`, `wins_vs_boosting`,
`pretrained_vs_scratch`, `states_vs_none` and further pairs of designs (`COMPARISONS`), among them those without
accessibility; null where a design was not run.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rivals_ebert import ABLATIONS, EVERY, arguments, checkpoint, run_ebert
from rivals_ebert import DESIGNS as EBERT_DESIGNS
from rivals_setting import SETTINGS, TFS, Scores, Task, Turn, label_counts, parse_turn, prepared, real_data, replicates
from rivals_simple import SIMPLE, simple
from rivals_table import Run, as_text, compare, design_means

TURNS = ("K562@chr22", "K562@chr20", "GM12878@chr22", "GM12878@chr20")
RIVALS = (
    "boosting", "boosting_others_accessibility", "boosting_no_accessibility", "cnn", "cnn_no_accessibility",
)  # fmt: skip
# No runs of their own: the mean log-odds of a design's seeds, as `ebert finetune --ensemble` would give.
MEANS = {"ebert_ensemble": "ebert", "ebert_network_ensemble": "ebert_network"}
DESIGNS = (*SIMPLE, *RIVALS, *EBERT_DESIGNS, *MEANS)
KNOWN = (*DESIGNS, *ABLATIONS)
# Key of the last line -> (design, the one it is compared with).
COMPARISONS = {
    "vs_boosting": ("ebert", "boosting"),
    "vs_cnn": ("ebert", "cnn"),
    "vs_training_cells": ("ebert", "training_cells_on_test_chromosome"),
    "ensemble_vs_one": ("ebert_ensemble", "ebert"),
    "ensemble_vs_boosting": ("ebert_ensemble", "boosting"),
    "ensemble_vs_cnn": ("ebert_ensemble", "cnn"),
    "network_vs_boosting": ("ebert_network", "boosting"),
    "trees_vs_none": ("ebert", "ebert_network"),
    "pretrained_vs_scratch": ("ebert_network", "ebert_scratch"),
    "states_vs_none": ("ebert_network", "ebert_no_states"),
    "encoder_vs_none": ("ebert_network", "ebert_head_alone"),
    "early_vs_late_fusion": ("ebert_early_fusion", "ebert_network"),
    "accessibility_vs_none": ("ebert", "ebert_no_accessibility"),
    "others_vs_boosting_no_accessibility": ("ebert_others_accessibility", "boosting_no_accessibility"),
    "others_vs_boosting_others": ("ebert_others_accessibility", "boosting_others_accessibility"),
    "others_vs_training_cells": ("ebert_others_accessibility", "training_cells_on_test_chromosome"),
    "vs_boosting_no_accessibility": ("ebert_no_accessibility", "boosting_no_accessibility"),
    "vs_cnn_no_accessibility": ("ebert_no_accessibility", "cnn_no_accessibility"),
}
# Half as much again as fine-tuning all TFs and predicting takes by default, trees included.
CNN_SECONDS = 1_200.0
QUICK_FINETUNE = ("--steps", "40", "--set", "evaluate_every=40", "--set", "valid_bp=1000000")

QUICK_PRETRAIN = ("--steps", "40", "--set", "evaluate_every=40")

Job = tuple[Any, Callable[[], dict[str, Scores]]]


def job(options: argparse.Namespace, task: Task, design: str, seed: int) -> Job:
    """(what the result depends on beside the turn and the seed, the function that makes it)."""
    if design in SIMPLE:
        return None, functools.partial(simple, task, design)
    if design.startswith("boosting"):
        from rivals_boosting import Budget, boosting

        budget = Budget(1, 4_000, 2_000, 20) if options.quick else Budget()
        shown = {"boosting": "all", "boosting_others_accessibility": "others"}.get(design, "none")
        return budget._asdict(), functools.partial(boosting, task, seed, budget, shown)
    if design.startswith("cnn"):
        from rivals_cnn import cnn

        seconds = options.cnn_seconds
        accessible = not design.endswith("_no_accessibility")
        return {"seconds": seconds}, functools.partial(cnn, task, seed, seconds, accessible=accessible)
    start = started_from(options, design)
    asked = [*arguments(task, design, start), *(QUICK_FINETUNE if options.quick else ())]
    return asked, functools.partial(run_ebert, task, design, asked, seed, options.threads)


def started_from(options: argparse.Namespace, design: str) -> Path | None:
    """The checkpoint of a design: the one that was named, or one made as the design says; None for random weights."""
    told = EVERY[design].pretrain
    if told is None or (options.checkpoint and not told):
        return options.checkpoint if told is not None else None
    more = QUICK_PRETRAIN if options.quick else ()
    return checkpoint(real_data(), options.work, options.threads, told, more)


def cpu_seconds() -> float:
    """Of this process and the commands it ran."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def run_once(task: Task, key: dict[str, Any], make: Callable[[], dict[str, Scores]], folder: Path) -> dict[str, Any]:
    """Run one design, keep its scores and their resamples; the line to log."""
    started, cpu = time.monotonic(), cpu_seconds()
    scores = make()
    seconds, cpu = time.monotonic() - started, cpu_seconds() - cpu
    found = {tf: replicates(task, tf, values) for tf, values in scores.items()}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:8]  # other TFs, other settings
    name = f"{key['design']}-{task.turn.name.replace(':', '-')}-{key['seed']}-{digest}.npz"
    arrays = {f"scores/{tf}": values.astype(np.float16) for tf, values in scores.items()}
    arrays |= {f"resampled/{tf}": values.astype(np.float32) for tf, (_, values) in found.items()}
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"partial-{name}"
    np.savez_compressed(partial, **arrays)
    partial.replace(folder / name)
    return key | {
        "seconds": round(seconds),
        "cpu_seconds": round(cpu),
        "auprc": {tf: round(point, 5) for tf, (point, _) in found.items()},
        "scores": name,
    }


def kept(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run_all(options: argparse.Namespace, setting: str, turns: list[Turn]) -> list[Run]:
    """Every run that was asked for in a setting, made or read."""
    data, log = real_data(), options.work / "runs.jsonl"
    dataset = prepared(data, options.work, "dream" if setting == "dream" else "uniform")
    runs = []
    for turn in turns:
        task = Task.of(dataset, turn, tuple(options.tfs), data, options.work)
        if not task.tfs:
            print(f"{turn.name}: no TF has labels to train on and to test", file=sys.stderr)
            continue
        finished: dict[str, list[dict[str, Any]]] = {}
        for design in (each for each in options.designs if each not in MEANS):
            for seed in options.seeds if design not in SIMPLE else (0,):
                told, make = job(options, task, design, seed)
                key = {"design": design, "turn": turn.name, "seed": seed, "tfs": list(task.tfs), "told": told}
                key = json.loads(json.dumps(key))
                record = next((each for each in reversed(kept(log)) if key.items() <= each.items()), None)
                if record is None and options.finished:
                    continue
                if record is None:
                    record = run_once(task, key, make, options.work / "scores")
                    with log.open("a") as handle:
                        handle.write(json.dumps(record) + "\n")
                    print(json.dumps(record), file=sys.stderr, flush=True)
                if record["auprc"]:
                    runs.append(_read(record, options.work / "scores"))
                    finished.setdefault(design, []).append(record)
        runs += _means(options.designs, task, finished, options.work / "scores")
        counts = {tf: label_counts(task, tf) for tf in task.tfs}
        print(f"{turn.name}: {json.dumps(counts)}", file=sys.stderr)
    return runs


def _read(record: dict[str, Any], folder: Path) -> Run:
    with np.load(folder / record["scores"]) as arrays:
        resampled = {tf: arrays[f"resampled/{tf}"].astype(np.float64) for tf in record["auprc"]}
    return Run(record["design"], record["turn"], record["seed"], record["auprc"], resampled)


def _means(designs: list[str], task: Task, finished: dict[str, list[dict[str, Any]]], folder: Path) -> list[Run]:
    """The runs of `MEANS` that were asked for and can be had."""

    def mean(records: list[dict[str, Any]]) -> dict[str, Scores]:
        scores: dict[str, list[Scores]] = {}
        for record in records:
            with np.load(folder / record["scores"]) as arrays:
                for tf in record["auprc"]:
                    scores.setdefault(tf, []).append(arrays[f"scores/{tf}"].astype(np.float32))
        return {tf: np.mean(each, axis=0) for tf, each in scores.items()}

    made = {name: mean(finished[design]) for name, design in MEANS.items() if len(finished.get(design, [])) > 1}
    runs = []
    for name in (each for each in made if each in designs):
        found = {tf: replicates(task, tf, values) for tf, values in made[name].items()}
        points, resampled = ({tf: pair[place] for tf, pair in found.items()} for place in (0, 1))
        runs.append(Run(name, task.turn.name, 0, points, resampled))
    return runs


def summary(runs: list[Run]) -> dict[str, Any]:
    """The figures of one setting, for the last line."""
    compared = {name: compare(runs, *designs) for name, designs in COMPARISONS.items()}
    versus = compared["vs_boosting"]
    return {"mean_auprc": design_means(runs), "wins_vs_boosting": versus and versus["wins"], **compared}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work/mini_dream"), help="folder of datasets and runs")
    parser.add_argument("--designs", nargs="+", default=list(DESIGNS), choices=KNOWN, metavar="DESIGN")
    parser.add_argument("--ablations", action="store_true", help="EBERT with one thing changed at a time")
    parser.add_argument("--turns", nargs="+", default=list(TURNS), metavar="CELL@CHROM")
    parser.add_argument("--settings", nargs="+", default=["cross"], choices=list(SETTINGS))
    parser.add_argument("--tfs", nargs="+", default=list(TFS), choices=TFS, metavar="TF")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--finished", action="store_true", help="tabulate the finished runs, begin none")
    parser.add_argument("--checkpoint", type=Path, help="what EBERT starts from; default: one pre-trained in WORK")
    parser.add_argument("--cnn-seconds", type=float, default=CNN_SECONDS, help="CPU seconds of a CNN's training")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.ablations:
        options.designs = ["ebert", "ebert_network", "ebert_scratch", "ebert_no_states", *ABLATIONS]
    if options.quick:
        options.work, options.turns, options.seeds = options.work / "quick", options.turns[:1], options.seeds[:1]
        options.tfs, options.cnn_seconds = list(TFS[:2]), 20.0
    options.work = options.work.resolve()
    options.checkpoint = options.checkpoint and options.checkpoint.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    use_threads(options.threads)
    found = {}
    for setting in options.settings:
        runs = run_all(options, setting, [parse_turn(text, setting) for text in options.turns])
        if runs:
            print(f"\n{setting}: {SETTINGS[setting]}; auPRC, mean over turns and seeds\n{as_text(runs, TFS)}")
            found[setting] = summary(runs)
            for name, (first, second) in COMPARISONS.items():
                if (one := found[setting][name]) is not None:
                    print(f"{first} - {second}: {one['difference']:+.4f} ({one['lower']:+.4f} to {one['upper']:+.4f}), "
                          f"{one['relative']:+.1%}, above in {one['wins']} of {one['tfs']} TFs")  # fmt: skip
    print(json.dumps({"turns": options.turns, "seeds": options.seeds, **found.pop("cross", {}), **found}))


def use_threads(threads: int) -> None:
    """So many for torch and for scikit-learn's trees."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    threadpool_limits(threads)


if __name__ == "__main__":
    main()
