"""Gene expression tables: genes by cell types (Roadmap's RPKM and any of its kind), or one sample as RSEM writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.errors import InputError
from ebert_core.io.streams import read_bytes
from ebert_core.io.text import Table, parse_table, unix_lines

# Columns of RSEM's `genes.results`, as in the challenge's gene_expression.CELL.biorepN.tsv.
_RSEM_GENE: Final = "gene_id"
_RSEM_VALUE: Final = "TPM"
_VERSIONED: Final = re.compile(r"(ENS[A-Z]*[0-9]+)\.[0-9]+$")


@dataclass(frozen=True)
class ExpressionTable:
    """Expression of genes.

    Attributes:
        genes: ids or symbols in file order, each once; Ensembl ids without their version.
        cells: cell types as the header spells them; None for a table of one sample, which its file's name tells.
        values: RPKM, TPM or what the file holds, 0 or more, float64 of shape (genes, cells; 1 for one sample).
    """

    genes: list[str]
    cells: tuple[str, ...] | None
    values: NDArray[np.float64]


def gene_key(gene: str) -> str:
    """A gene's name as it is looked up: without an Ensembl version, in capitals."""
    return (found[1] if (found := _VERSIONED.match(gene)) else gene).upper()


def read_expression(path: Path) -> ExpressionTable:
    """Read a table with a header line: the gene, then a column per cell type; or RSEM's columns, of which TPM counts.

    Raises:
        InputError: no header or no rows, a row of another width, a gene given twice, a value that is no number,
            negative or not finite.
    """
    head, _, rest = unix_lines(read_bytes(path)).partition(b"\n")
    fields = head.decode("utf-8", "replace").split("\t")
    if len(fields) < 2 or not all(field.strip() for field in fields[1:]):
        raise InputError(
            path,
            f"begins with {' '.join(fields)[:40]!r}, expected a header: gene_id and the cell types",
            "an expression table has a header line, tab-separated",
            line=1,
        )
    if twice := [name for name in fields if fields.count(name) > 1]:
        raise InputError(path, f"has the column {twice[0]!r} twice", "keep one of the two", line=1)
    one_sample = {_RSEM_GENE, _RSEM_VALUE} <= set(fields)
    gene = fields.index(_RSEM_GENE) if one_sample else 0
    columns = [fields.index(_RSEM_VALUE)] if one_sample else list(range(1, len(fields)))
    # One more field than the header has may be there, and empty: Roadmap's rows end with a tab.
    table = parse_table(rest, path, len(fields) + 1, min_columns=len(fields), first_line=2)
    if len(table) == 0:
        raise InputError(path, "has no genes", "expected a header line and one line per gene")
    _refuse_wide(table, len(fields))
    values = np.stack([_values(table, column, fields[column]) for column in columns], axis=1)
    return ExpressionTable(_genes(table, gene), None if one_sample else tuple(fields[1:]), values)


def _refuse_wide(table: Table, width: int) -> None:
    longest = table.bounds[:, width, 1] > table.bounds[:, width, 0]
    wide = (table.widths > width + 1) | longest
    if wide.any():
        row = int(np.argmax(wide))
        raise table.error(
            row, f"has {table.widths[row]} fields, the header has {width}", "separate the fields by single tabs"
        )


def _values(table: Table, column: int, name: str) -> NDArray[np.float64]:
    values = table.floats(column, name)
    strange = ~(np.isfinite(values) & (values >= 0))
    if strange.any():
        row = int(np.argmax(strange))
        raise table.error(row, f"{name} is {values[row]:g}, expected 0 or more", "give RPKM or TPM, not its logarithm")
    return values


def _genes(table: Table, column: int) -> list[str]:
    genes = [gene_key(text.decode("utf-8", "replace")) for text in table.texts(column)]
    seen: dict[str, int] = {}
    for row, gene in enumerate(genes):
        if not gene:
            raise table.error(row, "names no gene", "fill in the gene's column, or remove the row")
        if gene in seen:
            raise table.error(
                row, f"gives {gene} again, after line {table.lines[seen[gene]]:,}", "keep one row per gene"
            )
        seen[gene] = row
    return genes
