"""Regions that somebody chose: whole chromosomes or stretches of them, `chr20` or `chr20:50,000,000-63,025,520`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from ebert_core.errors import EbertError, UnknownNameError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.intervals import complement, merge
from ebert_core.vocabulary import STATE_BIN_BP

_HELD_FROM: Final = 0.6
_HOW_TO_WRITE: Final = "write chrom:start-end, 0-based and half-open, for example chr20:50,000,000-63,025,520"


@dataclass(frozen=True, order=True)
class Region:
    """A chosen interval: 0-based, half-open, bp."""

    chrom: str
    start: int
    end: int

    def __str__(self) -> str:
        return f"{self.chrom}:{self.start:,}-{self.end:,}"

    @property
    def length(self) -> int:
        """bp."""
        return self.end - self.start


def whole(assembly: Assembly, chroms: Iterable[str] | None = None) -> list[Region]:
    """Whole chromosomes, all of the assembly's by default."""
    return [Region(chrom, 0, assembly.length(chrom)) for chrom in (assembly.chroms if chroms is None else chroms)]


def parse_region(text: str, assembly: Assembly) -> Region:
    """`chrom`, `chrom:start-end` (0-based half-open) or `chrom:start-` (to the end); commas in numbers are allowed.

    Raises:
        UnknownNameError: the assembly has no such chromosome.
        EbertError: the interval is no interval, is empty or goes past the chromosome's end.
    """
    match = re.fullmatch(r"(.+):(\d[\d,]*)-(\d[\d,]*)?", text.strip())
    name = match[1] if match else text.strip()
    chrom = assembly.resolve(name)
    if chrom is None:
        if assembly.resolve(name.rpartition(":")[0]):
            raise EbertError(f"{text.strip()!r} is not a region", _HOW_TO_WRITE)
        raise UnknownNameError("chromosome", name, assembly.chroms)
    length = assembly.length(chrom)
    if not match:
        return Region(chrom, 0, length)
    start, end = (int(match[i].replace(",", "")) if match[i] else length for i in (2, 3))
    if not start < end <= length:
        raise EbertError(
            f"region {text.strip()} is empty or goes past the end of {chrom} ({length:,} bp)", _HOW_TO_WRITE
        )
    return Region(chrom, start, end)


def subtract(regions: Iterable[Region], removed: Iterable[Region]) -> list[Region]:
    """What is left of the regions' union, sorted in the order in which chromosomes first appear."""
    regions, removed = list(regions), list(removed)
    left: list[Region] = []
    for chrom in dict.fromkeys(region.chrom for region in regions):
        gone = merge(*_arrays(removed, chrom))
        for start, end in zip(*merge(*_arrays(regions, chrom)), strict=True):
            starts, ends = complement(*_inside(gone, start, end), int(start), int(end))
            left += [Region(chrom, int(a), int(b)) for a, b in zip(starts, ends, strict=True)]
    return left


def overlap_bp(a: Iterable[Region], b: Iterable[Region]) -> int:
    """Base pairs that two sets of regions share, each counted once."""
    union = subtract(a, [])
    return sum(region.length for region in union) - sum(region.length for region in subtract(union, b))


def hold_back(regions: Iterable[Region], fraction: float) -> tuple[list[Region], list[Region]]:
    """Hold back a stretch of `fraction` of each region, cut at multiples of 200 bp.

    The stretch begins at three fifths of the region: the ends of chromosomes are unlike the rest (gene-dense and rich
    in GC near telomeres, full of repeats near centromeres of acrocentric ones).

    Returns:
        (kept, held back); a region too short to split is kept whole.
    """
    kept, held = [], []
    for region in regions:
        first = region.start + int(region.length * _HELD_FROM) // STATE_BIN_BP * STATE_BIN_BP
        last = first + int(region.length * fraction) // STATE_BIN_BP * STATE_BIN_BP
        if first < last <= region.end:
            stretch = Region(region.chrom, first, last)
            held.append(stretch)
            kept += subtract([region], [stretch])
        else:
            kept.append(region)
    return kept, held


def _arrays(regions: Iterable[Region], chrom: str) -> tuple[np.ndarray, np.ndarray]:
    here = [(region.start, region.end) for region in regions if region.chrom == chrom]
    both = np.array(here, dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _inside(gone: tuple[np.ndarray, np.ndarray], start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    here = (gone[1] > start) & (gone[0] < end)
    return gone[0][here], gone[1][here]
