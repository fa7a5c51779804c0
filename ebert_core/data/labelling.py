"""Labels of a dataset: made from peaks by the challenge's rule, or read from label tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebert_core.data.builder import DatasetBuilder
from ebert_core.data.dataset import Dataset
from ebert_core.data.files import file_stem, source_entry
from ebert_core.epigenome.cell_types import canonical_cell
from ebert_core.errors import InputError
from ebert_core.genome.bins import BenchmarkBins
from ebert_core.genome.labels import count_packed, label_bins, lay_packed, pack_labels
from ebert_core.io.bed import read_peaks
from ebert_core.io.chip import ChipExperiment, find_chip
from ebert_core.io.labels import LabelTableReader
from ebert_core.vocabulary import STATE_BIN_BP, STRIDE_BP

Pair = tuple[str, str]


def add_labels(builder: DatasetBuilder, source: Path) -> None:
    """Labels of every TF and cell type of which a folder, a file or a sheet holds peaks or label tables.

    Raises:
        EbertError: labels of the same TF and cell type from other files are there (unless the builder may overwrite).
        InputError: a fault in a file, or two sources for one pair's labels.
    """
    files = find_chip(source)
    builder.tell(files.notes)
    names = _Names(builder)
    experiments = {names.of_peaks(experiment): experiment for experiment in files.experiments}
    tables: dict[str, list[_Table]] = {}
    for tf, path in files.tables:
        table = _Table(LabelTableReader(path, builder.assembly), names, tf)
        tables.setdefault(table.tf, []).append(table)
    if experiments:
        _from_peaks(builder, experiments, source)
    if tables:
        _from_tables(builder, tables)


class _Names:
    """The dataset's spellings of TFs and cell types, and which file is whose."""

    def __init__(self, builder: DatasetBuilder) -> None:
        self._spellings = {tf.casefold(): tf for tf in builder.manifest["labels"]}
        self._aliases = builder.manifest["aliases"]
        self._peaks: dict[Pair, Path] = {}

    def of(self, tf: str, cell: str) -> Pair:
        return self._spellings.setdefault(tf.casefold(), tf), canonical_cell(cell, self._aliases)

    def of_peaks(self, experiment: ChipExperiment) -> Pair:
        pair = self.of(experiment.tf, experiment.cell)
        self.refuse_second(pair, experiment.conservative)
        self._peaks[pair] = experiment.conservative
        return pair

    def refuse_second(self, pair: Pair, path: Path) -> None:
        """`InputError` where peaks of the pair were given already."""
        if pair in self._peaks:
            raise InputError(
                path,
                f"is the second file for {pair[0]} in {pair[1]}",
                f"the first is {self._peaks[pair].name}; keep one of them",
            )


class _Table:
    """A label table, and whose its columns are."""

    def __init__(self, reader: LabelTableReader, names: _Names, tf: str) -> None:
        self.reader = reader
        self.path = reader.path
        self.tf = tf
        self.columns: dict[str, int] = {}
        for column, cell in enumerate(reader.cells):
            pair = names.of(tf, cell)
            names.refuse_second(pair, self.path)
            self.tf = pair[0]
            if pair[1] in self.columns:
                raise InputError(
                    self.path, f"has two columns for {pair[1]}, one of them {cell!r}", "keep one of them", line=1
                )
            self.columns[pair[1]] = column


def _from_peaks(builder: DatasetBuilder, experiments: Mapping[Pair, ChipExperiment], source: Path) -> None:
    assayed = _assayed_chroms(builder, experiments)
    if silent := [chrom for chrom in builder.assembly.chroms if chrom not in assayed]:
        builder.reporter.warn(
            f"{source.name}: no file has a peak on {', '.join(silent[:6])}{' ...' if len(silent) > 6 else ''}; "
            "bins there stay unlabelled, not unbound"
        )
    bins = _benchmark_bins(builder)
    labelled = [chrom for chrom in assayed if chrom in bins.regions]
    with builder.reporter.task("labelling bins", len(experiments), "TF x cell") as advance:
        for (tf, cell), experiment in experiments.items():
            entries = builder.manifest["labels"].setdefault(tf, {})
            paths = dict.fromkeys((experiment.conservative, experiment.relaxed))
            sources = [source_entry(path) for path in paths]
            if builder.is_new(f"{tf} labels", entries, cell, sources):
                packed = _label(builder, experiment, bins, labelled)
                entries[cell] = _save(builder, (tf, cell), packed, labelled, sources)
            advance(1, f"{tf} {cell}")


def _assayed_chroms(builder: DatasetBuilder, experiments: Mapping[Pair, ChipExperiment]) -> list[str]:
    with_peaks: set[str] = set()
    for experiment in experiments.values():
        if with_peaks == set(builder.assembly.chroms):
            break
        with_peaks |= read_peaks(experiment.conservative, builder.assembly).chroms
    return [chrom for chrom in builder.assembly.chroms if chrom in with_peaks]


def _label(
    builder: DatasetBuilder, experiment: ChipExperiment, bins: BenchmarkBins, chroms: list[str]
) -> NDArray[np.uint8]:
    assembly = builder.assembly
    conservative = read_peaks(experiment.conservative, assembly)
    same = experiment.relaxed == experiment.conservative
    relaxed = conservative if same else read_peaks(experiment.relaxed, assembly)
    builder.tell(conservative.notes)
    labels = np.zeros(assembly.flat_bp // STRIDE_BP, dtype=np.uint8)
    for chrom in chroms:
        starts = bins.starts(chrom)
        strides = (assembly.offset(chrom) + starts) // STRIDE_BP
        labels[strides] = label_bins(starts, conservative.on(chrom), relaxed.on(chrom))
    return pack_labels(labels)


def _from_tables(builder: DatasetBuilder, tables: Mapping[str, list[_Table]]) -> None:
    grid = _Grid(builder)
    every = [table for some in tables.values() for table in some]
    with builder.reporter.task("reading label tables", len(every) * grid.num_rows, "bins") as advance:
        for tf, some in tables.items():
            entries = builder.manifest["labels"].setdefault(tf, {})
            hashed = {table.path: source_entry(table.path) for table in some}
            sources = {
                cell: [hashed[table.path] for table in some if cell in table.columns]
                for table in some
                for cell in table.columns
            }
            new = [cell for cell in sources if builder.is_new(f"{tf} labels", entries, cell, sources[cell])]
            labels = _JoinedLabels(builder, new)
            for table in some if new else ():
                grid.lay(table, labels, lambda rows, tf=tf: advance(rows, tf))
            for cell in new:
                entries[cell] = _save(builder, (tf, cell), labels.packed[cell], labels.chroms(cell), sources[cell])


class _JoinedLabels:
    """Packed labels on the flat axis of some cell types, from one table or several."""

    def __init__(self, builder: DatasetBuilder, cells: list[str]) -> None:
        size = builder.assembly.flat_bp // STATE_BIN_BP
        self.packed = {cell: np.zeros(size, dtype=np.uint8) for cell in cells}
        self._assembly = builder.assembly
        self._given: dict[Pair, Path] = {}

    def claim(self, cell: str, chrom: str, path: Path) -> None:
        """`InputError` where another table has labels of the cell type on the chromosome."""
        other = self._given.setdefault((cell, chrom), path)
        if other != path:
            raise InputError(
                path,
                f"has labels of {cell} on {chrom}, as {other.name} has",
                "tables of one TF are joined where each has chromosomes or cell types of its own: leave one out",
            )

    def chroms(self, cell: str) -> list[str]:
        return [chrom for chrom in self._assembly.chroms if (cell, chrom) in self._given]


class _Grid:
    """The dataset's bins, on which the rows of label tables are laid."""

    def __init__(self, builder: DatasetBuilder) -> None:
        self._builder = builder
        self._bins = _benchmark_bins(builder)
        self._held: tuple[str, NDArray[np.bool_]] = ("", np.empty(0, dtype=bool))

    @property
    def num_rows(self) -> int:
        return self._bins.num_rows()

    def lay(self, table: _Table, labels: _JoinedLabels, advance: Any) -> None:
        """Read a table once and lay the columns that are wanted; tell which rows and bins have no counterpart."""
        assembly = self._builder.assembly
        wanted = {cell: column for cell, column in table.columns.items() if cell in labels.packed}
        strangers, laid = 0, 0
        chroms: dict[str, None] = {}
        for chrom, starts, codes in table.reader.rows():
            strides = starts // STRIDE_BP
            known = self._is_bin(chrom)[strides]
            if not known.all():
                strangers += int(np.count_nonzero(~known))
                strides, codes = strides[known], codes[known]
            laid += len(strides)
            chroms[chrom] = None
            for cell, column in wanted.items():
                labels.claim(cell, chrom, table.path)
                lay_packed(labels.packed[cell], assembly.offset(chrom) // STRIDE_BP + strides, codes[:, column])
            advance(len(starts))
        if not laid:
            raise InputError(
                table.path,
                f"has no row that is a bin of the dataset ({self._bins.num_rows():,} bins)",
                "bins come from --regions, else from the genome and --exclude: is the table of others?",
            )
        self._tell(table, strangers, self._bins.num_rows(chroms) - laid, list(chroms))

    def _is_bin(self, chrom: str) -> NDArray[np.bool_]:
        """Whether a bin of the benchmark begins at each stride of a chromosome."""
        if self._held[0] != chrom:
            mask = np.zeros(-(-self._builder.assembly.length(chrom) // STRIDE_BP), dtype=bool)
            mask[self._bins.starts(chrom) // STRIDE_BP] = True
            self._held = (chrom, mask)
        return self._held[1]

    def _tell(self, table: _Table, strangers: int, without: int, chroms: list[str]) -> None:
        name, reporter = table.path.name, self._builder.reporter
        if dropped := table.reader.dropped:
            reporter.log(
                f"{name}: {sum(dropped.values()):,} rows lie on chromosomes that the genome lacks "
                f"({', '.join(sorted(dropped)[:4])}{' ...' if len(dropped) > 4 else ''}) and were left out"
            )
        if strangers:
            reporter.warn(f"{name}: {strangers:,} rows are no bins of the dataset and were left out")
        if without:
            reporter.warn(f"{name}: {without:,} bins of the dataset have no row and stay unlabelled")
        if silent := [chrom for chrom in self._bins.chroms if chrom not in chroms]:
            reporter.log(
                f"{name}: has no row on {', '.join(silent[:6])}{' ...' if len(silent) > 6 else ''}; "
                "bins there stay unlabelled"
            )


def _benchmark_bins(builder: DatasetBuilder) -> BenchmarkBins:
    return Dataset(builder.folder, builder.manifest).benchmark_bins()


def _save(
    builder: DatasetBuilder, pair: Pair, packed: NDArray[np.uint8], chroms: list[str], sources: list[dict[str, str]]
) -> dict[str, Any]:
    _, unbound, ambiguous, bound = count_packed(packed).tolist()
    return {
        **builder.save(f"labels/{file_stem(pair[0])}", pair[1], packed, sources),
        "chroms": chroms,
        "bins": {"unbound": unbound, "ambiguous": ambiguous, "bound": bound},
    }
