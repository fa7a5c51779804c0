"""Tab-separated text of the field - plain, gzip, bgzip or a stream - read as columns, with errors that name the line.

A whole file is split into columns by a few vectorised passes over its bytes (0.6 M rows in about 0.2 s). Header and
comment lines (`#`, `track`, `browser`), blank lines and CRLF line ends are accepted.
"""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.errors import InputError, suggestion

_TAB: Final = 9
_NEWLINE: Final = 10
_GZIP_MAGIC: Final = b"\x1f\x8b"
# The empty block that ends every bgzip file (SAM specification, 4.1.2): without it, blocks may be missing.
BGZIP_END: Final = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_HEADER_WORDS: Final = (b"#", b"track", b"browser")
_MAX_DIGITS: Final = 18


def read_bytes(path: Path) -> bytes:
    """The content of a file, inflated where it is gzip or bgzip; `-` reads standard input."""
    if str(path) == "-":
        data = sys.stdin.buffer.read()
    else:
        if not path.exists():
            raise InputError(path, "is not there", "check the path")
        if path.is_dir():
            raise InputError(path, "is a folder, expected a file", "name a file in it")
        try:
            data = path.read_bytes()
        except PermissionError:
            raise InputError(path, "may not be read", "check the file's permissions") from None
    if data[:2] == _GZIP_MAGIC:
        data = _inflated(data, path)
    elif path.suffix in (".gz", ".bgz"):
        raise InputError(path, f"is called {path.suffix} but is not gzip", "copy or download it again, or rename it")
    return data.removeprefix(_BYTE_ORDER_MARK)


def _inflated(data: bytes, path: Path) -> bytes:
    hint = "copy or download it again (`gzip -t` tests it)"
    if is_bgzip(data) and not data.endswith(BGZIP_END):
        raise InputError(path, "is a truncated bgzip file: its last block is missing", hint)
    try:
        return gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(path, "is a truncated or damaged gzip file", hint) from None


def is_bgzip(head: bytes) -> bool:
    """Whether a file's first 18 bytes are those of bgzip, which can be read at random places."""
    return head[:4] == BGZIP_END[:4] and head[12:14] == b"BC"


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(1-based line number, line without its end) of a small text file."""
    try:
        text = read_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(path, "is not text", "name a text file") from None
    return enumerate(text.splitlines(), start=1)


@dataclass(frozen=True)
class Table:
    """The data lines of a tab-separated file.

    Attributes:
        path: where it came from, for errors.
        data: all bytes of the file, uint8.
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
        """A column of integers; `InputError` for the first field that is none."""
        starts, ends = self.bounds[:, column, 0], self.bounds[:, column, 1]
        if len(starts) == 0:
            return np.empty(0, np.int64)
        negative = (ends > starts) & (self.data[np.minimum(starts, len(self.data) - 1)] == ord("-"))
        starts = starts + negative
        widths = ends - starts
        values = np.zeros(len(starts), dtype=np.int64)
        bad = (widths < 1) | (widths > _MAX_DIGITS)
        for place in range(min(int(widths.max()), _MAX_DIGITS)):
            present = place < widths
            digits = self.data[np.where(present, starts + place, 0)].astype(np.int64) - ord("0")
            bad |= present & ((digits < 0) | (digits > 9))
            values = np.where(present, values * 10 + digits, values)
        if bad.any():
            row = int(np.argmax(bad))
            raise self.error(
                row,
                f"{name} is {self.text(row, column)!r}, expected a whole number",
                "begin a header line with '#'" if row == 0 else "mend or remove the row",
            )
        return np.where(negative, -values, values)

    def floats(self, column: int, name: str) -> NDArray[np.float64]:
        """A column of numbers; `InputError` for the first field that is none."""
        texts = self.texts(column)
        try:
            return texts.astype(np.float64)
        except ValueError:
            for row in range(len(self)):
                try:
                    float(self.text(row, column))
                except ValueError:
                    raise self.error(
                        row, f"{name} is {self.text(row, column)!r}, expected a number", "mend or remove the row"
                    ) from None
            raise

    def texts(self, column: int) -> NDArray[np.bytes_]:
        """A column as fixed-width bytes, shape (rows,)."""
        starts, ends = self.bounds[:, column, 0], self.bounds[:, column, 1]
        width = max(int((ends - starts).max(initial=1)), 1)
        places = starts[:, None] + np.arange(width)
        letters = np.where(places < ends[:, None], self.data[np.minimum(places, len(self.data) - 1)], 0)
        return np.ascontiguousarray(letters.astype(np.uint8)).view(f"S{width}")[:, 0]

    def categories(self, column: int) -> tuple[list[str], NDArray[np.int64]]:
        """(distinct texts, index of each row's text among them)."""
        texts = self.texts(column)
        # Neighbouring rows mostly agree (files are sorted by chromosome); compare once per run, not once per row.
        run = np.ones(len(texts), dtype=bool)
        run[1:] = texts[1:] != texts[:-1]
        distinct, codes = np.unique(texts[run], return_inverse=True)
        return [name.decode("utf-8", "replace") for name in distinct], codes[np.cumsum(run) - 1]


def read_table(path: Path, num_columns: int, *, min_columns: int | None = None) -> Table:
    """Read the first `num_columns` tab-separated fields of every data line.

    Args:
        path: plain, gzip or bgzip file, or `-`.
        num_columns: fields to locate; later fields are ignored.
        min_columns: fewer fields in a line are an `InputError`; default `num_columns`.
    """
    return parse_table(read_bytes(path), path, num_columns, min_columns=min_columns)


def parse_table(content: bytes, path: Path, num_columns: int, *, min_columns: int | None = None) -> Table:
    """`read_table` for bytes at hand."""
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if not content.endswith(b"\n"):
        content += b"\n"
    data = np.frombuffer(content, dtype=np.uint8)
    line_ends = np.flatnonzero(data == _NEWLINE)
    line_starts = np.concatenate([[0], line_ends[:-1] + 1])
    kept = _data_lines(content, data, line_starts, line_ends)
    lines, line_starts, line_ends = kept + 1, line_starts[kept], line_ends[kept]

    tabs = np.flatnonzero(data == _TAB)
    first_tab = np.searchsorted(tabs, line_starts)
    widths = np.searchsorted(tabs, line_ends) - first_tab + 1
    bounds = np.empty((len(lines), num_columns, 2), dtype=np.int64)
    tabs = np.concatenate([tabs, [len(data)] * (num_columns + 1)])
    for column in range(num_columns):
        here = column < widths
        before = line_starts if column == 0 else tabs[first_tab + column - 1] + 1
        after = np.where(column < widths - 1, tabs[first_tab + column], line_ends)
        bounds[:, column, 0] = np.where(here, before, line_ends)
        bounds[:, column, 1] = np.where(here, after, line_ends)
    table = Table(path, data, lines, bounds, widths)

    least = num_columns if min_columns is None else min_columns
    if (widths < least).any():
        row = int(np.argmax(widths < least))
        found = data[line_starts[row] : line_ends[row]].tobytes().decode("utf-8", "replace")
        spaced = " " in found and widths[row] == 1
        hint = "separate the columns with tabs, not spaces" if spaced else "mend or remove the row"
        raise table.error(row, f"has {widths[row]} column(s), expected at least {least} separated by tabs", hint)
    return table


def _data_lines(
    content: bytes, data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Indices of the lines that are neither blank nor a header or comment."""
    initials = data[np.minimum(starts, len(data) - 1)]
    keep = ends > starts
    for row in np.flatnonzero(keep & np.isin(initials, np.frombuffer(b"#tb \t", dtype=np.uint8))):
        line = content[starts[row] : ends[row]]
        if not line.strip() or line.startswith(b"#") or line.split()[0] in _HEADER_WORDS:
            keep[row] = False
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
