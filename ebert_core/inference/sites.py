"""The sites that a model is to explain: short regions, each with the bins whose score is looked at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ebert_core.errors import EbertError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.intervals import Positions
from ebert_core.genome.regions import Region
from ebert_core.io.bed import read_rows, reading_notes
from ebert_core.vocabulary import BIN_BP, STRIDE_BP

MAX_SITE_BP: Final = 1_000
"""A longer region holds several sites: its middle says nothing of where they are."""

_NARROWPEAK_COLUMNS: Final = 10
_SUMMIT_COLUMN: Final = 9


@dataclass(frozen=True)
class Site:
    """A short region.

    Attributes:
        chrom, start, end: 0-based half-open, bp.
        middle: the base that its stretch is laid around: the summit, or the region's middle.
    """

    chrom: str
    start: int
    end: int
    middle: int

    @property
    def name(self) -> str:
        """For tables and file names."""
        return f"{self.chrom}:{self.start}-{self.end}"

    @classmethod
    def of(cls, region: Region) -> Site:
        """A region with its middle.

        Raises:
            EbertError: it is longer than `MAX_SITE_BP`.
        """
        if region.length > MAX_SITE_BP:
            raise EbertError(
                f"{region} has {region.length:,} bp, a site has {MAX_SITE_BP:,} at most",
                "name the site in it that you mean; `ebert predict` calls sites and gives their summits (narrowPeak)",
            )
        return cls(region.chrom, region.start, region.end, (region.start + region.end - 1) // 2)

    def stretch(self, width: int, length: int) -> tuple[int, int]:
        """First and last + 1 of the `width` bases around the middle, cut at the ends of a chromosome of `length`."""
        first = self.middle - width // 2
        return max(0, first), min(first + width, length)

    def bins(self, num_bins: int, *, whole: bool) -> Positions:
        """The bins whose score is the site's.

        Args:
            num_bins: of its chromosome.
            whole: every bin that is centred in the region; else the one whose central 50 bp hold the middle, as in a
                region under 50 bp.

        Returns:
            rising, int64; empty where the chromosome ends before such a bin would.
        """
        centre = (self.middle - (BIN_BP - STRIDE_BP) // 2) // STRIDE_BP
        first, last = (-(-(edge - BIN_BP // 2) // STRIDE_BP) for edge in (self.start, self.end))
        if not whole or self.end - self.start < STRIDE_BP:
            first, last = centre, centre + 1
        return np.arange(max(first, 0), min(last, num_bins), dtype=np.int64)


def read_sites(path: Path, assembly: Assembly) -> tuple[list[Site], list[str]]:
    """Sites of a BED file, in file order, each once, and notes on the reading; `-` reads standard input.

    In a narrowPeak file (10 columns) the summit is the middle, where the row has one; such a row may be of any length.

    Raises:
        InputError: as `read_rows`; a summit outside its row; a row without summit that is too long to be a site.
    """
    rows = read_rows(path, assembly, num_columns=_NARROWPEAK_COLUMNS)
    summits = np.full(len(rows.row), -1)
    if (rows.table.widths == _NARROWPEAK_COLUMNS).all():
        summits = rows.table.integers(_SUMMIT_COLUMN, "peak (column 10 of narrowPeak)")[rows.row]
    sites: dict[Site, None] = {}
    numbers = zip(
        rows.row, rows.chrom.tolist(), rows.starts.tolist(), rows.ends.tolist(), summits.tolist(), strict=True
    )
    for row, chrom, start, end, summit in numbers:
        region = Region(assembly.chroms[chrom], start, end)
        if summit >= region.length:
            raise rows.table.error(
                row, f"the summit lies {summit:,} bp from the start of a row of {region.length:,} bp", "mend it"
            )
        if summit >= 0:
            sites[Site(region.chrom, start, end, start + summit)] = None
            continue
        try:
            sites[Site.of(region)] = None
        except EbertError as error:
            raise rows.table.error(row, error.message, error.hint) from None
    notes = reading_notes(rows)
    if twice := len(rows.row) - len(sites):
        notes.append(f"{path.name}: {twice:,} rows name a site again and were left out")
    return list(sites), notes


def sites_of(regions: Iterable[Region]) -> list[Site]:
    """Sites of regions as typed, each once; `EbertError` as `Site.of`."""
    return list(dict.fromkeys(Site.of(region) for region in regions))
