"""`ebert prepare`: from the user's files to a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ebert_cli.console import ConsoleReporter, guarded, split_names, stderr

if TYPE_CHECKING:
    from ebert_core.data.dataset import Dataset
    from ebert_core.data.prepare import Prepared
    from ebert_core.reporting import Reporter

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
            help="Folder of CELL.narrowPeak.gz, CELL.bigWig or CELL.bam (aligned reads, counted as 5' cuts; several "
            "of a cell type are replicates), one file, or a sheet (cell, path).",
        ),
    ] = None,
    tss: Annotated[
        Path | None,
        typer.Option("--tss", help="BED of transcript starts: 1 bp each, or transcripts with a strand in column 6."),
    ] = None,
    expression: Annotated[
        Path | None,
        typer.Option(
            "--expression",
            help="Table of gene expression (gene_id, then a column per cell type, RPKM or TPM), or a folder of such "
            "or of the challenge's gene_expression.CELL.biorep1.tsv.",
        ),
    ] = None,
    gene_names: Annotated[
        Path | None,
        typer.Option("--gene-names", help="Sheet (id, symbol) of what the genes of --expression are called."),
    ] = None,
    nearest: Annotated[
        str | None,
        typer.Option(
            "--nearest",
            help="Cell type to find a stand-in for: prints the epigenomes that resemble it by its states or, where it "
            "has none, by its accessibility, best first.",
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
    """Make a dataset from a genome, chromatin states, ChIP-seq peaks and what else there is, or extend one.

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
        tss=tss,
        expression=expression,
        gene_names=gene_names,
        exclude=tuple(exclude or ()),
        regions=regions,
        chroms=tuple(split_names(chrom, "--chrom")),
        aliases=aliases,
        write_labels=labels_folder,
        overwrite=overwrite,
    )
    reporter = ConsoleReporter(quiet)
    prepared = prepare(config, reporter)
    if not quiet:
        _tell(prepared, output)
    if nearest is not None:
        _print_nearest(prepared.dataset, nearest, reporter)


def _tell(prepared: Prepared, output: Path) -> None:
    """Say what the dataset holds, and what was kept."""
    dataset = prepared.dataset
    extra = "; distances to transcript starts" if dataset.has_tss else ""
    extra += f"; expression in {len(dataset.expression_cells)}" if dataset.expression_cells else ""
    stderr.print(
        f"{output}: {dataset.assembly.name}, {len(dataset.assembly.chroms)} sequence(s); "
        f"states of {len(dataset.state_cells)} cell types; accessibility of {len(dataset.accessibility_cells)}; "
        f"labels of {len(dataset.tfs)} TFs in {len(dataset.label_pairs)} TF x cell pairs{extra}",
        markup=False,
    )
    kinds = {
        "states": "state track(s)",
        "accessibility": "accessibility track(s)",
        "labels": "label set(s)",
        "tss": "set of transcript starts",
        "expression": "expression table(s)",
        "gene_names": "sheet of gene names",
    }
    for kind, name in kinds.items():
        if prepared.kept[kind]:
            stderr.print(f"{prepared.kept[kind]} {name} were there already and were kept", markup=False)


def _print_nearest(dataset: Dataset, cell: str, reporter: Reporter) -> None:
    """The table of stand-ins on stdout; by what they were compared, on stderr."""
    from ebert_core.data.nearest import evidence_of, nearest_epigenomes

    neighbours = nearest_epigenomes(dataset, cell, reporter=reporter)
    known = dataset.resolve_cell(cell)
    what = "states" if evidence_of(dataset, known) == "states" else "open chromatin"
    reporter.log(f"score: share of the entropy of {known}'s {what} that the epigenome's states explain")
    print("cell\tepigenome\tscore")
    for neighbour in neighbours:
        print(f"{neighbour.cell}\t{neighbour.epigenome}\t{neighbour.score:.4f}")
