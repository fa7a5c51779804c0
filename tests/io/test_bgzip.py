"""bgzip files as gzip, bgzip and pysam read them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pysam
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebert_core.errors import InputError
from ebert_core.io.bgzip import BgzipWriter
from ebert_core.io.streams import read_bytes


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 200_000), max_size=4), random=st.randoms(use_true_random=False))
def test_three_readers_read_what_was_written(tmp_path: Path, sizes: list[int], random) -> None:
    parts = [random.randbytes(size) if size % 2 else b"chr1\t5\n" * (size // 7) for size in sizes]
    path = tmp_path / "x.bed.gz"
    with BgzipWriter(path) as writer:
        for part in parts:
            writer.write(part)
    data = b"".join(parts)
    assert gzip.decompress(path.read_bytes()) == data
    assert read_bytes(path) == data
    with pysam.BGZFile(str(path)) as opened:
        assert opened.read() == data


def test_random_access(tmp_path: Path) -> None:
    """A virtual offset - block and place in it - leads to the same byte."""
    path, data = tmp_path / "x.gz", bytes(range(251)) * 4_000
    with BgzipWriter(path) as writer:
        writer.write(data)
    with pysam.BGZFile(str(path)) as opened:
        opened.seek(0)
        opened.read(700_000)
        place = opened.tell()
        opened.read(100)
        opened.seek(place)
        assert opened.read(50) == data[700_000:700_050]


def test_a_block_that_broke_off_is_no_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"

    def write() -> None:
        with BgzipWriter(path) as writer:
            writer.write(b"x" * 100_000)
            raise KeyError

    with pytest.raises(KeyError):
        write()
    with pytest.raises(InputError, match="truncated bgzip"):
        read_bytes(path)
