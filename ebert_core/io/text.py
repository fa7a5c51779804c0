"""Tab-separated text of the field - plain, gzip, bgzip or a stream - read as columns, with errors that name the line.

A whole file, or a portion of it, is split into columns by a few vectorised passes over its bytes. Header and comment
lines (`#`, `track`, `browser`), blank lines and CRLF line ends are accepted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.errors import InputError, suggestion
from ebert_core.io.numerals import PADDING, decimals, digits, words_before
from ebert_core.io.streams import BGZIP_END, is_bgzip, read_bytes

__all__ = [
    "BGZIP_END", "Table", "is_bgzip", "parse_table", "read_bytes", "read_lines", "read_sheet", "read_table",
    "unix_lines",
]  # fmt: skip

_TAB: Final = 9
_NEWLINE: Final = 10
_HEADER_WORDS: Final = (b"#", b"track", b"browser")
# What a blank, comment or header line may begin with; at most one line in many does.
_MAY_BE_NO_DATA: Final = np.isin(np.arange(256), np.frombuffer(b"#tb \t\n", dtype=np.uint8))
_WORD: Final = 8


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(1-based line number, line without its end) of a small text file."""
    try:
        text = read_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(path, "is not text", "name a text file") from None
    return enumerate(text.splitlines(), start=1)


@dataclass(frozen=True)
class Table:
    """The data lines of a tab-separated file, or of a portion of one.

    Attributes:
        path: where it came from, for errors.
        data: the bytes, uint8, after a few spaces that `ebert_core.io.numerals` needs.
        lines: 1-based line number of each row, shape (rows,).
        bounds: start and end byte of each of the first `num_columns` fields, shape (rows, num_columns, 2); a field
            that a row lacks is empty.
        widths: how many fields each row has, shape (rows,).
    """

    path: Path
    data: NDArray[np.uint8]
    lines: NDArray[np.int64]
    bounds: NDArray[np.int64]
    widths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lines)

    def error(self, row: int, problem: str, hint: str = "") -> InputError:
        """An error about one row."""
        return InputError(self.path, problem, hint, line=int(self.lines[row]))

    def text(self, row: int, column: int) -> str:
        """One field."""
        start, end = self.bounds[row, column]
        return self.data[start:end].tobytes().decode("utf-8", "replace")

    def integers(self, column: int, name: str) -> NDArray[np.int64]:
        """A column of whole numbers of up to 18 digits; `InputError` for the first field that is none."""
        starts, ends = self.bounds[:, column, 0], self.bounds[:, column, 1]
        negative = (self.data[starts] == ord("-")) & (ends > starts)
        values, good = digits(self.data, starts + negative, ends)
        if not good.all():
            row = int(np.argmin(good))
            raise self.error(
                row,
                f"{name} is {self.text(row, column)!r}, expected a whole number",
                "begin a header line with '#'" if row == 0 else "mend or remove the row",
            )
        signed = values.view(np.int64)
        return np.where(negative, -signed, signed) if negative.any() else signed

    def floats(self, column: int, name: str) -> NDArray[np.float64]:
        """A column of numbers; `InputError` for the first field that is none."""
        values, good = decimals(self.data, self.bounds[:, column, 0], self.bounds[:, column, 1])
        if len(rows := np.flatnonzero(~good)):
            texts = self.texts(column, rows)
            # numpy reads 1_0 as 10, as Python does.
            if (texts.view(np.uint8) == ord("_")).any():
                self._refuse_no_number(column, name, rows)
            try:
                values[rows] = texts.astype(np.float64)
            except ValueError:
                self._refuse_no_number(column, name, rows)
                raise
        return values

    def _refuse_no_number(self, column: int, name: str, rows: NDArray[np.int64]) -> None:
        for row in rows.tolist():
            text = self.text(row, column)
            if not _is_number(text):
                raise self.error(row, f"{name} is {text!r}, expected a number", "mend or remove the row")

    def texts(self, column: int, rows: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.bytes_]:
        """A column, or some rows of it, as fixed-width bytes, shape (rows,)."""
        starts, ends = self.bounds[rows, column, 0], self.bounds[rows, column, 1]
        width = max(int((ends - starts).max(initial=1)), 1)
        places = starts[:, None] + np.arange(width)
        letters = np.where(places < ends[:, None], self.data[np.minimum(places, len(self.data) - 1)], 0)
        return np.ascontiguousarray(letters.astype(np.uint8)).view(f"S{width}")[:, 0]

    def categories(self, column: int) -> tuple[list[str], NDArray[np.int64]]:
        """(distinct texts, index of each row's text among them)."""
        # Neighbouring rows mostly agree (files are sorted by chromosome): look closer once per run, not once per row.
        begins = self._runs(column)
        distinct, codes = np.unique(self.texts(column, begins), return_inverse=True)
        lengths = np.diff(begins, append=len(self))
        return [name.decode("utf-8", "replace") for name in distinct], np.repeat(codes, lengths)

    def _runs(self, column: int) -> NDArray[np.int64]:
        """First row of each run of rows that have the same text."""
        starts, ends = self.bounds[:, column, 0], self.bounds[:, column, 1]
        widths = ends - starts
        changed = np.ones(len(self), dtype=bool)
        if widths.max(initial=0) <= _WORD:
            words = words_before(self.data, ends, widths)
            changed[1:] = (words[1:] != words[:-1]) | (widths[1:] != widths[:-1])
        else:
            texts = self.texts(column)
            changed[1:] = texts[1:] != texts[:-1]
        return np.flatnonzero(changed)


def _is_number(text: str) -> bool:
    """Whether a field is a number in ASCII; Python also takes 1_0, other scripts' digits and their spaces."""
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and "_" not in text


def read_table(path: Path, num_columns: int, *, min_columns: int | None = None) -> Table:
    """Read the first `num_columns` tab-separated fields of every data line.

    Args:
        path: plain, gzip or bgzip file, or `-`.
        num_columns: fields to locate; later fields are ignored.
        min_columns: fewer fields in a line are an `InputError`; default `num_columns`.
    """
    return parse_table(read_bytes(path), path, num_columns, min_columns=min_columns)


def unix_lines(content: bytes) -> bytes:
    """The text with every line end as a single newline."""
    return content.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in content else content


def parse_table(
    content: bytes, path: Path, num_columns: int, *, min_columns: int | None = None, first_line: int = 1
) -> Table:
    """`read_table` for bytes at hand, of which the first line has the number `first_line`."""
    content = unix_lines(content)
    end = b"" if content.endswith(b"\n") else b"\n"
    data = np.frombuffer(b"".join((b" " * PADDING, content, end)), dtype=np.uint8)
    # Tabs and newlines; all else up to there is rare.
    separators = np.flatnonzero(data <= _NEWLINE)
    kinds = data[separators]
    if ((kinds != _TAB) & (kinds != _NEWLINE)).any():
        known = (kinds == _TAB) | (kinds == _NEWLINE)
        separators, kinds = separators[known], kinds[known]
    last = np.flatnonzero(kinds == _NEWLINE)
    line_starts = np.concatenate([[PADDING], separators[last[:-1]] + 1])
    kept = _data_lines(data, line_starts, separators[last])

    first = np.concatenate([[0], last[:-1] + 1])
    widths = last - first + 1
    bounds = _regular_bounds(separators, line_starts, widths, num_columns)
    if bounds is None:
        bounds = _bounds(separators, line_starts, first, widths, num_columns)
    lines = np.arange(first_line, first_line + len(last))
    if len(kept) < len(last):
        lines, bounds, widths = lines[kept], bounds[kept], widths[kept]
    table = Table(path, data, lines, bounds, widths)

    least = num_columns if min_columns is None else min_columns
    if len(widths) and widths.min() < least:
        row = int(np.argmax(widths < least))
        spaced = " " in table.text(row, 0) and widths[row] == 1
        hint = "separate the columns with tabs, not spaces" if spaced else "mend or remove the row"
        raise table.error(row, f"has {widths[row]} column(s), expected at least {least} separated by tabs", hint)
    return table


def _regular_bounds(
    separators: NDArray[np.int64], line_starts: NDArray[np.int64], widths: NDArray[np.int64], num_columns: int
) -> NDArray[np.int64] | None:
    """`_bounds` where every line has the same number of fields; else None."""
    width = int(widths[0])
    if widths.min() != width or widths.max() != width:
        return None
    fields = separators.reshape(len(widths), width)
    there = min(width, num_columns)
    bounds = np.empty((len(widths), num_columns, 2), dtype=np.int64)
    bounds[:, 0, 0] = line_starts
    bounds[:, 1:there, 0] = fields[:, : there - 1] + 1
    bounds[:, :there, 1] = fields[:, :there]
    bounds[:, there:] = fields[:, -1:, None]
    return bounds


def _bounds(
    separators: NDArray[np.int64],
    line_starts: NDArray[np.int64],
    first: NDArray[np.int64],
    widths: NDArray[np.int64],
    num_columns: int,
) -> NDArray[np.int64]:
    """Start and end of each field; `first` is each line's first separator."""
    line_ends = separators[first + widths - 1]
    bounds = np.empty((len(widths), num_columns, 2), dtype=np.int64)
    for column in range(num_columns):
        here = column < widths
        place = np.where(here, first + column, first)
        before = line_starts if column == 0 else separators[place - 1] + 1
        bounds[:, column, 0] = np.where(here, before, line_ends)
        bounds[:, column, 1] = np.where(here, separators[place], line_ends)
    return bounds


def _data_lines(data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices of the lines that are neither blank nor a header or comment."""
    keep = np.ones(len(starts), dtype=bool)
    for row in np.flatnonzero(_MAY_BE_NO_DATA[data[starts]]):
        line = data[starts[row] : ends[row]].tobytes()
        keep[row] = bool(line.strip()) and not line.startswith(b"#") and line.split()[0] not in _HEADER_WORDS
    return np.flatnonzero(keep)


def read_sheet(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> list[tuple[int, dict[str, str]]]:
    """A small TSV with a header line: (line number, row by column name) for every data row.

    Raises:
        InputError: a required column is missing, given twice or empty in a row, an unknown one is there, or a row has
            another number of fields.
    """
    rows: list[tuple[int, dict[str, str]]] = []
    header: list[str] | None = None
    for number, line in read_lines(path):
        if not line.strip() or line.startswith("#"):
            continue
        fields = [field.strip() for field in line.split("\t")]
        if header is None:
            header = fields
            if missing := [name for name in columns if name not in header]:
                raise InputError(
                    path,
                    f"has no column {missing[0]!r}, expected {', '.join([*columns, *optional])}",
                    "the first line names the columns, separated by tabs",
                    line=number,
                )
            if twice := [name for name in header if header.count(name) > 1]:
                raise InputError(path, f"has the column {twice[0]!r} twice", "keep one of the two", line=number)
            if extra := [name for name in header if name not in (*columns, *optional)]:
                raise InputError(
                    path,
                    f"has an unknown column {extra[0]!r}, expected {', '.join([*columns, *optional])}",
                    suggestion(extra[0], (*columns, *optional)) or "remove the column",
                    line=number,
                )
            continue
        if len(fields) != len(header):
            raise InputError(
                path,
                f"has {len(fields)} field(s), the header has {len(header)}",
                "separate the fields by single tabs",
                line=number,
            )
        row = dict(zip(header, fields, strict=True))
        if empty := [name for name in columns if not row[name]]:
            raise InputError(path, f"has no {empty[0]} in this row", "fill in every required column", line=number)
        rows.append((number, row))
    if not rows:
        raise InputError(path, "has no rows", f"expected a header line ({', '.join(columns)}) and one line per file")
    return rows
