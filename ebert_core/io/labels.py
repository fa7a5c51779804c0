"""Label tables of the ENCODE-DREAM challenge: `chr start stop CELL1 CELL2 ...`, one letter U, A or B per cell type."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.errors import InputError, suggestion
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.intervals import Positions
from ebert_core.genome.labels import AMBIGUOUS, BOUND, LABEL_LETTERS, UNBOUND
from ebert_core.io.portions import read_portions, skip_first
from ebert_core.io.streams import stream
from ebert_core.io.submission_text import place_letters
from ebert_core.io.text import Table
from ebert_core.vocabulary import BIN_BP, STRIDE_BP

HEADER: Final = ("chr", "start", "stop")
_SORT: Final = "sort by chr and start, and keep one row per bin"
_ROWS_AT_ONCE: Final = 1 << 18

Labels = NDArray[np.uint8]
Places = NDArray[np.int64]


def _codes() -> NDArray[np.uint8]:
    codes = np.zeros(256, np.uint8)
    for code in (UNBOUND, AMBIGUOUS, BOUND):
        codes[ord(LABEL_LETTERS[code])] = code
    return codes


_CODES: Final = _codes()
_LETTERS: Final = np.frombuffer(LABEL_LETTERS.encode(), dtype=np.uint8)
# On rows so much alike, zlib's higher levels take several times as long and hardly save a byte.
_GZIP_LEVEL: Final = 4


@dataclass(frozen=True)
class LabelTable:
    """The labels of one cell type.

    Attributes:
        cell: as the table spells it.
        cells: every cell type of the table.
        chroms: assembly name -> (bin starts, rising; label codes, uint8), both of shape (N,).
        dropped: rows per chromosome name that the assembly lacks.
    """

    cell: str
    cells: tuple[str, ...]
    chroms: dict[str, tuple[Positions, Labels]]
    dropped: dict[str, int]


def label_table_cells(path: Path) -> tuple[str, ...]:
    """The cell types that a label table names in its header; reads no more than that."""
    if not path.is_file():
        what = "is no regular file, and a label table is read twice" if path.exists() or str(path) == "-" else ""
        raise InputError(path, what or "is not there", "name the label table's file")
    fields = _first_line(path).decode("utf-8", "replace").rstrip("\r").split("\t")
    if tuple(fields[: len(HEADER)]) != HEADER or len(fields) == len(HEADER):
        raise InputError(
            path,
            f"begins with {' '.join(fields[:4])!r}, expected {' '.join(HEADER)} and the cell types",
            "a label table has a header line, tab-separated",
            line=1,
        )
    cells = fields[len(HEADER) :]
    if not all(map(str.strip, cells)):
        raise InputError(path, "has a column without a name", "name its cell type, or remove the column", line=1)
    if len({_fold(name) or name for name in cells}) < len(cells):
        raise InputError(path, f"names a cell type twice ({', '.join(cells)})", "keep one column of each", line=1)
    return tuple(cells)


def _first_line(path: Path) -> bytes:
    begun = b""
    for piece in stream(path):
        begun += piece
        if b"\n" in piece:
            break
    return begun.partition(b"\n")[0]


class LabelTableReader:
    """A label table, read a portion at a time.

    Attributes:
        path: the file.
        cells: the cell types of its columns, as it spells them.
        dropped: rows per chromosome name that the assembly lacks; complete when all rows were read.

    Raises:
        InputError: the file is missing or has no header of a label table.
    """

    def __init__(self, path: Path, assembly: Assembly) -> None:
        self.path = path
        self.cells = label_table_cells(path)
        self.dropped: dict[str, int] = {}
        self._assembly = assembly

    def rows(self, columns: Sequence[int] | None = None) -> Iterator[tuple[str, Positions, Labels]]:
        """The rows in portions of one chromosome.

        Args:
            columns: which cell types' labels to read, by place in `cells`; the others are not looked at. Default: all.

        Yields:
            (the assembly's name of the chromosome; bin starts, rising, shape (n,); label codes 1 to 3, shape
            (n, columns)). Starts rise from portion to portion of a chromosome, too.

        Raises:
            InputError: a row that is no 200-bp bin beginning at a multiple of 50 on its chromosome, rows out of order
                or given twice, a label other than U, A and B, or no row on the assembly's chromosomes.
        """
        wanted = np.arange(len(self.cells)) if columns is None else np.asarray(columns)
        self.dropped = {}
        last: dict[str, int] = {}
        for number, table in enumerate(read_portions(self.path, len(HEADER) + len(self.cells))):
            rows = skip_first(table) if number == 0 else table
            for name, here, starts, labels in self._by_chrom(rows, len(HEADER) + wanted):
                chrom = self._assembly.resolve(name)
                if chrom is None:
                    self.dropped[name] = self.dropped.get(name, 0) + len(starts)
                    continue
                if starts[0] <= last.get(chrom, -1):
                    raise rows.error(int(here[0]), f"{name}:{starts[0]:,} is out of order or given twice", _SORT)
                last[chrom] = int(starts[-1])
                yield chrom, starts, labels
        if not last:
            known = ", ".join(self._assembly.chroms[:4])
            raise InputError(self.path, f"has no row on {known}", "is it of the same assembly?")

    def _by_chrom(self, rows: Table, columns: Places) -> Iterator[tuple[str, Places, Positions, Labels]]:
        """(chromosome, rows, starts, labels) for each chromosome of a portion, checked."""
        if len(rows) == 0:
            return
        if (narrow := rows.widths != len(HEADER) + len(self.cells)).any():
            row = int(np.argmax(narrow))
            raise rows.error(
                row,
                f"has {rows.widths[row]} columns, the header has {len(HEADER) + len(self.cells)}",
                "mend or remove the row",
            )
        names, index = rows.categories(0)
        starts = self._bins(rows, names, index)
        labels = _label_codes(rows, columns)
        for code, name in enumerate(names):
            here = np.flatnonzero(index == code) if len(names) > 1 else np.arange(len(rows))
            if (wrong := np.diff(starts[here]) <= 0).any():
                row = int(here[int(np.argmax(wrong)) + 1])
                raise rows.error(row, f"{name}:{starts[row]:,} is out of order or given twice", _SORT)
            yield (name, here, starts, labels) if len(names) == 1 else (name, here, starts[here], labels[here])

    def _bins(self, rows: Table, names: Sequence[str], index: Places) -> Positions:
        """Starts of the rows, each of which must be a bin."""
        starts, ends = rows.integers(1, "start"), rows.integers(2, "stop")
        resolved = [self._assembly.resolve(name) for name in names]
        lengths = np.array([self._assembly.length(chrom) if chrom else 1 << 62 for chrom in resolved])
        bad = (ends - starts != BIN_BP) | (starts % STRIDE_BP != 0) | (starts < 0) | (ends > lengths[index])
        if bad.any():
            row = int(np.argmax(bad))
            raise rows.error(
                row,
                f"{names[index[row]]}:{starts[row]:,}-{ends[row]:,} is no bin of the benchmark",
                f"bins are {BIN_BP} bp, begin at multiples of {STRIDE_BP} and end within the chromosome "
                f"({self._assembly.name})",
            )
        return starts


def _label_codes(rows: Table, columns: Places) -> Labels:
    """Label codes of some columns, shape (rows, columns)."""
    starts, ends = rows.bounds[:, columns, 0], rows.bounds[:, columns, 1]
    codes = _CODES[rows.data[starts]]
    if (bad := (codes == 0) | (ends - starts != 1)).any():
        row, place = (int(index[0]) for index in np.nonzero(bad))
        raise rows.error(
            row, f"label is {rows.text(row, int(columns[place]))!r}, expected U, A or B", "mend or remove the row"
        )
    return codes


def read_label_table(path: Path, assembly: Assembly, cell: str) -> LabelTable:
    """The labels of one cell type; its name's case and punctuation do not count.

    Raises:
        InputError: no such cell type, or as `LabelTableReader`.
    """
    reader = LabelTableReader(path, assembly)
    by_folded = {_fold(name): name for name in reader.cells}
    if _fold(cell) not in by_folded:
        hint = suggestion(cell, reader.cells) or f"it has {', '.join(reader.cells)}"
        raise InputError(path, f"has no cell type {cell!r}", hint, line=1)
    spelled = by_folded[_fold(cell)]
    parts: dict[str, list[tuple[NDArray[np.int32], Labels]]] = {}
    for chrom, starts, labels in reader.rows([reader.cells.index(spelled)]):
        parts.setdefault(chrom, []).append((starts.astype(np.int32), labels[:, 0]))
    joined = {}
    for chrom in list(parts):
        portions = parts.pop(chrom)
        starts = np.concatenate([starts for starts, _ in portions], dtype=np.int64)
        joined[chrom] = starts, np.concatenate([labels for _, labels in portions])
    return LabelTable(spelled, reader.cells, joined, reader.dropped)


def _fold(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def write_label_table(
    path: Path,
    cells: Sequence[str],
    chroms: Mapping[str, tuple[Positions, Labels]],
    *,
    compressed: bool | None = None,
) -> None:
    """Write a label table; chromosomes in lexicographic order, as the challenge has them.

    Args:
        path: where to; use `ebert_core.artifacts.publish_file`.
        cells: names of the label columns.
        chroms: chromosome -> (bin starts, rising, of shape (N,); label codes 1 to 3 of shape (N, len(cells))). One is
            asked for at a time.
        compressed: write gzip; by default where `path` ends in .gz.
    """
    gz = path.suffix == ".gz" if compressed is None else compressed
    with path.open("wb") as raw, _compressed(raw) if gz else raw as handle:
        handle.write(("\t".join([*HEADER, *cells]) + "\n").encode())
        for chrom in sorted(chroms):
            starts, labels = chroms[chrom]
            if len(labels) and (labels.min() < UNBOUND or labels.max() > BOUND):
                raise ValueError(f"{chrom} has unlabelled bins")
            for at in range(0, len(starts), _ROWS_AT_ONCE):
                some = slice(at, at + _ROWS_AT_ONCE)
                for here, places in place_letters(chrom, starts[some]):
                    letters = np.concatenate([places, _label_letters(labels[some][here])], axis=1)
                    handle.write(letters.tobytes())


def _label_letters(labels: Labels) -> Labels:
    """`U TAB A TAB B NEWLINE` and so on; shape (N, cells) -> (N, 2 * cells)."""
    letters = np.full((len(labels), 2 * labels.shape[1]), ord("\t"), dtype=np.uint8)
    letters[:, ::2] = _LETTERS[labels]
    letters[:, -1] = ord("\n")
    return letters


def _compressed(raw: IO[bytes]) -> IO[bytes]:
    # No name and no time in the header: equal labels give equal bytes.
    return gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=raw, mtime=0)  # type: ignore[return-value]
