"""Which alleles of a VCF can be scored, and why the others cannot.

Every alternative allele is looked at by itself. Bases that REF and ALT share at their ends are cut off, at least one
stays. What is left of REF must be what the genome has there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.data.dataset import Dataset
from ebert_core.errors import InputError
from ebert_core.genome.intervals import Positions
from ebert_core.inference.models import LoadedModel
from ebert_core.inference.predictor import CellStates
from ebert_core.inference.windows import ChromReader, bins_over
from ebert_core.io.vcf import VcfFile, VcfRecord
from ebert_core.vocabulary import BASE_N, encode_bases

MAX_CHANGE_BP: Final = 50
"""An allele longer than this, beside one base that it may share, is no small indel."""

_KNOWN: Final = re.compile(r"[ACGTacgt]+")

NO_ALT: Final = "no alternative allele"
STAR: Final = "overlapping deletion (*)"
SYMBOLIC: Final = "symbolic allele"
BREAKEND: Final = "breakend"
AMBIGUOUS: Final = "base other than A, C, G, T"
LONG: Final = f"longer than {MAX_CHANGE_BP} bp"
UNKNOWN_CHROM: Final = "chromosome that the dataset lacks"
BEYOND: Final = "out of the chromosome"
GENOME_N: Final = "the genome has N here"
MISMATCH: Final = "REF is not the genome's"
SWAPPED: Final = "REF is not the genome's, ALT is (swapped?)"
NO_BIN: Final = "no bin with a value (exclusion list, N, or end of the chromosome)"


@dataclass(frozen=True)
class Variant:
    """An alternative allele that can be scored.

    Attributes:
        reader: of its chromosome.
        start: first base of `ref` on it, 0-based.
        ref, alt: base codes, uint8, without what both share at their ends.
        bins: the bins that hold a base of `ref` and have a value, rising.
    """

    reader: ChromReader
    start: int
    ref: NDArray[np.uint8]
    alt: NDArray[np.uint8]
    bins: Positions


class Judge:
    """Tells which alleles can be scored.

    Args:
        dataset, model, cell: what is read of the chromosomes.
    """

    def __init__(self, dataset: Dataset, model: LoadedModel, cell: CellStates) -> None:
        self._dataset, self._model, self._cell = dataset, model, cell
        self._readers: dict[str, ChromReader | None] = {}

    def alleles(self, record: VcfRecord) -> Iterator[Variant | str]:
        """Of every alternative allele of a record, in order: the variant, or why it cannot be scored."""
        if not record.alts:
            return
        whole = self._fault_of(record)
        for alt in record.alts:
            yield whole or _fault_of_alt(alt) or self._variant(record, alt)

    def _reader(self, chrom: str) -> ChromReader | None:
        if chrom not in self._readers:
            name = self._dataset.assembly.resolve(chrom)
            reader = None if name is None else ChromReader(self._dataset, self._model, self._cell, name)
            self._readers[chrom] = reader
        return self._readers[chrom]

    def _fault_of(self, record: VcfRecord) -> str:
        """What is wrong with the record as a whole, or ''."""
        reader = self._reader(record.chrom)
        if reader is None:
            return UNKNOWN_CHROM
        if record.position < 0 or record.position + len(record.ref) > reader.length:
            return BEYOND
        return "" if _KNOWN.fullmatch(record.ref) else AMBIGUOUS

    def _variant(self, record: VcfRecord, alt: str) -> Variant | str:
        reader = self._reader(record.chrom)
        assert reader is not None
        own, other = encode_bases(record.ref.encode()), encode_bases(alt.encode())
        at = record.position
        there = reader.bases[at : at + len(own)]
        if (there == BASE_N).any():
            return GENOME_N
        if not np.array_equal(there, own):
            return SWAPPED if np.array_equal(reader.bases[at : at + len(other)], other) else MISMATCH
        left, right = _shared_ends(own, other)
        own, other, at = own[left : len(own) - right], other[left : len(other) - right], at + left
        if max(len(own), len(other)) > MAX_CHANGE_BP + 1:
            return LONG
        bins = bins_over(at, at + len(own), reader.num_bins)
        bins = bins[reader.scorable(bins)]
        return Variant(reader, at, own, other, bins) if len(bins) else NO_BIN


def _fault_of_alt(alt: str) -> str:
    if alt == "*":
        return STAR
    if alt.startswith("<"):
        return SYMBOLIC
    if "[" in alt or "]" in alt or alt.startswith(".") or alt.endswith("."):
        return BREAKEND
    return "" if _KNOWN.fullmatch(alt) else AMBIGUOUS


def _shared_ends(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> tuple[int, int]:
    """How many bases two alleles share at the left and at the right; one base of either always stays."""
    room = min(len(a), len(b)) - 1
    right = 0
    while right < room and a[-1 - right] == b[-1 - right]:
        right += 1
    left = 0
    while left < room - right and a[left] == b[left]:
        left += 1
    return left, right


@dataclass
class Survey:
    """What a VCF holds.

    Attributes:
        num_records: data lines.
        num_alleles: alternative alleles.
        num_variants: those that can be scored.
        skipped: reason -> alternative alleles (or, of `NO_ALT`, records).
        examples: reason -> line of the first.
    """

    num_records: int = 0
    num_alleles: int = 0
    num_variants: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, int] = field(default_factory=dict)

    def skip(self, record: VcfRecord, reason: str) -> None:
        self.skipped[reason] += 1
        self.examples.setdefault(reason, record.line)

    @property
    def mismatching(self) -> int:
        """Alleles whose REF is not what the genome has there."""
        return self.skipped[MISMATCH] + self.skipped[SWAPPED]

    @property
    def checked(self) -> int:
        """Alleles whose REF was held against the genome's known bases."""
        return self.num_variants + self.mismatching + self.skipped[LONG] + self.skipped[NO_BIN]


def survey(vcf: VcfFile, judge: Judge, assembly: str) -> Survey:
    """Look at every allele before any is scored.

    Args:
        assembly: name of the dataset's, for errors.

    Raises:
        InputError: more than half of the checked reference alleles are not the genome's, no record at all, or none
            that can be scored.
    """
    found = Survey()
    for record in vcf.records():
        found.num_records += 1
        found.num_alleles += len(record.alts)
        if not record.alts:
            found.skip(record, NO_ALT)
        for allele in judge.alleles(record):
            if isinstance(allele, str):
                found.skip(record, allele)
            else:
                found.num_variants += 1
    if not found.num_records:
        raise InputError(vcf.path, "has no variant", "is it complete?")
    if 2 * found.mismatching > found.checked:
        raise _wrong_reference(vcf, found, assembly)
    if not found.num_variants:
        told = ", ".join(f"{number:,} {reason}" for reason, number in found.skipped.most_common())
        raise InputError(vcf.path, f"has no allele that can be scored: {told}", "name a VCF of SNVs and small indels")
    return found


def _wrong_reference(vcf: VcfFile, found: Survey, assembly: str) -> InputError:
    problem = f"{found.mismatching:,} of {found.checked:,} reference alleles are not the genome's ({assembly})"
    line = min(line for reason, line in found.examples.items() if reason in (MISMATCH, SWAPPED))
    if 2 * found.skipped[SWAPPED] > found.mismatching:
        hint = "most have the genome's base as ALT: REF and ALT are swapped, `bcftools norm --check-ref s` turns them"
    else:
        hint = "is the VCF of another assembly? Lift it over, or prepare a dataset of its assembly"
    return InputError(vcf.path, f"{problem}, the first in line {line:,}", hint)
