"""BED and narrowPeak files, read against an assembly and written for the field's own readers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.errors import InputError
from ebert_core.genome.assembly import Assembly, likely_assembly
from ebert_core.genome.bins import region_fault
from ebert_core.genome.intervals import Positions, first_overlap_with_previous, merge
from ebert_core.genome.regions import Region
from ebert_core.io.text import Table, read_table
from ebert_core.vocabulary import BIN_BP, STRIDE_BP

_STRAND_COLUMN: Final = 5
_SIGNAL_COLUMN: Final = 6
# Column 7 is signalValue in narrowPeak (10 columns) and in the IDR program's output (20); in BED7 to BED12 it is
# thickStart.
_WIDTHS_WITH_SIGNAL: Final = (10, 20)


@dataclass(frozen=True)
class Rows:
    """The intervals of a BED file that lie on an assembly, in file order.

    Attributes:
        table: the file, for further columns and for errors.
        row: index into `table` of each kept interval, shape (N,).
        chrom: index of its chromosome in the assembly, shape (N,).
        starts, ends: 0-based half-open, shape (N,).
        renamed: one example 'file name -> assembly name' where spellings differed, or ''.
        dropped: rows per chromosome name that the assembly lacks.
    """

    table: Table
    row: NDArray[np.int64]
    chrom: NDArray[np.int64]
    starts: Positions
    ends: Positions
    renamed: str
    dropped: dict[str, int]


def read_rows(path: Path, assembly: Assembly, *, num_columns: int = 3) -> Rows:
    """Read and check the intervals of a BED file.

    Rows on chromosomes that the assembly lacks are dropped and counted (a whole-genome file meets a genome of three
    chromosomes); a file that shares no chromosome with the assembly is an error.

    Args:
        path: BED of at least three columns; plain, gzip or bgzip.
        assembly: whose coordinates the file claims to be in.
        num_columns: columns to make available through `Rows.table`; at least 3.

    Raises:
        InputError: no data line, a start or end that is no number, negative start, end <= start, or an interval past
            the chromosome's end.
    """
    table = read_table(path, num_columns, min_columns=3)
    if len(table) == 0:
        raise InputError(path, "has no data lines", "name a BED file with at least one interval, or leave it out")
    starts, ends = table.integers(1, "start"), table.integers(2, "end")
    names, codes = table.categories(0)
    resolved = [assembly.resolve(name) for name in names]
    if not any(resolved):
        raise InputError(
            path,
            f"has no row on the genome's chromosomes ({_few(assembly.chroms)}); it names {_few(names)}",
            "check that both are of the same assembly, and which chromosomes were chosen",
        )
    index = np.array([assembly.index(name) if name else -1 for name in resolved])[codes]
    _check_intervals(table, assembly, index, starts, ends)
    kept = np.flatnonzero(index >= 0)
    counts = np.bincount(codes, minlength=len(names))
    renamed = next((f"{old} -> {new}" for old, new in zip(names, resolved, strict=True) if new and new != old), "")
    dropped = {name: int(counts[i]) for i, name in enumerate(names) if resolved[i] is None}
    return Rows(table, kept, index[kept], starts[kept], ends[kept], renamed, dropped)


def _check_intervals(
    table: Table, assembly: Assembly, chrom: NDArray[np.int64], starts: Positions, ends: Positions
) -> None:
    if (negative := starts < 0).any():
        row = int(np.argmax(negative))
        raise table.error(row, f"start is {starts[row]}, expected 0 or more", "BED starts are 0-based; mend the row")
    if (inverted := ends <= starts).any():
        row = int(np.argmax(inverted))
        raise table.error(
            row,
            f"end {ends[row]:,} is not beyond start {starts[row]:,}",
            "BED intervals are 0-based and half-open: a single base at position 7 is `6 7`; mend or remove the row",
        )
    lengths = np.array([*assembly.lengths, np.iinfo(np.int64).max])[chrom]
    if (beyond := ends > lengths).any():
        row = int(np.argmax(beyond))
        seen = {
            assembly.chroms[i]: int(ends[chrom == i].max()) for i in np.unique(chrom[chrom >= 0]) if (chrom == i).any()
        }
        other = likely_assembly(seen)
        guess = f"; its lengths look like {other}" if other and other != assembly.name else ""
        raise table.error(
            row,
            f"end {ends[row]:,} is past the end of {assembly.chroms[chrom[row]]} ({lengths[row]:,} bp){guess}",
            f"the genome is {assembly.name}: use a file of the same assembly, or mend the row",
        )


@dataclass(frozen=True)
class Peaks:
    """Intervals per chromosome, sorted by start.

    Attributes:
        assembly: their coordinates.
        intervals: chromosome name -> (starts, ends); a chromosome without any is absent.
        signal: chromosome name -> signalValue (narrowPeak column 7) of each, or 1.0 in a file without that column.
        notes: what a user should know about the reading (renamed or dropped chromosomes).
    """

    assembly: Assembly
    intervals: dict[str, tuple[Positions, Positions]]
    signal: dict[str, NDArray[np.float64]]
    notes: list[str] = field(default_factory=list)

    def on(self, chrom: str) -> tuple[Positions, Positions]:
        """(starts, ends) on one chromosome; empty arrays where there is none."""
        empty = np.empty(0, dtype=np.int64)
        return self.intervals.get(chrom, (empty, empty))

    @property
    def chroms(self) -> set[str]:
        """Chromosomes with at least one peak."""
        return set(self.intervals)

    def __len__(self) -> int:
        return sum(len(starts) for starts, _ in self.intervals.values())


def read_peaks(path: Path, assembly: Assembly) -> Peaks:
    """Peaks from BED3 to BED12, broadPeak, narrowPeak (10 columns) or the IDR program's output (20 columns)."""
    rows = read_rows(path, assembly, num_columns=_SIGNAL_COLUMN + 1)
    signal = np.ones(len(rows.row))
    if _has_signal(rows.table):
        signal = rows.table.floats(_SIGNAL_COLUMN, "signalValue")[rows.row]
    intervals, signals = {}, {}
    for index in np.unique(rows.chrom):
        here = np.flatnonzero(rows.chrom == index)
        here = here[np.argsort(rows.starts[here], kind="stable")]
        intervals[assembly.chroms[index]] = (rows.starts[here], rows.ends[here])
        signals[assembly.chroms[index]] = signal[here]
    return Peaks(assembly, intervals, signals, reading_notes(rows))


def _has_signal(table: Table) -> bool:
    if "peak" in table.path.name.lower():
        return bool((table.widths > _SIGNAL_COLUMN).all())
    return bool(np.isin(table.widths, _WIDTHS_WITH_SIGNAL).all())


def read_regions(path: Path, assembly: Assembly) -> tuple[list[Region], list[str]]:
    """Regions of a BED file (`-` reads standard input), in file order, and notes on the reading."""
    rows = read_rows(path, assembly)
    regions = [
        Region(assembly.chroms[chrom], start, end)
        for chrom, start, end in zip(rows.chrom.tolist(), rows.starts.tolist(), rows.ends.tolist(), strict=True)
    ]
    return regions, reading_notes(rows)


def read_transcript_starts(path: Path, assembly: Assembly) -> tuple[dict[str, Positions], list[str]]:
    """The transcript starts of a BED file.

    A row of 1 bp is a start. A longer one is a transcript, which starts with its first base on the + strand and with
    its last on the - strand (column 6).

    Returns:
        (chromosome -> 0-based positions, sorted, each once, of both strands; a chromosome without any is absent;
        notes on the reading).

    Raises:
        InputError: as `read_rows`; a strand that is none of + - . (or a row of several bp without strand).
    """
    rows = read_rows(path, assembly, num_columns=_STRAND_COLUMN + 1)
    names, codes = rows.table.categories(_STRAND_COLUMN)
    strands = np.array(["." if name == "" else name for name in names])[codes][rows.row]
    if (strange := ~np.isin(strands, ["+", "-", "."])).any():
        at = int(np.argmax(strange))
        raise rows.table.error(
            int(rows.row[at]), f"strand is {str(strands[at])!r}, expected +, - or .", "column 6 of BED is the strand"
        )
    long = rows.ends - rows.starts > 1
    if (bare := long & (strands == ".")).any():
        at = int(np.argmax(bare))
        raise rows.table.error(
            int(rows.row[at]),
            f"is {rows.ends[at] - rows.starts[at]:,} bp long and has no strand, so where it starts is unknown",
            "give one row of 1 bp per transcript start, or transcripts with their strand in column 6",
        )
    places = np.where(strands == "-", rows.ends - 1, rows.starts)
    starts = {assembly.chroms[index]: np.unique(places[rows.chrom == index]) for index in np.unique(rows.chrom)}
    return starts, reading_notes(rows)


def read_bin_regions(path: Path, assembly: Assembly) -> tuple[dict[str, tuple[Positions, Positions]], list[str]]:
    """The regions of a BED file whose tiles are the benchmark's bins, for `BenchmarkBins.from_regions`.

    Returns:
        (chromosome -> (starts, ends), sorted; notes on the reading). Rows on chromosomes that the assembly lacks are
        left out and counted in the notes.

    Raises:
        InputError: as `read_rows`; or an interval that 200-bp bins every 50 bp cannot tile, or that overlaps another.
    """
    rows = read_rows(path, assembly)
    regions = {}
    for index in np.unique(rows.chrom):
        here = np.flatnonzero(rows.chrom == index)
        chrom = assembly.chroms[index]
        if fault := region_fault(rows.starts[here], rows.ends[here], assembly.length(chrom)):
            raise rows.table.error(
                int(rows.row[here[fault[0]]]),
                fault[1],
                f"bins of {BIN_BP} bp, one every {STRIDE_BP} bp, must tile each region: mend or remove the row",
            )
        here = here[np.argsort(rows.starts[here], kind="stable")]
        starts, ends = rows.starts[here], rows.ends[here]
        if (clash := first_overlap_with_previous(starts, ends)) is not None:
            one, other = sorted((clash - 1, clash), key=lambda i: int(rows.row[here[i]]))
            raise rows.table.error(
                int(rows.row[here[other]]),
                f"region {starts[other]:,}-{ends[other]:,} overlaps {starts[one]:,}-{ends[one]:,} "
                f"of line {rows.table.lines[rows.row[here[one]]]:,}",
                "bins would be given twice: merge the two rows, or remove one",
            )
        regions[chrom] = (starts, ends)
    return regions, reading_notes(rows)


def reading_notes(rows: Rows) -> list[str]:
    """What was renamed or dropped, a sentence each."""
    notes = []
    if rows.renamed:
        notes.append(f"{rows.table.path.name}: chromosome names were reconciled ({rows.renamed})")
    if rows.dropped:
        notes.append(
            f"{rows.table.path.name}: {sum(rows.dropped.values()):,} rows lie on chromosomes that the genome lacks "
            f"({_few(sorted(rows.dropped))}) and were left out"
        )
    return notes


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def merged_regions(
    paths: Iterable[Path], assembly: Assembly
) -> tuple[dict[str, tuple[Positions, Positions]], list[str]]:
    """The disjoint, sorted union of several BED files per chromosome, and notes on their reading."""
    collected: dict[str, list[tuple[Positions, Positions]]] = {}
    notes: list[str] = []
    for path in paths:
        peaks = read_peaks(path, assembly)
        notes += peaks.notes
        for chrom, interval in peaks.intervals.items():
            collected.setdefault(chrom, []).append(interval)
    union = {
        chrom: merge(np.concatenate([starts for starts, _ in parts]), np.concatenate([ends for _, ends in parts]))
        for chrom, parts in collected.items()
    }
    return union, notes
