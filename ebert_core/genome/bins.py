"""The grid of 200-bp bins, one every 50 bp: the unit of labels and of predictions.

A bin is named by its start, always a multiple of 50 on its chromosome. Two sets of bins exist:

* all bins of a chromosome: starts 0, 50, ... while the bin ends within the chromosome. Predictions cover these, minus
  bins without a single known base and bins that touch the exclusion list;
* the benchmark's bins (ENCODE-DREAM): those that tile a list of regions. Labels cover these, and a submission has one
  row for each. The regions come from the challenge's file, or from the assembly and the exclusion list: starts 600,
  650, ... below length - 600, minus bins that touch the list. `docs/definitions.md` has the source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.errors import EbertError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.intervals import Positions, any_overlap, complement, first_overlap_with_previous, merge
from ebert_core.vocabulary import BASE_N, BIN_BP, STRIDE_BP, STRIDES_PER_BIN

BENCHMARK_MARGIN_BP: Final = 600
HELD_OUT_CHROMS: Final = ("chr1", "chr8", "chr21")
"""The chromosomes that the ENCODE-DREAM challenge held out: its ladder and final scores are of these alone."""


def all_bin_starts(length: int) -> Positions:
    """Starts of every bin that lies within a chromosome of `length` bp; empty below 200 bp."""
    return np.arange(0, length - BIN_BP + 1, STRIDE_BP, dtype=np.int64)


def tile(starts: Positions, ends: Positions) -> Positions:
    """Starts of the bins that tile regions: s, s + 50, ..., e - 200 for each [s, e).

    Args:
        starts, ends: multiples of 50, each region at least 200 bp; shape (regions,).

    Returns:
        int64 of shape (N,), region after region.
    """
    counts = (ends - starts - BIN_BP) // STRIDE_BP + 1
    before = np.cumsum(counts) - counts
    return np.arange(int(counts.sum()), dtype=np.int64) * STRIDE_BP + np.repeat(starts - before * STRIDE_BP, counts)


def benchmark_regions(length: int, excluded: tuple[Positions, Positions]) -> tuple[Positions, Positions]:
    """The regions (starts, ends) that the benchmark's bins of a chromosome tile.

    Args:
        length: of the chromosome, bp.
        excluded: sorted, disjoint (starts, ends) on this chromosome.
    """
    last = (length - BENCHMARK_MARGIN_BP - 1) // STRIDE_BP * STRIDE_BP
    gaps_from, gaps_to = complement(*excluded, BENCHMARK_MARGIN_BP, max(last + BIN_BP, BENCHMARK_MARGIN_BP))
    starts, ends = -(-gaps_from // STRIDE_BP) * STRIDE_BP, gaps_to // STRIDE_BP * STRIDE_BP
    kept = ends - starts >= BIN_BP
    return starts[kept], ends[kept]


def benchmark_bin_starts(length: int, excluded: tuple[Positions, Positions]) -> Positions:
    """Starts of the benchmark's bins of a chromosome, by its length and the exclusion list.

    Args:
        length: of the chromosome, bp.
        excluded: sorted, disjoint (starts, ends) on this chromosome.
    """
    return tile(*benchmark_regions(length, excluded))


@dataclass(frozen=True, eq=False)
class BenchmarkBins:
    """The benchmark's bins of an assembly: the rows of a label table and of a submission, in their order.

    Attributes:
        assembly: their coordinates.
        regions: chromosome -> (starts, ends) of the regions that the bins tile: sorted, disjoint, int64 of shape
            (regions,); only chromosomes with at least one bin.
    """

    assembly: Assembly
    regions: Mapping[str, tuple[Positions, Positions]]

    @classmethod
    def from_regions(cls, assembly: Assembly, regions: Mapping[str, tuple[Positions, Positions]]) -> BenchmarkBins:
        """Bins that tile regions.

        Args:
            assembly: must have every chromosome that is named.
            regions: chromosome -> (starts, ends) in any order. `ebert_core.io.bed.read_bin_regions` reads a file.

        Raises:
            UnknownNameError: the assembly has no such chromosome.
            EbertError: an interval that bins cannot tile (see `region_fault`), or two that overlap.
        """
        kept = {}
        for chrom in sorted(regions):
            starts, ends = (np.asarray(edges, dtype=np.int64) for edges in regions[chrom])
            order = np.argsort(starts, kind="stable")
            starts, ends = starts[order], ends[order]
            problem = ""
            if fault := region_fault(starts, ends, assembly.length(chrom)):
                problem = fault[1]
            elif (clash := first_overlap_with_previous(starts, ends)) is not None:
                problem = f"region {starts[clash]:,}-{ends[clash]:,} overlaps another"
            if problem:
                raise EbertError(f"{chrom}: {problem}", "regions are disjoint and tiled by 200-bp bins every 50 bp")
            if len(starts):
                kept[chrom] = (starts, ends)
        return cls(assembly, kept)

    @classmethod
    def from_exclusion(
        cls, assembly: Assembly, excluded: Callable[[str], tuple[Positions, Positions]]
    ) -> BenchmarkBins:
        """The bins of every chromosome: starts 600, 650, ... below length - 600, minus the exclusion list.

        Args:
            assembly: its chromosomes.
            excluded: chromosome -> (starts, ends) never used, any order; `Dataset.excluded` is one.
        """
        regions = {c: benchmark_regions(assembly.length(c), merge(*excluded(c))) for c in sorted(assembly.chroms)}
        return cls(assembly, {chrom: edges for chrom, edges in regions.items() if len(edges[0])})

    @property
    def chroms(self) -> tuple[str, ...]:
        """Chromosomes that have bins, in lexicographic order: chr1, chr10, ..., chr19, chr2, ..., chrX."""
        return tuple(sorted(self.regions))

    def starts(self, chrom: str) -> Positions:
        """Bin starts of a chromosome, rising, int64 of shape (N,); empty where the assembly's chromosome has none."""
        if chrom not in self.regions:
            self.assembly.index(chrom)
            return np.empty(0, dtype=np.int64)
        return tile(*self.regions[chrom])

    def num_rows(self, chroms: Iterable[str] | None = None) -> int:
        """Number of bins, on all chromosomes or on those asked for."""
        asked = self.regions if chroms is None else [self.assembly.chroms[self.assembly.index(c)] for c in chroms]
        edges = [self.regions[chrom] for chrom in asked if chrom in self.regions]
        return sum(int(((ends - starts - BIN_BP) // STRIDE_BP + 1).sum()) for starts, ends in edges)


def region_fault(starts: Positions, ends: Positions, length: int) -> tuple[int, str] | None:
    """The first region that bins cannot tile: (its index, what is wrong with it), or None.

    A region begins at a multiple of 50, is at least 200 bp and a multiple of 50 long, and ends within the chromosome of
    `length` bp.
    """
    rules = (
        (starts < 0, "begins below 0"),
        (starts % STRIDE_BP != 0, f"begins at no multiple of {STRIDE_BP}"),
        (ends - starts < BIN_BP, f"is shorter than a bin ({BIN_BP} bp)"),
        ((ends - starts) % STRIDE_BP != 0, f"is no multiple of {STRIDE_BP} bp long"),
        (ends > length, f"goes past the chromosome's end ({length:,} bp)"),
    )
    bad = np.any([broken for broken, _ in rules], axis=0)
    if not bad.any():
        return None
    row = int(np.argmax(bad))
    what = next(what for broken, what in rules if broken[row])
    return row, f"region {starts[row]:,}-{ends[row]:,} {what}"


def scorable(codes: NDArray[np.uint8], starts: Positions, excluded: tuple[Positions, Positions]) -> NDArray[np.bool_]:
    """Which bins get a prediction: at least one base that is not N, and no overlap with the exclusion list.

    Args:
        codes: base codes of the whole chromosome, shape (length,).
        starts: bin starts, multiples of 50, shape (N,); every bin lies within the chromosome.
        excluded: sorted, disjoint (starts, ends) on this chromosome.
    """
    # Per stride first: a running count over single bases would take 16 bytes a base, 4 GB for chr1.
    whole = len(codes) // STRIDE_BP
    in_stride = (codes[: whole * STRIDE_BP].reshape(whole, STRIDE_BP) != BASE_N).any(axis=1)
    first = starts // STRIDE_BP
    has_base = np.zeros(len(starts), dtype=bool)
    for place in range(STRIDES_PER_BIN):
        has_base |= in_stride[first + place]
    return has_base & ~any_overlap(*excluded, starts, starts + BIN_BP)
