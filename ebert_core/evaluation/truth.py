"""What predictions are held against: the benchmark's bins and their labels, from a dataset, peaks or a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ebert_core.data.dataset import Dataset
from ebert_core.errors import EbertError, InputError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.bins import BenchmarkBins
from ebert_core.genome.intervals import Positions
from ebert_core.genome.labels import UNLABELLED, label_bins
from ebert_core.io.bed import read_peaks
from ebert_core.io.labels import read_label_table
from ebert_core.vocabulary import STRIDE_BP

Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Truth:
    """Labelled bins of one TF in one cell type.

    Attributes:
        tf, cell: whose they are.
        assembly: their coordinates.
        source: where they come from, in words.
        chroms: chromosomes that have labels, in the assembly's order.
        on: chromosome -> (bin starts, rising; label codes 1 to 3), both of shape (N,).
        files: the files that were read, for the record.
        notes: what a user should know about the reading, a sentence each.
        bins: the benchmark's bins of the whole assembly, which a submission's rows must be; None where only those of
            `chroms` are known.
        sources: of a dataset's labels, the user's files that they were made from: name -> {sha256}.
    """

    tf: str
    cell: str
    assembly: Assembly
    source: str
    chroms: tuple[str, ...]
    on: Callable[[str], tuple[Positions, Labels]]
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    bins: BenchmarkBins | None = None
    sources: dict[str, dict[str, str]] = field(default_factory=dict)


def truth_from_dataset(dataset: Dataset, tf: str, cell: str) -> Truth:
    """The labels that `ebert prepare` made.

    Raises:
        UnknownNameError: the dataset has no such TF or cell type.
        EbertError: it has both, but no labels of the one in the other.
    """
    tf, cell = dataset.resolve_tf(tf), dataset.resolve_cell(cell)
    if (tf, cell) not in dataset.label_pairs:
        having = ", ".join(other for name, other in dataset.label_pairs if name == tf)
        raise EbertError(
            f"dataset {dataset.path} has no {tf} labels in {cell}",
            f"it has them in {having}; or give the truth with --peaks or --labels",
        )

    def on(chrom: str) -> tuple[Positions, Labels]:
        labels = dataset.labels(tf, cell, chrom)
        stride = np.flatnonzero(labels != UNLABELLED)
        return stride * STRIDE_BP, labels[stride]

    assayed = set(dataset.assayed_chroms(tf, cell))
    chroms = tuple(chrom for chrom in dataset.assembly.chroms if chrom in assayed)
    source = f"labels of {dataset.path}/"
    made_from = {each["name"]: {"sha256": each["sha256"]} for each in dataset.manifest["labels"][tf][cell]["sources"]}
    bins = dataset.benchmark_bins()
    return Truth(tf, cell, dataset.assembly, source, chroms, on, bins=bins, sources=made_from)


def truth_from_peaks(
    pair: tuple[str, str], bins: BenchmarkBins, conservative: Path, relaxed: Path | None = None
) -> Truth:
    """Labels by the challenge's rule from peak files.

    Args:
        pair: (TF, cell type) that the peaks are of.
        bins: the bins to label, and the assembly.
        conservative: peaks that make a bin bound.
        relaxed: peaks that keep a bin from being unbound; by default the conservative ones.
    """
    assembly = bins.assembly
    strong = read_peaks(conservative, assembly)
    weak = read_peaks(relaxed, assembly) if relaxed else strong

    def on(chrom: str) -> tuple[Positions, Labels]:
        if chrom not in strong.chroms:
            raise InputError(conservative, f"has no peak on {chrom}", "choose chromosomes that were assayed")
        starts = bins.starts(chrom)
        return starts, label_bins(starts, strong.on(chrom), weak.on(chrom))

    files = (conservative, relaxed) if relaxed else (conservative,)
    source = f"peaks {conservative.name}" + (f", relaxed {relaxed.name}" if relaxed else ", also as relaxed peaks")
    notes = (*strong.notes, *(weak.notes if relaxed else ()))
    chroms = tuple(chrom for chrom in assembly.chroms if chrom in strong.chroms)
    return Truth(*pair, assembly, source, chroms, on, files, notes, bins)


def truth_from_table(path: Path, assembly: Assembly, tf: str, cell: str, bins: BenchmarkBins | None = None) -> Truth:
    """The labels of one cell type in a label table of the challenge; `bins` where those of the assembly are known."""
    table = read_label_table(path, assembly, cell)

    def on(chrom: str) -> tuple[Positions, Labels]:
        if chrom not in table.chroms:
            raise InputError(path, f"has no row on {chrom}", "choose chromosomes that the table has")
        return table.chroms[chrom]

    notes: tuple[str, ...] = ()
    if table.dropped:
        notes = (
            f"{path.name}: {sum(table.dropped.values()):,} rows lie on chromosomes that the genome lacks "
            "and were left out",
        )
    chroms = tuple(chrom for chrom in assembly.chroms if chrom in table.chroms)
    source = f"label table {path.name}, column {table.cell}"
    return Truth(tf, cell, assembly, source, chroms, on, (path,), notes, bins)
