"""Where the truth comes from: what a user named, read as labels of one TF in one cell type."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ebert_core.data.dataset import Dataset
from ebert_core.epigenome.cell_types import fold
from ebert_core.errors import EbertError, InputError
from ebert_core.evaluation.truth import Truth, truth_from_dataset, truth_from_peaks, truth_from_table
from ebert_core.genome.assembly import BUILT_IN_ASSEMBLIES, Assembly
from ebert_core.genome.bins import BenchmarkBins
from ebert_core.genome.intervals import Positions, merge
from ebert_core.io.bed import merged_regions, read_bin_regions
from ebert_core.io.bigwig import BigWigReader, is_bigwig
from ebert_core.io.labels import label_table_cells
from ebert_core.io.predictions import read_sidecar
from ebert_core.io.sizes import read_sizes
from ebert_core.io.submissions import submission_name

Pair = tuple[str, str]
DATASET_FOLDER: Final = Path("dataset")
_TABLE = re.compile(r"(?P<tf>[^.]+)\..*labels\.tsv(?:\.gz)?", re.IGNORECASE)


@dataclass(frozen=True)
class TruthFiles:
    """Truth that is not the dataset's.

    Attributes:
        peaks, relaxed: conservative and relaxed peaks of one pair.
        labels: a label table, or a folder of them.
        exclude: regions to leave out of the bins, beside the dataset's; with peaks.
        regions: regions that the bins tile; instead of `exclude`.
        assembly: `hg19`, or a file of chromosome sizes; for truth without a dataset.

    Raises:
        EbertError: two that exclude each other.
    """

    peaks: Path | None = None
    relaxed: Path | None = None
    labels: Path | None = None
    exclude: tuple[Path, ...] = ()
    regions: Path | None = None
    assembly: str | None = None

    def __post_init__(self) -> None:
        if self.peaks and self.labels:
            raise EbertError("--peaks and --labels were both given", "give one truth")
        if self.relaxed and not self.peaks:
            raise EbertError("--relaxed was given without --peaks", "name the conservative peaks with --peaks")
        if self.exclude and not self.peaks:
            raise EbertError("--exclude was given without --peaks", "other truths have their bins already")
        if self.exclude and self.regions:
            raise EbertError("--exclude and --regions were both given", "the regions have gaps where bins are excluded")
        if self.regions and not self:
            raise EbertError(
                "--regions was given without --peaks or --labels", "the dataset has its own bins (`ebert prepare`)"
            )

        if self.assembly and not self:
            raise EbertError("--assembly was given without --peaks or --labels", "the dataset has its own assembly")

    def __bool__(self) -> bool:
        return bool(self.peaks or self.labels)

    def require_fit(self, num_pairs: int) -> None:
        """Refuse peaks, which are of one pair, for predictions of several (`EbertError`)."""
        if self.peaks and num_pairs > 1:
            raise EbertError(
                f"--peaks are of one pair, the predictions of {num_pairs}", "choose one with --tf and --cell"
            )


def open_dataset(path: Path, truth_files: TruthFiles) -> Dataset | None:
    """The dataset; None where the truth comes from elsewhere and there is none under the default name.

    Raises:
        EbertError: it is not there, and needed or asked for by another name.
    """
    if path.exists():
        return Dataset.open(path)
    if not truth_files:
        raise EbertError(
            f"dataset {path} is not there, and no other truth was given",
            "name a dataset with --dataset (`ebert prepare` makes one), or give the truth with --peaks or --labels",
        )
    return None if path == DATASET_FOLDER else Dataset.open(path)


def find_truth(pair: Pair, truth_files: TruthFiles, paths: Iterable[Path], dataset: Dataset | None) -> Truth:
    """The truth of one pair.

    Args:
        pair: (TF, cell type).
        truth_files: what was given; the dataset's labels where nothing was.
        paths: the pair's predictions, which may tell the assembly.
        dataset: its assembly, exclusion list and bins hold where none were given.

    Raises:
        EbertError: the assembly is not known. File faults are `InputError`.
    """
    if not truth_files:
        assert dataset is not None
        return truth_from_dataset(dataset, *pair)
    assembly = _assembly(truth_files, paths, dataset)
    if truth_files.labels:
        bins = dataset.benchmark_bins() if dataset else None
        if truth_files.regions:
            bins = BenchmarkBins.from_regions(assembly, read_bin_regions(truth_files.regions, assembly)[0])
        table = _table_of(truth_files.labels, *pair) if truth_files.labels.is_dir() else truth_files.labels
        if (named := _TABLE.fullmatch(table.name)) and fold(named["tf"]) != fold(pair[0]):
            raise InputError(
                table, f"is called after {named['tf']}, the predictions are of {pair[0]}", "give the labels of one TF"
            )
        return truth_from_table(table, assembly, *pair, bins)
    assert truth_files.peaks is not None
    return truth_from_peaks(
        pair, _bins_for_peaks(truth_files, assembly, dataset), truth_files.peaks, truth_files.relaxed
    )


def _bins_for_peaks(truth_files: TruthFiles, assembly: Assembly, dataset: Dataset | None) -> BenchmarkBins:
    if truth_files.regions:
        return BenchmarkBins.from_regions(assembly, read_bin_regions(truth_files.regions, assembly)[0])
    if dataset and not truth_files.exclude:
        return dataset.benchmark_bins()
    given, _ = merged_regions(truth_files.exclude, assembly)

    def excluded(chrom: str) -> tuple[Positions, Positions]:
        parts = [(np.empty(0, np.int64), np.empty(0, np.int64))]
        parts += [given[chrom]] if chrom in given else []
        parts += [dataset.excluded(chrom)] if dataset else []
        return merge(np.concatenate([starts for starts, _ in parts]), np.concatenate([ends for _, ends in parts]))

    return BenchmarkBins.from_exclusion(assembly, excluded)


def _table_of(folder: Path, tf: str, cell: str) -> Path:
    """The one label table of a folder that has the TF and the cell type."""
    tables = [
        path
        for path in sorted(folder.iterdir())
        if (match := _TABLE.fullmatch(path.name)) and match["tf"].casefold() == tf.casefold()
    ]
    if not tables:
        raise InputError(folder, f"has no label table of {tf}", f"expected {tf}.labels.tsv.gz or the like")
    having = [path for path in tables if fold(cell) in {fold(name) for name in label_table_cells(path)}]
    if not having:
        cells = sorted({name for path in tables for name in label_table_cells(path)})
        raise InputError(
            tables[0], f"has no cell type {cell!r}", f"the label tables of {tf} have {', '.join(cells)}", line=1
        )
    if len(having) > 1:
        raise InputError(
            having[1], f"is the second label table of {tf} with {cell}", f"the first is {having[0].name}; keep one"
        )
    return having[0]


def _assembly(truth_files: TruthFiles, paths: Iterable[Path], dataset: Dataset | None) -> Assembly:
    """The dataset's assembly, the one named, or what the predictions tell."""
    if dataset:
        if truth_files.assembly:
            raise EbertError(
                f"--assembly was given, and the dataset {dataset.path} has its own", "leave out --assembly"
            )
        return dataset.assembly
    named = truth_files.assembly
    if named is None:
        return _assembly_of(paths)
    return Assembly.built_in(named) if named in BUILT_IN_ASSEMBLIES else read_sizes(Path(named))


def _assembly_of(paths: Iterable[Path]) -> Assembly:
    """Chromosome sizes: from the first bigWig; hg19 where a prediction says so or is a submission of the challenge."""
    for path in paths:
        if path.is_file() and is_bigwig(path):
            with BigWigReader(path) as reader:
                return Assembly.from_sizes(reader.sizes.items())
        if submission_name(path) or (read_sidecar(path) or {}).get("assembly", {}).get("name") == "hg19":
            return Assembly.built_in("hg19")
    raise EbertError(
        "the sizes of the chromosomes are not known",
        "name them with --assembly (hg19, or a chrom.sizes file), or a dataset with --dataset",
    )
