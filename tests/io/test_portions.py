"""Large tables by the portion: the same rows, numbers and errors as the whole file read at once."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pysam
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebert_core.errors import InputError
from ebert_core.io import portions, streams
from ebert_core.io.portions import read_portions, skip_first
from ebert_core.io.streams import read_bytes, stream
from ebert_core.io.text import parse_table

ROWS = "".join(f"chr{1 + n // 50}\t{50 * n}\t{50 * n + 200}\t{n / 97:.6g}\n" for n in range(150)).encode()


def write(path: Path, content: bytes) -> Path:
    if path.suffix == ".bgz":
        with pysam.BGZFile(str(path), "wb") as handle:
            # A flush ends a block, so that a small file has several.
            for at in range(0, len(content), 700):
                handle.write(content[at : at + 700])
                handle.flush()
    else:
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.fixture
def small_pieces(monkeypatch):
    def make(portion_bytes, piece_bytes):
        monkeypatch.setattr(portions, "_PORTION_BYTES", portion_bytes)
        monkeypatch.setattr(streams, "_PIECE_BYTES", piece_bytes)

    return make


def fields(table):
    return [[table.text(row, column) for column in range(table.bounds.shape[1])] for row in range(len(table))]


@pytest.mark.parametrize("name", ["a.tab", "a.tab.gz", "a.tab.bgz"])
@pytest.mark.parametrize("pieces", [(1, 20), (100, 64), (1_000, 7), (1 << 20, 1 << 17)])
def test_portions_together_are_the_whole(tmp_path, small_pieces, name, pieces):
    path = write(tmp_path / name, b"# head\n" + ROWS + b"\n" + ROWS[:-1])
    small_pieces(*pieces)
    tables = list(read_portions(path, 4))
    whole = parse_table(b"# head\n" + ROWS + b"\n" + ROWS[:-1], path, 4)
    assert np.concatenate([table.lines for table in tables]).tolist() == whole.lines.tolist()
    assert [row for table in tables for row in fields(table)] == fields(whole)
    assert len(tables) > 3 or pieces[0] > 10_000
    starts = np.concatenate([table.integers(1, "start") for table in tables])
    assert starts.tolist() == whole.integers(1, "start").tolist()
    scores = np.concatenate([table.floats(3, "score") for table in tables])
    assert scores.tolist() == whole.floats(3, "score").tolist()


LINE = st.lists(st.text("chrxt0123456789.-e #", max_size=9), min_size=1, max_size=5).map("\t".join)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(LINE, max_size=12),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
    st.integers(1, 40),
    st.integers(2, 40),
)
def test_odd_files_too(tmp_path, lines, end, last_end, portion_bytes, piece_bytes):
    content = (end.join(lines) + (end if last_end else "")).encode()
    path = write(tmp_path / "a.txt", content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portions, "_PORTION_BYTES", portion_bytes)
        patch.setattr(streams, "_PIECE_BYTES", piece_bytes)
        tables = list(read_portions(path, 3))
    whole = parse_table(content, path, 3, min_columns=1)
    assert all(len(table) for table in tables)
    assert [line for table in tables for line in table.lines.tolist()] == whole.lines.tolist()
    assert [width for table in tables for width in table.widths.tolist()] == whole.widths.tolist()
    assert [row for table in tables for row in fields(table)] == fields(whole)


def test_the_first_row_can_be_left_out(tmp_path):
    (table,) = read_portions(write(tmp_path / "a", b"a\tb\n1\t2\n3\t4\n"), 2)
    rest = skip_first(table)
    assert (fields(rest), rest.lines.tolist()) == ([["1", "2"], ["3", "4"]], [2, 3])


def test_a_fault_late_in_a_file_has_its_line(tmp_path, small_pieces):
    small_pieces(100, 50)
    path = write(tmp_path / "a.gz", ROWS + b"chr9\tx\t200\t0.5\n")
    tables = list(read_portions(path, 4))
    assert len(tables) > 3
    with pytest.raises(InputError, match="line 151: start is 'x'"):
        tables[-1].integers(1, "start")


@pytest.mark.parametrize("piece_bytes", [20, 1 << 17])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", ["a.gz", "a.bgz"])
def test_a_cut_file_is_an_error_however_it_is_read(tmp_path, monkeypatch, name, kept, piece_bytes):
    monkeypatch.setattr(streams, "_PIECE_BYTES", piece_bytes)
    path = write(tmp_path / name, ROWS)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    problem = "truncated or damaged gzip" if name == "a.gz" else "truncated bgzip file: its last block is missing"
    for read in (read_bytes, lambda path: list(read_portions(path, 4))):
        with pytest.raises(InputError, match=problem) as caught:
            read(path)
        assert "again" in caught.value.hint

    class Standard:
        buffer = io.BytesIO(path.read_bytes())

    monkeypatch.setattr("sys.stdin", Standard)
    with pytest.raises(InputError, match="truncated"):
        read_bytes(Path("-"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    st.lists(st.one_of(st.binary(max_size=60), st.integers(0, 900).map(bytes)), min_size=1, max_size=5),
    st.integers(0, 9),
    st.integers(18, 60),
    st.sampled_from([1, 2, 64, 1 << 20]),
)
def test_members_that_follow_each_other_and_zeros_behind_them(tmp_path, parts, zeros, piece_bytes, inflated_bytes):
    path = tmp_path / "a.gz"
    path.write_bytes(b"".join(gzip.compress(part) for part in parts) + b"\0" * zeros)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "_PIECE_BYTES", piece_bytes)
        patch.setattr(streams, "_INFLATED_BYTES", inflated_bytes)
        assert read_bytes(path) == gzip.decompress(path.read_bytes()).removeprefix(b"\xef\xbb\xbf")


@pytest.mark.parametrize("tail", [b"x", b"\0\0more", ROWS])
def test_what_is_no_gzip_behind_gzip(tmp_path, tail):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(ROWS) + tail)
    with pytest.raises(InputError, match="truncated or damaged gzip"):
        read_bytes(path)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_byte_order_mark_is_left_out_in_pieces_of_any_size(tmp_path, monkeypatch, size):
    monkeypatch.setattr(streams, "_PIECE_BYTES", size)
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfchr1\t2\n")
    assert b"".join(stream(path)) == b"chr1\t2\n"
    assert b"".join(stream(write(tmp_path / "b.txt", b"\xef\xbb"))) == b"\xef\xbb"
    assert b"".join(stream(write(tmp_path / "c.txt", b""))) == b""


def test_a_large_file_is_never_whole_in_memory(tmp_path):
    path = write(tmp_path / "a.gz", ROWS * 2_000)
    sizes = [len(piece) for piece in stream(path)]
    assert sum(sizes) == len(ROWS) * 2_000
    assert max(len(table.data) for table in read_portions(path, 4)) < sum(sizes) / 3
