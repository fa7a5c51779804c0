"""Gene expression in a dataset: a sorted table per cell type, and what the genes are called."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.data.builder import DatasetBuilder
from ebert_core.data.files import source_entry
from ebert_core.epigenome.cell_types import canonical_cell, cell_of_file
from ebert_core.errors import EbertError, InputError
from ebert_core.io.expression import ExpressionTable, gene_key, read_expression
from ebert_core.io.text import read_sheet

_ENDINGS: Final = (".tsv", ".txt", ".tsv.gz", ".txt.gz")


def add_expression(builder: DatasetBuilder, source: Path) -> None:
    """Add ln(1 + RPKM or TPM) of every gene and cell type of a table, or of a folder of tables.

    Several one-sample tables of a cell type are its replicates, whose mean counts; they must name the same genes.
    """
    paths = _tables(source)
    by_cell: dict[str, list[tuple[Path, ExpressionTable, int]]] = {}
    for path in paths:
        table = read_expression(path)
        for column, name in enumerate(table.cells or (cell_of_file(path),)):
            cell = canonical_cell(name, builder.manifest["aliases"])
            others = by_cell.setdefault(cell, [])
            if others and (table.cells is not None or others[0][1].cells is not None):
                raise InputError(
                    path, f"gives {cell} a second time, after {others[0][0].name}", "keep one column per cell type"
                )
            others.append((path, table, column))
    entries = builder.manifest.setdefault("expression", {})
    for cell, parts in by_cell.items():
        sources = [source_entry(path) for path, _, _ in parts]
        if builder.is_new("expression", entries, cell, sources):
            entries[cell] = builder.save("expression", cell, _sorted_table(parts), sources)


def _tables(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    paths = [path for path in sorted(source.iterdir()) if path.name.endswith(_ENDINGS) and path.name[0] != "."]
    if not paths:
        raise EbertError(f"{source} holds no expression table", f"expected files that end in {', '.join(_ENDINGS)}")
    return paths


def _sorted_table(parts: list[tuple[Path, ExpressionTable, int]]) -> NDArray[Any]:
    """(gene, ln(1 + mean value)) of one cell type, sorted by gene."""
    (_, first, _), *others = parts
    rows = {gene: row for row, gene in enumerate(first.genes)}
    total = first.values[:, parts[0][2]].copy()
    for path, table, column in others:
        if set(table.genes) != set(rows):
            odd = min(set(table.genes) ^ set(rows))
            raise InputError(
                path,
                f"and {parts[0][0].name} do not name the same genes ({odd} is in one only)",
                "replicates need the same annotation: leave one out",
            )
        total[[rows[gene] for gene in table.genes]] += table.values[:, column]
    return _sorted((gene, value) for gene, value in zip(first.genes, np.log1p(total / len(parts)), strict=True))


def add_gene_names(builder: DatasetBuilder, sheet: Path) -> None:
    """Add a sheet (id, symbol): under which symbols the genes of expression tables are asked for."""
    sources = [source_entry(sheet)]
    if builder.must_build("gene_names", builder.manifest.get("gene_names"), "gene names", sources):
        pairs = [(gene_key(row["symbol"]), gene_key(row["id"])) for _, row in read_sheet(sheet, ("id", "symbol"))]
        builder.manifest["gene_names"] = builder.save("gene_names", "names", _sorted(dict.fromkeys(pairs)), sources)


def _sorted(rows: Iterable[tuple[str, Any]]) -> NDArray[Any]:
    """Rows as a structured array (`key`: bytes; `value`: float32 or bytes), sorted by key; ties stay in order."""
    keys, values = zip(*rows, strict=True)
    names = np.array([key.encode() for key in keys])
    held = np.array([value.encode() if isinstance(value, str) else np.float32(value) for value in values])
    table = np.empty(len(names), dtype=[("key", names.dtype), ("value", held.dtype)])
    order = np.argsort(names, kind="stable")
    table["key"], table["value"] = names[order], held[order]
    return table
