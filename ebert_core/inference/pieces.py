"""The pieces that a scan is cut into: what is scored, stored and shared out at once.

A piece is a stretch of one chromosome. Its edges lie on the grid of the model's windows and its windows share no batch
with another piece's, so its values are the same bits whichever run, resumed run or shard computes them. Chromosomes
come in lexicographic order, that of `sort -k1,1 -k2,2n`, of bedtools and of bigWig files.

Legend: N bins of a chromosome, R runs, T TFs, n scored bins of a piece.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ebert_core.errors import EbertError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.bins import all_bin_starts, scorable
from ebert_core.genome.intervals import Positions, any_overlap
from ebert_core.genome.regions import Region
from ebert_core.reporting import Advance
from ebert_core.vocabulary import BIN_BP, STRIDE_BP

# 5 Mb of bins: hg19 is some 620 pieces, and a killed run scores at most one of them again.
PIECE_BINS: Final = 100_000
# Probabilities of a piece at most: 16 MB of float32.
PIECE_VALUES: Final = 4_000_000
# 1 Mb of bins, for a pipe: rows should come at once.
STREAM_BINS: Final = 20_000

_OUTSIDE, _SCORED, _ALL_N, _EXCLUDED = range(4)
_FATES: Final = (_SCORED, _ALL_N, _EXCLUDED)  # in the order of a piece's runs
_NO_POSITIONS: Final = np.empty(0, dtype=np.int64)

Floats = NDArray[np.float32]
Runs = NDArray[np.int64]
"""First and behind-last number of each unbroken run of bins, rising, shape (R, 2)."""


class Sequences(Protocol):
    """What a plan reads of a dataset."""

    @property
    def assembly(self) -> Assembly:
        """Chromosomes."""

    def sequence(self, chrom: str) -> NDArray[np.uint8]:
        """Base codes, shape (length,)."""

    def excluded(self, chrom: str) -> tuple[Positions, Positions]:
        """Exclusion list."""


@dataclass(frozen=True)
class Coverage:
    """How many of the bins asked for were scored, and how many were not and why."""

    scored: int = 0
    all_n: int = 0
    excluded: int = 0

    def __add__(self, other: Coverage) -> Coverage:
        return Coverage(self.scored + other.scored, self.all_n + other.all_n, self.excluded + other.excluded)


@dataclass(frozen=True, eq=False)
class Piece:
    """A stretch of a chromosome.

    Attributes:
        number: place among all pieces of the request.
        chrom: its chromosome.
        wanted: bins to score.
        all_n, excluded: bins asked for that get no value: without a known base; touching the exclusion list.
    """

    number: int
    chrom: str
    wanted: Runs
    all_n: Runs
    excluded: Runs

    @property
    def bins(self) -> Positions:
        """Numbers of the bins to score, rising, shape (n,)."""
        return bins_of(self.wanted)

    @property
    def coverage(self) -> Coverage:
        """Numbers of bins."""
        return Coverage(*(int((runs[:, 1] - runs[:, 0]).sum()) for runs in (self.wanted, self.all_n, self.excluded)))


@dataclass(frozen=True, eq=False)
class Scored:
    """A piece with its values.

    Attributes:
        piece: which bins.
        probabilities: float32 (n, T).
        spread: of an ensemble's members, float32 (n, T); None for a single model.
    """

    piece: Piece
    probabilities: Floats
    spread: Floats | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """All pieces of a request, in order.

    Attributes:
        chroms: chromosomes with an interval that was asked for, in lexicographic order.
        pieces: their bins, each once; one without a bin to score may be among them.
        coverage: of all pieces.
    """

    chroms: tuple[str, ...]
    pieces: tuple[Piece, ...]
    coverage: Coverage

    @property
    def digest(self) -> str:
        """Hex SHA-256 of what is asked for: equal where two runs score the same bins in the same pieces."""
        digest = hashlib.sha256()
        for piece in self.pieces:
            digest.update(piece.chrom.encode())
            for runs in (piece.wanted, piece.all_n, piece.excluded):
                digest.update(len(runs).to_bytes(8, "little") + runs.astype("<i8").tobytes())
        return digest.hexdigest()

    def shard(self, number: int, of: int) -> tuple[Piece, ...]:
        """The pieces of shard `number` (from 1) of `of`: neighbours, with about as many bins as any other shard's."""
        weights = np.array([piece.coverage.scored for piece in self.pieces], dtype=np.float64)
        middles = np.cumsum(weights) - weights / 2
        owner = np.minimum(middles * of // max(weights.sum(), 1), of - 1)
        return tuple(piece for piece, shard in zip(self.pieces, owner, strict=True) if shard == number - 1)


def piece_bins(num_tfs: int) -> int:
    """Bins of a piece whose values go to files."""
    return max(1, min(PIECE_BINS, PIECE_VALUES // num_tfs))


def make_plan(dataset: Sequences, regions: Iterable[Region], core_bins: int, bins_at_once: int) -> Plan:
    """Cut the regions' bins into pieces.

    Args:
        dataset: sequence and exclusion list.
        regions: in any order; they may overlap. A bin is asked for by its centre.
        core_bins: pieces begin at multiples of it: the bins that one window of the scan answers.
        bins_at_once: bins of a piece, about; see `piece_bins`.

    Raises:
        EbertError: no bin of the regions may have a value.
    """
    edges: dict[str, list[tuple[int, int]]] = {}
    for region in regions:
        edges.setdefault(region.chrom, []).append((region.start, region.end))
    step = max(1, bins_at_once // core_bins) * core_bins
    pieces: list[Piece] = []
    for chrom in sorted(edges):
        inside = _inside(dataset.assembly.length(chrom), np.array(edges[chrom], dtype=np.int64))
        for first in range(0, len(inside), step):
            if len(asked := np.flatnonzero(inside[first : first + step])):
                low, high = first + int(asked[0]), first + int(asked[-1]) + 1
                fates = _fates(dataset, chrom, low, inside[low:high])
                give_back(dataset.sequence(chrom))
                pieces.append(Piece(len(pieces), chrom, *(_runs(fates == fate) + low for fate in _FATES)))
    coverage = sum((piece.coverage for piece in pieces), Coverage())
    if not coverage.scored:
        raise EbertError(
            f"no bin to score: {coverage.all_n:,} hold only N and {coverage.excluded:,} are excluded",
            "choose chromosomes or regions that have bins",
        )
    return Plan(tuple(sorted(edges)), tuple(pieces), coverage)


def give_back(*arrays: NDArray[Any]) -> None:
    """Let go of the pages that reading memory-mapped arrays brought in; other arrays are left alone.

    They stay in the system's cache, but count no more as this process's: a scan would end up with the whole genome.
    """
    for array in arrays:
        pages = getattr(array, "_mmap", None)
        if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
            pages.madvise(mmap.MADV_DONTNEED)


def _inside(length: int, edges: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which bins of a chromosome are asked for, shape (N,).

    A region under 50 bp is widened to the 50 bp around its middle, so that it holds the centre of one bin, whose value
    stands on the region's middle base.
    """
    num_bins = len(all_bin_starts(length))
    widened = (edges[:, 0] + edges[:, 1] - 1) // 2 - STRIDE_BP // 2 + 1
    low, high = np.minimum(edges[:, 0], widened), np.maximum(edges[:, 1], widened + STRIDE_BP)
    first, last = (np.clip(-(-(edge - BIN_BP // 2) // STRIDE_BP), 0, num_bins) for edge in (low, high))
    opened = np.bincount(first, minlength=num_bins + 1) - np.bincount(last, minlength=num_bins + 1)
    return np.cumsum(opened)[:num_bins] > 0


def _fates(dataset: Sequences, chrom: str, first: int, inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """What becomes of the bins from `first` on, of which `inside` were asked for; their shape."""
    starts = all_bin_starts((len(inside) - 1) * STRIDE_BP + BIN_BP)
    offset = first * STRIDE_BP
    codes = dataset.sequence(chrom)[offset : offset + int(starts[-1]) + BIN_BP]
    gone = any_overlap(*dataset.excluded(chrom), starts + offset, starts + offset + BIN_BP)
    fates = np.where(gone, _EXCLUDED, _SCORED)
    fates[~scorable(codes, starts, (_NO_POSITIONS, _NO_POSITIONS))] = _ALL_N
    fates[~inside] = _OUTSIDE
    return fates.astype(np.uint8)


def _runs(mask: NDArray[np.bool_]) -> Runs:
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    return edges.reshape(-1, 2).astype(np.int64)


def bins_of(runs: Runs) -> Positions:
    """The numbers of the bins in runs, rising."""
    lengths = runs[:, 1] - runs[:, 0]
    before = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum()), dtype=np.int64) + np.repeat(runs[:, 0] - before, lengths)


def joined(runs: Sequence[Runs]) -> Runs:
    """Runs of several pieces of a chromosome, in order, as one; those that touch become one."""
    every = np.concatenate([*runs, np.empty((0, 2), dtype=np.int64)])
    if not len(every):
        return every
    first = np.concatenate([[True], every[1:, 0] > every[:-1, 1]])
    last = np.concatenate([first[1:], [True]])
    return np.stack([every[first, 0], every[last, 1]], axis=1)


class Values(Protocol):
    """How the bins of a piece get their values."""

    def __call__(self, piece: Piece, advance: Advance) -> Scored:
        """Score the piece's bins, of which there may be none; `advance` is told as they get done."""


def score_pieces(pieces: Iterable[Piece], values: Values, advance: Advance) -> Iterator[Scored]:
    """The pieces with their values, in order."""
    for piece in pieces:
        yield values(piece, advance)
