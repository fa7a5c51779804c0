"""bigWig files, through one wrapper around pyBigWig that checks what pyBigWig does not.

pyBigWig accepts entries past a chromosome's end, says "Unknown error" for a missing file, "Invalid interval bounds!"
for an unknown chromosome, misreads in a forked process, and - measured with 0.3.29 - writes for ever without an error
once the disk is full. Here order, bounds and numbers are checked first, a handle belongs to one process, and the space
is reserved before it is written to.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import pyBigWig
from numpy.typing import NDArray

from ebert_core.errors import EbertError, InputError, UnknownNameError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.intervals import Positions

_MAGIC: Final = 0x888FFC26
# magic, version, zoom levels, then the offsets of chromosome tree, data and index (UCSC bbi header).
_HEADER: Final = "IHHQQQ"
_INDEX_HEADER_BYTES: Final = 48
_INTERVALS_AT_ONCE_BP: Final = 10_000_000
# Bytes to reserve per value: 4 for data that does not compress, the rest for zoom levels and index (measured: 5.3).
_RESERVED_PER_VALUE: Final = 8
_RESERVED_PER_CALL: Final = 1 << 16
_KEEP_SIZE: Final = 1  # linux/falloc.h: FALLOC_FL_KEEP_SIZE


def is_bigwig(path: Path) -> bool:
    """Whether a file begins with the bigWig magic, in either byte order."""
    with path.open("rb") as handle:
        head = handle.read(4)
    return len(head) == 4 and _MAGIC in (struct.unpack("<I", head)[0], struct.unpack(">I", head)[0])


class BigWigReader:
    """An open bigWig; use it in a `with` block. After a fork the child opens the file anew.

    Attributes:
        path: the file.
        sizes: chromosome name as the file spells it -> length in bp, in file order.

    Raises:
        InputError: the file is missing, no bigWig, or cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: tuple[int, Any] | None = None
        _check_header(path)
        self.sizes: dict[str, int] = dict(self._handle().chroms())

    def __enter__(self) -> BigWigReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open and self._open[0] == os.getpid():
            self._open[1].close()
        self._open = None

    def _handle(self) -> Any:
        if self._open is None or self._open[0] != os.getpid():
            with self._damage_told():
                self._open = os.getpid(), pyBigWig.open(str(self.path))
        return self._open[1]

    @contextlib.contextmanager
    def _damage_told(self) -> Iterator[None]:
        """pyBigWig's `RuntimeError`, which names no file, as an `InputError`."""
        try:
            yield
        except RuntimeError:
            raise InputError(self.path, "is a damaged bigWig", "copy or download it again") from None

    def fixed_values(self, chrom: str, start: int, end: int) -> NDArray[np.float32]:
        """The value at every bp of [start, end), float32 of shape (end - start,); NaN where the file has none.

        Raises:
            InputError: no such chromosome, or the interval is not on it.
        """
        self._check_interval(chrom, start, end)
        if start == end:
            return np.empty(0, np.float32)
        with self._damage_told():
            return np.asarray(self._handle().values(chrom, start, end, numpy=True), dtype=np.float32)

    def intervals(
        self, chrom: str, start: int = 0, end: int | None = None
    ) -> tuple[Positions, Positions, NDArray[np.float32]]:
        """The stored entries that share a bp with [start, end), unclipped: starts, ends, values, each of shape (N,)."""
        end = self.sizes.get(chrom, 0) if end is None else end
        self._check_interval(chrom, start, end)
        starts, ends, values = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        for lower in range(start, end, _INTERVALS_AT_ONCE_BP):
            with self._damage_told():
                found = self._handle().intervals(chrom, lower, min(lower + _INTERVALS_AT_ONCE_BP, end)) or ()
            rows = np.array(found, dtype=np.float64).reshape(-1, 3)
            new = (rows[:, 0] >= lower) | (lower == start)  # an entry across the border was in the last portion
            starts.append(rows[new, 0].astype(np.int64))
            ends.append(rows[new, 1].astype(np.int64))
            values.append(rows[new, 2].astype(np.float32))
        return np.concatenate(starts), np.concatenate(ends), np.concatenate(values)

    def has_values(self, chrom: str) -> bool:
        """Whether any bp of a chromosome has a value."""
        self._check_interval(chrom, 0, 0)
        with self._damage_told():
            return bool(self._handle().stats(chrom, 0, self.sizes[chrom], type="coverage")[0])

    def _check_interval(self, chrom: str, start: int, end: int) -> None:
        if chrom not in self.sizes:
            raise InputError(self.path, f"has no chromosome {chrom!r}", UnknownNameError("", chrom, self.sizes).hint)
        if not 0 <= start <= end <= self.sizes[chrom]:
            raise InputError(
                self.path,
                f"{chrom}:{start:,}-{end:,} is not on {chrom} ({self.sizes[chrom]:,} bp)",
                "is it of another assembly?",
            )


def _check_header(path: Path) -> None:
    """Refuse what pyBigWig would only complain of on stderr."""
    if not path.exists():
        raise InputError(path, "is not there", "check the path")
    if path.is_dir():
        raise InputError(path, "is a folder, expected a bigWig file", "name a file in it")
    try:
        with path.open("rb") as handle:
            head = handle.read(struct.calcsize(f"={_HEADER}"))
    except PermissionError:
        raise InputError(path, "may not be read", "check the file's permissions") from None
    size = path.stat().st_size
    if len(head) == struct.calcsize(f"={_HEADER}"):
        for order in "<>":
            magic, _, _, *offsets = struct.unpack(f"{order}{_HEADER}", head)
            if magic == _MAGIC:
                if offsets[2] + _INDEX_HEADER_BYTES > size:
                    raise InputError(path, f"is cut short at {size:,} bytes", "copy or download it again")
                return
    raise InputError(
        path, "is not a bigWig file", "a bigWig begins with the bytes 26 FC 8F 88; is it bedGraph or gzip?"
    )


class BigWigWriter:
    """Writes one bigWig on an assembly; use it in a `with` block, chromosomes in the assembly's order.

    The header names every chromosome of the assembly. A block that ends without an error ends with a complete file,
    otherwise the file is of no use; write to a path from `ebert_core.artifacts.publish_file`.

    Raises:
        InputError: the values cannot be written as they are; nothing of that call was written.
        EbertError: nothing at all was written when the block ends.
        OSError: no space is left, or the quota is used up.
    """

    def __init__(self, path: Path, assembly: Assembly) -> None:
        self.path = path
        self._assembly = assembly
        self._at = (-1, 0)  # index of the chromosome being written, end of its last step
        self._written_bp = 0
        self._reserved = 0
        path.touch()  # an OSError of ours instead of pyBigWig's words
        self._descriptor = os.open(path, os.O_RDWR)
        try:
            self._reserve(_RESERVED_PER_CALL + 64 * len(assembly.chroms))
            self._file = pyBigWig.open(str(path), "w")
            self._file.addHeader(list(zip(assembly.chroms, assembly.lengths, strict=True)))
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> BigWigWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size)  # frees what was only reserved
        finally:
            os.close(self._descriptor)
        if kind is None:
            self._check_finished()

    def write_fixed_step(
        self, chrom: str, start: int, values: NDArray[np.floating[Any]], step_bp: int, span_bp: int
    ) -> None:
        """Write values at `start`, `start + step_bp`, ..., each covering `span_bp`.

        Further calls for the same chromosome begin where the last one's last step ended, or later.

        Args:
            chrom: a name of the assembly.
            start: 0-based position of the first value, bp.
            values: shape (N,), stored as float32; no NaN or infinity. No value is no call.
        """
        if len(values) == 0:
            return
        self._check_chrom(chrom)
        if not 1 <= span_bp <= step_bp:
            raise InputError(self.path, f"{chrom}: a span of {span_bp} bp does not fit a step of {step_bp} bp")
        stored = np.ascontiguousarray(values, dtype=np.float32)
        index, end = self._assembly.index(chrom), start + (len(values) - 1) * step_bp + span_bp
        self._check_place(chrom, start, end)
        self._check_finite(chrom, start + np.arange(len(stored)) * step_bp, values)
        self._reserve(_RESERVED_PER_VALUE * len(values) + _RESERVED_PER_CALL)
        try:
            self._file.addEntries(chrom, int(start), values=stored, span=int(span_bp), step=int(step_bp))
        except RuntimeError as error:
            raise InputError(self.path, f"{chrom}:{start:,}-{end:,} could not be written ({error})") from None
        self._at = (index, start + len(values) * step_bp)  # pyBigWig counts the last step whole, whatever its span
        self._written_bp += span_bp * len(values)

    def write_spans(self, chrom: str, starts: Positions, values: NDArray[np.floating[Any]], span_bp: int) -> None:
        """Write values that each cover `span_bp` from a start of their own: for many short runs of steps.

        Args:
            chrom: a name of the assembly.
            starts: 0-based, rising by `span_bp` or more, shape (N,).
            values: shape (N,), as for `write_fixed_step`.
        """
        if len(values) == 0:
            return
        self._check_chrom(chrom)
        stored = np.ascontiguousarray(values, dtype=np.float32)
        self._check_place(chrom, int(starts[0]), int(starts[-1]) + span_bp)
        if (near := np.diff(starts) < span_bp).any():
            first = int(np.argmax(near)) + 1
            raise InputError(
                self.path,
                f"{chrom}:{starts[first]:,} was already passed (the last span ends at {starts[first - 1] + span_bp:,})",
                "write a chromosome from its start to its end, without overlaps",
            )
        self._check_finite(chrom, starts, values)
        # A value with a place of its own takes 8 bytes.
        self._reserve(2 * _RESERVED_PER_VALUE * len(values) + _RESERVED_PER_CALL)
        try:
            self._file.addEntries(
                chrom, np.ascontiguousarray(starts, dtype=np.uint32), values=stored, span=int(span_bp)
            )
        except RuntimeError as error:
            raise InputError(self.path, f"{chrom}:{starts[0]:,} and on could not be written ({error})") from None
        self._at = (self._assembly.index(chrom), int(starts[-1]) + span_bp)
        self._written_bp += span_bp * len(values)

    def _check_chrom(self, chrom: str) -> None:
        if chrom not in self._assembly:
            raise InputError(
                self.path,
                f"chromosome {chrom!r} is not in the assembly",
                UnknownNameError("", chrom, self._assembly.chroms).hint,
            )

    def _check_finite(self, chrom: str, starts: Positions, values: NDArray[np.floating[Any]]) -> None:
        if not (finite := np.isfinite(np.asarray(values, dtype=np.float32))).all():
            first = int(np.argmin(finite))
            raise InputError(
                self.path, f"{chrom}:{starts[first]:,}: value {values[first]} cannot be stored", "leave it out"
            )

    def _check_place(self, chrom: str, start: int, end: int) -> None:
        index, length = self._assembly.index(chrom), self._assembly.length(chrom)
        if start < 0 or end > length:
            raise InputError(
                self.path,
                f"{chrom}:{start:,}-{end:,} is not on {chrom} ({length:,} bp)",
                "write values on the chromosome",
            )
        if index < self._at[0]:
            raise InputError(
                self.path,
                f"{chrom} comes after {self._assembly.chroms[self._at[0]]}, the header has it before",
                "write chromosomes in the order of the assembly, each once",
            )
        if index == self._at[0] and start < self._at[1]:
            raise InputError(
                self.path,
                f"{chrom}:{start:,} was already passed (the last step ends at {self._at[1]:,})",
                "write a chromosome from its start to its end, without overlaps",
            )

    def _reserve(self, num_bytes: int) -> None:
        """Have the file system set space aside, or raise its OSError; one that cannot is asked for its free space."""
        self._reserved += num_bytes
        if ctypes.CDLL(None, use_errno=True).fallocate(
            self._descriptor, _KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(self._reserved)
        ):
            code = ctypes.get_errno()
            if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise OSError(code, os.strerror(code), str(self.path))
            status = os.statvfs(self.path)
            if status.f_bavail * status.f_frsize < num_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def _check_finished(self) -> None:
        if self._written_bp == 0:
            raise EbertError(f"{self.path}: no value was written", "choose chromosomes or regions that have bins")
        with BigWigReader(self.path) as reader:
            found = reader._handle().header()["nBasesCovered"]
        if found != self._written_bp:
            raise InputError(
                self.path, f"holds {found:,} bp of values, {self._written_bp:,} were written", "is the disk full?"
            )
