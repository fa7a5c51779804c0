"""`ebert prepare`: from the user's files to a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ebert_cli.console import ConsoleReporter, guarded, split_names, stderr

NAME = "prepare"


@guarded
def run(
    genome: Annotated[
        Path | None,
        typer.Option(
            "--genome",
            "-g",
            help="Reference FASTA, plain or bgzip. Needed for a new dataset. For labels and evaluation alone, "
            "chromosome sizes will do (.sizes, .genome or .fai), or the name hg19.",
        ),
    ] = None,
    states: Annotated[
        Path | None,
        typer.Option(
            "--states",
            "-s",
            help="Folder of segmentations (ChromHMM mnemonics, segments, dense; IDEAS; .bed or .bed.gz; 200-bp bins), "
            "one file, or a sheet (.tsv: cell, path).",
        ),
    ] = None,
    state_model: Annotated[
        str | None,
        typer.Option(
            "--state-model",
            help="roadmap15, roadmap18, roadmap25, ideas20, or a TSV of your own (number, name, color). "
            "Default: told from the files.",
        ),
    ] = None,
    chip: Annotated[
        Path | None,
        typer.Option(
            "--chip",
            help="Folder of ChIP-seq peaks (TF.CELL.narrowPeak.gz, or ChIPseq.CELL.TF.conservative/relaxed) or label "
            "tables (TF.train.labels.tsv.gz), one file, or a sheet (tf, cell, peaks, relaxed).",
        ),
    ] = None,
    accessibility: Annotated[
        Path | None,
        typer.Option(
            "--accessibility",
            "-a",
            help="Folder of CELL.narrowPeak.gz or CELL.bigWig, one file, or a sheet (cell, path).",
        ),
    ] = None,
    exclude: Annotated[
        list[Path] | None, typer.Option("--exclude", "-x", help="BED of regions never used; may be repeated.")
    ] = None,
    regions: Annotated[
        Path | None,
        typer.Option(
            "--regions",
            help="BED of regions that the benchmark's bins tile, such as the challenge's. "
            "Default: what --exclude leaves.",
        ),
    ] = None,
    chrom: Annotated[
        list[str] | None, typer.Option("--chrom", "-c", help="Chromosomes to take, comma-separated. Default: all.")
    ] = None,
    aliases: Annotated[
        Path | None, typer.Option("--aliases", help="Sheet (alias, cell) of further names for cell types.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Dataset folder to make or to extend.")] = Path(
        "dataset"
    ),
    labels_folder: Annotated[
        Path | None,
        typer.Option("--write-labels", help="Folder to write the dataset's label tables to: TF.labels.tsv.gz."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace tracks, label tables or the dataset itself.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")] = False,
) -> None:
    """Make a dataset from a genome, chromatin states, ChIP-seq peaks and accessibility, or extend one.

    Run it again without --genome to add cell types, TFs or tracks; what is already there is kept.
    """
    from ebert_core.config import PrepareConfig
    from ebert_core.data.prepare import prepare

    config = PrepareConfig(
        output=output,
        genome=genome,
        states=states,
        state_model=state_model,
        chip=chip,
        accessibility=accessibility,
        exclude=tuple(exclude or ()),
        regions=regions,
        chroms=tuple(split_names(chrom, "--chrom")),
        aliases=aliases,
        write_labels=labels_folder,
        overwrite=overwrite,
    )
    prepared = prepare(config, ConsoleReporter(quiet))
    if quiet:
        return
    dataset = prepared.dataset
    stderr.print(
        f"{output}: {dataset.assembly.name}, {len(dataset.assembly.chroms)} sequence(s); "
        f"states of {len(dataset.state_cells)} cell types; accessibility of {len(dataset.accessibility_cells)}; "
        f"labels of {len(dataset.tfs)} TFs in {len(dataset.label_pairs)} TF x cell pairs",
        markup=False,
    )
    kinds = {"states": "state track(s)", "accessibility": "accessibility track(s)", "labels": "label set(s)"}
    for kind, name in kinds.items():
        if prepared.kept[kind]:
            stderr.print(f"{prepared.kept[kind]} {name} were there already and were kept", markup=False)
