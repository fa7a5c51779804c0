"""Names of cell types: `HepG2`, `hepg2` and `E118` are one; a near miss gets a suggestion.

Built in are the 127 epigenomes of the Roadmap project. Case and punctuation do not count (`IMR-90` = `IMR90`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from pathlib import Path

from ebert_core.errors import UnknownNameError
from ebert_core.io.text import read_sheet

_TABLE = Path(__file__).with_name("roadmap_epigenomes.tsv")
_FILE_ENDINGS = re.compile(r"(\.(bed|bb|narrowPeak|bw|bigwig|bigWig|txt|tsv|gz|bgz))+$", re.IGNORECASE)
_MODEL_ENDINGS = re.compile(r"[_.](\d+_|segments|dense|mnemonics|stateno|hg19|hg38|hg38lift).*$", re.IGNORECASE)


def fold(name: str) -> str:
    """What of a name counts: letters and digits, in lower case."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


@functools.cache
def _roadmap() -> dict[str, str]:
    """Folded spelling -> canonical name of a Roadmap epigenome (its common name, or its id such as E021)."""
    spellings: dict[str, str] = {}
    columns = ("eid", "names", "mnemonic", "description", "edacc_name")
    for _, row in read_sheet(_TABLE, columns):
        common = [name for name in row["names"].split(";") if name]
        canonical = common[0] if common else row["eid"]
        for spelling in (row["eid"], *common, row["mnemonic"], row["description"], row["edacc_name"]):
            spellings.setdefault(fold(spelling), canonical)
    return spellings


def canonical_cell(name: str, aliases: dict[str, str] | None = None) -> str:
    """The one name under which a cell type is kept: a sheet's alias, then the Roadmap table, then the name itself."""
    folded = fold(name)
    for alias, canonical in (aliases or {}).items():
        if fold(alias) == folded:
            return canonical
    return _roadmap().get(folded, name)


def resolve_cell(name: str, known: Iterable[str], aliases: dict[str, str] | None = None) -> str:
    """The member of `known` that `name` means.

    Raises:
        UnknownNameError: none; with the nearest of the known names as a hint.
    """
    members = {fold(cell): cell for cell in known}
    for spelling in (name, canonical_cell(name, aliases)):
        if fold(spelling) in members:
            return members[fold(spelling)]
    raise UnknownNameError("cell type", name, members.values())


def epigenome_id(cell: str) -> str:
    """The Roadmap id (E001-E129) of a canonical cell name, or ''."""
    for _, row in read_sheet(_TABLE, ("eid", "names", "mnemonic", "description", "edacc_name")):
        if cell in (row["eid"], *row["names"].split(";")):
            return row["eid"]
    return ""


def cell_of_file(path: Path) -> str:
    """The cell type that a file's name begins with: `E116_18_core_K27ac_mnemonics.bed.gz` -> GM12878."""
    stem = _FILE_ENDINGS.sub("", path.name)
    return canonical_cell(_MODEL_ENDINGS.sub("", stem) or stem)
