"""`ebert evaluate`: how good predictions are, beside what needs no model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ebert_cli import options
from ebert_cli.console import ConsoleReporter, guarded, split_names

NAME = "evaluate"


@guarded
def run(
    predictions: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Files to score: bigWig, bedGraph, BED, narrowPeak, tab (chrom, start, end, score), submissions of "
            "ENCODE-DREAM (F.TF.CELL.tab.gz); .gz too; `-` reads text from stdin; or folders of submissions or of what "
            "`ebert predict` made. Default: predictions/.",
            show_default=False,
        ),
    ] = None,
    dataset: options.DatasetOption = Path("dataset"),
    tf: Annotated[
        str | None, typer.Option("--tf", help="TF of files that do not say it; of those that do, only these are taken.")
    ] = None,
    cell: Annotated[
        str | None, typer.Option("--cell", help="Cell type, likewise; HepG2, hepg2 and E118 are one.")
    ] = None,
    chrom: Annotated[
        list[str] | None,
        typer.Option(
            "--chrom", "-c", help="Chromosomes, comma-separated. Default: all with both labels and predictions."
        ),
    ] = None,
    peaks: Annotated[
        Path | None,
        typer.Option("--peaks", help="Truth: narrowPeak or BED of conservative peaks. Default: the dataset's labels."),
    ] = None,
    relaxed: Annotated[
        Path | None,
        typer.Option("--relaxed", help="Relaxed peaks, whose bins are never unbound. Default: those of --peaks."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels", help="Truth: label table (chr start stop CELL...; letters U, A, B), or a folder of them."
        ),
    ] = None,
    exclude: Annotated[
        list[Path] | None,
        typer.Option("--exclude", help="With --peaks: BED of regions never used, beside the dataset's."),
    ] = None,
    regions: Annotated[
        Path | None,
        typer.Option(
            "--regions", help="With --peaks or --labels: BED whose intervals the bins tile, as the challenge has it."
        ),
    ] = None,
    assembly: Annotated[
        str | None,
        typer.Option(
            "--assembly",
            help="With --peaks or --labels and no dataset: hg19, or a file of chromosome sizes. Default: a bigWig's "
            "own; hg19 for submissions.",
        ),
    ] = None,
    challenge: Annotated[
        str | None,
        typer.Option(
            "--challenge", help="final: rank the predictions among the entries of ENCODE-DREAM's final round."
        ),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="With --challenge: what the entry is called.")] = "ebert",
    motifs: Annotated[Path | None, typer.Option("--motifs", help="MEME file for the motif baselines.")] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            "--compare", help="NAME=FILE or TF.CELL:NAME=FILE: other predictions for the same table; may be repeated."
        ),
    ] = None,
    baselines: Annotated[bool, typer.Option("--baselines/--no-baselines", help="Score the baselines too.")] = True,
    placement: Annotated[
        str,
        typer.Option(
            "--placement",
            help="What of a file is the score of a 200-bp bin: centre (mean of its central 50 bp), start (of its first "
            "50 bp), mean or max (of all 200 bp).",
        ),
    ] = "centre",
    allow_seen: Annotated[
        bool,
        typer.Option("--allow-seen", help="Score predictions on what their model was trained on too; marked as seen."),
    ] = False,
    bootstrap: Annotated[
        int,
        typer.Option(
            "--bootstrap", min=0, help="Resamples of blocks of the genome for the 95 % intervals; 0 makes no intervals."
        ),
    ] = 1_000,
    block_bp: Annotated[
        int, typer.Option("--block-bp", min=10_000, help="Length of the blocks, bp; shorter ones for small genomes.")
    ] = 1_000_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the resamples.")] = 0,
    missing: Annotated[
        str,
        typer.Option(
            "--missing",
            help="Bins without a score: error, or zero (they count as 0, or as the lowest score where that is below "
            "0). Bins of N only may always miss.",
        ),
    ] = "error",
    output: Annotated[
        str,
        typer.Option("--output", "-o", help="Folder for report.html, report.json and tables (.tsv); `-` writes none."),
    ] = "report",
    format_: Annotated[str, typer.Option("--format", help="What is printed: table, tsv or json.")] = "table",
    overwrite: options.OverwriteOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Measure predictions against ChIP-seq labels, beside baselines.

    Prints auPRC (Davis-Goadrich), auROC and recall at a false discovery rate
    (FDR) over 200-bp bins every 50 bp, ambiguous ones left out, with 95 %
    intervals, and writes a report with curves and loci. Each pair of TF and
    cell type gets its own table; of two files, it is said whether the first
    is better.
    """
    from ebert_cli import evaluation_tables as tables
    from ebert_core.artifacts import refuse_existing
    from ebert_core.errors import EbertError
    from ebert_core.evaluation import plan, report, truth_files
    from ebert_core.evaluation.challenge import final_round
    from ebert_core.evaluation.evaluate import EvaluationConfig, evaluate
    from ebert_core.evaluation.scoring import Resampling

    if format_ not in ("table", "tsv", "json"):
        raise EbertError(f"unknown format {format_!r}", "use table, tsv or json")
    if output != "-":
        refuse_existing(Path(output), overwrite, kind="report")
    if challenge not in (None, "final"):
        raise EbertError(f"unknown challenge {challenge!r}", "known: final, the final round of ENCODE-DREAM")
    if challenge and (tf or cell or chrom or compare or peaks):
        raise EbertError(
            "--challenge settles TFs, cell types and chromosomes itself, from label tables",
            "leave out --tf, --cell, --chrom, --compare and --peaks",
        )
    config = EvaluationConfig(
        chroms=tuple(split_names(chrom, "--chrom")),
        placement=placement,  # type: ignore[arg-type]
        missing=missing,  # type: ignore[arg-type]
        with_baselines=baselines,
        motifs_path=motifs,
        allow_seen=allow_seen,
        resampling=Resampling(bootstrap, seed, block_bp=block_bp) if bootstrap else None,
    )
    truth = truth_files.TruthFiles(peaks, relaxed, labels, tuple(exclude or ()), regions, assembly)
    opened = truth_files.open_dataset(dataset, truth)
    reporter = ConsoleReporter(quiet)
    ranks = None
    if challenge:
        evaluations, ranks = final_round(name, predictions or [], truth, config, opened, reporter)
    else:
        pairs = plan.make_plan(predictions or [], compare or [], tf, cell, opened, known_only=not truth)
        truth.require_fit(len(pairs))
        evaluations = []
        for pair, contenders in pairs.items():
            labelled = truth_files.find_truth(pair, truth, [each.path for each in contenders], opened)
            evaluations.append(evaluate(config, labelled, contenders, opened, reporter))
    for evaluation in evaluations:
        for note in evaluation.notes:
            reporter.warn(note)
    try:
        if format_ == "table":
            for evaluation in evaluations:
                tables.show(evaluation)
            if ranks:
                tables.show_ranks(ranks)
        elif format_ == "tsv":
            sys.stdout.write(report.to_tsv(evaluations))
        else:
            sys.stdout.write(report.to_json_text(evaluations, ranks))
        sys.stdout.flush()
    finally:  # `| head` ends the printing, not the work
        if output != "-":
            page = report.write_report(Path(output), evaluations, ranks, overwrite=overwrite)
            reporter.log(f"report: {page}")
