"""`ebert predict`: where a TF binds in a cell type."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ebert_cli import options
from ebert_cli.console import ConsoleReporter, guarded, split_names, stderr

NAME = "predict"


@guarded
def run(
    tf: Annotated[list[str], typer.Option("--tf", help="TFs, comma-separated; one pass scores them all.")],
    cell: Annotated[str, typer.Option("--cell", help="Cell type, for example HepG2, hepg2 or E118.")],
    dataset: options.DatasetOption = Path("dataset"),
    model: Annotated[
        Path | None,
        typer.Option("--model", "-m", help="Model folder. Default: the one under models/ that knows the TFs."),
    ] = None,
    chrom: Annotated[
        list[str] | None,
        typer.Option(
            "--chrom", "-c", help="Chromosomes or regions, such as chr20:5000-9000. Default: the whole genome."
        ),
    ] = None,
    regions: Annotated[
        Path | None,
        typer.Option("--regions", help="BED of regions; `-` reads stdin. Bins centred in a region are scored."),
    ] = None,
    states: Annotated[
        Path | None, typer.Option("--states", help="Segmentation of a cell type that the dataset lacks.")
    ] = None,
    no_states: Annotated[
        bool, typer.Option("--no-states", help="Predict from the sequence, with unknown states.")
    ] = False,
    output: Annotated[
        str,
        typer.Option("--output", "-o", help="Folder for the files of TF.CELL; `-` prints BED4 of 200-bp bins."),
    ] = "predictions",
    format_: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="What to write, comma-separated: bigwig, narrowpeak, dream (a submission of the ENCODE-DREAM "
            "challenge, F.TF.CELL.tab.gz). Default: bigwig,narrowpeak.",
        ),
    ] = None,
    call_at: Annotated[
        str | None,
        typer.Option(
            "--call-at",
            help="Where sites are called: precision=0.8, recall=0.5 or fdr=0.1 on the model's validation bins, "
            "threshold=0.3, or f1 (the best there). Default: f1.",
        ),
    ] = None,
    both_strands: Annotated[
        bool,
        typer.Option(
            "--both-strands/--one-strand", help="Average the two strands' logits, or read one (twice as fast)."
        ),
    ] = True,
    device: options.DeviceOption = "auto",
    precision: options.PrecisionOption = "auto",
    threads: options.ThreadsOption = None,
    overwrite: options.OverwriteOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Predict binding: a probability for every 200-bp bin, one every 50 bp.

    Writes a bigWig (a bin's value stands on its central 50 bp) and called sites (narrowPeak). Bins of N only and bins
    on the exclusion list get no value; a submission has a row for every bin of the benchmark and says 0 there.
    """
    from ebert_core.data.dataset import Dataset
    from ebert_core.errors import EbertError
    from ebert_core.genome.regions import whole
    from ebert_core.inference.calls import CallRule
    from ebert_core.inference.output_files import Outputs, parse_formats
    from ebert_core.io.bed import read_regions

    tfs = list(dict.fromkeys(split_names(tf)))
    if not tfs:
        raise EbertError("no TF was named", "name one with --tf, for example --tf CTCF")
    if not cell.strip():
        raise EbertError("no cell type was named", "name one with --cell, for example --cell HepG2")
    to_stdout = output == "-"
    if to_stdout and len(tfs) > 1:
        raise EbertError(f"one stream cannot hold {len(tfs)} TFs", "ask for one TF, or write to a folder with --output")
    if chrom and regions:
        raise EbertError("--chrom and --regions were both given", "use one of them")
    if states and no_states:
        raise EbertError("--states and --no-states were both given", "use one of them")
    formats = parse_formats(split_names(format_, "--format"))
    rule = CallRule.parse("f1" if call_at is None else call_at)
    if to_stdout and (format_ or call_at):
        raise EbertError(
            f"{'--format' if format_ else '--call-at'} is for files, --output - prints BED4",
            "leave one of them out",
        )
    if call_at and "narrowpeak" not in formats:
        raise EbertError(
            "--call-at says where sites are called, --format leaves the sites out", "add narrowpeak to --format"
        )
    if "dream" in formats and (chrom or regions):
        raise EbertError(
            "a submission holds every bin of the benchmark, --chrom and --regions ask for some",
            "leave them out, or leave dream out of --format",
        )
    opened = Dataset.open(dataset)
    asked = options.split_regions(chrom, "--chrom")
    chosen = options.parse_regions(asked, opened.assembly) if asked else whole(opened.assembly)
    reporter = ConsoleReporter(quiet or to_stdout)
    if regions is not None:
        chosen, notes = read_regions(regions, opened.assembly)
        for note in notes:
            reporter.warn(note)
    place = options.use_device(device, precision, threads)

    from ebert_core.inference import models, outputs, predictor

    loaded = models.load_model(model or models.find_model(Path("models"), tfs), opened, place)
    tfs = list(dict.fromkeys(loaded.tfs[loaded.index(name)] for name in tfs))
    calls = [loaded.thresholds(name).choose(rule, name) for name in tfs]
    source = predictor.cell_states(opened, loaded, cell, states, no_states=no_states)
    files = [Outputs.named(Path(output), name, source.name, formats) for name in tfs]
    if not to_stdout:
        for item in files:
            item.refuse_existing(overwrite)
    for note in source.notes:
        reporter.warn(note)
    if source.flat is None:
        reporter.warn(f"states of {source.name}: {source.source}")
    reporter.log(f"device {place.describe()}; model {loaded.path}; states of {source.name}: {source.source}")
    request = predictor.Request(tuple(tfs), source, tuple(chosen), both_strands)
    predictions = predictor.predict_chroms(opened, loaded, request, place, reporter)
    if to_stdout:
        outputs.write_rows(predictions, sys.stdout)
        return
    if "narrowpeak" in formats:
        for name, call in zip(tfs, calls, strict=True):
            reporter.log(f"{name}: sites are called at probability >= {call.threshold:.3g} ({call.describe()})")
    if "dream" in formats and (partial := outputs.submission_note(opened)):
        reporter.warn(partial)
    written = outputs.write_predictions(predictions, opened, loaded, request, files, calls, overwrite=overwrite)
    if quiet:
        return
    coverage = written.coverage
    stderr.print(
        f"{coverage.scored:,} bins scored; {coverage.all_n:,} hold only N and {coverage.excluded:,} are excluded: "
        "these have no value",
        markup=False,
    )
    if written.submission:
        stderr.print(
            f"{written.submission['rows']:,} rows of a submission; {written.submission['unscored']:,} of them are 0 "
            "because their bin has no value",
            markup=False,
        )
    for number, item in enumerate(written.outputs):
        sites = {"narrowpeak": f" ({written.num_sites[number]:,} sites)"} if written.num_sites else {}
        stderr.print("  ".join(f"{path}{sites.get(name, '')}" for name, path in item.files.items()), markup=False)
