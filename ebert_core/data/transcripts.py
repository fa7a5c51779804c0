"""Transcript starts in a dataset: how far every stride lies from the nearest."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.data.builder import DatasetBuilder
from ebert_core.data.files import source_entry
from ebert_core.genome.intervals import Positions
from ebert_core.io.bed import read_transcript_starts
from ebert_core.vocabulary import STRIDE_BP

FARTHEST_BP: Final = 65_535
"""Distances of this many bp and more, and those on a chromosome without any transcript start, are stored as this."""


def distance_to_starts(starts: Positions, length_bp: int) -> NDArray[np.uint16]:
    """Distance in bp from every stride of a chromosome to the nearest transcript start.

    Args:
        starts: 0-based positions on the chromosome, sorted, shape (N,); may be empty.
        length_bp: of the chromosome; the last stride may be shorter than 50 bp.

    Returns:
        uint16 of shape (ceil(length / 50),): 0 where a start lies within the stride, else the distance from it to the
        stride's nearest base (what `bedtools closest -d` gives), at most `FARTHEST_BP`.
    """
    firsts = np.arange(0, length_bp, STRIDE_BP, dtype=np.int64)
    lasts = np.minimum(firsts + STRIDE_BP, length_bp) - 1
    far = np.iinfo(np.int64).max // 4
    padded = np.concatenate([[-far], starts, [far]])
    after = np.searchsorted(padded, firsts, side="left")
    distance = np.minimum(firsts - padded[after - 1], np.maximum(padded[after] - lasts, 0))
    return np.minimum(distance, FARTHEST_BP).astype(np.uint16)


def add_tss(builder: DatasetBuilder, path: Path) -> None:
    """Add the distances to the transcript starts of a BED file to a dataset that is being built."""
    sources = [source_entry(path)]
    if not builder.must_build("tss", builder.manifest.get("tss"), "transcript starts", sources):
        return
    assembly = builder.assembly
    by_chrom, notes = read_transcript_starts(path, assembly)
    builder.tell(notes)
    track = np.full(assembly.flat_bp // STRIDE_BP, FARTHEST_BP, dtype=np.uint16)
    for chrom, starts in by_chrom.items():
        distance = distance_to_starts(starts, assembly.length(chrom))
        first = assembly.offset(chrom) // STRIDE_BP
        track[first : first + len(distance)] = distance
    number = sum(map(len, by_chrom.values()))
    builder.manifest["tss"] = {**builder.save("tss", "distance", track, sources), "starts": number}
    builder.reporter.log(f"transcript starts: {number:,} places on {len(by_chrom)} sequence(s)")
    if bare := [chrom for chrom in assembly.chroms if chrom not in by_chrom]:
        shown = ", ".join(bare[:4]) + (f" and {len(bare) - 4} more" if len(bare) > 4 else "")
        builder.reporter.warn(f"{path.name}: no transcript starts on {shown}")
