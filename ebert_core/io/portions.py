"""Large tab-separated files a portion at a time: the text is held once, its parsed columns never all at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from ebert_core.io.text import Table, parse_table, read_bytes

# A parsed row takes 16 bytes a column and some more while columns are converted; 16 MiB are about half a million rows.
_PORTION_BYTES: Final = 1 << 24


def read_portions(path: Path, num_columns: int) -> Iterator[Table]:
    """The data lines of a file in portions of whole lines, at least one row each.

    Rows may have fewer fields than `num_columns`; line numbers count from the beginning of the file.

    Args:
        path: plain, gzip or bgzip file, or `-`.
        num_columns: fields to locate in each row.
    """
    content = read_bytes(path)
    start, lines = 0, 0
    while start < len(content):
        end = content.find(b"\n", min(start + _PORTION_BYTES, len(content)) - 1) + 1 or len(content)
        table = parse_table(content[start:end], path, num_columns, min_columns=1)
        if len(table):
            yield replace(table, lines=table.lines + lines)
        lines += content.count(b"\n", start, end)
        start = end


def skip_first(table: Table) -> Table:
    """The table without its first row."""
    return replace(table, lines=table.lines[1:], bounds=table.bounds[1:], widths=table.widths[1:])
