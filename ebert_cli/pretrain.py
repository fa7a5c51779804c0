"""`ebert pretrain`: masked language modelling on DNA and chromatin states."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ebert_cli import options
from ebert_cli.console import duration, guarded, split_names, stderr, stdout

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
    states: Annotated[
        bool, typer.Option("--states/--no-states", help="Read chromatin states, or train on DNA alone, to compare.")
    ] = True,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Optimiser steps. Default: the preset's.")] = None,
    config: options.ConfigOption = None,
    settings: options.SetOption = None,
    seed: options.SeedOption = None,
    device: options.DeviceOption = "auto",
    devices: options.DevicesOption = None,
    precision: options.PrecisionOption = "auto",
    threads: options.ThreadsOption = None,
    max_time: options.MaxTimeOption = None,
    tensorboard: options.TensorBoardOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the run would take (time, memory, work), and write nothing.")
    ] = False,
    table: Annotated[str, typer.Option("--format", help="What --dry-run prints: text or json.")] = "text",
    overwrite: options.OverwriteOption = False,
    resume: options.ResumeOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Pre-train an encoder: hide bases and states, and learn to fill them in.

    Writes a checkpoint (weights.safetensors, ebert.json) and a journal (journal.jsonl). Ctrl-C saves; --resume goes on.
    So do SIGTERM, SIGUSR1 and --max-time, which end with exit code 75. Several devices: --devices, or torchrun
    --nproc-per-node N -m ebert_cli pretrain.
    """
    from ebert_core.data.dataset import Dataset
    from ebert_core.errors import EbertError
    from ebert_core.settings import resolve

    if table not in ("text", "json"):
        raise EbertError(f"unknown format {table!r}", "use text or json")
    options.start_ranks(devices)
    with options.training_process(max_time) as (stops, ranks):
        without_states = {} if states else {"use_states": False}
        base = options.preset_config(preset)
        resolved = resolve(base, config, settings or (), steps=steps, seed=seed, **without_states)
        opened = Dataset.open(dataset)
        regions = options.parse_regions(options.split_regions(valid_chrom, "--valid-chrom"), opened.assembly)
        place = options.Place(device, precision, threads, tensorboard, quiet)
        around = options.surroundings(place, stops, ranks)

        from ebert_core.training.pretrain import PretrainData, pretrain
        from ebert_core.training.run_folder import RunTarget

        names = split_names(cell, "--cell"), split_names(chrom, "--chrom")
        data = PretrainData.choose(opened, *names, regions, split_names(exclude_cell, "--exclude-cell"))
        if dry_run:
            from ebert_core.training.probe import dry_run as probe

            found = probe(data, resolved, around)
            if around.ranks.is_first:
                _show(found, as_json=table == "json")
            return
        pretrain(data, resolved, RunTarget(output, overwrite, resume), around)
        if around.ranks.is_first and not quiet:
            stderr.print(f"checkpoint: {output}", markup=False)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.2f} MB"


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    """What a dry run found, as a table or as JSON."""
    import json

    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    run, whole, memory, probe = found["run"], found["pass"], found["memory_bytes"], found["probe"]
    on_gpu = [] if memory["peak_on_gpu"] is None else [f"{_size(memory['peak_on_gpu'])} at most while probing"]
    parts = [f"{name.replace('_', ' ')} {_size(memory[name])}" for name in memory if name != "peak_on_gpu"]
    for name, words in (
        ("device", f"{run['device']}, {run['ranks']} rank(s)"),
        ("parameters", f"{run['parameters']:,}"),
        ("a step", f"{run['tokens_per_step']:,} tokens, {run['flops_per_step']:.3g} FLOP"),
        ("a token", f"{run['flops_per_token'] / 1e6:,.2f} MFLOP (forward and backward)"),
        ("a pass", f"{whole['tokens']:.3g} tokens, {whole['flops']:.3g} FLOP, {whole['steps']:,.0f} steps"),
        ("", f"each base of each cell type once; {whole['pairs']:,} (window, cell type) pairs to draw from"),
        ("memory", ", ".join(parts + on_gpu)),
        ("probe", f"{probe['steps']} steps of micro-batches of {probe['micro_batch']} windows"),
        ("speed", f"{probe['tokens_per_second']:,.0f} tokens/s, MFU {probe['mfu']:.0%}"),
        ("", f"of {probe['peak_flops_per_second'] / 1e12:.2f} TFLOP/s, measured on a large product"),
        ("this run", f"{run['steps']:,} steps, {run['passes']:.3g} passes: {duration(run['seconds'])}"),
        ("one pass", duration(whole["seconds"])),
    ):
        stdout.print(f"{name:12}{words}".rstrip())
