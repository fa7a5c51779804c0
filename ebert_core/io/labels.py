"""Label tables of the ENCODE-DREAM challenge: `chr start stop CELL1 CELL2 ...`, one letter U, A or B per cell type."""

from __future__ import annotations

import gzip
import zlib
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
from ebert_core.io.text import Table
from ebert_core.vocabulary import BIN_BP, STRIDE_BP

HEADER: Final = ("chr", "start", "stop")
GZIP_MAGIC: Final = b"\x1f\x8b"
_ROWS_AT_ONCE: Final = 1 << 18


def _codes() -> NDArray[np.uint8]:
    codes = np.zeros(256, np.uint8)
    for code in (UNBOUND, AMBIGUOUS, BOUND):
        codes[ord(LABEL_LETTERS[code])] = code
    return codes


_CODES: Final = _codes()


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
    chroms: dict[str, tuple[Positions, NDArray[np.uint8]]]
    dropped: dict[str, int]


def label_table_cells(path: Path) -> tuple[str, ...]:
    """The cell types that a label table names in its header; reads no more than that."""
    if not path.is_file():
        raise InputError(path, "is not there", "check the path of the label table")
    with path.open("rb") as handle:
        compressed = handle.read(2) == GZIP_MAGIC
    try:
        with gzip.open(path) if compressed else path.open("rb") as handle:
            fields = handle.readline().decode("utf-8", "replace").rstrip("\r\n").split("\t")
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(path, "is a truncated or damaged gzip file", "copy or download it again") from None
    if tuple(fields[: len(HEADER)]) != HEADER or len(fields) == len(HEADER):
        raise InputError(
            path,
            f"begins with {' '.join(fields[:4])!r}, expected {' '.join(HEADER)} and the cell types",
            "a label table has a header line, tab-separated",
            line=1,
        )
    if len(set(fields)) < len(fields):
        raise InputError(path, "names a cell type twice", "keep one column per cell type", line=1)
    return tuple(fields[len(HEADER) :])


def read_label_table(path: Path, assembly: Assembly, cell: str) -> LabelTable:
    """The labels of one cell type; its name's case and punctuation do not count.

    Raises:
        InputError: no header, no such cell type, a row that is no 200-bp bin beginning at a multiple of 50 on its
            chromosome, rows out of order or given twice, or a label other than U, A and B.
    """
    cells = label_table_cells(path)
    by_folded = {_fold(name): name for name in cells}
    if _fold(cell) not in by_folded:
        raise InputError(
            path, f"has no cell type {cell!r}", suggestion(cell, cells) or f"it has {', '.join(cells)}", line=1
        )
    column = len(HEADER) + cells.index(by_folded[_fold(cell)])
    parts: dict[str, list[tuple[Positions, NDArray[np.uint8]]]] = {}
    dropped: dict[str, int] = {}
    for number, table in enumerate(read_portions(path, len(HEADER) + len(cells))):
        rows = skip_first(table) if number == 0 else table
        if len(rows) and (narrow := rows.widths != len(HEADER) + len(cells)).any():
            row = int(np.argmax(narrow))
            raise rows.error(row, f"has {rows.widths[row]} columns, the header has {len(HEADER) + len(cells)}")
        for name, here, starts, labels in _by_chrom(rows, column, assembly):
            chrom = assembly.resolve(name)
            if chrom is None:
                dropped[name] = dropped.get(name, 0) + len(here)
                continue
            before = parts.setdefault(chrom, [])
            if before and starts[0] <= before[-1][0][-1]:
                raise rows.error(int(here[0]), f"{name}:{starts[0]:,} is out of order or given twice")
            before.append((starts, labels))
    if not parts:
        raise InputError(path, f"has no row on {', '.join(assembly.chroms[:4])}", "is it of the same assembly?")
    joined = {
        chrom: (np.concatenate([starts for starts, _ in portions]), np.concatenate([labels for _, labels in portions]))
        for chrom, portions in parts.items()
    }
    return LabelTable(by_folded[_fold(cell)], cells, joined, dropped)


def _fold(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _by_chrom(
    rows: Table, column: int, assembly: Assembly
) -> Iterator[tuple[str, NDArray[np.int64], Positions, NDArray[np.uint8]]]:
    """(chromosome, rows, starts, labels) for each chromosome of a portion, checked."""
    if len(rows) == 0:
        return
    names, index = rows.categories(0)
    starts, ends = rows.integers(1, "start"), rows.integers(2, "stop")
    lengths = np.array([assembly.length(chrom) if (chrom := assembly.resolve(name)) else 1 << 62 for name in names])
    if (bad := (ends - starts != BIN_BP) | (starts % STRIDE_BP != 0) | (starts < 0) | (ends > lengths[index])).any():
        row = int(np.argmax(bad))
        raise rows.error(
            row,
            f"{names[index[row]]}:{starts[row]:,}-{ends[row]:,} is no bin of the benchmark",
            f"bins are {BIN_BP} bp, begin at multiples of {STRIDE_BP} and end within the chromosome ({assembly.name})",
        )
    letters = rows.bounds[:, column]
    labels = _CODES[rows.data[np.minimum(letters[:, 0], len(rows.data) - 1)]]
    if (bad := (labels == 0) | (letters[:, 1] - letters[:, 0] != 1)).any():
        row = int(np.argmax(bad))
        raise rows.error(row, f"label is {rows.text(row, column)!r}, expected U, A or B")
    for code, name in enumerate(names):
        here = np.flatnonzero(index == code)
        if (wrong := np.diff(starts[here]) <= 0).any():
            row = int(here[int(np.argmax(wrong)) + 1])
            raise rows.error(row, f"{name}:{starts[row]:,} is out of order or given twice", "sort by chr and start")
        yield name, here, starts[here], labels[here]


def write_label_table(
    path: Path, cells: Sequence[str], chroms: Mapping[str, tuple[Positions, NDArray[np.uint8]]]
) -> None:
    """Write a label table, gzip where `path` ends in .gz; chromosomes in lexicographic order, as the challenge has
    them.

    Args:
        path: where to; use `ebert_core.artifacts.publish_file`.
        cells: names of the label columns.
        chroms: chromosome -> (bin starts of shape (N,), label codes 1 to 3 of shape (N, len(cells))).
    """
    letters = np.array(list(LABEL_LETTERS))
    with path.open("wb") as raw, _compressed(raw, path) as handle:
        handle.write(("\t".join([*HEADER, *cells]) + "\n").encode())
        for chrom in sorted(chroms):
            starts, labels = chroms[chrom]
            if len(labels) and (labels.min() < UNBOUND or labels.max() > BOUND):
                raise ValueError(f"{chrom} has unlabelled bins")
            for at in range(0, len(starts), _ROWS_AT_ONCE):
                some = slice(at, at + _ROWS_AT_ONCE)
                columns = ["\t".join(row) for row in letters[labels[some]].tolist()]
                rows = zip(starts[some].tolist(), columns, strict=True)
                text = "".join(f"{chrom}\t{start}\t{start + BIN_BP}\t{column}\n" for start, column in rows)
                handle.write(text.encode())


def _compressed(raw: IO[bytes], path: Path) -> IO[bytes]:
    if path.suffix != ".gz":
        return raw
    # No name and no time in the header: equal labels give equal bytes.
    return gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0)  # type: ignore[return-value]
