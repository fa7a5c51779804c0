"""Aligned reads (BAM), read as cuts: the 5' ends of reads, where DNase I or Tn5 cut open chromatin.

The file is read from front to back, so that it needs neither an index nor an order; an index beside it is not looked at
(htslib believes one of another file, too).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pysam
from numpy.typing import NDArray

from ebert_core.errors import InputError
from ebert_core.genome.assembly import Assembly, likely_assembly
from ebert_core.io.streams import BGZIP_END, GZIP_MAGIC, is_bgzip, stream
from ebert_core.vocabulary import STRIDE_BP

MIN_MAPPING_QUALITY: Final = 10
# Bits of the FLAG column (SAM specification, 1.4): not mapped, secondary, failed the sequencer's checks, duplicate,
# supplementary.
_LEFT_OUT: Final = 0x4 | 0x100 | 0x200 | 0x400 | 0x800
_REVERSE: Final = 0x10
_READS_AT_ONCE: Final = 1 << 20
_AGAIN: Final = "copy or download it again (`samtools quickcheck` tests it)"


@dataclass
class Cuts:
    """The cuts of a BAM file on an assembly.

    Attributes:
        per_stride: cuts per 50-bp stride of the flat axis, int32 of shape (flat_bp / 50,).
        flagged: reads left out as not mapped, secondary, supplementary, duplicate or of failed quality.
        uncertain: reads left out for their mapping quality.
        elsewhere: reads left out for lying on a chromosome that the assembly lacks.
    """

    per_stride: NDArray[np.int32]
    flagged: int = 0
    uncertain: int = 0
    elsewhere: int = 0


def read_cuts(path: Path, assembly: Assembly) -> Cuts:
    """Count the 5' ends of a BAM file's reads.

    A read counts once, at its first sequenced base: its leftmost aligned position on the forward strand, its rightmost
    on the reverse strand; nothing is shifted. Reads count that are mapped, primary, no marked duplicate, not of failed
    quality, and of mapping quality 10 or more. Of a pair both mates count, each by itself.

    Raises:
        InputError: no BAM file, a truncated or damaged one, one of another assembly, without a chromosome or without a
            counted read on the assembly.
    """
    _require_bam(path)
    with _opened(path) as handle:
        offsets = _offsets(handle, path, assembly)
        cuts = Cuts(np.zeros(assembly.flat_bp // STRIDE_BP, dtype=np.int32))
        try:
            _count_reads(handle, offsets, cuts)
        except (IndexError, OSError, ValueError) as error:
            raise InputError(path, f"is a truncated or damaged BAM file ({error})", _AGAIN) from None
    if not cuts.per_stride.any():
        others = f"{cuts.flagged:,} flagged, {cuts.uncertain:,} of low mapping quality, {cuts.elsewhere:,} elsewhere"
        raise InputError(
            path,
            f"has no read to count on the genome's chromosomes (left out: {others})",
            f"expected mapped, primary reads of mapping quality {MIN_MAPPING_QUALITY} or more",
        )
    return cuts


def _count_reads(handle: pysam.AlignmentFile, offsets: list[int], cuts: Cuts) -> None:
    lengths = handle.lengths
    places: list[int] = []
    for read in handle.fetch(until_eof=True):
        flag, reference = read.flag, read.reference_id
        if flag & _LEFT_OUT:
            cuts.flagged += 1
        elif read.mapping_quality < MIN_MAPPING_QUALITY:
            cuts.uncertain += 1
        elif (offset := offsets[reference]) < 0:
            cuts.elsewhere += 1
        else:
            # A read without CIGAR has no end; what it has is its leftmost position.
            start = read.reference_start
            place = (read.reference_end or start + 1) - 1 if flag & _REVERSE else start
            if not 0 <= place < lengths[reference]:
                raise ValueError(f"a read ends at {place:,}, beyond the end of {read.reference_name}")
            places.append(offset + place)
            if len(places) == _READS_AT_ONCE:
                _add(places, cuts)
    _add(places, cuts)


def _add(places: list[int], cuts: Cuts) -> None:
    np.add.at(cuts.per_stride, np.array(places, dtype=np.int64) // STRIDE_BP, 1)
    places.clear()


def _require_bam(path: Path) -> None:
    """Tell what is no BAM, and one that lost its end, which htslib reads without a word."""
    with path.open("rb") as raw:
        head = raw.read(18)
        raw.seek(-min(len(BGZIP_END), path.stat().st_size), os.SEEK_END)
        tail = raw.read()
    if not head:
        raise InputError(path, "is empty", _AGAIN)
    if not is_bgzip(head):
        what = "gzip" if head.startswith(GZIP_MAGIC) else "CRAM" if head.startswith(b"CRAM") else "something else"
        raise InputError(path, f"is no BAM file but {what}", f"`samtools view -b {path} > new.bam` makes one")
    if tail != BGZIP_END:
        raise InputError(path, "is a truncated BAM file: its last block is missing", _AGAIN)
    _require_header(path)


def _require_header(path: Path) -> None:
    """Inflate a BAM's header; where it is damaged, pysam prints a traceback on its way out."""
    content = b""
    for piece in stream(path):
        content += piece
        if content[:4] != b"BAM\1":
            raise InputError(path, "is no BAM file but other bgzip", f"`samtools view -b {path} > new.bam` makes one")
        # SAM specification, 4.2: length of the text, text, number of references; of each the length of its name, name,
        # its length. What is not there yet reads as 0.
        end = 12 + int.from_bytes(content[4:8], "little")
        for _ in range(int.from_bytes(content[end - 4 : end], "little")):
            end += 8 + int.from_bytes(content[end : end + 4], "little")
            if end > len(content):
                break
        if end <= len(content):
            return
    raise InputError(path, "is a truncated BAM file: its header is cut off", _AGAIN)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[pysam.AlignmentFile]:
    """The file; htslib is kept from printing its own view of a fault."""
    before = pysam.set_verbosity(0)
    try:
        try:
            # Not with `threads`: htslib's thread pool never ends on a block that is cut off.
            handle = pysam.AlignmentFile(str(path), "rb", check_sq=False)
        except (OSError, ValueError):
            raise InputError(path, "is no BAM file, or a damaged one", _AGAIN) from None
        try:
            yield handle
        finally:
            with contextlib.suppress(OSError):  # of a damaged file, closing fails, too
                handle.close()
    finally:
        pysam.set_verbosity(before)


def _offsets(handle: pysam.AlignmentFile, path: Path, assembly: Assembly) -> list[int]:
    """Flat offset of every reference of the file, -1 for one that the assembly lacks."""
    offsets: list[int] = []
    lengths = dict(zip(handle.references, handle.lengths, strict=True))
    for name, length in lengths.items():
        chrom = assembly.resolve(name)
        if chrom is not None and length != assembly.length(chrom):
            other = likely_assembly(lengths)
            guess = f"; its lengths look like {other}" if other and other != assembly.name else ""
            raise InputError(
                path,
                f"says {name} has {length:,} bp, the genome has {assembly.length(chrom):,}{guess}",
                f"the genome is {assembly.name}: use reads aligned to the same assembly",
            )
        if chrom is not None and assembly.offset(chrom) in offsets:
            raise InputError(path, f"names {chrom} twice, in two spellings", "rename or remove one of the two")
        offsets.append(-1 if chrom is None else assembly.offset(chrom))
    if not any(offset >= 0 for offset in offsets):
        raise InputError(
            path,
            f"shares no chromosome with the genome; it names {', '.join(list(lengths)[:4]) or 'none'}",
            "use reads aligned to the same assembly",
        )
    return offsets
