"""A dataset's labels as label tables of the challenge: `TF.labels.tsv.gz`, one column per cell type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ebert_core.artifacts import publish_file
from ebert_core.data.dataset import Dataset
from ebert_core.data.files import file_stem
from ebert_core.errors import EbertError
from ebert_core.genome.intervals import Positions
from ebert_core.genome.labels import UNLABELLED
from ebert_core.io.labels import write_label_table
from ebert_core.reporting import SILENT, Reporter
from ebert_core.vocabulary import STRIDE_BP


def write_labels(dataset: Dataset, folder: Path, *, overwrite: bool = False, reporter: Reporter = SILENT) -> list[Path]:
    """Write a label table for every TF of a dataset.

    A table has a letter for every cell type in every row. So its rows are the bins that are labelled in all cell types
    of the TF; what that leaves out, of chromosomes that only some were assayed on, is counted and told.

    Returns:
        The tables, each of which appeared whole or not at all.

    Raises:
        EbertError: the dataset has no labels, a TF has no chromosome that is labelled in all its cell types, or a table
            is there already (unless `overwrite`); then nothing is written.
    """
    if not dataset.tfs:
        raise EbertError(f"dataset {dataset.path} holds no labels", "add some: `ebert prepare --chip FOLDER`")
    tables = [_Labelled(dataset, tf) for tf in dataset.tfs]
    targets = [folder / f"{file_stem(table.tf)}.labels.tsv.gz" for table in tables]
    for table, target in zip(tables, targets, strict=True):
        if not table.chroms:
            raise EbertError(
                f"no chromosome is labelled in all cell types of {table.tf} ({', '.join(table.cells)})",
                "a table needs a letter for each; prepare datasets of cell types that share chromosomes",
            )
        if target.is_dir():
            raise EbertError(f"{target} is a folder, expected a file", "name another folder with --write-labels")
        if target.exists() and not overwrite:
            raise EbertError(
                f"{target} already exists", "pass --overwrite to replace it, or name another folder with --write-labels"
            )
    total = sum(len(table) * len(table.cells) for table in tables)
    with reporter.task("writing label tables", total, "chromosome x cell") as advance:
        for table, target in zip(tables, targets, strict=True):
            table.advance = advance
            with publish_file(target, overwrite=overwrite) as staged:
                write_label_table(staged, table.cells, table, compressed=True)
            if table.left_out or table.elsewhere:
                reporter.warn(_what_was_left_out(target, table))
    return targets


class _Labelled(Mapping[str, tuple[Positions, NDArray[np.uint8]]]):
    """Chromosome -> bins that are labelled in all cell types of a TF, made when asked for.

    Attributes:
        cells: cell types of the TF.
        chroms: chromosomes on which all of them are labelled.
        elsewhere: chromosomes on which only some are.
        left_out: bins of `chroms` that were labelled in some cell types only, as far as was asked for.
    """

    def __init__(self, dataset: Dataset, tf: str) -> None:
        self.tf = tf
        self.cells = dataset.cells_of(tf)
        assayed = [set(dataset.assayed_chroms(tf, cell)) for cell in self.cells]
        self.chroms = sorted(set.intersection(*assayed))
        self.elsewhere = sorted(set.union(*assayed) - set(self.chroms))
        self.left_out = 0
        self.advance = lambda amount, note="": None
        self._dataset = dataset

    def __iter__(self) -> Iterator[str]:
        return iter(self.chroms)

    def __len__(self) -> int:
        return len(self.chroms)

    def __getitem__(self, chrom: str) -> tuple[Positions, NDArray[np.uint8]]:
        columns = []
        for cell in self.cells:
            columns.append(self._dataset.labels(self.tf, cell, chrom))
            self.advance(1, f"{self.tf} {chrom}")
        in_all = np.logical_and.reduce([column != UNLABELLED for column in columns])
        in_some = np.logical_or.reduce([column != UNLABELLED for column in columns])
        self.left_out += int(np.count_nonzero(in_some & ~in_all))
        strides = np.flatnonzero(in_all)
        return strides * STRIDE_BP, np.stack([column[strides] for column in columns], axis=1)


def _what_was_left_out(target: Path, table: _Labelled) -> str:
    parts = []
    if table.elsewhere:
        some = f"{', '.join(table.elsewhere[:6])}{' ...' if len(table.elsewhere) > 6 else ''}"
        parts.append(f"chromosomes labelled in some cell types only ({some})")
    if table.left_out:
        parts.append(f"{table.left_out:,} more bins labelled in some cell types only")
    return f"{target.name}: {' and '.join(parts)} were left out"
