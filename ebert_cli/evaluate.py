"""`ebert evaluate`: how good predictions are, beside what needs no model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ebert_cli import options
from ebert_cli.console import ConsoleReporter, guarded, split_names, stdout

if TYPE_CHECKING:
    from ebert_core.evaluation.results import Evaluation, Row

NAME = "evaluate"
_SHOWN = (
    ("auprc", "auPRC"), ("auroc", "auROC"), ("recall_at_10_fdr", "recall at\n10 % FDR"),
    ("recall_at_50_fdr", "recall at\n50 % FDR"),
)  # fmt: skip


@guarded
def run(
    predictions: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Files to score: bigWig, bedGraph, BED, narrowPeak or tab (chrom, start, end, score); .gz too. "
            "Default: all in predictions/ that `ebert predict` made.",
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
        typer.Option("--chrom", "-c", help="Chromosomes. Default: all with both labels and predictions."),
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
        Path | None, typer.Option("--labels", help="Truth: label table (chr start stop CELL...; letters U, A, B).")
    ] = None,
    exclude: Annotated[
        list[Path] | None,
        typer.Option("--exclude", help="With --peaks: BED of regions never used, beside the dataset's."),
    ] = None,
    motifs: Annotated[Path | None, typer.Option("--motifs", help="MEME file for the motif baseline.")] = None,
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
    missing: Annotated[
        str,
        typer.Option(
            "--missing", help="Bins without a score: error, or zero (they count as 0). Bins of N only may always miss."
        ),
    ] = "error",
    output: Annotated[
        str,
        typer.Option("--output", "-o", help="Folder for report.html, report.json and report.tsv; `-` writes none."),
    ] = "report",
    format_: Annotated[str, typer.Option("--format", help="What is printed: table, tsv or json.")] = "table",
    overwrite: options.OverwriteOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Measure predictions against ChIP-seq labels, beside baselines.

    Prints auPRC (Davis-Goadrich), auROC and recall at a false discovery rate
    (FDR) over 200-bp bins every 50 bp, ambiguous ones left out, and writes a
    report with curves. Each pair of TF and cell type gets its own table.
    """
    from ebert_core.artifacts import refuse_existing
    from ebert_core.errors import EbertError
    from ebert_core.evaluation import plan, report
    from ebert_core.evaluation.evaluate import EvaluationConfig, evaluate

    if format_ not in ("table", "tsv", "json"):
        raise EbertError(f"unknown format {format_!r}", "use table, tsv or json")
    if output != "-":
        refuse_existing(Path(output), overwrite, kind="report")
    config = EvaluationConfig(
        chroms=tuple(split_names(chrom, "--chrom")),
        placement=placement,  # type: ignore[arg-type]
        missing=missing,  # type: ignore[arg-type]
        with_baselines=baselines,
        motifs_path=motifs,
    )
    truth_files = plan.TruthFiles(peaks, relaxed, labels, tuple(exclude or ()))
    opened = plan.open_dataset(dataset, truth_files)
    pairs = plan.make_plan(predictions or [], compare or [], tf, cell, opened, known_only=not truth_files)
    reporter = ConsoleReporter(quiet)
    evaluations = []
    for pair, contenders in pairs.items():
        truth = plan.find_truth(pair, truth_files, pairs, opened)
        evaluations.append(evaluate(config, truth, contenders, opened, reporter))
        for note in evaluations[-1].notes:
            reporter.warn(note)
    if format_ == "table":
        for evaluation in evaluations:
            _show(evaluation)
    else:
        sys.stdout.write(report.to_tsv(evaluations) if format_ == "tsv" else report.to_json_text(evaluations))
    if output != "-":
        reporter.log(f"report: {report.write_report(Path(output), evaluations, overwrite=overwrite)}")


def _show(evaluation: Evaluation) -> None:
    """The table of one pair."""
    bound, unbound = evaluation.total("bound"), evaluation.total("unbound")
    table = Table(
        title=f"{evaluation.tf} in {evaluation.cell} on {', '.join(evaluation.chroms)}",
        caption=f"{bound:,} bound and {unbound:,} unbound bins ({bound / (bound + unbound):.3%} bound), "
        f"{evaluation.total('ambiguous'):,} ambiguous left out",
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        header_style="dim",
    )
    table.add_column("", overflow="fold")
    for _, heading in _SHOWN:
        table.add_column(heading, justify="right", no_wrap=True, vertical="top")
    table.add_column("held out", no_wrap=True)
    for row in evaluation.rows:
        values = row.measures.as_dict()
        table.add_row(
            row.name,
            *(f"{values[key]:.3f}" for key, _ in _SHOWN),
            {"held out": "yes", "seen": "no, seen", "unknown": "unknown"}[row.held_out.status] if row.held_out else "",
            style="bold" if row.kind == "prediction" else "",
        )
    stdout.print(table, soft_wrap=False)
    lines = [f"{row.name}: {_note(row)}" for row in evaluation.rows if row.kind != "baseline"]
    lines += [f"{each.name} is not available: {each.reason}" for each in evaluation.unavailable]
    for line in lines:
        stdout.print(line, style="dim", markup=False, soft_wrap=False)
    stdout.print()


def _note(row: Row) -> str:
    return "; ".join(part for part in (row.held_out.text if row.held_out else "", row.note) if part)
