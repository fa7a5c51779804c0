"""`ebert predict`: where a TF binds in a cell type."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ebert_cli import options
from ebert_cli.console import ConsoleReporter, guarded, split_names, stderr

if TYPE_CHECKING:
    from ebert_core.data.dataset import Dataset
    from ebert_core.inference.outputs import Job, Written
    from ebert_core.inference.runs import Scan
    from ebert_core.inference.targets import Target
    from ebert_core.reporting import Reporter

NAME = "predict"


@guarded
def run(
    tf: Annotated[list[str], typer.Option("--tf", help="TFs, comma-separated; one pass scores them all.")],
    cell: Annotated[str, typer.Option("--cell", help="Cell type, for example HepG2, hepg2 or E118.")],
    dataset: options.DatasetOption = Path("dataset"),
    model: options.ModelOption = None,
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
    states: options.StatesOption = None,
    no_states: options.NoStatesOption = False,
    accessibility: options.AccessibilityOption = None,
    no_accessibility: options.NoAccessibilityOption = False,
    output: Annotated[
        str,
        typer.Option("--output", "-o", help="Folder for the files of TF.CELL; `-` prints rows of 200-bp bins."),
    ] = "predictions",
    format_: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="What to write, comma-separated: bigwig, narrowpeak, bedgraph, dream (a submission of the "
            "ENCODE-DREAM challenge, F.TF.CELL.tab.gz), npz or parquet (bins x TFs in one file). Default: "
            "bigwig,narrowpeak. To `-`: bed (BED5, named by TF), bedgraph or tsv (a column per TF). Default: bed.",
        ),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option("--min-score", help="Leave bins under this out of bigWig, bedGraph and rows. Default: none."),
    ] = None,
    round_digits: Annotated[
        int | None,
        typer.Option("--round", metavar="DIGITS", help="Decimals kept in bigWig and bedGraph. Default: all."),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Write npz and parquet in float16 instead of float32.")] = False,
    call_at: Annotated[
        str | None,
        typer.Option(
            "--call-at",
            help="Where sites are called: precision=0.8, recall=0.5 or fdr=0.1 on the model's validation bins, "
            "threshold=0.3, or f1 (the best there). Default: f1.",
        ),
    ] = None,
    both_strands: options.BothStrandsOption = True,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard", metavar="I/N", help="Score part I of N only, for example 2/8; `ebert merge` joins the parts."
        ),
    ] = None,
    device: options.DeviceOption = "auto",
    devices: options.DevicesOption = None,
    precision: options.PrecisionOption = "auto",
    threads: options.ThreadsOption = None,
    overwrite: options.OverwriteOption = False,
    resume: options.ResumeOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Predict binding: a probability for every 200-bp bin, one every 50 bp.

    Writes a bigWig (a bin's value stands on its central 50 bp) and called sites (narrowPeak). Bins of N only and bins
    on the exclusion list get no value: TF.CELL.unscored.bed lists them; a submission has a row for every bin of the
    benchmark and says 0 there.

    What is scored is kept in TF.CELL.partial until the files are written: a run that was stopped goes on with --resume.

    Several devices share the work: --devices, or torchrun --nproc-per-node N -m ebert_cli predict.
    """
    from ebert_core.data.dataset import Dataset
    from ebert_core.errors import EbertError
    from ebert_core.genome.regions import whole
    from ebert_core.inference.calls import CallRule
    from ebert_core.inference.output_files import OutputSet, OutputSettings, parse_formats
    from ebert_core.inference.streams import stream_format
    from ebert_core.io.bed import read_regions
    from ebert_core.reporting import SILENT

    tfs = list(dict.fromkeys(split_names(tf)))
    if not tfs:
        raise EbertError("no TF was named", "name one with --tf, for example --tf CTCF")
    if not cell.strip():
        raise EbertError("no cell type was named", "name one with --cell, for example --cell HepG2")
    if chrom and regions:
        raise EbertError("--chrom and --regions were both given", "use one of them")
    files = options.CellFiles(states, no_states, accessibility, no_accessibility)
    files.refuse_contradictions()
    typed = split_names(format_, "--format")
    rule = CallRule.parse("f1" if call_at is None else call_at)
    to_stdout = output == "-"
    if to_stdout:
        for_files = {"--call-at": call_at, "--shard": shard, "--resume": resume, "--half": half}
        if wrong := [name for name, value in for_files.items() if value]:
            raise EbertError(f"{wrong[0]} is for files, --output - prints rows", "leave one of them out")
        stream = stream_format(typed, len(tfs))
        if round_digits is not None and stream != "bedgraph":
            raise EbertError(f"--round is for bedgraph, --format asks for {stream}", "leave one of them out")
        settings = OutputSettings(("bedgraph",), min_score, round_digits)
    else:
        settings = OutputSettings(parse_formats(typed), min_score, round_digits, half)
    if call_at and "narrowpeak" not in settings.formats:
        raise EbertError(
            "--call-at says where sites are called, --format leaves the sites out", "add narrowpeak to --format"
        )
    if "dream" in settings.formats and (chrom or regions):
        raise EbertError(
            "a submission holds every bin of the benchmark, --chrom and --regions ask for some",
            "leave them out, or leave dream out of --format",
        )
    _refuse_for_several(
        devices, {"--output -": to_stdout, "--shard": shard, "--regions -": str(regions) in ("-", "/dev/stdin")}
    )
    options.start_ranks(devices)
    with options.ranks_meet() as ranks:
        opened = Dataset.open(dataset)
        typed_regions = options.split_regions(chrom, "--chrom")
        chosen = options.parse_regions(typed_regions, opened.assembly) if typed_regions else whole(opened.assembly)
        first = ranks is None or ranks.is_first
        reporter = ConsoleReporter(quiet or to_stdout) if first else SILENT
        if regions is not None:
            chosen, notes = read_regions(regions, opened.assembly)
            for note in notes:
                reporter.warn(note)
        place = options.use_device(device, precision, threads)

        from ebert_core.inference import models, pieces, predictor, runs, scorer, streams, targets

        part = None if shard is None else targets.Shard.parse(shard)
        if ranks is not None:
            part = targets.Shard(ranks.rank + 1, ranks.size)
        loaded = models.load_model(model or models.find_model(Path("models"), tfs), opened, place)
        tfs = list(dict.fromkeys(loaded.tfs[loaded.index(name)] for name in tfs))
        calls = [loaded.thresholds(name).choose(rule, name) for name in tfs]
        source = options.show_cell(loaded, opened, cell, files, place, reporter)
        names = OutputSet.named(Path(output), tfs, source.name, settings.formats)
        target = targets.Target(names, part, overwrite, resume, ranks is not None)
        if not to_stdout:
            target.refuse_existing()
        if ranks is not None and ranks.is_first and overwrite and not resume:
            target.forget()
        finished = target.finished  # soon another rank may have joined what this one had finished
    request = predictor.Request(tuple(tfs), source, tuple(chosen), both_strands)
    at_once = pieces.STREAM_BINS if to_stdout else pieces.piece_bins(len(tfs))
    plan = pieces.make_plan(opened, chosen, loaded.core_bins, at_once)
    values = scorer.piece_values(opened, loaded, request, place)
    if to_stdout:
        scored = pieces.score_pieces(plan.pieces, values, lambda amount, note="": None)
        streams.write_rows(scored, tfs, sys.stdout, stream, settings)
        return
    scan = runs.Scan(plan, values, runs.scan_identity(opened, loaded, request, plan, place))
    job = runs.describe(opened, loaded, request, plan, settings, calls)
    written = _score(scan, job, target, opened, reporter, joined=finished and ranks is not None)
    if written and not quiet:
        print_written(written)


def _refuse_for_several(devices: int | None, for_one: Mapping[str, object]) -> None:
    """Refuse what only one process can do where several share the run."""
    from ebert_core.errors import EbertError

    started = options.count_of("WORLD_SIZE")
    wrong = [name for name, value in for_one.items() if value]
    if wrong and (devices or started) > 1:
        asked = f"--devices {devices}" if devices else f"WORLD_SIZE={started}"
        raise EbertError(f"{wrong[0]} is for one process, {asked} for several", "leave one of them out")


def _score(
    scan: Scan, job: Job, target: Target, dataset: Dataset, reporter: Reporter, *, joined: bool
) -> Written | None:
    """Score a run or this process's part of it, and write the files where that is this one's to do.

    Args:
        joined: the part of this rank was finished before, so another rank may be joining it.

    Returns:
        None where `ebert merge` or another rank writes the files.
    """
    from ebert_core.errors import InputError
    from ebert_core.inference import merge, runs
    from ebert_core.inference.outputs import submission_note

    benchmark, kept_for_merge = None, target.shard is not None and not target.ranks
    if not kept_for_merge:
        for name, call in zip(job.tfs, job.calls, strict=True):
            if "narrowpeak" in job.settings.formats:
                reporter.log(f"{name}: sites are called at probability >= {call.threshold:.3g} ({call.describe()})")
        benchmark = dataset.benchmark_bins() if "dream" in job.settings.formats else None
        if benchmark and (partial := submission_note(benchmark)):
            reporter.warn(partial)
    if target.shard is None:
        return runs.run_files(scan, job, target, benchmark, reporter)
    if joined:
        with contextlib.suppress(InputError):
            runs.require_same_scan(target.output, scan)
    else:
        num_bins = runs.run_shard(scan, job, target, reporter)
    if kept_for_merge:
        all_bins = scan.plan.coverage.scored
        reporter.log(f"{target.shard}: {num_bins:,} of {all_bins:,} bins scored, in {target.output}")
        reporter.log(f"once all {target.shard.of} are there: ebert merge {target.names.folder}")
        return None
    return merge.join_ranks(scan, job, target, benchmark, reporter)


def print_written(written: Written) -> None:
    """Say what a run wrote, on stderr."""
    coverage = written.coverage
    stderr.print(
        f"{coverage.scored:,} bins scored; {coverage.all_n:,} hold only N and {coverage.excluded:,} are excluded: "
        "these have no value"
    )
    if written.submission:
        stderr.print(
            f"{written.submission['rows']:,} rows of a submission; {written.submission['unscored']:,} of them are 0 "
            "because their bin has no value"
        )
    for number, files in enumerate(written.files):
        sites = {"narrowpeak": f" ({written.num_sites[number]:,} sites)"} if written.num_sites else {}
        stderr.print("  ".join(f"{path}{sites.get(name, '')}" for name, path in files.items()))
    if written.shared:
        stderr.print("  ".join(map(str, written.shared.values())))
