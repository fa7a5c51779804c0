"""Submissions of the ENCODE-DREAM challenge: `{L|F|B}.TF.CELL.tab.gz`, one row for each of the benchmark's bins.

Four tab-separated columns (chr, start, stop, probability), no header, chromosomes in lexicographic order. Submissions
are scored row by row, so a file with any other row, or with one too few, is refused as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.errors import InputError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.bins import HELD_OUT_CHROMS, BenchmarkBins
from ebert_core.genome.intervals import Positions
from ebert_core.io.portions import read_portions
from ebert_core.io.submission_text import letters_at, place_letters
from ebert_core.io.text import Table
from ebert_core.vocabulary import BIN_BP

WHOLE_ROWS: Final = 60_519_747
"""Rows of a final (F) submission: all chromosomes of the challenge's test regions."""

_CHALLENGE: Final = Assembly.built_in("hg19")
_NAME: Final = re.compile(r"([LFB])\.([^.]+)\.([^.]+)\.tab(\.gz)?")
_COLUMNS: Final = ("chr", "start", "stop", "probability")

Floats = NDArray[np.float32]


def submission_name(path: Path) -> tuple[str, str, str] | None:
    """(round, TF, cell type) of a file called like a submission, or None.

    The round is L (leaderboard), F (final) or B (within cell type); TF and cell type hold no dot.
    """
    match = _NAME.fullmatch(path.name)
    return (match[1], match[2], match[3]) if match else None


def row_chroms(bins: BenchmarkBins, round_: str = "F") -> tuple[str, ...]:
    """The chromosomes of a submission in its rows' order, as the assembly spells them.

    All that have bins in round F, the held-out ones in L and B; of hg19, no others than the challenge's.
    """
    chroms = sorted(bins.chroms, key=spelled)
    if _is_hg19(bins.assembly):
        chroms = [chrom for chrom in chroms if spelled(chrom) in _CHALLENGE]
    return tuple(chrom for chrom in chroms if round_ == "F" or spelled(chrom) in HELD_OUT_CHROMS)


def submission_chroms(path: Path, bins: BenchmarkBins) -> tuple[str, ...]:
    """The chromosomes that a submission of this name must hold, in its rows' order.

    Raises:
        InputError: the name is not that of a submission, or `bins` has none of its chromosomes.
    """
    named = submission_name(path)
    if named is None:
        raise InputError(path, "is not called like a submission", "for example F.CTCF.PC-3.tab.gz")
    chroms = row_chroms(bins, named[0])
    if not chroms:
        raise InputError(
            path,
            f"holds {', '.join(HELD_OUT_CHROMS)}; the bins at hand are of {', '.join(bins.chroms) or 'no chromosome'}",
            "name the challenge's regions file, or a dataset that has these chromosomes",
        )
    return chroms


def spelled(chrom: str) -> str:
    """A chromosome as the challenge spells it: `1` is chr1."""
    return _CHALLENGE.resolve(chrom) or chrom


def _is_hg19(assembly: Assembly) -> bool:
    known = [(length, spelled(chrom)) for chrom, length in zip(assembly.chroms, assembly.lengths, strict=True)]
    shared = [(length, chrom) for length, chrom in known if chrom in _CHALLENGE]
    return bool(shared) and all(length == _CHALLENGE.length(chrom) for length, chrom in shared)


def read_submission(path: Path, bins: BenchmarkBins, keep: Iterable[str]) -> dict[str, Floats]:
    """The probabilities of a submission, after every row was compared with the bin that belongs there.

    Args:
        path: plain, gzip or bgzip; its name says which chromosomes it holds (`submission_chroms`).
        bins: the benchmark's.
        keep: chromosomes whose values are wanted; of the others only chr, start and stop are looked at.

    Returns:
        chromosome -> float32 of shape (N,), in the order of `bins.starts`; finite, not always in [0, 1]. A chromosome
        that the submission does not hold is absent.

    Raises:
        InputError: names the first line that is not the row that belongs there, or whose value is no finite number.
    """
    rows = _Rows(path, bins)
    wanted = set(keep)
    scores = {chrom: np.empty(rows.count(chrom), np.float32) for chrom in rows.chroms if chrom in wanted}
    number = 0
    for table in read_portions(path, len(_COLUMNS)):
        taken = 0
        while taken < len(table):
            if number == rows.total:
                raise _wrong_row(rows, table, taken, number)
            chrom, first = rows.at(number)
            some = _slice(table, taken, taken + rows.count(chrom) - first)
            good = _good(some, spelled(chrom), rows.starts(chrom)[first : first + len(some)], number)
            if chrom in scores:
                scores[chrom][first : first + good] = _values(_slice(some, 0, good))
            if good < len(some):
                raise _wrong_row(rows, some, good, number + good)
            taken, number = taken + len(some), number + len(some)
    if number < rows.total:
        raise InputError(
            path,
            f"the file ends, expected {rows.text(number)} and {rows.total:,} rows in all",
            "copy or download it again, or write it anew with every bin",
            line=number + 1,
        )
    return scores


class _Rows:
    """The rows that a submission must have, by number from 0."""

    def __init__(self, path: Path, bins: BenchmarkBins) -> None:
        self.path = path
        self.chroms = submission_chroms(path, bins)
        self._bins = bins
        self._ends = np.cumsum([bins.num_rows([chrom]) for chrom in self.chroms])
        self._held = ("", np.empty(0, np.int64))

    @property
    def total(self) -> int:
        return int(self._ends[-1])

    @property
    def others(self) -> tuple[str, ...]:
        """Chromosomes of the challenge that have bins and no row in this submission, as spelt in files."""
        return tuple(spelled(chrom) for chrom in row_chroms(self._bins) if chrom not in self.chroms)

    def count(self, chrom: str) -> int:
        return self._bins.num_rows([chrom])

    def at(self, number: int) -> tuple[str, int]:
        """(chromosome, place among its bins) of a row."""
        place = int(np.searchsorted(self._ends, number, side="right"))
        return self.chroms[place], number - (int(self._ends[place - 1]) if place else 0)

    def starts(self, chrom: str) -> Positions:
        if self._held[0] != chrom:
            self._held = (chrom, self._bins.starts(chrom))
        return self._held[1]

    def text(self, number: int) -> str:
        """A row as an error shows it."""
        chrom, place = self.at(number)
        start = int(self.starts(chrom)[place])
        return f"{spelled(chrom)} {start} {start + BIN_BP}"


def _slice(table: Table, first: int, end: int) -> Table:
    here = slice(first, end)
    return replace(table, lines=table.lines[here], bounds=table.bounds[here], widths=table.widths[here])


def _good(table: Table, chrom: str, starts: Positions, number: int) -> int:
    """How many rows, from the first on, are those of the bins at `starts`; `number` rows came before."""
    # A line number that jumps is a blank line or a comment, which other files may have.
    good = (table.lines == np.arange(number + 1, number + 1 + len(table))) & (table.widths == len(_COLUMNS))
    for here, expected in place_letters(chrom, starts):
        found = letters_at(table.data, table.bounds[here, 0, 0], expected.shape[1])
        good[here] &= (found == expected).all(axis=1)
    return len(table) if good.all() else int(np.argmin(good))


def _values(table: Table) -> Floats:
    try:
        values = table.floats(3, _COLUMNS[3])
    except InputError as error:
        # A row before may hold a number that is not finite.
        _values(_slice(table, 0, int(np.searchsorted(table.lines, error.line or 0))))
        raise
    with np.errstate(over="ignore"):
        scores = values.astype(np.float32)
    if not (finite := np.isfinite(scores)).all():
        row = int(np.argmin(finite))
        raise table.error(
            row, f"probability is {table.text(row, 3)!r}, expected a finite number", "every bin needs a score"
        )
    return scores


def _wrong_row(rows: _Rows, table: Table, row: int, number: int) -> InputError:
    """What to say of the first wrong row; `number` rows were right."""
    expected = rows.text(number) if number < rows.total else f"the end of the file after {rows.total:,} rows"
    if int(table.lines[row]) != number + 1:
        return InputError(
            rows.path,
            f"is blank, a comment or a header, expected {expected}",
            "a submission holds nothing but rows",
            line=number + 1,
        )
    found = [table.text(row, column) for column in range(min(int(table.widths[row]), len(_COLUMNS)))]
    if number < rows.total and table.widths[row] != len(_COLUMNS):
        return table.error(
            row,
            f"has {table.widths[row]} column(s), expected {len(_COLUMNS)}: {', '.join(_COLUMNS)}",
            "separate the columns with tabs, not spaces" if " " in found[0] else "mend the row",
        )
    return table.error(
        row, f"found {' '.join(found[:3])[:80]}, expected {expected}", _likely_cause(rows, found, number)
    )


def _likely_cause(rows: _Rows, found: list[str], number: int) -> str:
    """Why a row of four columns may stand where another belongs."""
    rule = "rows are the benchmark's bins in their order: none left out, none added"
    if number and " ".join(found[:3]) == rows.text(number - 1):
        return "the row is given twice"
    if number == rows.total:
        return rule
    name, start, stop = found[0], _whole_number(found[1]), _whole_number(found[2])
    known = [spelled(chrom) for chrom in rows.chroms]
    if name not in known:
        if number == 0 and start is None and stop is None:
            return "a submission has no header line"
        if name in rows.others:
            return f"this submission holds {', '.join(known)} only; F.TF.CELL holds all chromosomes"
        if spelled(name) in known:
            return f"write {spelled(name)} for {name}"
        return f"the bins are of {', '.join(known[:4])}{' ...' if len(known) > 4 else ''}: is it of other regions?"
    chrom, place = rows.at(number)
    if name != spelled(chrom):
        return "rows are missing, or chromosomes are not in lexicographic order (chr1, chr10, ..., chr19, chr2, chr20)"
    if start is None or stop is None:
        return "write start and stop as whole numbers (in R: options(scipen = 999))"
    there = np.flatnonzero(rows.starts(chrom) == start)
    return f"{there[0] - place:,} row(s) are missing before it" if len(there) and there[0] > place else rule


def _whole_number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
