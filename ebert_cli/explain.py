"""`ebert explain`: which bases and which chromatin state a prediction rests on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ebert_cli import options
from ebert_cli.console import ConsoleReporter, guarded, stdout

if TYPE_CHECKING:
    from ebert_core.inference.explain import Explained

NAME = "explain"
_MOST_ROWS = 20


@guarded
def run(
    tf: Annotated[str, typer.Option("--tf", help="The TF whose binding is explained.")],
    cell: Annotated[str, typer.Option("--cell", help="Cell type, for example K562, k562 or E123.")],
    regions: Annotated[
        Path | None,
        typer.Option("--regions", help="BED or narrowPeak of sites of up to 1,000 bp; `-` reads stdin."),
    ] = None,
    chrom: Annotated[
        list[str] | None, typer.Option("--chrom", "-c", help="Sites as typed, such as chr20:5000-5400.")
    ] = None,
    dataset: options.DatasetOption = Path("dataset"),
    model: options.ModelOption = None,
    states: options.StatesOption = None,
    no_states: options.NoStatesOption = False,
    accessibility: options.AccessibilityOption = None,
    no_accessibility: options.NoAccessibilityOption = False,
    width: Annotated[int, typer.Option("--width", min=1, help="Bases replaced around each site's middle, bp.")] = 200,
    whole: Annotated[
        bool,
        typer.Option("--whole", help="Score a site by the highest of all bins centred in it, not by its central bin."),
    ] = False,
    reach: Annotated[
        int,
        typer.Option("--reach", min=0, help="Replace the state of so many more 200-bp bins on either side, too."),
    ] = 0,
    motifs: Annotated[
        Path | None,
        typer.Option("--motifs", help="MEME file: tell how well the important bases match the TF's motif."),
    ] = None,
    pictures: Annotated[
        int, typer.Option("--pictures", min=0, help="Draw so many sites, the first ones, as SVG.")
    ] = 50,
    both_strands: options.BothStrandsOption = True,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to make. Default: explanations/TF.CELL.")
    ] = None,
    device: options.DeviceOption = "auto",
    precision: options.PrecisionOption = "fp32",
    threads: options.ThreadsOption = None,
    overwrite: options.OverwriteOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Explain predictions: the effect of every base substitution, and of every other chromatin state.

    For each site, each base around its middle is replaced by the three others, and the state of its 200-bp bins by
    every state of the alphabet and by unknown, with the cell type's accessibility shown and hidden.

    Writes a folder: sites.tsv, bases.tsv (change of logit and probability by substitution), states.tsv,
    importance.bedGraph (minus the mean change over a base's three substitutions), and a picture of each site.
    """
    from ebert_core.data.dataset import Dataset
    from ebert_core.errors import EbertError
    from ebert_core.inference.sites import read_sites, sites_of
    from ebert_core.io.motifs import find_motif, read_motifs

    if not tf.strip() or "," in tf:
        raise EbertError(f"--tf {tf!r} is not one TF", "name one, for example --tf CTCF; run again for another")
    if not cell.strip():
        raise EbertError("no cell type was named", "name one with --cell, for example --cell K562")
    if bool(chrom) == bool(regions):
        problem = "--chrom and --regions were both given" if chrom else "no site was named"
        raise EbertError(problem, "name sites with --regions FILE, or one with --chrom chr20:5000-5400")
    files = options.CellFiles(states, no_states, accessibility, no_accessibility)
    files.refuse_contradictions()
    opened = Dataset.open(dataset)
    reporter = ConsoleReporter(quiet)
    if regions is not None:
        sites, notes = read_sites(regions, opened.assembly)
        for note in notes:
            reporter.warn(note)
    else:
        sites = sites_of(options.parse_regions(options.split_regions(chrom, "--chrom"), opened.assembly))
    motif = None if motifs is None else find_motif(read_motifs(motifs), tf)
    place = options.use_device(device, precision, threads)

    from ebert_core.inference import explain, models
    from ebert_core.inference.mutagenesis import Settings

    loaded = models.load_model(model or models.find_model(Path("models"), [tf]), opened, place)
    name = loaded.tfs[loaded.index(tf)]
    source = options.show_cell(loaded, opened, cell, files, place, reporter)
    settings = Settings(width, whole, reach)
    request = explain.ExplainRequest(name, source, tuple(sites), settings, both_strands, motif, pictures)
    target = output or Path("explanations") / f"{name}.{source.name}".replace("/", "_")
    explain.refuse_target(target, overwrite=overwrite)
    explained = explain.explain(opened, loaded, request, place, target, overwrite=overwrite, reporter=reporter)
    for site, reason in explained.skipped[:3]:
        reporter.warn(f"{site.name} was left out: {reason}")
    if more := len(explained.skipped[3:]):
        reporter.warn(f"{more:,} further sites were left out; {target}/{explain.SITES_FILE} says why")
    reporter.log(f"{explained.num_explained:,} sites explained, in {target}")
    if motif is not None and not quiet:
        _print_matches(explained, motif.label)


def _print_matches(explained: Explained, motif: str) -> None:
    """The table of motif hits and correlations, on stdout."""
    from rich import box
    from rich.table import Table

    if not explained.matches:
        stdout.print(f"{motif} fits into no site's stretch: ask for a larger --width")
        return
    table = Table(box=box.SIMPLE_HEAD, title=f"Importance of bases against {motif}", title_justify="left")
    for name in ("site", "best hit", "strand", "bits", "correlation"):
        table.add_column(name, justify="left" if name in ("site", "best hit", "strand") else "right")
    for site, match in explained.matches[:_MOST_ROWS]:
        hit = f"{match.start:,}-{match.end:,}"
        table.add_row(site.name, hit, match.strand, f"{match.bits:.1f}", f"{match.correlation:.3f}")
    if more := len(explained.matches[_MOST_ROWS:]):
        table.add_row(f"and {more:,} more", "", "", "", "")
    table.add_section()
    table.add_row(f"all {len(explained.matches):,} together", "", "", "", f"{explained.correlation:.3f}")
    stdout.print(table)
