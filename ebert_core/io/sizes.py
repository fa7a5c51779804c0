"""Chromosome sizes without a sequence: `chrom.sizes` of UCSC, bedtools' genome files, and FASTA indices."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ebert_core.errors import InputError
from ebert_core.genome.assembly import Assembly
from ebert_core.io.text import read_table

_ENDINGS: Final = (".sizes", ".genome", ".fai")


def is_sizes(path: Path) -> bool:
    """Whether a genome is given by chromosome sizes, told from the file's name: .sizes, .genome or .fai."""
    return path.name.casefold().endswith(_ENDINGS)


def read_sizes(path: Path) -> Assembly:
    """An assembly from the first two columns of a file: name and length in bp.

    Raises:
        InputError: no row, a length that is no whole number of at least 1, or a name given twice.
    """
    if str(path) != "-" and not path.is_file():
        what = "is a folder, expected a file of chromosome sizes" if path.is_dir() else "is not there"
        raise InputError(path, what, "check the path of the genome's FASTA file or chromosome sizes")
    table = read_table(path, 2)
    if len(table) == 0:
        raise InputError(path, "has no data lines", "expected rows of chromosome and length, separated by a tab")
    lengths = table.integers(1, "length")
    sizes: dict[str, int] = {}
    for row, length in enumerate(lengths.tolist()):
        name = table.text(row, 0)
        if not name or length < 1:
            raise table.error(row, f"{name!r} has {length:,} bp, expected a name and at least 1 bp", "mend the row")
        if name in sizes:
            raise table.error(row, f"gives {name} for the second time", "keep one row per chromosome")
        sizes[name] = length
    return Assembly.from_sizes(sizes.items())
