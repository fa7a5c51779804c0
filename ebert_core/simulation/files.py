"""Writes the demo world in the field's formats; equal arrays give equal bytes.

Peaks and tracks come on the assembly's flat axis and leave on chromosome coordinates.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.genome.assembly import Assembly
from ebert_core.io.bigwig import BigWigWriter
from ebert_core.simulation.chip import Peaks, Positions
from ebert_core.simulation.states import MNEMONICS, segments
from ebert_core.vocabulary import BIN_BP, STATE_BIN_BP, STRIDE_BP

_LINE_BP: Final = 60
# IDR 0.05 as -log10, where the conservative threshold lies; and its growth per unit of enrichment.
_IDR_AT_THRESHOLD: Final = 1.30103
_IDR_SLOPE: Final = 0.5
_LEAST_PEAK_BP: Final = 50


def write_fasta(path: Path, assembly: Assembly, letters: NDArray[np.uint8]) -> None:
    """Plain FASTA with lines of 60 bases.

    Args:
        path: file to write.
        assembly: names and lengths.
        letters: ASCII on the flat axis.
    """
    with path.open("wb") as handle:
        for chrom, length in zip(assembly.chroms, assembly.lengths, strict=True):
            here = letters[assembly.offset(chrom) :][:length]
            handle.write(f">{chrom}\n".encode())
            whole = length // _LINE_BP * _LINE_BP
            lines = np.full((whole // _LINE_BP, _LINE_BP + 1), ord("\n"), dtype=np.uint8)
            lines[:, :-1] = here[:whole].reshape(-1, _LINE_BP)
            handle.write(lines.tobytes())
            if whole < length:
                handle.write(here[whole:].tobytes() + b"\n")


def write_gzip(path: Path, lines: Iterable[str]) -> None:
    """Gzip without a name and a time in its header."""
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode(), compresslevel=6, mtime=0))


def write_segmentation(path: Path, assembly: Assembly, track: NDArray[np.uint8]) -> None:
    """Roadmap's mnemonics BED; like ChromHMM it ends at the last whole bin of each chromosome."""
    lines = []
    for chrom, length in zip(assembly.chroms, assembly.lengths, strict=True):
        first = assembly.offset(chrom) // STATE_BIN_BP
        starts, ends, codes = segments(track[first : first + length // STATE_BIN_BP])
        lines += [
            f"{chrom}\t{start * STATE_BIN_BP}\t{end * STATE_BIN_BP}\t{MNEMONICS[code - 1]}"
            for start, end, code in zip(starts.tolist(), ends.tolist(), codes.tolist(), strict=True)
        ]
    write_gzip(path, lines)


@dataclass(frozen=True)
class _Placed:
    """Peaks on chromosomes."""

    chrom: list[str]
    start: Positions
    end: Positions
    summit: Positions
    enrichment: NDArray[np.float64]


def on_chromosomes(assembly: Assembly, peaks: Peaks) -> _Placed:
    """Flat peaks -> chromosome coordinates, clipped to the chromosome; slivers of under 50 bp are dropped."""
    index, _ = assembly.locate(peaks.summit)
    offset, length = assembly.offsets[index], np.array(assembly.lengths)[index]
    start = np.maximum(peaks.start - offset, 0)
    end = np.minimum(peaks.end - offset, length)
    keep = np.flatnonzero(end - start >= _LEAST_PEAK_BP)
    start, end = start[keep], end[keep]
    summit = np.clip(peaks.summit[keep] - offset[keep], start, end - 1)
    return _Placed([assembly.chroms[i] for i in index[keep]], start, end, summit, peaks.enrichment[keep])


def write_idr_peaks(
    rng: np.random.Generator, conservative: Path, relaxed: Path, assembly: Assembly, peaks: Peaks
) -> None:
    """The two files of one ChIP-seq experiment, as the DREAM challenge has them, rows in no order.

    Conservative: narrowPeak with 10 columns. Relaxed: 20 columns, IDR's output with both replicates.

    Args:
        rng: draws the replicates and the order of the rows.
        conservative, relaxed: files to write.
        assembly: the world's.
        peaks: all relaxed peaks, flat; those of enrichment >= 0 are conservative.
    """
    placed = on_chromosomes(assembly, peaks)
    count = len(placed.start)
    idr = np.maximum(_IDR_AT_THRESHOLD + _IDR_SLOPE * placed.enrichment, 0.01)
    # IDR's score column: -125 log2(global IDR), at most 1000.
    score = np.minimum((125 * idr / np.log10(2)).astype(np.int64), 1000)
    signal = 6 * np.exp(0.25 * np.minimum(placed.enrichment, 8)) * np.exp(0.1 * rng.standard_normal(count))
    shifts = rng.integers(-20, 21, size=(2, count))
    levels = signal * np.exp(0.2 * rng.standard_normal((2, count)))
    strict, loose = [], []
    for row in rng.permutation(count).tolist():
        start, end = int(placed.start[row]), int(placed.end[row])
        head = (
            f"{placed.chrom[row]}\t{start}\t{end}\t.\t{score[row]}\t.\t{signal[row]:.5f}\t-1.00000\t"
            f"{idr[row] + 0.3:.5f}\t{placed.summit[row] - start}"
        )
        if placed.enrichment[row] >= 0:
            strict.append(head)
        middle = (end - start) // 2
        replicates = "\t".join(
            f"{max(start + int(shift), 0)}\t{max(end + int(shift), 1)}\t{level:.5f}\t{middle}"
            for shift, level in zip(shifts[:, row], levels[:, row], strict=True)
        )
        loose.append(f"{head}\t{idr[row] + 0.2:.2f}\t{idr[row]:.2f}\t{replicates}")
    write_gzip(conservative, strict)
    write_gzip(relaxed, loose)


def write_accessibility(path: Path, assembly: Assembly, peaks: Peaks) -> None:
    """narrowPeak with 10 columns; signalValue grows with the latent level, p- and q-values are not given (-1)."""
    placed = on_chromosomes(assembly, peaks)
    signal = np.exp(0.6 * placed.enrichment)
    write_gzip(
        path,
        (
            f"{placed.chrom[row]}\t{placed.start[row]}\t{placed.end[row]}\t.\t0\t.\t{signal[row]:.4f}\t-1\t-1\t"
            f"{placed.summit[row] - placed.start[row]}"
            for row in range(len(placed.start))
        ),
    )


def write_truth(path: Path, assembly: Assembly, probability: NDArray[np.float64]) -> None:
    """bigWig with each bin's value on its central 50 bp.

    Args:
        path: file to write.
        assembly: the world's.
        probability: of the bin that starts at flat position 50 i, shape (flat_bp / 50,).
    """
    with BigWigWriter(path, assembly) as writer:
        for chrom, length in zip(assembly.chroms, assembly.lengths, strict=True):
            bins = (length - BIN_BP) // STRIDE_BP + 1
            if bins > 0:
                values = probability[assembly.offset(chrom) // STRIDE_BP :][:bins].astype(np.float32)
                writer.write_fixed_step(chrom, (BIN_BP - STRIDE_BP) // 2, values, step_bp=STRIDE_BP, span_bp=STRIDE_BP)


def write_bed(path: Path, rows: Sequence[tuple[str, int, int, str]]) -> None:
    """Plain BED4."""
    path.write_text("".join(f"{chrom}\t{start}\t{end}\t{name}\n" for chrom, start, end, name in rows))
