"""Large tab-separated files a portion at a time: neither their text nor their columns are ever whole in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from ebert_core.io.streams import stream
from ebert_core.io.text import Table, parse_table, unix_lines

_NEWLINE: Final = 10
# Small enough for what is made of a portion - some 30 bytes for each of its own - to stay in a processor's cache.
_PORTION_BYTES: Final = 1 << 20


def read_portions(path: Path, num_columns: int) -> Iterator[Table]:
    """The data lines of a file in portions of whole lines, at least one row each.

    Rows may have fewer fields than `num_columns`; line numbers count from the beginning of the file.

    Args:
        path: plain, gzip or bgzip file, or `-`.
        num_columns: fields to locate in each row.

    Raises:
        InputError: as `ebert_core.io.streams.stream`; that a gzip file is truncated shows after its last portion.
    """
    lines = 1
    for content in map(unix_lines, _whole_lines(path)):
        table = parse_table(content, path, num_columns, min_columns=1, first_line=lines)
        if len(table):
            yield table
        lines += int(np.count_nonzero(np.frombuffer(content, dtype=np.uint8) == _NEWLINE))


def _whole_lines(path: Path) -> Iterator[bytes]:
    """The file in pieces of about `_PORTION_BYTES` that end with a line, or with the file."""
    held: list[bytes] = []
    size = 0
    for piece in stream(path):
        held.append(piece)
        size += len(piece)
        if size >= _PORTION_BYTES and (cut := piece.rfind(b"\n") + 1):
            held[-1] = piece[:cut]
            yield b"".join(held)
            held = [piece[cut:]]
            size = len(held[0])
    if size:
        yield b"".join(held)


def skip_first(table: Table) -> Table:
    """The table without its first row."""
    return replace(table, lines=table.lines[1:], bounds=table.bounds[1:], widths=table.widths[1:])
