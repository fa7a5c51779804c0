"""Matrices of bins x TFs, read by NumPy and pyarrow; and their memory."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import pytest

from ebert_core.inference.matrix import NpzMatrix, ParquetMatrix
from ebert_core.inference.pieces import Piece, Scored

CHROMS = {"chr1": 60_000, "chr2": 41_337, "chrShort": 150}


def rows_of(made: Any) -> list[tuple[str, int, float, float]]:
    return [
        (chrom, 50 * number, float(values[0]), float(values[1]))
        for chrom, table in made.tables.items()
        for number, values in enumerate(table)
        if not np.isnan(values[0])
    ]


@pytest.mark.parametrize("half", [False, True])
def test_npz_holds_every_scored_bin(made_up: Callable[..., Any], tmp_path: Path, half: bool) -> None:
    made, path = made_up(), tmp_path / "m.npz"
    with NpzMatrix(path, (("CTCF", "MAX"), "HepG2"), CHROMS, made.plan.coverage.scored, half=half) as matrix:
        for scored in made.pieces():
            matrix.add(scored)
    with np.load(path, allow_pickle=False) as found:
        assert sorted(found) == ["cell", "chrom", "chroms", "probability", "start", "tfs"]
        assert found["probability"].dtype == (np.float16 if half else np.float32)
        assert (found["tfs"].tolist(), str(found["cell"])) == (["CTCF", "MAX"], "HepG2")
        places = list(zip(found["chroms"][found["chrom"]].tolist(), found["start"].tolist(), strict=True))
        values = found["probability"]
    expected = rows_of(made)
    assert places == [row[:2] for row in expected]
    np.testing.assert_array_equal(values, np.array([row[2:] for row in expected], np.float32).astype(values.dtype))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}


def test_a_matrix_that_lacks_rows_is_none(made_up: Callable[..., Any], tmp_path: Path) -> None:
    made = made_up()

    def write() -> None:
        with NpzMatrix(tmp_path / "m.npz", (("CTCF", "MAX"), "HepG2"), CHROMS, 10**6, half=False) as matrix:
            matrix.add(next(made.pieces()))

    with pytest.raises(ValueError, match=r"300 rows of 1,000,000 were written"):
        write()


def test_an_error_closes_the_file(tmp_path: Path) -> None:
    def write() -> None:
        with NpzMatrix(tmp_path / "m.npz", (("CTCF", "MAX"), "HepG2"), CHROMS, 10**6, half=False):
            raise KeyError

    with pytest.raises(KeyError):
        write()


def test_long_chromosomes_have_wide_positions(tmp_path: Path) -> None:
    first = 3 * 2**30 // 50
    piece = Piece(0, "chrBig", np.array([[first, first + 2]]), *[np.empty((0, 2), np.int64)] * 2)
    with NpzMatrix(tmp_path / "m.npz", (("A",), "C"), {"chrBig": 4 * 2**30}, 2, half=False) as matrix:
        matrix.add(Scored(piece, np.zeros((2, 1), np.float32)))
    with np.load(tmp_path / "m.npz") as found:
        assert found["start"].tolist() == [first * 50, first * 50 + 50]


def test_memory_does_not_grow_with_the_matrix(tmp_path: Path) -> None:
    """300 MB go through; what stays resident is a few pieces."""
    process, no_runs = psutil.Process(os.getpid()), np.empty((0, 2), np.int64)
    values = np.random.default_rng(0).random((20_000, 32), dtype=np.float32)
    num_pieces = 120
    with NpzMatrix(
        tmp_path / "m.npz", ([f"T{t}" for t in range(32)], "C"), {"chr1": 10**9}, 20_000 * num_pieces, half=False
    ) as matrix:
        before, most = process.memory_info().rss, 0
        for number in range(num_pieces):
            runs = np.array([[20_000 * number, 20_000 * (number + 1)]])
            matrix.add(Scored(Piece(number, "chr1", runs, no_runs, no_runs), values))
            most = max(most, process.memory_info().rss - before)
    assert most < 30e6
    assert (tmp_path / "m.npz").stat().st_size > 300e6


def test_parquet_holds_every_scored_bin(made_up: Callable[..., Any], tmp_path: Path) -> None:
    pq: ModuleType = pytest.importorskip("pyarrow.parquet")
    made, contents = made_up(), []
    for half in (False, False, True):
        path = tmp_path / "m.parquet"
        with ParquetMatrix(path, (("CTCF", "MAX"), "HepG2"), CHROMS, made.plan.coverage.scored, half=half) as matrix:
            for scored in made.pieces():
                matrix.add(scored)
        contents.append(path.read_bytes())
        table = pq.read_table(path)
        assert table.column_names == ["chrom", "start", "end", "CTCF", "MAX"]
        assert table.schema.metadata[b"cell"] == b"HepG2"
        expected = rows_of(made)
        assert table["chrom"].to_pylist() == [row[0] for row in expected]
        assert table["start"].to_pylist() == [row[1] for row in expected]
        assert table["end"].to_pylist() == [row[1] + 200 for row in expected]
        for place, tf in enumerate(("CTCF", "MAX")):
            values = np.array(table[tf].to_pylist(), np.float32)
            np.testing.assert_allclose(values, [row[2 + place] for row in expected], rtol=1e-3 if half else 0)
    assert contents[0] == contents[1]
