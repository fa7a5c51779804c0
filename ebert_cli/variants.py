"""`ebert variants`: what variants do to binding."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ebert_cli import options
from ebert_cli.console import ConsoleReporter, guarded, split_names

if TYPE_CHECKING:
    from ebert_core.inference.alleles import Survey

NAME = "variants"


@guarded
def run(
    vcf: Annotated[Path, typer.Option("--vcf", help="VCF of SNVs and small indels, plain or gzip; `-` reads stdin.")],
    tf: Annotated[list[str], typer.Option("--tf", help="TFs, comma-separated; one pass scores them all.")],
    cell: Annotated[str, typer.Option("--cell", help="Cell type, for example K562, k562 or E123.")],
    dataset: options.DatasetOption = Path("dataset"),
    model: options.ModelOption = None,
    states: options.StatesOption = None,
    no_states: options.NoStatesOption = False,
    accessibility: options.AccessibilityOption = None,
    no_accessibility: options.NoAccessibilityOption = False,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="Table to write, bgzip if named .gz; `-` prints it. Default: variants/TFS.CELL.tsv.",
        ),
    ] = None,
    annotate: Annotated[
        Path | None,
        typer.Option("--annotate", help="VCF to write too: the same records with EBERT_TF_... in INFO."),
    ] = None,
    both_strands: options.BothStrandsOption = True,
    device: options.DeviceOption = "auto",
    precision: options.PrecisionOption = "auto",
    threads: options.ThreadsOption = None,
    overwrite: options.OverwriteOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Score variants: binding with the reference allele, with the alternative allele, and the difference.

    The score of an allele is that of the highest-scoring 200-bp bin among those that hold the variant, the same bins
    for both alleles. Alleles that cannot be scored (symbolic ones, breakends, REF that is not the genome's ...) are
    counted, and listed in *.skipped.tsv beside the table. Where most reference alleles are not the genome's, nothing is
    scored: the VCF is of another assembly.
    """
    from ebert_core.data.dataset import Dataset
    from ebert_core.errors import EbertError
    from ebert_core.io.vcf import VcfFile

    tfs = list(dict.fromkeys(split_names(tf)))
    if not tfs:
        raise EbertError("no TF was named", "name one with --tf, for example --tf CTCF")
    if not cell.strip():
        raise EbertError("no cell type was named", "name one with --cell, for example --cell K562")
    files = options.CellFiles(states, no_states, accessibility, no_accessibility)
    files.refuse_contradictions()
    to_stdout = output == "-"
    opened = Dataset.open(dataset)
    variants = VcfFile(vcf)
    reporter = ConsoleReporter(quiet or to_stdout)
    place = options.use_device(device, precision, threads)

    from ebert_core.inference import models, variant_files

    loaded = models.load_model(model or models.find_model(Path("models"), tfs), opened, place)
    tfs = list(dict.fromkeys(loaded.tfs[loaded.index(name)] for name in tfs))
    source = options.show_cell(loaded, opened, cell, files, place, reporter)
    request = variant_files.VariantRequest(tuple(tfs), source, both_strands)
    table = None if to_stdout else Path(output or f"variants/{request.stem}.tsv")
    stream = sys.stdout if to_stdout else None
    outputs = variant_files.VariantOutputs(table, annotate, stream, overwrite)
    outputs.refuse_existing()
    found = variant_files.score_variants(opened, loaded, request, place, variants, outputs, reporter)
    _tell(found, outputs.skipped, reporter)
    for path in outputs.files.values():
        reporter.log(str(path))


def _tell(found: Survey, listed: Path | None, reporter: ConsoleReporter) -> None:
    """How many were scored, and why the others were not."""
    reporter.log(
        f"{found.num_variants:,} of {found.num_alleles:,} alternative alleles scored; "
        f"{found.checked - found.mismatching:,} of {found.checked:,} checked reference alleles are the genome's"
    )
    if found.skipped:
        reasons = "; ".join(
            f"{number:,} {reason} (first in line {found.examples[reason]:,})"
            for reason, number in found.skipped.most_common()
        )
        where = f"; listed in {listed}" if listed else ""
        reporter.warn(f"skipped: {reasons}{where}")
