"""Bound, unbound, ambiguous: against bedtools, and against a slow reading of the rule."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebert_core.genome.bins import all_bin_starts, benchmark_bin_starts
from ebert_core.genome.labels import AMBIGUOUS, BOUND, UNBOUND, label_bins, pack_labels, unpack_labels

LENGTH = 6000
REAL_DATA = Path(os.environ.get("EBERT_REAL_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


def arrays(intervals):
    both = np.array(intervals, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def slow_labels(starts, conservative, relaxed):
    """The rule, base by base and peak by peak."""

    def merged(peaks):
        runs = []
        for start, end in sorted(peaks):
            if runs and start <= runs[-1][1]:
                runs[-1] = (runs[-1][0], max(end, runs[-1][1]))
            else:
                runs.append((start, end))
        return runs

    strong, weak = merged(conservative), merged(relaxed)
    labels = []
    for start in starts.tolist():
        shared = [max(0, min(end, start + 200) - max(begin, start)) for begin, end in strong]
        half = sum(
            overlap > 0 and (2 * overlap >= 200 or 2 * overlap >= end - begin)
            for overlap, (begin, end) in zip(shared, strong, strict=True)
        )
        any_ = sum(min(end, start + 200) > max(begin, start) for begin, end in weak)
        labels.append(BOUND if half == any_ == 1 else UNBOUND if half == any_ == 0 else AMBIGUOUS)
    return labels


def peaks(most=8):
    return st.lists(
        st.tuples(st.integers(0, LENGTH - 600), st.integers(1, 599)).map(lambda pair: (pair[0], sum(pair))),
        max_size=most,
    )


@settings(deadline=None)
@given(peaks(), peaks())
def test_agrees_with_a_slow_reading_of_the_rule(conservative, relaxed):
    starts = all_bin_starts(LENGTH)
    found = label_bins(starts, arrays(conservative), arrays(relaxed))
    assert found.tolist() == slow_labels(starts, conservative, relaxed)


@pytest.mark.parametrize(
    ("conservative", "relaxed", "expected"),
    [
        ([], [], UNBOUND),
        ([(1000, 1400)], [(1000, 1400)], BOUND),
        ([(1100, 1400)], [(1100, 1400)], BOUND),  # covers exactly half of the bin
        ([(1101, 1400)], [(1101, 1400)], AMBIGUOUS),  # one base less
        ([(1180, 1220)], [(1180, 1220)], BOUND),  # half of the peak lies in the bin
        ([(1181, 1221)], [(1181, 1221)], AMBIGUOUS),
        ([(1050, 1100), (1120, 1150)], [(1050, 1150)], AMBIGUOUS),  # two conservative peaks
        ([(1050, 1100), (1100, 1150)], [(1050, 1150)], BOUND),  # touching peaks are one
        ([(1050, 1150)], [(1050, 1150), (1199, 1300)], AMBIGUOUS),  # a second relaxed peak
        ([(1050, 1150)], [], AMBIGUOUS),
        ([], [(1199, 1300)], AMBIGUOUS),
        ([(1200, 1300)], [(1200, 1300)], UNBOUND),  # begins where the bin ends
    ],
)
def test_borders_of_the_rule(conservative, relaxed, expected):
    assert label_bins(np.array([1000]), arrays(conservative), arrays(relaxed)).tolist() == [expected]


def bedtools_labels(folder, chrom, starts, conservative, relaxed):
    """The organisers' commands, on the same bins."""
    for name, (begins, ends) in (("c", conservative), ("r", relaxed)):
        rows = sorted(zip(begins.tolist(), ends.tolist(), strict=True))
        (folder / f"{name}.bed").write_text("".join(f"{chrom}\t{a}\t{b}\n" for a, b in rows))
        if rows:
            merged = run("bedtools", "merge", "-i", folder / f"{name}.bed")
            (folder / f"{name}.bed").write_text(merged)
    (folder / "bins.bed").write_text("".join(f"{chrom}\t{start}\t{start + 200}\n" for start in starts.tolist()))
    common = ["bedtools", "intersect", "-sorted", "-a", folder / "bins.bed", "-c"]
    strong = counts(run(*common, "-b", folder / "c.bed", "-f", "0.5", "-F", "0.5", "-e"))
    weak = counts(run(*common, "-b", folder / "r.bed"))
    labels = np.full(len(starts), AMBIGUOUS)
    labels[(strong == 0) & (weak == 0)] = UNBOUND
    labels[(strong == 1) & (weak == 1)] = BOUND
    return labels


def run(*command):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


def counts(text):
    return np.array([int(line.rsplit("\t", 1)[1]) for line in text.splitlines()])


needs_bedtools = pytest.mark.skipif(shutil.which("bedtools") is None, reason="bedtools is not installed")


@needs_bedtools
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_bedtools(tmp_path, seed):
    rng = np.random.default_rng(seed)
    begins = rng.integers(0, 199_000, 250)
    conservative = begins, begins + rng.integers(1, 900, 250)
    also = rng.integers(0, 199_000, 200)
    relaxed = np.concatenate([begins, also]), np.concatenate([conservative[1], also + rng.integers(1, 500, 200)])
    starts = benchmark_bin_starts(200_000, arrays([(50_000, 52_345), (120_000, 120_001)]))
    found = label_bins(starts, conservative, relaxed)
    np.testing.assert_array_equal(found, bedtools_labels(tmp_path, "chr1", starts, conservative, relaxed))
    assert set(found.tolist()) == {UNBOUND, AMBIGUOUS, BOUND}


@needs_bedtools
@pytest.mark.real
def test_agrees_with_bedtools_on_real_peaks(tmp_path):
    pandas = pytest.importorskip("pandas")
    folder = REAL_DATA / "chip" / "dream"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; EBERT_REAL_DATA names the folder of the real data")
    tables = []
    for kind in ("conservative.train", "relaxed"):
        path = folder / f"ChIPseq.HeLa-S3.CTCF.{kind}.narrowPeak.gz"
        table = pandas.read_csv(path, sep="\t", header=None, usecols=[0, 1, 2])
        here = table[table[0] == "chr22"]
        tables.append((here[1].to_numpy(np.int64), here[2].to_numpy(np.int64)))
    starts = benchmark_bin_starts(51_304_566, arrays([]))
    found = label_bins(starts, *tables)
    np.testing.assert_array_equal(found, bedtools_labels(tmp_path, "chr22", starts, *tables))
    assert (found == BOUND).sum() > 1000


def test_no_bins_and_no_peaks():
    none = arrays([])
    assert label_bins(np.empty(0, np.int64), none, none).tolist() == []
    assert (label_bins(all_bin_starts(1000), none, none) == UNBOUND).all()


@given(st.integers(0, 50).flatmap(lambda quads: st.lists(st.integers(0, 3), min_size=4 * quads, max_size=4 * quads)))
def test_packing_is_reversible(labels):
    codes = np.array(labels, np.uint8)
    packed = pack_labels(codes)
    assert packed.dtype == np.uint8
    assert len(packed) == len(codes) // 4
    np.testing.assert_array_equal(unpack_labels(packed), codes)
    pairs = np.stack([packed, packed[::-1]])
    np.testing.assert_array_equal(unpack_labels(pairs), np.stack([codes, unpack_labels(packed[::-1])]))


def test_the_first_label_is_in_the_lowest_bits():
    assert pack_labels(np.array([3, 0, 2, 1], np.uint8)).tolist() == [3 | 2 << 4 | 1 << 6]
