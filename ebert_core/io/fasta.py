"""The reference sequence, from FASTA: plain or bgzip, any case, any IUPAC letter.

pysam reads both kinds of file and takes an index from anywhere, so a FASTA in a read-only folder needs no preparation:
where it has no index, one is built in a temporary folder (pyfaidx would need Biopython for bgzip).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import pysam
from numpy.typing import NDArray

from ebert_core.errors import EbertError, InputError
from ebert_core.genome.assembly import Assembly
from ebert_core.vocabulary import BASE_N, encode_bases


class Fasta:
    """An open FASTA file; use it in a `with` block and in one process only.

    Attributes:
        path: the file.
        assembly: names and lengths (bp) of its sequences, in file order.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = contextlib.ExitStack()
        self._handle = self._stack.enter_context(_open(path, self._stack))
        self.assembly = Assembly.from_sizes(zip(self._handle.references, self._handle.lengths, strict=True))

    def __enter__(self) -> Fasta:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def codes(self, chrom: str) -> NDArray[np.uint8]:
        """Base codes of a whole sequence, uint8 of shape (length,); see `ebert_core.vocabulary`."""
        length = self.assembly.length(chrom)
        try:
            letters = self._handle.fetch(chrom)
        except (OSError, ValueError) as error:
            raise InputError(self.path, f"cannot be read at {chrom} ({error})", "copy or download it again") from None
        if len(letters) != length:
            raise InputError(
                self.path,
                f"has {len(letters):,} bases of {chrom}, its index says {length:,}",
                "the file is truncated or its .fai is of another file; delete the .fai or download the FASTA again",
            )
        return encode_bases(letters.encode("ascii"))


@contextlib.contextmanager
def _open(path: Path, stack: contextlib.ExitStack) -> Iterator[pysam.FastaFile]:
    if not path.is_file():
        raise InputError(path, "is not there", "check the path of the genome's FASTA file")
    with path.open("rb") as raw:
        head = raw.read(18)
    compressed = head[:2] == b"\x1f\x8b"
    if compressed and head[12:14] != b"BC":
        raise InputError(
            path,
            "is gzip, which cannot be read at random places",
            f"recompress it: `gunzip -c {path} | bgzip > new.fa.gz`",
        )
    if not compressed and not head.startswith((b">", b";")):
        raise InputError(path, f"does not look like FASTA: it begins with {head[:8]!r}, expected '>'", line=1)
    index, index_gz = Path(f"{path}.fai"), Path(f"{path}.gzi")
    if not index.is_file() or (compressed and not index_gz.is_file()):
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ebert-fai-")))
        index, index_gz = folder / "genome.fai", folder / "genome.gzi"
        _build_index(path, index, index_gz if compressed else None)
    try:
        handle = pysam.FastaFile(
            str(path), filepath_index=str(index), filepath_index_compressed=str(index_gz) if compressed else None
        )
    except (OSError, ValueError) as error:
        raise InputError(
            path, f"cannot be opened ({error})", "delete its .fai and .gzi, or download it again"
        ) from None
    try:
        if not handle.references:
            raise InputError(path, "holds no sequence", "name a FASTA file with at least one record")
        yield handle
    finally:
        handle.close()


def _build_index(path: Path, index: Path, index_gz: Path | None) -> None:
    options = ["--fai-idx", str(index)] + (["--gzi-idx", str(index_gz)] if index_gz else [])
    try:
        pysam.samtools.faidx(*options, str(path), catch_stdout=False)
    except pysam.SamtoolsError as error:
        reason = str(error).strip().splitlines()
        raise InputError(
            path, f"cannot be indexed ({reason[-1] if reason else 'samtools faidx failed'})", "is the file complete?"
        ) from None
    if not index.is_file():
        raise EbertError(f"no index could be built for {path}", "run `samtools faidx` on it")


def count_ambiguous(codes: NDArray[np.uint8]) -> int:
    """How many bases are not A, C, G or T."""
    return int(np.count_nonzero(codes == BASE_N))
