"""Scores in text: bedGraph, BED4, tab, BED with a score column, narrowPeak - read once, then asked by chromosome.

Two kinds of file exist. Where no two rows overlap, the rows are a signal along the chromosome. Where they do, rows of
200 bp that begin at a multiple of 50 are bins (the challenge's submissions), and only the rest is signal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.errors import InputError
from ebert_core.genome.assembly import Assembly, likely_assembly
from ebert_core.genome.intervals import Positions
from ebert_core.io.portions import read_portions, skip_first
from ebert_core.io.text import Table
from ebert_core.vocabulary import BIN_BP, STRIDE_BP

_HEADER_WORDS: Final = {"start", "chromstart", "begin"}
_STRANDS: Final = {"+", "-", "."}
_NAME, _SCORE, _STRAND, _SIGNAL = 3, 4, 5, 6

Floats = NDArray[np.float32]
Places = NDArray[np.signedinteger[Any]]


@dataclass(frozen=True)
class ChromScores:
    """The scores of one chromosome.

    Attributes:
        bins, bin_scores: 200-bp bins given as such, sorted by start, shape (B,); empty where the file is a signal.
        starts, ends, scores: disjoint intervals, sorted, shape (R,).

    Positions are int32, int64 on chromosomes of 2^31 bp and more.
    """

    bins: Places
    bin_scores: Floats
    starts: Places
    ends: Places
    scores: Floats

    def at_bins(self, starts: Positions) -> Floats:
        """The scores of the bins that the file gives as such, NaN for others; shape of `starts`."""
        if np.array_equal(self.bins, starts):
            return self.bin_scores.copy()
        out = np.full(len(starts), np.nan, np.float32)
        if len(self.bins):
            place = np.minimum(np.searchsorted(self.bins, starts), len(self.bins) - 1)
            hit = self.bins[place] == starts
            out[hit] = self.bin_scores[place[hit]]
        return out

    def mean_over(self, starts: Positions, ends: Positions) -> Floats:
        """The mean of the signal over the bp of each window that have one, NaN where none has; shape of `starts`."""
        total, covered = np.zeros(len(starts)), np.zeros(len(starts), np.int64)
        for window, piece, overlap in self._pieces(starts, ends):
            total[window] += overlap * self.scores[piece].astype(np.float64)
            covered[window] += overlap
        # One piece of constant value: bp x value / bp is that value exactly, as 53 bits hold the product.
        return np.where(covered > 0, total / np.maximum(covered, 1), np.nan).astype(np.float32)

    def max_over(self, starts: Positions, ends: Positions) -> Floats:
        """The highest value of the signal in each window, NaN where there is none; shape of `starts`."""
        out = np.full(len(starts), np.nan, np.float32)
        for window, piece, _ in self._pieces(starts, ends):
            out[window] = np.fmax(out[window], self.scores[piece])
        return out

    def _pieces(
        self, starts: Positions, ends: Positions
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
        """The k-th interval in each window that has so many, for k = 0, 1, ...: (windows, intervals, overlap in bp)."""
        first = np.searchsorted(self.ends, starts, side="right")
        last = np.searchsorted(self.starts, ends, side="left")
        for k in range(int((last - first).max(initial=0))):
            window = np.flatnonzero(first + k < last)
            piece = first[window] + k
            yield (
                window,
                piece,
                np.minimum(ends[window], self.ends[piece]) - np.maximum(starts[window], self.starts[piece]),
            )


@dataclass(frozen=True)
class ScoreTable:
    """All scores of a file.

    Attributes:
        chroms: assembly name -> scores; a chromosome without any row is absent.
        column: which column holds the score, in words.
        dropped: rows per chromosome name that the assembly lacks.
        renamed: one example 'file name -> assembly name' where spellings differed, or ''.
    """

    chroms: dict[str, ChromScores]
    column: str
    dropped: dict[str, int]
    renamed: str


def read_score_table(path: Path, assembly: Assembly) -> ScoreTable:
    """Read a text file of scores; plain, gzip, bgzip or `-`.

    The score is column 7 (signalValue) of a narrowPeak file, column 5 of a BED with a strand in column 6 or with a name
    in column 4, else column 4. A first line that names columns is accepted. Rows on chromosomes that the assembly lacks
    are counted and left out.

    Raises:
        InputError: no row, no score column, a score that is no finite number, a row given twice, rows that overlap and
            are no 200-bp bins, an interval that is not on its chromosome, or no chromosome in common.
    """
    column, position = "", 0
    rows: dict[str, _Rows] = {}
    for table in _tables(path):
        if not column:
            position, column = _score_column(table, path)
        if (narrow := table.widths <= position).any():
            row = int(np.argmax(narrow))
            raise table.error(
                row,
                f"has {table.widths[row]} column(s), the score is in column {position + 1}",
                "mend or remove the row",
            )
        names, codes, starts, ends = _intervals(table, assembly)
        scores = _scores(table, position)
        for code, name in enumerate(names):
            here = np.flatnonzero(codes == code) if len(names) > 1 else slice(None)
            kept = rows.setdefault(name, _Rows(assembly.resolve(name), assembly))
            kept.add(starts[here], ends[here], table.lines[here], scores[here])
    if not rows:
        raise InputError(path, "has no data lines", "expected rows of chrom, start, end and score")
    if not any(some.chrom for some in rows.values()):
        raise InputError(
            path,
            f"names chromosomes such as {next(iter(rows))!r}; the genome has {', '.join(assembly.chroms[:4])}",
            "the two share no chromosome: check that both are of the same assembly",
        )
    chroms: dict[str, ChromScores] = {}
    for name, some in rows.items():
        if some.chrom in chroms:
            raise InputError(path, f"calls {some.chrom} by two names, one of them {name!r}", "use one spelling")
        if some.chrom:
            chroms[some.chrom] = _lay(path, *some.joined())
    return ScoreTable(
        chroms,
        column,
        {name: some.count for name, some in rows.items() if not some.chrom},
        next((f"{name} -> {some.chrom}" for name, some in rows.items() if some.chrom and some.chrom != name), ""),
    )


class _Rows:
    """The rows of one chromosome, collected by the portion; those of one that the assembly lacks are only counted."""

    def __init__(self, chrom: str | None, assembly: Assembly) -> None:
        self.chrom = chrom
        self.count = 0
        wide = chrom is not None and assembly.length(chrom) > np.iinfo(np.int32).max
        self._types = (*[np.int64 if wide else np.int32] * 2, np.uint32, np.float32)
        self._portions: list[list[NDArray[Any]]] = []

    def add(self, *columns: NDArray[Any]) -> None:
        """Starts, ends, line numbers and scores, of shape (rows,)."""
        self.count += len(columns[0])
        if self.chrom:
            self._portions.append([column.astype(kind) for column, kind in zip(columns, self._types, strict=True)])

    def joined(self) -> tuple[Places, Places, NDArray[np.uint32], Floats]:
        """The columns; what was collected is let go."""
        portions, self._portions = self._portions, []
        starts, ends, lines, scores = (np.concatenate(columns) for columns in zip(*portions, strict=True))
        return starts, ends, lines, scores


def _tables(path: Path) -> Iterator[Table]:
    """The file in portions, without a first line that names columns."""
    first = True
    for table in read_portions(path, _SIGNAL + 1):
        if first and table.text(0, 1).casefold() in _HEADER_WORDS:
            table = skip_first(table)
        if len(table):
            first = False
            yield table


def _score_column(table: Table, path: Path) -> tuple[int, str]:
    """(0-based column of the score, its name), told from the file's name and its first row."""
    fields = [table.text(0, column) for column in range(min(int(table.widths[0]), _SIGNAL + 1))]
    if len(fields) < _NAME + 1:
        spaced = " " in fields[0]
        hint = "separate the columns with tabs" + (", not spaces" if spaced else "; a bigWig is called .bw or .bigWig")
        raise table.error(0, f"has {len(fields)} column(s), expected chrom, start, end and a score", hint)
    stranded = len(fields) > _STRAND and fields[_STRAND] in _STRANDS
    if len(fields) > _SIGNAL and stranded and (".narrowpeak" in path.name.casefold() or table.widths[0] == 10):
        return _SIGNAL, "signalValue (column 7)"
    if stranded or (len(fields) > _SCORE and not _is_number(fields[_NAME])):
        return _SCORE, "score (column 5)"
    return _NAME, "column 4"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _scores(table: Table, column: int) -> Floats:
    values = table.floats(column, "score")
    with np.errstate(over="ignore"):
        scores = values.astype(np.float32)
    if not (finite := np.isfinite(scores)).all():
        row = int(np.argmin(finite))
        raise table.error(
            row, f"score is {table.text(row, column)!r}, expected a finite number", "leave out rows without a score"
        )
    return scores


def _intervals(table: Table, assembly: Assembly) -> tuple[list[str], NDArray[np.int64], Positions, Positions]:
    """(names of chromosomes, index of each row's name among them, start, end)."""
    names, codes = table.categories(0)
    starts, ends = table.integers(1, "start"), table.integers(2, "end")
    limit = np.iinfo(np.int64).max
    lengths = np.array([assembly.length(chrom) if (chrom := assembly.resolve(name)) else limit for name in names])
    if (bad := (starts < 0) | (ends <= starts) | (ends > lengths[codes])).any():
        row = int(np.argmax(bad))
        length = lengths[codes[row]]
        other = likely_assembly({name: int(ends[codes == code].max()) for code, name in enumerate(names)})
        raise table.error(
            row,
            f"{names[codes[row]]}:{starts[row]:,}-{ends[row]:,} is no interval on a chromosome of {length:,} bp"
            if length < limit
            else f"{starts[row]:,}-{ends[row]:,} is no interval",
            f"the assembly is {assembly.name}{f', the file looks like {other}' if other else ''}: "
            "use predictions on the same one, or mend the row"
            if ends[row] > length
            else "intervals are 0-based and half-open: 0 <= start < end",
        )
    return names, codes, starts, ends


def _lay(path: Path, starts: Places, ends: Places, lines: NDArray[np.uint32], scores: Floats) -> ChromScores:
    """Sort one chromosome's rows and tell bins from signal."""
    if not ((starts[1:] > starts[:-1]) | ((starts[1:] == starts[:-1]) & (ends[1:] >= ends[:-1]))).all():
        order = np.lexsort((ends, starts))
        starts, ends, lines, scores = starts[order], ends[order], lines[order], scores[order]
    if (twice := (starts[1:] == starts[:-1]) & (ends[1:] == ends[:-1])).any():
        row = int(np.argmax(twice))
        first, second = sorted((int(lines[row]), int(lines[row + 1])))
        raise InputError(
            path,
            f"repeats the interval {starts[row]:,}-{ends[row]:,} of line {first:,}",
            "keep one row per interval",
            line=second,
        )
    nothing, no_scores = starts[:0], scores[:0]
    if _first_clash(starts, ends) is None:
        return ChromScores(nothing, no_scores, starts, ends, scores)
    is_bin = (ends - starts == BIN_BP) & (starts % STRIDE_BP == 0)
    if is_bin.all():
        return ChromScores(starts, scores, nothing, nothing, no_scores)
    rest = ~is_bin
    if (row_or_none := _first_clash(starts[rest], ends[rest])) is not None:
        row = int(np.flatnonzero(rest)[row_or_none])
        raise InputError(
            path,
            f"{starts[row]:,}-{ends[row]:,} overlaps another row",
            "rows may overlap only where they are 200-bp bins that begin at a multiple of 50; merge the others first",
            line=int(lines[row]),
        )
    return ChromScores(starts[is_bin], scores[is_bin], starts[rest], ends[rest], scores[rest])


def _first_clash(starts: Places, ends: Places) -> int | None:
    """Index of the first sorted interval that begins before its predecessor ends, or None."""
    clash = starts[1:] < np.maximum.accumulate(ends)[:-1]
    return int(np.argmax(clash)) + 1 if clash.any() else None
