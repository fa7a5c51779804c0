"""`ebert pretrain`: masked language modelling on DNA and chromatin states."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ebert_cli import options
from ebert_cli.console import ConsoleReporter, guarded, split_names, stderr

NAME = "pretrain"


@guarded
def run(
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            "-p",
            help="tiny (0.7 M parameters, minutes on a CPU), small (5 M), base (86 M, as BERT-base), large (304 M).",
        ),
    ] = "tiny",
    dataset: options.DatasetOption = Path("dataset"),
    output: Annotated[Path, typer.Option("--output", "-o", help="Checkpoint folder to make.")] = Path("pretrained"),
    cell: Annotated[
        list[str] | None,
        typer.Option("--cell", help="Cell types whose states are read, comma-separated. Default: all with states."),
    ] = None,
    exclude_cell: Annotated[
        list[str] | None, typer.Option("--exclude-cell", help="Cell types to leave out, comma-separated.")
    ] = None,
    chrom: Annotated[
        list[str] | None, typer.Option("--chrom", "-c", help="Chromosomes to read, comma-separated. Default: all.")
    ] = None,
    valid_chrom: Annotated[
        list[str] | None,
        typer.Option(
            "--valid-chrom",
            help="Chromosomes or regions held back to score the run. Default: 2 % of each chromosome.",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Optimiser steps. Default: the preset's.")] = None,
    config: options.ConfigOption = None,
    settings: options.SetOption = None,
    seed: options.SeedOption = None,
    device: options.DeviceOption = "auto",
    precision: options.PrecisionOption = "auto",
    threads: options.ThreadsOption = None,
    overwrite: options.OverwriteOption = False,
    resume: options.ResumeOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Pre-train an encoder: hide bases and states, and learn to fill them in.

    Writes a checkpoint (weights.safetensors, ebert.json) and a journal (journal.jsonl). Ctrl-C saves; --resume goes on.
    """
    from ebert_core.config import PRESETS, resolve
    from ebert_core.data.dataset import Dataset
    from ebert_core.errors import UnknownNameError

    if preset not in PRESETS:
        raise UnknownNameError("preset", preset, PRESETS)
    resolved = resolve(PRESETS[preset], config, settings or (), steps=steps, seed=seed)
    opened = Dataset.open(dataset)
    regions = options.parse_regions(options.split_regions(valid_chrom, "--valid-chrom"), opened.assembly)
    place = options.use_device(device, precision, threads)

    from ebert_core.training.pretrain import PretrainData, pretrain
    from ebert_core.training.run_folder import RunTarget

    data = PretrainData.choose(
        opened,
        split_names(cell, "--cell"),
        split_names(chrom, "--chrom"),
        regions,
        split_names(exclude_cell, "--exclude-cell"),
    )
    reporter = ConsoleReporter(quiet)
    pretrain(data, resolved, RunTarget(output, overwrite, resume), place, reporter)
    if not quiet:
        stderr.print(f"checkpoint: {output}", markup=False)
