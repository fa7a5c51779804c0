"""Bound, unbound, ambiguous: against bedtools, and against a slow reading of the rule."""

from __future__ import annotations

import gzip
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebert_core.genome.bins import all_bin_starts, benchmark_bin_starts
from ebert_core.genome.labels import (
    AMBIGUOUS,
    BOUND,
    UNBOUND,
    count_packed,
    label_bins,
    lay_packed,
    pack_labels,
    unpack_labels,
)

LENGTH = 6000


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


def read_peaks_of(path, chrom):
    """(starts, ends) on one chromosome, read without the program."""
    with gzip.open(path, "rt") as handle:
        return arrays([tuple(map(int, fields[1:3])) for fields in map(str.split, handle) if fields[0] == chrom])


def real_bins(folder, chrom):
    """The challenge's bins of one chromosome, tiled without the program."""
    with (folder / "dream" / "test_regions.blacklistfiltered.merged.bed").open() as handle:
        rows = [fields for fields in map(str.split, handle) if fields[0] == chrom]
    return np.concatenate([np.arange(int(start), int(end) - 199, 50) for _, start, end in rows])


MORE = pytest.mark.slow


@needs_bedtools
@pytest.mark.real
@pytest.mark.parametrize(
    ("tf", "cell", "chrom"),
    [
        ("CTCF", "HeLa-S3", "chr22"),
        ("MAX", "GM12878", "chr20"),
        pytest.param("CTCF", "HeLa-S3", "chr20", marks=MORE),
        pytest.param("MAX", "GM12878", "chr22", marks=MORE),
        pytest.param("REST", "HepG2", "chr20", marks=MORE),
        pytest.param("REST", "HepG2", "chr22", marks=MORE),
        pytest.param("JUND", "MCF-7", "chr20", marks=MORE),
        pytest.param("JUND", "MCF-7", "chr22", marks=MORE),
    ],
)
def test_every_bin_of_a_real_chromosome_agrees_with_bedtools(tmp_path, real_data, tf, cell, chrom):
    conservative, relaxed = (
        read_peaks_of(real_data / "chip" / "dream" / f"ChIPseq.{cell}.{tf}.{kind}.narrowPeak.gz", chrom)
        for kind in ("conservative.train", "relaxed")
    )
    starts = real_bins(real_data, chrom)
    found = label_bins(starts, conservative, relaxed)
    np.testing.assert_array_equal(found, bedtools_labels(tmp_path, chrom, starts, conservative, relaxed))
    counts = np.bincount(found, minlength=4)
    assert counts.sum() == {"chr20": 1_258_450, "chr22": 1_025_608}[chrom]
    assert counts[BOUND] > 300
    assert counts[AMBIGUOUS] > 1_000


@needs_bedtools
@pytest.mark.parametrize("kinds", ["conservative", "relaxed", "both"])
def test_files_without_a_peak_agree_with_bedtools(tmp_path, kinds):
    none, some = arrays([]), arrays([(1_000, 1_400), (3_100, 3_110)])
    conservative = none if kinds != "relaxed" else some
    relaxed = none if kinds != "conservative" else some
    starts = all_bin_starts(LENGTH)
    found = label_bins(starts, conservative, relaxed)
    np.testing.assert_array_equal(found, bedtools_labels(tmp_path, "chr1", starts, conservative, relaxed))


def test_more_peaks_in_a_gap_than_a_short_integer_counts():
    begins = np.arange(1_000, 1_000 + 2 * 40_000, 2)
    starts = np.array([0, 800, 81_000, 81_050])
    found = label_bins(starts, (begins, begins + 1), (begins, begins + 1))
    # 800 to 1,000 touches none; 81,000 begins where the last, [80,998, 80,999), has ended.
    assert found.tolist() == [UNBOUND] * 4
    both = label_bins(np.array([0, 801, 80_900]), (begins, begins + 1), (begins, begins + 1))
    assert both.tolist() == [UNBOUND, BOUND, AMBIGUOUS]


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


@given(st.data(), st.integers(1, 40))
def test_labels_are_laid_into_a_packed_array(data, quads):
    codes = data.draw(st.lists(st.integers(0, 3), min_size=4 * quads, max_size=4 * quads))
    places = sorted(data.draw(st.sets(st.integers(0, 4 * quads - 1))))
    new = data.draw(st.lists(st.integers(1, 3), min_size=len(places), max_size=len(places)))
    packed = pack_labels(np.array(codes, np.uint8))
    lay_packed(packed, np.array(places, np.int64), np.array(new, np.uint8))
    for place, label in zip(places, new, strict=True):
        codes[place] = label
    assert unpack_labels(packed).tolist() == codes
    assert count_packed(packed).tolist() == [codes.count(label) for label in range(4)]
