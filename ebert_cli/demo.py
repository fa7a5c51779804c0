"""`ebert demo`: the whole road on a simulated genome whose truth is known."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ebert_cli import options
from ebert_cli.console import ConsoleReporter, guarded, stderr, stdout

if TYPE_CHECKING:
    from ebert_core.simulation.world import World

NAME = "demo"
# Enough to show the effect in minutes on two cores; a real run has the presets' own lengths.
_PRETRAIN_STEPS, _FINETUNE_STEPS = 200, 1_200
# The held-out chromosome is too short for many blocks of 1 Mb.
_SMALL_BLOCKS = ("--block-bp", "100000")


@guarded
def run(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the demo.")] = Path("ebert-demo"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the world and of the training runs.")] = 1,
    pretrain_steps: Annotated[
        int, typer.Option("--pretrain-steps", min=1, help="Optimiser steps of pre-training.")
    ] = _PRETRAIN_STEPS,
    finetune_steps: Annotated[
        int, typer.Option("--finetune-steps", min=1, help="Optimiser steps of each fine-tuning run.")
    ] = _FINETUNE_STEPS,
    threads: options.ThreadsOption = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Walk the whole road on a simulated genome, in under 4 minutes on 2 cores.

    Builds a world of real files (FASTA, segmentations, peaks, motifs), then runs prepare, pretrain, finetune, predict
    and evaluate on it, each shown as you would type it. One cell type and one chromosome are held out; since the truth
    is known, the best reachable figures stand beside ours.
    """
    from ebert_core.artifacts import refuse_existing
    from ebert_core.simulation.world import WorldConfig, build_world

    started = time.monotonic()
    refuse_existing(output, overwrite)
    _clear(output)
    stderr.print(f"building the demo world in {output / 'world'} (seed {seed})", markup=False)
    world = build_world(WorldConfig(seed=seed), output / "world", reporter=ConsoleReporter())
    for arguments in _commands(world, output, seed, pretrain_steps, finetune_steps):
        if threads and arguments[0] in ("pretrain", "finetune", "predict"):
            arguments += ["--threads", str(threads)]
        _show_and_run(arguments, output)
    _show_summary(output / "report" / "report.json")
    stderr.print(f"\nthe demo took {time.monotonic() - started:.0f} s; look at", markup=False)
    tf, cell = world.tfs[0], world.config.test_cell
    for what, path in (
        ("report", "report/report.html"),
        ("bigWig", f"predictions/{tf}.{cell}.bw"),
        ("sites", f"predictions/{tf}.{cell}.narrowPeak"),
    ):
        stderr.print(f"  {what:7} {output / path}", markup=False)


def _clear(folder: Path) -> None:
    """Empty a folder that holds an earlier demo, and nothing else."""
    import shutil

    from ebert_core.artifacts import explain_os_errors
    from ebert_core.errors import EbertError

    if folder.exists() and any(folder.iterdir()) and not (folder / "world" / "world.json").is_file():
        raise EbertError(f"{folder} holds something else than a demo", "choose another folder with --output")
    with explain_os_errors(folder):
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)


def _commands(world: World, output: Path, seed: int, pretrain_steps: int, finetune_steps: int) -> Iterator[list[str]]:
    """The road's command lines, to be run in `output`."""
    place = Path("world")
    cell, chrom = world.config.test_cell, world.config.test_chrom
    tfs = ",".join(world.tfs)
    yield ["prepare", "--genome", str(place / world.genome.name), "--states", str(place / world.states.name),
           "--chip", str(place / world.chip.name), "--accessibility", str(place / world.accessibility.name),
           "--exclude", str(place / world.exclude.name)]  # fmt: skip
    yield ["pretrain", "--preset", "tiny", "--steps", str(pretrain_steps), "--seed", str(seed)]
    split = ["--hold-out-cell", cell, "--hold-out-chrom", chrom, "--valid-chrom", world.config.validation_chrom,
             "--steps", str(finetune_steps), "--seed", str(seed)]  # fmt: skip
    yield ["finetune", "--tf", tfs, *split]
    yield ["finetune", "--tf", tfs, "--no-states", *split, "--output", "models-without-states/all"]
    yield ["predict", "--tf", tfs, "--cell", cell, "--chrom", chrom]
    yield ["predict", "--tf", tfs, "--cell", cell, "--chrom", chrom,
           "--model", "models-without-states/all", "--output", "without-states"]  # fmt: skip
    compare = []
    for tf in world.tfs:
        compare += ["--compare", f"{tf}.{cell}:without states=without-states/{tf}.{cell}.bw"]
        compare += ["--compare", f"{tf}.{cell}:best reachable={place}/truth/{tf}.{cell}.bw"]
    yield ["evaluate", "--chrom", chrom, "--motifs", str(place / world.motifs.name), *_SMALL_BLOCKS, *compare]


def _show_summary(report: Path) -> None:
    """One row per TF: what was reached in the held-out cell type and chromosome, beside what can be."""
    from rich.table import Table

    from ebert_core.artifacts import read_json

    table = Table(title="auPRC in a cell type and on a chromosome never trained on", title_justify="left", box=None)
    columns = ("EBERT", "without states", "best motif hit", "best baseline", "best reachable", "share reached")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for evaluation in read_json(report)["evaluations"]:
        auprc = {row["name"]: row["measures"]["auprc"] for row in evaluation["rows"]}
        ours = auprc[f"{evaluation['tf']}.{evaluation['cell']}.bw"]
        baselines = [row["measures"]["auprc"] for row in evaluation["rows"] if row["kind"] == "baseline"]
        reachable = auprc["best reachable"]
        figures = (ours, auprc["without states"], auprc["best motif hit"], max(baselines), reachable)
        table.add_row(evaluation["tf"], *(f"{value:.3f}" for value in figures), f"{ours / reachable:.0%}")
    stdout.print()
    stdout.print(table)


def _show_and_run(arguments: list[str], folder: Path) -> None:
    """Print the command as typed, run it in `folder`, tell what it took, and stop the demo where it fails."""
    stderr.print(f"\n$ ebert {shlex.join(arguments)}", markup=False, style="bold")
    sys.stdout.flush()
    started, megabytes = time.monotonic(), 0.0
    child = subprocess.Popen([sys.executable, "-m", "ebert_cli", *arguments], cwd=folder)
    try:
        while child.poll() is None:
            megabytes = max(megabytes, _peak_megabytes(child.pid))
            time.sleep(0.1)
    except KeyboardInterrupt:
        # The terminal sent the signal to the command too; it removes what it left unfinished.
        child.wait()
        raise
    if child.returncode:
        raise typer.Exit(child.returncode if child.returncode > 0 else 128 - child.returncode)
    stderr.print(f"({arguments[0]}: {time.monotonic() - started:.1f} s, {megabytes:,.0f} MB at most)", style="dim")


def _peak_megabytes(pid: int) -> float:
    """A running process' largest resident memory so far. (What `wait4` tells would count the parent's, too.)"""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0.0
    line = next((line for line in status.splitlines() if line.startswith("VmHWM")), "VmHWM: 0 kB")
    return int(line.split()[1]) * 1024 / 1e6
