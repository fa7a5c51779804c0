"""The files of one TF, written as its pieces come: bigWig, bedGraph, called sites, submission."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ebert_core.errors import EbertError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.bins import BenchmarkBins
from ebert_core.genome.intervals import Positions
from ebert_core.inference.calls import SiteCaller, write_narrow_peak
from ebert_core.inference.output_files import OutputSettings
from ebert_core.io.bgzip import BgzipWriter
from ebert_core.io.bigwig import BigWigWriter
from ebert_core.io.submission_writer import SubmissionWriter
from ebert_core.vocabulary import BIN_BP, STRIDE_BP

# A bin's value stands on its central 50 bp (docs/definitions.md).
CENTRE_OFFSET_BP: Final = (BIN_BP - STRIDE_BP) // 2
_ROWS_AT_ONCE: Final = 100_000
# Blocks of steps that one piece may make: each takes a call, and space that is set aside until the file is whole.
_MOST_RUNS: Final = 32
Floats = NDArray[np.float32]


class Track(Protocol):
    """A file of one TF that is being written; a context manager, whose block ends with the complete file."""

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def add(self, chrom: str, bins: Positions, values: Floats) -> None:
        """Write the next scored bins.

        Args:
            chrom: in lexicographic order.
            bins: numbers of bins (start / 50), rising; shape (n,).
            values: theirs, shape (n,).
        """


def browser_order(assembly: Assembly) -> Assembly:
    """The assembly with its chromosomes in lexicographic order, as UCSC's own programs write bigWig files.

    Their tree of chromosome names is searched as a sorted one (Kent et al. 2010, supplement).
    """
    lengths = dict(zip(assembly.chroms, assembly.lengths, strict=True))
    return Assembly.from_sizes(sorted(lengths.items()))


def shown(bins: Positions, values: Floats, settings: OutputSettings) -> tuple[Positions, Floats]:
    """What `--min-score` leaves of the bins, and their values as `--round` writes them."""
    if settings.min_score is not None:
        kept = values >= np.float32(settings.min_score)
        bins, values = bins[kept], values[kept]
    if settings.round_digits is not None:
        values = np.round(values.astype(np.float64), settings.round_digits).astype(np.float32)
    return bins, values


class BigWigTrack(BigWigWriter):
    """A bigWig of bins: each unbroken run of them is one fixed-step block; where runs are short, each bin has a place.

    Args:
        name: TF and cell type, for the error where no bin reaches `--min-score`: there is no bigWig without a value.
    """

    def __init__(self, path: Path, assembly: Assembly, settings: OutputSettings, name: str) -> None:
        super().__init__(path, browser_order(assembly))
        self._settings = settings
        self._name = name
        self._best = 0.0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
        except EbertError:
            if (least := self._settings.min_score) is None or self._best >= least:
                raise
            raise EbertError(
                f"{self._name}: no bin reaches --min-score {least:g}, the best has {self._best:.3g}", "ask for less"
            ) from None

    def add(self, chrom: str, bins: Positions, values: Floats) -> None:
        self._best = max(self._best, float(values.max(initial=0)))
        bins, values = shown(bins, values, self._settings)
        edges = np.flatnonzero(np.diff(bins) > 1) + 1
        if len(edges) > _MOST_RUNS:
            self.write_spans(chrom, bins * STRIDE_BP + CENTRE_OFFSET_BP, values, STRIDE_BP)
            return
        for first, last in zip([0, *edges.tolist()], [*edges.tolist(), len(bins)], strict=True):
            if last > first:
                start = int(bins[first]) * STRIDE_BP + CENTRE_OFFSET_BP
                self.write_fixed_step(chrom, start, values[first:last], STRIDE_BP, STRIDE_BP)


class BedGraphTrack(BgzipWriter):
    """A bgzip bedGraph: the bins' central 50 bp."""

    def __init__(self, path: Path, settings: OutputSettings) -> None:
        super().__init__(path)
        self._settings = settings

    def add(self, chrom: str, bins: Positions, values: Floats) -> None:
        bins, values = shown(bins, values, self._settings)
        for first in range(0, len(bins), _ROWS_AT_ONCE):
            some = slice(first, first + _ROWS_AT_ONCE)
            self.write(bedgraph_rows(chrom, bins[some], values[some]).encode("ascii"))


def bedgraph_rows(chrom: str, bins: Positions, values: Floats) -> str:
    """Lines of chrom, start and end of the central 50 bp, value to six significant digits."""
    starts = (bins * STRIDE_BP + CENTRE_OFFSET_BP).tolist()
    return "".join(
        f"{chrom}\t{start}\t{start + STRIDE_BP}\t{value:.6g}\n"
        for start, value in zip(starts, values.tolist(), strict=True)
    )


class SitesTrack:
    """Called sites, as narrowPeak.

    Attributes:
        num_sites: written so far.
    """

    def __init__(self, path: Path, threshold: float) -> None:
        self._handle = path.open("w", encoding="ascii")
        self._caller = SiteCaller(threshold)
        self.num_sites = 0

    def __enter__(self) -> SitesTrack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._handle:
            if kind is None:
                self.num_sites += write_narrow_peak(self._caller.finish(), self._handle)

    def add(self, chrom: str, bins: Positions, values: Floats) -> None:
        self.num_sites += write_narrow_peak(self._caller.add(chrom, bins, values), self._handle)


class SubmissionTrack(SubmissionWriter):
    """A submission; the probabilities of one chromosome at a time are held until all of its pieces are there."""

    def __init__(self, path: Path, benchmark: BenchmarkBins) -> None:
        super().__init__(path, benchmark)
        self._chrom = ""
        self._values = np.empty(0, dtype=np.float32)

    def add(self, chrom: str, bins: Positions, values: Floats) -> None:
        if chrom != self._chrom:
            self._finish_chrom()
            self._chrom = chrom
            num_bins = self.bins.assembly.length(chrom) // STRIDE_BP
            self._values = np.full(num_bins, np.nan, dtype=np.float32)
        self._values[bins] = values

    def _finish_chrom(self) -> None:
        if self._chrom in self.chroms:
            self.write(self._chrom, self._values[self.bins.starts(self._chrom) // STRIDE_BP])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish_chrom()
        super().__exit__(kind, error, trace)
