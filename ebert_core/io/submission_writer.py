"""Writing a submission of the ENCODE-DREAM challenge; `ebert_core.io.submissions` has the format and reads it."""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.genome.bins import BenchmarkBins
from ebert_core.io.submission_text import decimals, place_letters
from ebert_core.io.submissions import row_chroms, spelled

_ROWS_AT_ONCE: Final = 1 << 16
# Files of level 6 are hardly smaller and take far longer to write.
_GZIP_LEVEL: Final = 4
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS  # a gzip header of no name and no time: equal rows give equal bytes
_COPY_BYTES: Final = 1 << 22

Floats = NDArray[np.float32]


class SubmissionWriter:
    """Writes a final (F) submission of all bins; use it in a `with` block, chromosomes in any order, each once.

    Rows are packed as they come; when the block ends without an error they are put in lexicographic order, each
    chromosome a gzip member of its own, which every gzip reader takes for one stream. Write to a path from
    `ebert_core.artifacts.publish_file`.

    Attributes:
        bins: the benchmark's.
        chroms: those that must be written.
        num_rows: of the whole file.
        unscored: bins so far without a probability, written as 0.
    """

    def __init__(self, path: Path, bins: BenchmarkBins) -> None:
        self.chroms = row_chroms(bins)
        self.num_rows = bins.num_rows(self.chroms)
        self.unscored = 0
        self._path = path
        self.bins = bins
        self._members: dict[str, tuple[int, int]] = {}
        path.touch()  # an OSError of ours where the folder is missing
        self._packed = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - closed in __exit__; has no name to leave

    def __enter__(self) -> SubmissionWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._packed:
            if kind is None:
                self._assemble()

    def write(self, chrom: str, probabilities: Floats) -> None:
        """Write the rows of one chromosome.

        Args:
            chrom: one of `chroms`.
            probabilities: of `bins.starts(chrom)`, shape (N,), in [0, 1]; NaN where a bin has none.
        """
        if chrom in self._members or chrom not in self.chroms:
            raise ValueError(f"{chrom} is written already or has no bins")
        starts = self.bins.starts(chrom)
        if probabilities.shape != starts.shape:
            raise ValueError(f"{chrom} has {len(starts):,} bins, not {probabilities.shape}")
        if ((probabilities < 0) | (probabilities > 1)).any():
            raise ValueError(f"{chrom} has values outside [0, 1]")
        missing = np.isnan(probabilities)
        self.unscored += int(missing.sum())
        begin = self._packed.tell()
        packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
        for at in range(0, len(starts), _ROWS_AT_ONCE):
            some = slice(at, at + _ROWS_AT_ONCE)
            values = decimals(np.where(missing[some], np.float32(0), probabilities[some]))
            for here, places in place_letters(spelled(chrom), starts[some]):
                self._packed.write(packer.compress(np.concatenate([places, values[here]], axis=1).tobytes()))
        self._packed.write(packer.flush())
        self._members[chrom] = (begin, self._packed.tell() - begin)

    def _assemble(self) -> None:
        if missing := [chrom for chrom in self.chroms if chrom not in self._members]:
            raise ValueError(f"{', '.join(missing)} was not written")
        with self._path.open("wb") as whole:
            for chrom in self.chroms:
                begin, length = self._members[chrom]
                self._packed.seek(begin)
                while length:
                    piece = self._packed.read(min(length, _COPY_BYTES))
                    whole.write(piece)
                    length -= len(piece)
