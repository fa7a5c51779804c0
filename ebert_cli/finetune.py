"""`ebert finetune`: learn where TFs bind."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ebert_cli import options
from ebert_cli.console import guarded, split_names, stderr

if TYPE_CHECKING:
    from ebert_core.config import EncoderConfig
    from ebert_core.io.motifs import Motif

NAME = "finetune"


@guarded
def run(
    tf: Annotated[
        list[str], typer.Option("--tf", help="TFs, comma-separated, or `all`: one output each on one encoder.")
    ],
    dataset: options.DatasetOption = Path("dataset"),
    checkpoint: Annotated[
        Path, typer.Option("--checkpoint", help="Checkpoint folder made by `ebert pretrain`.")
    ] = Path("pretrained"),
    scratch: Annotated[
        str | None, typer.Option("--scratch", help="Start from random weights of this preset's shape instead.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Model folder to make. Default: models/ and the TFs' names.")
    ] = None,
    cell: Annotated[
        list[str] | None,
        typer.Option("--cell", help="Cell types to train on, comma-separated. Default: all with labels."),
    ] = None,
    hold_out_cell: Annotated[
        list[str] | None, typer.Option("--hold-out-cell", help="Cell types whose labels are never read.")
    ] = None,
    valid_cell: Annotated[
        list[str] | None,
        typer.Option(
            "--valid-cell", help="Cell types to validate on instead of training on. Default: the trained ones."
        ),
    ] = None,
    chrom: Annotated[
        list[str] | None, typer.Option("--chrom", "-c", help="Chromosomes to use. Default: all with labels.")
    ] = None,
    hold_out_chrom: Annotated[
        list[str] | None, typer.Option("--hold-out-chrom", help="Chromosomes or regions whose labels are never read.")
    ] = None,
    valid_chrom: Annotated[
        list[str] | None,
        typer.Option(
            "--valid-chrom", help="Chromosomes or regions to validate on. Default: 15 % of each training chromosome."
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option("--also", help="TFs to learn beside, or `all`: they help the encoder and are not kept."),
    ] = None,
    motifs: Annotated[
        Path | None,
        typer.Option(
            "--motifs", help="MEME file: read the hits of the TFs' motifs and of common ones; adds boosted trees."
        ),
    ] = None,
    accessibility: Annotated[
        bool,
        typer.Option("--accessibility/--no-accessibility", help="Read the dataset's accessibility, or leave it out."),
    ] = True,
    states: Annotated[
        bool, typer.Option("--states/--no-states", help="Read chromatin states, or show the model unknown states only.")
    ] = True,
    ensemble: Annotated[
        int | None,
        typer.Option("--ensemble", min=1, help="Models of an ensemble: their mean is the answer.", show_default="1"),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Optimiser steps at most.", show_default="4000")
    ] = None,
    config: options.ConfigOption = None,
    settings: options.SetOption = None,
    seed: options.SeedOption = None,
    device: options.DeviceOption = "auto",
    precision: options.PrecisionOption = "auto",
    threads: options.ThreadsOption = None,
    max_time: options.MaxTimeOption = None,
    tensorboard: options.TensorBoardOption = None,
    overwrite: options.OverwriteOption = False,
    resume: options.ResumeOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Fine-tune a pre-trained encoder to say where TFs bind.

    Learns from bound and unbound 200-bp bins (one every 50 bp); ambiguous bins are left out. The model of the best
    validation auPRC is kept, with its calibration and with what it was trained on.
    """
    from ebert_core.config import finetune_defaults
    from ebert_core.data.dataset import Dataset
    from ebert_core.errors import EbertError
    from ebert_core.io.motifs import choose_motifs, read_motifs
    from ebert_core.settings import resolve

    with options.training_process(max_time) as (stops, ranks):
        if ranks is not None:
            raise EbertError("fine-tuning runs on one device", "start it without torchrun")
        shape = _shape(checkpoint, scratch)
        opened = Dataset.open(dataset)
        valid = options.parse_regions(options.split_regions(valid_chrom, "--valid-chrom"), opened.assembly)
        held_out = options.parse_regions(options.split_regions(hold_out_chrom, "--hold-out-chrom"), opened.assembly)
        told = list(settings or ()) + ([] if accessibility else ["features.accessibility=false"])
        without_states = {} if states else {"use_states": False}
        base = finetune_defaults(shape, motifs=motifs is not None)
        resolved = resolve(base, config, told, steps=steps, members=ensemble, seed=seed, **without_states)
        place = options.Place(device, precision, threads, tensorboard, quiet)
        around = options.surroundings(place, stops, ranks)

        from ebert_core.training.ensemble import finetune_ensemble
        from ebert_core.training.finetune import finetune, starting_encoder
        from ebert_core.training.finetune_data import FinetuneChoice, choose_data
        from ebert_core.training.run_folder import RunTarget

        choice = FinetuneChoice(
            tfs=tuple(split_names(tf)),
            also=tuple(split_names(also, "--also")),
            cells=tuple(split_names(cell, "--cell")),
            valid_cells=tuple(split_names(valid_cell, "--valid-cell")),
            held_out_cells=tuple(split_names(hold_out_cell, "--hold-out-cell")),
            chroms=tuple(split_names(chrom, "--chrom")),
            valid=tuple(valid),
            held_out=tuple(held_out),
        )
        data = choose_data(opened, choice)
        begin_with = None if scratch else checkpoint
        start = functools.partial(starting_encoder, begin_with, shape, opened.require_state_model())
        everything = [name.casefold() for name in choice.tfs] == ["all"]
        target = output or Path("models") / _model_name(data.tfs, everything=everything)
        scanned: list[Motif] = []
        if motifs is not None:
            scanned, lacking = choose_motifs(read_motifs(motifs), data.tfs, resolved.features.motifs)
            if lacking:
                around.reporter.log(f"{motifs.name} has no motif of {', '.join(lacking)}")
        train = finetune if resolved.members == 1 else finetune_ensemble
        train(data, resolved, start, scanned, RunTarget(target, overwrite, resume), around)
        if not quiet:
            stderr.print(f"model: {target}", markup=False)


def _shape(checkpoint: Path, scratch: str | None) -> EncoderConfig:
    """The encoder's shape: the checkpoint's, or that of the preset to start from scratch."""
    from ebert_core.artifacts import CHECKPOINT_FORMAT, MANIFEST_NAME, read_manifest
    from ebert_core.config import encoder_of

    if scratch is not None:
        return options.preset_config(scratch).encoder
    return encoder_of(read_manifest(checkpoint, "checkpoint", CHECKPOINT_FORMAT), checkpoint / MANIFEST_NAME)


def _model_name(tfs: tuple[str, ...], *, everything: bool) -> str:
    if everything:
        return "all"
    return "+".join(tfs) if len(tfs) <= 4 else f"{tfs[0]}+{len(tfs) - 1}_more"
