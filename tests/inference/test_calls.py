"""Called sites, against a walk over single bins and bedtools."""

from __future__ import annotations

import io
import itertools
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebert_core.inference.calls import Site, call_sites, write_narrow_peak

values = st.one_of(st.just(float("nan")), st.sampled_from([0.0, 0.2, 0.5, 0.5, 0.7, 1.0]), st.floats(0, 1, width=32))
tracks = st.lists(values, max_size=60).map(lambda track: np.array(track, dtype=np.float32))


def walked(probabilities: np.ndarray, threshold: float) -> list[list[int]]:
    """Bins over the threshold; two are of one site when they share a base pair, directly or through others."""
    groups: list[list[int]] = []
    for number, value in enumerate(probabilities):
        if not np.isnan(value) and value >= np.float32(threshold):
            if groups and 50 * number < 50 * groups[-1][-1] + 200:
                groups[-1].append(number)
            else:
                groups.append([number])
    return groups


@settings(max_examples=200, deadline=None)
@given(tracks, st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0]))
def test_sites_by_walking(probabilities: np.ndarray, threshold: float) -> None:
    sites = call_sites("chr1", probabilities, threshold)
    groups = walked(probabilities, threshold)
    assert [(site.start, site.end) for site in sites] == [(50 * g[0], 50 * g[-1] + 200) for g in groups]
    for site, group in zip(sites, groups, strict=True):
        best = max(group, key=lambda number: probabilities[number])
        assert site.probability == probabilities[best]
        assert site.start + site.summit == 50 * best + 100
        assert 0 <= site.summit < site.end - site.start
        assert site.probability >= np.float32(threshold)
    for left, right in itertools.pairwise(sites):
        assert left.end <= right.start


def test_threshold_of_the_model_calls_the_bin_it_was_made_from() -> None:
    """A threshold is saved as a 64-bit number, probabilities have 32 bits."""
    value = np.float32(0.1)
    assert len(call_sites("chr1", np.array([value]), float(value))) == 1
    assert len(call_sites("chr1", np.array([np.float32(0.3)]), 0.3)) == 1


def test_nothing_scored_is_nothing_called() -> None:
    assert call_sites("chr1", np.full(9, np.nan, dtype=np.float32), 0.0) == []
    assert call_sites("chr1", np.empty(0, dtype=np.float32), 0.0) == []


def written(sites: list[Site]) -> list[list[str]]:
    handle = io.StringIO()
    write_narrow_peak(sites, handle)
    return [line.split("\t") for line in handle.getvalue().splitlines()]


def test_narrow_peak_columns() -> None:
    rows = written([Site("chr1", 0, 200, 1.0, 100), Site("chr2", 150, 500, 0.123456789, 125)])
    assert rows == [
        ["chr1", "0", "200", ".", "1000", ".", "1", "-1", "-1", "100"],
        ["chr2", "150", "500", ".", "123", ".", "0.123457", "-1", "-1", "125"],
    ]


@pytest.mark.skipif(shutil.which("bedtools") is None, reason="needs bedtools")
def test_bedtools_reads_sorts_and_merges_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    track = np.repeat(rng.random(300), 3).astype(np.float32)
    sites = call_sites("chr1", track, 0.6) + call_sites("chr2", track[::-1].copy(), 0.8)
    path = tmp_path / "sites.narrowPeak"
    with path.open("w") as handle:
        write_narrow_peak(sites, handle)

    def bedtools(*arguments: str) -> list[list[str]]:
        done = subprocess.run(["bedtools", *arguments, "-i", str(path)], check=True, capture_output=True, text=True)
        assert done.stderr == ""
        return [line.split("\t") for line in done.stdout.splitlines()]

    rows = [line.split("\t") for line in path.read_text().splitlines()]
    assert bedtools("sort") == rows
    # Merging what shares at least 1 bp changes nothing: sites do not overlap.
    assert [row[:3] for row in bedtools("merge", "-d", "-1")] == [row[:3] for row in rows]
    for row in rows:
        assert 0 <= int(row[4]) <= 1000
        assert 0 <= int(row[9]) < int(row[2]) - int(row[1])
