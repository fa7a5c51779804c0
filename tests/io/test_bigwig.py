"""bigWig files against another library's reader, and every complaint that pyBigWig does not make."""

from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pybigtools
import pyBigWig
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebert_core.artifacts import publish_file
from ebert_core.errors import EbertError, InputError
from ebert_core.genome.assembly import Assembly
from ebert_core.io import bigwig
from ebert_core.io.bigwig import BigWigReader, BigWigWriter, is_bigwig

ASSEMBLY = Assembly.from_sizes([("chr1", 1000), ("chr2", 730), ("chr10", 100_000)])


def write(path, *calls, assembly=ASSEMBLY):
    with BigWigWriter(path, assembly) as writer:
        for chrom, start, values, step, span in calls:
            writer.write_fixed_step(chrom, start, np.array(values), step, span)
    return path


def per_bp(path, chrom, length):
    """The file as another library reads it."""
    with pybigtools.open(str(path)) as other:
        return np.asarray(other.values(chrom, 0, length, fillna=np.nan), dtype=np.float32)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_what_is_written_is_what_two_readers_read(tmp_path, data):
    length, calls = 2000, []
    assembly = Assembly.from_sizes([("a", length), ("b", length)])
    expected = {chrom: np.full(length, np.nan, np.float32) for chrom in "ab"}
    for chrom in data.draw(st.sampled_from(["a", "b", "ab"])):
        at = 0
        for _ in range(data.draw(st.integers(1, 4))):
            step = data.draw(st.integers(1, 60))
            span = data.draw(st.integers(1, step))
            values = data.draw(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=8))
            start = at + data.draw(st.integers(0, 30))
            at = start + len(values) * step
            if at - step + span > length:
                break
            calls.append((chrom, start, values, step, span))
            for i, value in enumerate(values):
                expected[chrom][start + i * step : start + i * step + span] = value
    if not calls:
        return
    path = write(tmp_path / "x.bw", *calls, assembly=assembly)
    with BigWigReader(path) as reader:
        assert reader.sizes == {"a": length, "b": length}
        for chrom in "ab":
            np.testing.assert_array_equal(reader.fixed_values(chrom, 0, length), expected[chrom])
            np.testing.assert_array_equal(per_bp(path, chrom, length), expected[chrom])
            rebuilt = np.full(length, np.nan, np.float32)
            for start, end, value in zip(*reader.intervals(chrom), strict=True):
                rebuilt[start:end] = value
            np.testing.assert_array_equal(rebuilt, expected[chrom])
    path.unlink()


def test_header_holds_the_whole_assembly_in_its_order(tmp_path):
    path = write(tmp_path / "x.bw", ("chr2", 0, [1.0], 50, 50))
    with pyBigWig.open(str(path)) as raw:
        assert list(raw.chroms().items()) == [("chr1", 1000), ("chr2", 730), ("chr10", 100_000)]
        assert raw.header()["nBasesCovered"] == 50
    assert is_bigwig(path)


def test_an_entry_may_end_with_the_chromosome_and_intervals_are_not_doubled(tmp_path, monkeypatch):
    path = write(tmp_path / "x.bw", ("chr2", 680, [0.5], 50, 50), ("chr10", 25, np.arange(100.0), 50, 50))
    monkeypatch.setattr(bigwig, "_INTERVALS_AT_ONCE_BP", 110)
    with BigWigReader(path) as reader:
        assert reader.fixed_values("chr2", 729, 730).tolist() == [0.5]
        starts, ends, values = reader.intervals("chr10")
        assert starts.tolist() == list(range(25, 5025, 50))
        assert (ends - starts == 50).all()
        assert values.tolist() == list(range(100))
        assert reader.intervals("chr10", 60, 80)[0].tolist() == [25, 75]
        assert [len(part) for part in reader.intervals("chr1")] == [0, 0, 0]
        assert len(reader.fixed_values("chr1", 5, 5)) == 0


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        ([("chr1", 960, [1.0], 50, 50)], r"chr1:960-1,010 is not on chr1 \(1,000 bp\)"),
        ([("chr1", -50, [1.0], 50, 50)], "is not on chr1"),
        ([("chr1", 0, [1.0, np.nan], 50, 50)], "chr1:50: value nan"),
        ([("chr1", 0, [np.inf], 50, 50)], "value inf"),
        ([("chr1", 0, [1e39], 50, 50)], "value 1e"),
        ([("chrX", 0, [1.0], 50, 50)], "chromosome 'chrX' is not in the assembly"),
        ([("chr1", 0, [1.0], 50, 60)], "span of 60 bp"),
        ([("chr1", 0, [1.0], 50, 0)], "span of 0 bp"),
        ([("chr1", 100, [1.0], 50, 50), ("chr1", 149, [1.0], 50, 50)], "chr1:149 was already passed"),
        ([("chr2", 0, [1.0], 50, 50), ("chr1", 0, [1.0], 50, 50)], "chr1 comes after chr2"),
        ([("chr1", 0, [1.0], 50, 50), ("chr2", 0, [1.0], 50, 50), ("chr1", 500, [1.0], 50, 50)], "chr1 comes after"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_writer_refuses(tmp_path, calls, words):
    target = tmp_path / "x.bw"
    with pytest.raises(InputError, match=words) as caught, publish_file(target) as staged:
        write(staged, *calls)
    assert "x.bw" in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_values_is_refused(tmp_path):
    with pytest.raises(EbertError, match="no value was written"):
        write(tmp_path / "x.bw", ("chr1", 0, [], 50, 50))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch, code):
    class FullDisk:
        def fallocate(self, *_):
            bigwig.ctypes.set_errno(code)
            return -1

    def fill_the_disk_then_write():
        with publish_file(tmp_path / "x.bw") as staged, BigWigWriter(staged, ASSEMBLY) as writer:
            monkeypatch.setattr(bigwig.ctypes, "CDLL", lambda *_, **__: FullDisk())
            writer.write_fixed_step("chr1", 0, np.ones(3), 50, 50)

    with pytest.raises(EbertError, match="no space left"):
        fill_the_disk_then_write()
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_cannot_reserve_is_asked_for_its_free_space(tmp_path, monkeypatch):
    class NoSuchCall:
        def fallocate(self, *_):
            bigwig.ctypes.set_errno(errno.EOPNOTSUPP)
            return -1

    monkeypatch.setattr(bigwig.ctypes, "CDLL", lambda *_, **__: NoSuchCall())
    write(tmp_path / "x.bw", ("chr1", 0, [1.0], 50, 50))
    free = os.statvfs(tmp_path)
    nothing = os.statvfs_result([*free[:4], 0, *free[5:]])
    monkeypatch.setattr(bigwig.os, "statvfs", lambda _: nothing)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "y.bw", ("chr1", 0, [1.0], 50, 50))


def _damaged(folder: Path) -> dict[str, tuple[Path, str]]:
    good = write(folder / "good.bw", ("chr1", 0, np.linspace(0, 1, 20), 50, 50)).read_bytes()
    files = {
        "text": (b"track type=bedGraph\n" * 9, "is not a bigWig file"),
        "empty": (b"", "is not a bigWig file"),
        "head": (good[:40], "is cut short at 40 bytes"),
        "cut": (good[:450], "is cut short at 450 bytes"),
    }
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content)
    return {name: (folder / name, words) for name, (_, words) in files.items()} | {
        "absent": (folder / "absent", "is not there"),
        "folder": (folder, "is a folder"),
    }


@pytest.mark.parametrize("kind", ["text", "empty", "head", "cut", "absent", "folder"])
def test_reader_refuses_and_pybigwig_stays_silent(tmp_path, capfd, kind):
    path, words = _damaged(tmp_path)[kind]
    with pytest.raises(InputError, match=words):
        BigWigReader(path)
    assert capfd.readouterr().err == ""


def test_damage_behind_the_header_is_explained(tmp_path):
    path = write(tmp_path / "x.bw", ("chr10", 0, np.random.default_rng(0).random(1_990), 50, 50))
    content = bytearray(path.read_bytes())
    offset = int.from_bytes(content[16:24], "little")  # bbi header: fullDataOffset
    content[offset + 8 : offset + 48] = bytes(40)
    path.write_bytes(content)
    with BigWigReader(path) as reader:
        for read in (reader.fixed_values, reader.intervals):
            with pytest.raises(InputError, match=r"x\.bw: is a damaged bigWig"):
                read("chr10", 0, 1_000)


def test_reader_names_chromosome_and_file(tmp_path):
    path = write(tmp_path / "x.bw", ("chr1", 0, [1.0], 50, 50))
    with BigWigReader(path) as reader:
        with pytest.raises(InputError, match=r"x\.bw: has no chromosome 'chr3'") as caught:
            reader.fixed_values("chr3", 0, 10)
        assert "did you mean" in caught.value.hint
        for start, end in ((0, 1001), (-1, 5), (7, 6)):
            with pytest.raises(InputError, match="is not on chr1"):
                reader.fixed_values("chr1", start, end)


def test_a_handle_survives_a_fork(tmp_path):
    values = np.random.default_rng(1).random(2000).astype(np.float32)
    path = write(tmp_path / "x.bw", ("chr10", 0, values, 50, 50))
    with BigWigReader(path) as reader:
        reader.fixed_values("chr10", 0, 10)
        global _read

        def _read(index):
            return bool(reader.fixed_values("chr10", index * 50, index * 50 + 50).tolist() == [values[index]] * 50)

        with multiprocessing.get_context("fork").Pool(4) as pool:
            assert all(pool.map(_read, range(2000), chunksize=25))
        assert _read(0)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_scattered_spans_are_what_two_readers_read(tmp_path, data):
    """Between runs of steps, too."""
    length, expected = 5_000, np.full(5_000, np.nan, np.float32)
    path, at = tmp_path / "x.bw", 0
    with BigWigWriter(path, Assembly.from_sizes([("a", length)])) as writer:
        for scattered in [True, *data.draw(st.lists(st.booleans(), max_size=4))]:
            span = data.draw(st.integers(1, 50))
            values = np.array(data.draw(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=6)), np.float32)
            gaps = np.array([data.draw(st.integers(0, 90)) if scattered else 0 for _ in values])
            starts = at + data.draw(st.integers(0, 30)) + np.cumsum(gaps) + span * np.arange(len(values))
            at = int(starts[-1]) + span
            if scattered:
                writer.write_spans("a", starts, values, span)
            else:
                writer.write_fixed_step("a", int(starts[0]), values, span, span)
            for start, value in zip(starts, values, strict=True):
                expected[start : start + span] = value
    np.testing.assert_array_equal(per_bp(path, "a", length), expected)
    with pyBigWig.open(str(path)) as opened:
        np.testing.assert_array_equal(np.array(opened.values("a", 0, length), np.float32), expected)


@pytest.mark.parametrize(
    ("chrom", "starts", "values", "message"),
    [
        ("chr3", [0], [1.0], "chromosome 'chr3' is not in the assembly"),
        ("chr2", [0, 40], [1.0, 2.0], "chr2:40 was already passed"),
        ("chr2", [700], [1.0], "chr2:700-750 is not on chr2"),
        ("chr2", [-50], [1.0], "is not on chr2"),
        ("chr1", [0], [1.0], "chr1:0 was already passed"),
        ("chr2", [0, 50], [1.0, np.nan], "chr2:50: value nan cannot be stored"),
    ],
)
def test_faulty_spans_are_refused_and_nothing_of_them_is_written(tmp_path, chrom, starts, values, message):
    path = tmp_path / "x.bw"
    with BigWigWriter(path, ASSEMBLY) as writer:
        writer.write_spans("chr1", np.array([0, 100]), np.array([1.0, 2.0]), 50)
        with pytest.raises(InputError, match=message):
            writer.write_spans(chrom, np.array(starts), np.array(values), 50)
        writer.write_spans("chr2", np.array([0]), np.array([3.0]), 50)
        writer.write_spans("chr2", np.array([], dtype=int), np.array([]), 50)
    with pyBigWig.open(str(path)) as opened:
        assert opened.intervals("chr1") == ((0, 50, 1.0), (100, 150, 2.0))
        assert opened.intervals("chr2") == ((0, 50, 3.0),)
