"""Writing bgzip: gzip in blocks of at most 64 KiB, so that tabix and genome browsers can read from the middle."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from types import TracebackType
from typing import Final

from ebert_core.io.streams import BGZIP_END

# bgzip's own block size: with the worst growth of deflate, a block still fits 64 KiB.
_BLOCK_BYTES: Final = 0xFF00
_LEVEL: Final = 6
# Header of SAM specification 4.1: gzip with an extra field BC of two bytes, the block's size minus one.
_HEAD: Final = struct.Struct("<4BI2BH2B2H")
_TAIL: Final = struct.Struct("<2I")


class BgzipWriter:
    """Writes one bgzip file; use it in a `with` block. Equal bytes in give equal bytes out.

    Write to a path from `ebert_core.artifacts.publish_file`: a block that ends with an error leaves a file without the
    empty block at its end, which readers refuse.
    """

    def __init__(self, path: Path) -> None:
        self._handle = path.open("wb")
        self._waiting = bytearray()

    def __enter__(self) -> BgzipWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._handle:
            if kind is None:
                if self._waiting:
                    self._block(bytes(self._waiting))
                self._handle.write(BGZIP_END)

    def write(self, data: bytes) -> None:
        """Write some bytes."""
        self._waiting += data
        whole = len(self._waiting) // _BLOCK_BYTES * _BLOCK_BYTES
        for at in range(0, whole, _BLOCK_BYTES):
            self._block(bytes(self._waiting[at : at + _BLOCK_BYTES]))
        del self._waiting[:whole]

    def _block(self, data: bytes) -> None:
        packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        packed = packer.compress(data) + packer.flush()
        size = _HEAD.size + len(packed) + _TAIL.size
        head = _HEAD.pack(0x1F, 0x8B, 8, 4, 0, 0, 0xFF, 6, ord("B"), ord("C"), 2, size - 1)
        self._handle.write(head + packed + _TAIL.pack(zlib.crc32(data), len(data)))
