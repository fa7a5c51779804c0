"""Interval arithmetic against sets of positions, bioframe and bedtools."""

from __future__ import annotations

import itertools
import shutil
import subprocess

import bioframe
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebert_core.genome.intervals import (
    any_overlap,
    complement,
    count_overlaps,
    first_overlap_with_previous,
    merge,
)

INTERVALS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=15).map(
    lambda pairs: [(start, start + width) for start, width in pairs]
)


def arrays(pairs):
    both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def covered(pairs):
    return {position for start, end in pairs for position in range(start, end)}


def pairs_of(starts, ends):
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


@given(INTERVALS)
def test_merge_covers_the_same_positions_with_gaps_between(pairs):
    merged = pairs_of(*merge(*arrays(pairs)))
    assert covered(merged) == covered(pairs)
    assert merged == sorted(merged)
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(merged)), "touching ones must join"


@given(INTERVALS)
def test_merging_twice_changes_nothing(pairs):
    once = merge(*arrays(pairs))
    assert pairs_of(*merge(*once)) == pairs_of(*once)
    assert once[0].dtype == once[1].dtype == np.int64


@given(INTERVALS, st.integers(-5, 40), st.integers(0, 40))
def test_complement_is_the_rest_of_the_span(pairs, lower, width):
    upper = lower + width
    left = pairs_of(*complement(*merge(*arrays(pairs)), lower, upper))
    assert covered(left) == set(range(lower, upper)) - covered(pairs)
    assert all(start < end for start, end in left)


@given(INTERVALS, INTERVALS)
def test_overlap_counts_equal_brute_force(pairs, queries):
    starts, ends = merge(*arrays(pairs))
    expected = [sum(s < q_end and e > q_start for s, e in zip(starts, ends, strict=True)) for q_start, q_end in queries]
    assert count_overlaps(starts, ends, *arrays(queries)).tolist() == expected
    assert any_overlap(starts, ends, *arrays(queries)).tolist() == [count > 0 for count in expected]


@given(INTERVALS)
def test_first_overlap_with_previous_equals_brute_force(pairs):
    pairs = sorted(pairs)
    clashes = (i for i in range(len(pairs)) if any(end > pairs[i][0] for _, end in pairs[:i]))
    assert first_overlap_with_previous(*arrays(pairs)) == next(clashes, None)


def test_a_short_interval_inside_a_long_one_is_found_behind_another():
    # The third overlaps the first, not its neighbour.
    assert first_overlap_with_previous(np.array([0, 10, 50]), np.array([100, 20, 60])) == 1
    assert first_overlap_with_previous(np.array([0, 100, 150]), np.array([100, 160, 155])) == 2


def random_pairs(seed, count, reach):
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, reach, size=count)
    return starts, starts + rng.integers(1, 400, size=count)


def frame(starts, ends):
    return pd.DataFrame({"chrom": "chr1", "start": starts, "end": ends})


def test_merge_and_count_equal_bioframe():
    starts, ends = random_pairs(1, 2_000, 400_000)
    expected = bioframe.merge(frame(starts, ends), min_dist=0)
    merged = merge(starts, ends)
    np.testing.assert_array_equal(merged[0], expected["start"].to_numpy())
    np.testing.assert_array_equal(merged[1], expected["end"].to_numpy())

    bins = np.arange(0, 400_000, 50, dtype=np.int64)
    counts = bioframe.count_overlaps(frame(bins, bins + 200), frame(*merged))["count"].to_numpy()
    np.testing.assert_array_equal(count_overlaps(*merged, bins, bins + 200), counts)
    assert counts.max() > 1
    assert counts.min() == 0


@pytest.mark.skipif(shutil.which("bedtools") is None, reason="bedtools is not installed")
def test_merge_and_complement_equal_bedtools(tmp_path):
    starts, ends = random_pairs(2, 500, 90_000)
    bed, sizes = tmp_path / "a.bed", tmp_path / "sizes"
    rows = sorted(zip(starts.tolist(), ends.tolist(), strict=True))
    bed.write_text("".join(f"chr1\t{start}\t{end}\n" for start, end in rows))
    sizes.write_text("chr1\t100000\n")

    def bedtools(*arguments):
        output = subprocess.run(["bedtools", *arguments], check=True, capture_output=True, text=True).stdout
        return [(int(line.split("\t")[1]), int(line.split("\t")[2])) for line in output.splitlines()]

    merged = merge(starts, ends)
    assert pairs_of(*merged) == bedtools("merge", "-i", str(bed))
    assert pairs_of(*complement(*merged, 0, 100_000)) == bedtools("complement", "-i", str(bed), "-g", str(sizes))
