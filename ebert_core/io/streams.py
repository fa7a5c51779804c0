"""The bytes of a file - plain, gzip, bgzip or standard input - as they come: large ones need not be in memory."""

from __future__ import annotations

import contextlib
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from ebert_core.errors import InputError

GZIP_MAGIC: Final = b"\x1f\x8b"
# The empty block that ends every bgzip file (SAM specification, 4.1.2): without it, blocks may be missing.
BGZIP_END: Final = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# Few enough that what is left of a piece after a bgzip block (64 KiB inflated) is cheap to copy.
_PIECE_BYTES: Final = 1 << 17
_INFLATED_BYTES: Final = 1 << 20
# zlib: the largest window, and a gzip header.
_GZIP_WINDOW: Final = 31
_AGAIN: Final = "copy or download it again (`gzip -t` tests it)"


def is_bgzip(head: bytes) -> bool:
    """Whether a file's first 18 bytes are those of bgzip, which can be read at random places."""
    return head[:4] == BGZIP_END[:4] and head[12:14] == b"BC"


def read_bytes(path: Path) -> bytes:
    """The content of a file, inflated where it is gzip or bgzip; `-` reads standard input. Errors: `stream`."""
    return b"".join(stream(path))


def stream(path: Path) -> Iterator[bytes]:
    """The content of a file in pieces, inflated where it is gzip or bgzip; `-` reads standard input.

    A byte order mark is left out.

    Raises:
        InputError: the file is missing, a folder, not to be read, called .gz without being gzip, or a truncated or
            damaged one; the last may come after some pieces.
    """
    with _opened(path) as handle:
        head = handle.read(_PIECE_BYTES)
        if head[:2] == GZIP_MAGIC:
            pieces = _inflated(handle, head, path)
        elif path.suffix in (".gz", ".bgz"):
            raise InputError(
                path, f"is called {path.suffix} but is not gzip", "copy or download it again, or rename it"
            )
        else:
            pieces = _rest(handle, head)
        first = next(pieces, b"")
        while len(first) < len(_BYTE_ORDER_MARK) and (more := next(pieces, b"")):
            first += more
        yield first.removeprefix(_BYTE_ORDER_MARK)
        yield from pieces


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    if str(path) == "-":
        if sys.stdin is None:
            raise InputError(path, "standard input is closed", "pipe the file in, or name it")
        yield sys.stdin.buffer
        return
    if not path.exists():
        raise InputError(path, "is not there", "check the path")
    if path.is_dir():
        raise InputError(path, "is a folder, expected a file", "name a file in it")
    try:
        handle = path.open("rb")
    except PermissionError:
        raise InputError(path, "may not be read", "check the file's permissions") from None
    with handle:
        yield handle


def _rest(handle: IO[bytes], head: bytes) -> Iterator[bytes]:
    while head:
        yield head
        head = handle.read(_PIECE_BYTES)


def _inflated(handle: IO[bytes], head: bytes, path: Path) -> Iterator[bytes]:
    """The content of gzip members that follow each other (a bgzip file is thousands); zeros may follow the last."""
    blocked = is_bgzip(head)
    if blocked and str(path) != "-" and handle.seekable() and not _ends_as_bgzip(handle, head):
        raise _cut_between_blocks(path)
    members, tail = _Members(path), b""
    for piece in _rest(handle, head):
        tail = (tail + piece)[-len(BGZIP_END) :]
        yield from members.inflate(piece)
    if blocked and tail != BGZIP_END:
        raise _cut_between_blocks(path)
    if members.begun:
        raise InputError(path, "is a truncated or damaged gzip file", _AGAIN)


class _Members:
    """Inflates gzip members that follow each other; `begun` while one has not ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._member = zlib.decompressobj(_GZIP_WINDOW)
        self.begun = False

    def inflate(self, piece: bytes) -> Iterator[bytes]:
        """What is in the next piece of the file, at most `_INFLATED_BYTES` at a time."""
        full = False
        while piece or full:
            if not self.begun and not (piece := piece.lstrip(b"\0")):
                break
            self.begun = True
            try:
                inflated = self._member.decompress(piece, _INFLATED_BYTES)
            except zlib.error:
                raise InputError(self._path, "is a truncated or damaged gzip file", _AGAIN) from None
            if inflated:
                yield inflated
            # More may come without more input, unless there was room left.
            full = len(inflated) == _INFLATED_BYTES and not self._member.eof
            piece = self._member.unconsumed_tail
            if self._member.eof:
                piece = self._member.unused_data
                self._member, self.begun = zlib.decompressobj(_GZIP_WINDOW), False


def _ends_as_bgzip(handle: IO[bytes], head: bytes) -> bool:
    size = handle.seek(0, 2)
    handle.seek(max(size - len(BGZIP_END), 0))
    end = handle.read()
    handle.seek(len(head))
    return end == BGZIP_END


def _cut_between_blocks(path: Path) -> InputError:
    return InputError(path, "is a truncated bgzip file: its last block is missing", _AGAIN)
