"""Accessibility tracks: ln(1 + mean signal) of every 50-bp stride, from peaks, a bigWig or aligned reads.

A cell type without a file has no track at all; that is not the same as a track of zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.errors import InputError
from ebert_core.genome.assembly import Assembly
from ebert_core.io.alignments import MIN_MAPPING_QUALITY, Cuts, read_cuts
from ebert_core.io.bed import read_peaks
from ebert_core.io.bigwig import BigWigReader
from ebert_core.vocabulary import STRIDE_BP

BIGWIG_SUFFIXES: Final = (".bw", ".bigwig", ".bigWig")
BAM_SUFFIX: Final = ".bam"
_OPEN_SHARE: Final = 0.02  # about what DNase peaks cover
_SAMPLED: Final = 7
_WINDOW_BP: Final = 10_000_000
# Mitochondrial DNA holds no chromatin, and up to half of an ATAC library's reads: it does not count towards the depth.
_MITOCHONDRIA: Final = ("chrM", "M", "chrMT", "MT")


def is_open(track: NDArray[np.float16]) -> NDArray[np.bool_]:
    """Which strides of a track count as open.

    Args:
        track: ln(1 + signal), shape (S,).

    Returns:
        bool (S,): those above 0, as in peaks; of a track that is above 0 nearly everywhere the strongest 2 %.
    """
    sample = track[::_SAMPLED]
    lowest = 0.0 if np.mean(sample > 0) < 0.5 else float(np.quantile(sample, 1 - _OPEN_SHARE))
    found: NDArray[np.bool_] = track > lowest
    return found


def read_accessibility(path: Path, assembly: Assembly) -> tuple[NDArray[np.float16], list[str]]:
    """A track on the flat axis.

    Args:
        path: narrowPeak (signalValue), BED (1 inside, 0 outside), bigWig or BAM (see `cut_track`).
        assembly: the dataset's.

    Returns:
        (float16 of shape (flat_bp / 50,): ln(1 + mean signal over the stride's 50 bp), notes on the reading).

    Raises:
        InputError: a signal that is negative or no number; no chromosome shared with the assembly; a damaged file.
    """
    if path.suffix == BAM_SUFFIX:
        return cut_track([path], assembly)
    track = np.zeros(assembly.flat_bp // STRIDE_BP, dtype=np.float32)
    notes = (
        _fill_from_bigwig(path, assembly, track)
        if path.suffix in BIGWIG_SUFFIXES
        else _fill_from_peaks(path, assembly, track)
    )
    return np.log1p(track).astype(np.float16), notes


def cut_track(paths: Sequence[Path], assembly: Assembly) -> tuple[NDArray[np.float16], list[str]]:
    """A track from the reads of one or more BAM files (replicates, whose cuts are added up).

    The signal of a stride is its cuts (`ebert_core.io.alignments.read_cuts`) divided by the mean cuts per stride, so
    that the depth of sequencing cancels: as if as many cuts had been read as there are strides (60.7 million on chr1 to
    chr22 and chrX of hg19). The mean is taken over the chromosomes that hold a cut, without the mitochondrial one.

    Returns, raises: as `read_accessibility`.
    """
    total = np.zeros(assembly.flat_bp // STRIDE_BP, dtype=np.int64)
    notes = []
    for path in paths:
        cuts = read_cuts(path, assembly)
        total += cuts.per_stride
        notes.append(_note(path, cuts))
    covered, strides = 0, 0
    silent = []
    for chrom in assembly.chroms:
        first, count = assembly.offset(chrom) // STRIDE_BP, -(-assembly.length(chrom) // STRIDE_BP)
        here = int(total[first : first + count].sum())
        if here == 0:
            silent.append(chrom)
        elif chrom not in _MITOCHONDRIA:
            covered, strides = covered + here, strides + count
    if covered == 0:
        raise InputError(paths[0], "has cuts on the mitochondrial chromosome only", "use reads of the whole genome")
    if silent:
        notes.append(f"{paths[0].name}: has no cut on {', '.join(silent)}; read as 0 there")
    return np.log1p(total / (covered / strides)).astype(np.float16), notes


def _note(path: Path, cuts: Cuts) -> str:
    return (
        f"{path.name}: {int(cuts.per_stride.sum()):,} cuts; left out: {cuts.flagged:,} reads by their flags, "
        f"{cuts.uncertain:,} of mapping quality below {MIN_MAPPING_QUALITY}, {cuts.elsewhere:,} on other chromosomes"
    )


def _fill_from_peaks(path: Path, assembly: Assembly, track: NDArray[np.float32]) -> list[str]:
    peaks = read_peaks(path, assembly)
    for chrom, (starts, ends) in peaks.intervals.items():
        signal = peaks.signal[chrom]
        if not (np.isfinite(signal) & (signal >= 0)).all():
            strange = signal[~(np.isfinite(signal) & (signal >= 0))][0]
            raise InputError(path, f"has a signalValue of {strange:g} on {chrom}", "accessibility must be 0 or more")
        first = assembly.offset(chrom) // STRIDE_BP
        strides = -(-assembly.length(chrom) // STRIDE_BP)
        track[first : first + strides] = mean_per_stride(starts, ends, signal, strides)
    return peaks.notes


def mean_per_stride(
    starts: NDArray[np.int64], ends: NDArray[np.int64], values: NDArray[np.float64], strides: int
) -> NDArray[np.float32]:
    """Mean of a piecewise constant signal over each of `strides` 50-bp strides; overlapping intervals add up.

    The signal's integral up to x is linear between interval ends, so it is read off at the strides' borders.
    """
    edges = np.concatenate([starts, ends])
    steps = np.concatenate([values, -values])
    order = np.argsort(edges, kind="stable")
    edges, level = edges[order].astype(np.float64), np.cumsum(steps[order])
    integral = np.concatenate([[0.0], np.cumsum(level[:-1] * np.diff(edges))])
    borders = np.arange(strides + 1, dtype=np.float64) * STRIDE_BP
    means = np.diff(np.interp(borders, edges, integral)) / STRIDE_BP
    # The running sum leaves rounding dust of about 1e-12 of the integral outside the intervals.
    means[np.abs(means) < 1e-6] = 0.0
    return means.astype(np.float32)


def _fill_from_bigwig(path: Path, assembly: Assembly, track: NDArray[np.float32]) -> list[str]:
    with BigWigReader(path) as reader:
        by_chrom = {assembly.resolve(name): name for name in reader.sizes if assembly.resolve(name)}
        if not by_chrom:
            raise InputError(path, "shares no chromosome with the genome", "use a file of the same assembly")
        for chrom, name in by_chrom.items():
            assert chrom is not None
            length = assembly.length(chrom)
            if reader.sizes[name] != length:
                raise InputError(
                    path,
                    f"says {name} has {reader.sizes[name]:,} bp, the genome has {length:,}",
                    "use a file of the same assembly",
                )
            first = assembly.offset(chrom) // STRIDE_BP
            for start in range(0, length, _WINDOW_BP):
                values = reader.fixed_values(name, start, min(start + _WINDOW_BP, length))
                if (strange := (values < 0) | np.isinf(values)).any():
                    found = values[int(np.argmax(strange))]
                    raise InputError(path, f"has a value of {found:g} on {chrom}", "accessibility must be 0 or more")
                padded = np.pad(np.nan_to_num(values, nan=0.0), (0, -len(values) % STRIDE_BP))
                strides = padded.reshape(-1, STRIDE_BP).mean(axis=1)
                track[first + start // STRIDE_BP :][: len(strides)] = strides
    missing = [chrom for chrom in assembly.chroms if chrom not in by_chrom]
    return [f"{path.name}: has no values on {', '.join(missing)}; read as 0 there"] if missing else []
