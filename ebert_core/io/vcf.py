"""VCF: the records of a text file, line by line, and the same lines with more INFO (VCF specification 4.3 to 4.5).

Read as text, not through htslib: an error can name the line, standard input and any gzip will do, a file without
contig lines is no fault, and a record that is annotated keeps every other byte as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ebert_core.errors import InputError
from ebert_core.io.streams import stream

_FIRST_WORDS: Final = b"##fileformat=VCF"
_BCF_MAGIC: Final = b"BCF"
_COLUMNS: Final = "#CHROM POS ID REF ALT QUAL FILTER INFO"
_MOST_COLUMNS: Final = 8
_ALT, _INFO = 4, 7
_MISSING: Final = "."
# Bytes that are no UTF-8 go through unchanged.
_ERRORS: Final = "surrogateescape"


@dataclass(frozen=True, slots=True)
class VcfRecord:
    """A data line.

    Attributes:
        line: its 1-based number.
        chrom: as spelt in the file.
        position: of the first base of `ref`, 0-based; -1 is the telomere (POS 0).
        id: identifiers, or `.`.
        ref, alts: alleles as they stand in the file; no alternative allele (`.`) is an empty tuple.
        text: the whole line, without its end.
    """

    line: int
    chrom: str
    position: int
    id: str
    ref: str
    alts: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class InfoField:
    """An INFO field that is added, one value per alternative allele, floats."""

    key: str
    description: str

    @property
    def header(self) -> str:
        """Its line in the header."""
        return f'##INFO=<ID={self.key},Number=A,Type=Float,Description="{self.description}">'


class VcfFile:
    """A VCF file: plain, gzip, bgzip, or standard input (`-`), whose content is kept so that it can be read twice.

    Attributes:
        path: of the file.
        header: its lines up to and with the one that begins with `#CHROM`.

    Raises:
        InputError: not a VCF file, BCF, or one without the line of column names.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept = list(stream(path)) if str(path) == "-" else None
        self.header: list[str] = []
        for number, line in self._lines():
            if number == 1 and not line.startswith(_FIRST_WORDS):
                if line.startswith(_BCF_MAGIC):
                    raise InputError(path, "is BCF, expected VCF", "pipe it: bcftools view FILE | ebert ... --vcf -")
                raise InputError(path, "is not a VCF file, which begins with '##fileformat=VCF'", line=1)
            text = line.decode("utf-8", _ERRORS)
            if not text.startswith("#"):
                break
            self.header.append(text)
            if not text.startswith("##"):
                break
        if not self.header:
            raise InputError(path, "is empty, expected a VCF file")
        if self.header[-1].split("\t")[:_MOST_COLUMNS] != _COLUMNS.split():
            raise InputError(
                path,
                f"has no line of column names ({_COLUMNS}, separated by tabs) after its header",
                "is it complete?",
                line=len(self.header),
            )

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """(1-based number, line without its end)."""
        rest, number = b"", 0
        for piece in self._kept if self._kept is not None else stream(self.path):
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                number += 1
                yield number, line.removesuffix(b"\r")
        if rest:
            yield number + 1, rest.removesuffix(b"\r")

    def records(self) -> Iterator[VcfRecord]:
        """Data lines in file order; may be called again.

        Raises:
            InputError: a line with fewer than eight columns, a POS that is no number, an empty allele.
        """
        for number, line in self._lines():
            if number > len(self.header) and line.strip():
                yield self._record(number, line.decode("utf-8", _ERRORS))

    def _record(self, number: int, text: str) -> VcfRecord:
        fields = text.split("\t", _MOST_COLUMNS)
        if len(fields) < _MOST_COLUMNS:
            raise InputError(
                self.path,
                f"has {len(fields)} column(s), expected at least {_MOST_COLUMNS} separated by tabs",
                "separate the columns with tabs, not spaces" if len(text.split()) > len(fields) else "mend the row",
                line=number,
            )
        chrom, pos, identifier, ref, alt = fields[:5]
        if not (pos.isascii() and pos.isdecimal()):
            raise InputError(self.path, f"POS is {pos!r}, expected a whole number", "mend the row", line=number)
        alts = () if alt == _MISSING else tuple(alt.split(","))
        if not ref or ref == _MISSING or not all(alts):
            raise InputError(self.path, f"has an empty allele: REF {ref!r}, ALT {alt!r}", "mend the row", line=number)
        return VcfRecord(number, chrom, int(pos) - 1, identifier, ref, alts, text)


def annotated_header(header: Sequence[str], fields: Sequence[InfoField]) -> list[str]:
    """A header with lines for the fields, before the column names; older lines of the same names are replaced."""
    mine = re.compile(rf"##INFO=<(?:.*,)?ID=(?:{'|'.join(re.escape(field.key) for field in fields)})[,>]")
    kept = [line for line in header if not mine.match(line)]
    return [*kept[:-1], *(field.header for field in fields), kept[-1]]


def annotated_record(record: VcfRecord, values: Mapping[str, Sequence[float | None]]) -> str:
    """The record's line with more INFO.

    Args:
        values: key -> one value per alternative allele, None for a missing one; a field of missing values alone is left
            out. An older field of the same name is replaced.
    """
    fields = record.text.split("\t", _MOST_COLUMNS)
    info = [] if fields[_INFO] == _MISSING else fields[_INFO].split(";")
    info = [each for each in info if each.partition("=")[0] not in values]
    for key, numbers in values.items():
        if any(number is not None for number in numbers):
            info.append(f"{key}={','.join(_MISSING if n is None else f'{n:.6g}' for n in numbers)}")
    fields[_INFO] = ";".join(info) or _MISSING
    return "\t".join(fields)


def info_key(prefix: str, name: str, suffix: str) -> str:
    """A name that an INFO field may have: letters, digits, `_` and `.`; anything else becomes `_`."""
    return f"{prefix}_{re.sub(r'[^0-9A-Za-z_.]', '_', name)}_{suffix}"
