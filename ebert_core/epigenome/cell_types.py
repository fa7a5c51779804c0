"""Names of cell types: `HepG2`, `hepg2` and `E118` are one; a near miss gets a suggestion.

Built in are the 127 epigenomes of the Roadmap project. Case and punctuation do not count (`IMR-90` = `IMR90`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from pathlib import Path

from ebert_core.errors import EbertError, UnknownNameError
from ebert_core.io.text import read_sheet

_TABLE = Path(__file__).with_name("roadmap_epigenomes.tsv")
_FILE_ENDINGS = re.compile(r"(\.(bed|bb|narrowPeak|broadPeak|bw|bigwig|bam|txt|tsv|gz|bgz))+$", re.IGNORECASE)
# What follows the cell type: ChromHMM's and Roadmap's `_15_coreMarks_mnemonics`, Roadmap's `-DNase.macs2`, the
# challenge's `.fc.signal`, `.conservative` and `.biorep1`.
_DETAILS = re.compile(
    r"[_.](\d+_(?=core|imputed|segments|dense|mnemonics|stateno)|segments|dense|mnemonics|stateno|hg19|hg38|hg38lift"
    r"|fc\.signal|pval\.signal|conservative|relaxed|(?:bio|tech)rep\d+).*$|-(DNase|ATAC)\b.*$",
    re.IGNORECASE,
)
_ASSAY = re.compile(r"^(DNASE|ATAC|gene_expression)\.(?=.)", re.IGNORECASE)


def fold(name: str) -> str:
    """What of a name counts: letters and digits, in lower case."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


@functools.cache
def _roadmap() -> dict[str, str]:
    """Folded spelling -> canonical name of a Roadmap epigenome (its common name, or its id such as E021)."""
    meanings: dict[str, set[str]] = {}
    for row in _rows():
        common = [name for name in row["names"].split(";") if name]
        canonical = common[0] if common else row["eid"]
        for spelling in (row["eid"], *common, row["mnemonic"], row["description"], row["edacc_name"]):
            meanings.setdefault(fold(spelling), set()).add(canonical)
    # E038 and E039 share one description: it names neither.
    return {spelling: names.pop() for spelling, names in meanings.items() if len(names) == 1}


@functools.cache
def _rows() -> tuple[dict[str, str], ...]:
    return tuple(row for _, row in read_sheet(_TABLE, ("eid", "mnemonic", "description", "edacc_name"), ("names",)))


def canonical_cell(name: str, aliases: dict[str, str] | None = None) -> str:
    """The one name under which a cell type is kept: a sheet's alias, then the Roadmap table, then the name itself."""
    folded = fold(name)
    for alias, canonical in (aliases or {}).items():
        if fold(alias) == folded:
            return canonical
    return _roadmap().get(folded, name)


def same_cell(a: str, b: str) -> bool:
    """Whether two names mean one cell type: K562, k-562 and E123 do."""
    return fold(canonical_cell(a)) == fold(canonical_cell(b))


def resolve_cell(name: str, known: Iterable[str], aliases: dict[str, str] | None = None) -> str:
    """The member of `known` that `name` means.

    Raises:
        UnknownNameError: none; with the nearest of the known names as a hint.
        EbertError: several that differ in case and punctuation only, and none exactly.
    """
    members = list(known)
    for spelling in (name, canonical_cell(name, aliases)):
        if spelling in members:
            return spelling
        near = [cell for cell in members if fold(cell) == fold(spelling)]
        if len(near) > 1:
            raise EbertError(f"cell type {name!r} may mean {' or '.join(sorted(near))}", "write one of them exactly")
        if near:
            return near[0]
    raise UnknownNameError("cell type", name, members)


def epigenome_id(cell: str) -> str:
    """The Roadmap id (E001-E129) of a canonical cell name, or ''."""
    for row in _rows():
        if cell in (row["eid"], *row["names"].split(";")):
            return row["eid"]
    return ""


def cell_of_file(path: Path) -> str:
    """The cell type that a file's name begins with: `E116_18_core_K27ac_mnemonics.bed.gz` -> GM12878."""
    stem = _ASSAY.sub("", _FILE_ENDINGS.sub("", path.name)) or path.name
    return canonical_cell(_DETAILS.sub("", stem) or stem)
