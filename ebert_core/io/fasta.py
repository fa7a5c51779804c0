"""The reference sequence, from FASTA: plain or bgzip, any case, any IUPAC letter.

pysam reads both kinds of file and takes an index from anywhere, so a FASTA in a read-only folder needs no preparation:
where it has no index, or one older than itself, one is built in a temporary folder (pyfaidx would need Biopython for
bgzip). htslib believes any index - with a stale one it returns header lines as bases - and drops a second sequence of
the same name with no more than a word on stderr; both are refused here.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
import pysam
from numpy.typing import NDArray

from ebert_core.errors import InputError
from ebert_core.genome.assembly import Assembly
from ebert_core.io.text import BGZIP_END, is_bgzip
from ebert_core.vocabulary import BASE_N, encode_bases

# IUPAC nucleotide codes, X, and the signs for a gap or a stop; anything else is no sequence.
_STRANGE: Final = np.ones(256, dtype=bool)
_STRANGE[list(b"ACGTURYSWKMBDHVNXacgturyswkmbdhvnx*-.")] = False


class Fasta:
    """An open FASTA file; use it in a `with` block and in one process only.

    Attributes:
        path: the file.
        assembly: names and lengths (bp) of its sequences, in file order.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with contextlib.ExitStack() as stack:
            self._handle = stack.enter_context(_open(path, stack))
            self.assembly = Assembly.from_sizes(zip(self._handle.references, self._handle.lengths, strict=True))
            self._stack = stack.pop_all()

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
            with _quiet_htslib():
                letters = self._handle.fetch(chrom).encode()
        except (OSError, ValueError) as error:
            raise InputError(self.path, f"cannot be read at {chrom} ({error})", "copy or download it again") from None
        if len(letters) != length:
            raise InputError(
                self.path,
                f"has {len(letters):,} bases of {chrom}, its index says {length:,}",
                "the file is truncated or its .fai is of another file; delete the .fai or download the FASTA again",
            )
        strange = _STRANGE[np.frombuffer(letters, dtype=np.uint8)]
        if strange.any():
            at = int(np.argmax(strange))
            raise InputError(
                self.path,
                f"has {chr(letters[at])!r} at {chrom}:{at:,}, which is no nucleotide letter",
                "is it DNA? If so, its .fai is of another file: delete the .fai",
            )
        return encode_bases(letters)


@contextlib.contextmanager
def _open(path: Path, stack: contextlib.ExitStack) -> Iterator[pysam.FastaFile]:
    if not path.is_file():
        what = "is a folder, expected a FASTA file" if path.is_dir() else "is not there"
        raise InputError(path, what, "check the path of the genome's FASTA file")
    with path.open("rb") as raw:
        head = raw.read(18)
        raw.seek(-min(len(BGZIP_END), path.stat().st_size), os.SEEK_END)
        tail = raw.read()
    if not head:
        raise InputError(path, "is empty", "copy or download it again")
    compressed = head[:2] == b"\x1f\x8b"
    if compressed and not is_bgzip(head):
        raise InputError(
            path,
            "is gzip, which cannot be read at random places",
            f"recompress it: `gunzip -c {path} | bgzip > new.fa.gz`",
        )
    if compressed and tail != BGZIP_END:
        raise InputError(path, "is a truncated bgzip file: its last block is missing", "copy or download it again")
    if not compressed and not head.startswith(b">"):
        raise InputError(
            path, f"does not look like FASTA: it begins with {head[:8]!r}, expected '>'", "name a FASTA file", line=1
        )
    index, index_gz = Path(f"{path}.fai"), Path(f"{path}.gzi")
    if not _is_current(index, path) or (compressed and not _is_current(index_gz, path)):
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ebert-fai-")))
        index, index_gz = folder / "genome.fai", folder / "genome.gzi"
        _build_index(path, index, index_gz if compressed else None)
    try:
        with _quiet_htslib():
            handle = pysam.FastaFile(
                str(path), filepath_index=str(index), filepath_index_compressed=str(index_gz) if compressed else None
            )
    except (OSError, ValueError):
        raise InputError(
            path, "or its index (.fai, .gzi) is damaged", "delete the index, or download the file again"
        ) from None
    try:
        if not handle.references or "" in handle.references:
            what = "a sequence without a name" if handle.references else "no sequence"
            raise InputError(path, f"holds {what}", "expected lines of bases, each sequence under a line `>name`")
        yield handle
    finally:
        handle.close()


def _is_current(index: Path, path: Path) -> bool:
    """Whether an index is there and was written after the file that it is of."""
    return index.is_file() and index.stat().st_size > 0 and index.stat().st_mtime_ns >= path.stat().st_mtime_ns


def _build_index(path: Path, index: Path, index_gz: Path | None) -> None:
    options = ["--fai-idx", str(index)] + (["--gzi-idx", str(index_gz)] if index_gz else [])
    with _words_of_htslib() as words, contextlib.suppress(pysam.SamtoolsError):
        pysam.samtools.faidx(*options, str(path), catch_stdout=False)
    said = words[0]
    if twice := re.search(r'duplicate sequence "(.*)"', said):
        raise InputError(path, f"has two sequences named {twice[1]!r}", "keep one sequence per name")
    if not index.is_file():
        reason = re.search(r"\[E::\w+\] (.*?)(?: at line (\d+))?$", said, re.MULTILINE)
        raise InputError(
            path,
            f"cannot be indexed ({reason[1] if reason else 'samtools faidx failed'})",
            "is the file complete? All lines of a sequence but its last must be equally long, and none blank",
            line=int(reason[2]) if reason and reason[2] else None,
        )


@contextlib.contextmanager
def _words_of_htslib() -> Iterator[list[str]]:
    """Yields a list that holds, after the block, what C code printed on stderr during the block."""
    words: list[str] = []
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as caught:
            os.dup2(caught.fileno(), 2)
            try:
                yield words
            finally:
                os.dup2(kept, 2)
                caught.seek(0)
                words.append(caught.read().decode("utf-8", "replace"))
    finally:
        os.close(kept)


@contextlib.contextmanager
def _quiet_htslib() -> Iterator[None]:
    """htslib prints its own view of a fault on stderr; ours says more."""
    before = pysam.set_verbosity(0)
    try:
        yield
    finally:
        pysam.set_verbosity(before)


def count_ambiguous(codes: NDArray[np.uint8]) -> int:
    """How many bases are not A, C, G or T."""
    return int(np.count_nonzero(codes == BASE_N))
