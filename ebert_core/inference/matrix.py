"""Bins x TFs in one file, written as the pieces come: NPZ, which NumPy reads, and Parquet.

The memory needed does not grow with the genome: an array goes to the file row by row, with its shape written ahead.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ebert_core.inference.pieces import Runs, Scored, bins_of
from ebert_core.vocabulary import BIN_BP, STRIDE_BP


class NpzMatrix:
    """Writes an uncompressed NPZ; use it in a `with` block.

    Arrays: `probability` (N, T), float32 or float16; `chrom` (N,), int32, an index into `chroms`; `start` (N,), int32
    or, on chromosomes of 2^31 bp and more, int64: of the 200-bp bin; `chroms`, `tfs` (T,) and `cell` (), text.

    Args:
        path: file to write.
        columns: (TFs, cell type).
        chroms: name -> length in bp, of all that may come.
        num_rows: N, bins that will come.
        half: float16 instead of float32.
    """

    def __init__(
        self, path: Path, columns: tuple[Sequence[str], str], chroms: dict[str, int], num_rows: int, *, half: bool
    ) -> None:
        self._tfs, self._cell = columns
        self._chroms = chroms
        self._num_rows = num_rows
        self._type = np.dtype("<f2" if half else "<f4")
        self._runs: list[tuple[int, Runs]] = []
        self._rows = 0
        self._archive = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)
        self._member = self._begin("probability", self._type, (num_rows, len(self._tfs)))

    def __enter__(self) -> NpzMatrix:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None or self._rows != self._num_rows:
            for open_one in (self._member, self._archive):
                with contextlib.suppress(OSError, ValueError):
                    open_one.close()
            if kind is None:
                raise ValueError(f"{self._rows:,} rows of {self._num_rows:,} were written")
            return
        self._member.close()
        with self._archive:
            self._write_places()
            for name, value in (("chroms", list(self._chroms)), ("tfs", list(self._tfs)), ("cell", self._cell)):
                text = np.array(value, dtype=np.str_)
                with self._begin(name, text.dtype, text.shape) as member:
                    member.write(text.tobytes())

    def add(self, scored: Scored) -> None:
        """Write the rows of one piece."""
        self._member.write(np.ascontiguousarray(scored.probabilities, dtype=self._type).tobytes())
        self._runs.append((list(self._chroms).index(scored.piece.chrom), scored.piece.wanted))
        self._rows += len(scored.probabilities)

    def _write_places(self) -> None:
        wide = max(self._chroms.values()) > np.iinfo(np.int32).max
        starts = np.dtype("<i8" if wide else "<i4")
        with self._begin("start", starts, (self._num_rows,)) as member:
            for _, runs in self._runs:
                member.write((bins_of(runs) * STRIDE_BP).astype(starts).tobytes())
        with self._begin("chrom", np.dtype("<i4"), (self._num_rows,)) as member:
            for chrom, runs in self._runs:
                member.write(np.full(int((runs[:, 1] - runs[:, 0]).sum()), chrom, dtype="<i4").tobytes())

    def _begin(self, name: str, kind: np.dtype[Any], shape: tuple[int, ...]) -> IO[bytes]:
        """Open a member with its header written; an entry's time is the format's zero, so equal runs are equal."""
        member = self._archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)
        header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, header)
        return member


class ParquetMatrix:
    """Writes Parquet with pyarrow: columns chrom, start, end of the 200-bp bin, and one per TF; a row group per piece.

    Use it in a `with` block. Args are those of `NpzMatrix`.
    """

    def __init__(
        self, path: Path, columns: tuple[Sequence[str], str], chroms: dict[str, int], num_rows: int, *, half: bool
    ) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._pa = pa
        self._tfs, cell = columns
        self._half = half
        wide = max(chroms.values()) > np.iinfo(np.int32).max
        self._position = pa.int64() if wide else pa.int32()
        self._chrom = pa.dictionary(pa.int32(), pa.string())
        fields = [("chrom", self._chrom), ("start", self._position), ("end", self._position)]
        fields += [(tf, pa.float16() if half else pa.float32()) for tf in self._tfs]
        self._schema = pa.schema(fields, metadata={"cell": cell})
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")

    def __enter__(self) -> ParquetMatrix:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def add(self, scored: Scored) -> None:
        """Write the rows of one piece."""
        pa, starts = self._pa, scored.piece.bins * STRIDE_BP
        if len(starts) == 0:
            return
        names = pa.DictionaryArray.from_arrays(np.zeros(len(starts), dtype=np.int32), [scored.piece.chrom])
        values: NDArray[Any] = scored.probabilities.astype(np.float16) if self._half else scored.probabilities
        arrays = [names, pa.array(starts, self._position), pa.array(starts + BIN_BP, self._position)]
        arrays += [pa.array(np.ascontiguousarray(values[:, place])) for place in range(len(self._tfs))]
        self._writer.write_table(pa.table(arrays, schema=self._schema))
