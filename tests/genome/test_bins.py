"""The grid of bins: brute force on toy chromosomes, and the ENCODE-DREAM challenge's own rows on hg19."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebert_core.genome.assembly import Assembly
from ebert_core.genome.bins import all_bin_starts, benchmark_bin_starts, scorable
from ebert_core.genome.intervals import merge
from ebert_core.io.bed import merged_regions

EXCLUDED = st.lists(st.tuples(st.integers(0, 3_000), st.integers(1, 300)), max_size=4).map(
    lambda pairs: merge(
        np.array([start for start, _ in pairs], dtype=np.int64),
        np.array([start + width for start, width in pairs], dtype=np.int64),
    )
)
CHALLENGE_BINS = {"chr20": 1_258_450, "chr21": 957_859, "chr22": 1_025_608}


def touches(start, excluded):
    return any(start < end and start + 200 > begin for begin, end in zip(*excluded, strict=True))


@given(st.integers(1, 3_000))
def test_all_bins_lie_within_the_chromosome(length):
    expected = [start for start in range(0, length, 50) if start + 200 <= length]
    starts = all_bin_starts(length)
    assert starts.tolist() == expected
    assert starts.dtype == np.int64


@pytest.mark.parametrize(("length", "count"), [(1, 0), (199, 0), (200, 1), (249, 1), (250, 2)])
def test_short_contigs(length, count):
    assert len(all_bin_starts(length)) == count


@given(st.integers(1, 3_000), EXCLUDED)
def test_benchmark_bins_equal_brute_force(length, excluded):
    expected = [s for s in range(0, length, 50) if 600 <= s < length - 600 and not touches(s, excluded)]
    assert benchmark_bin_starts(length, excluded).tolist() == expected


@given(st.integers(200, 2_000), EXCLUDED, st.integers(0, 2**32 - 1))
def test_scorable_bins_have_a_base_and_no_exclusion(length, excluded, seed):
    rng = np.random.default_rng(seed)
    # Runs of N long enough that some bins hold nothing else.
    codes = np.repeat(rng.choice(np.array([0, 3, 4, 4, 4], dtype=np.uint8), size=length), rng.integers(1, 90, length))
    codes = codes[:length].astype(np.uint8)
    starts = all_bin_starts(length)
    expected = [bool((codes[s : s + 200] != 4).any()) and not touches(s, excluded) for s in starts.tolist()]
    assert scorable(codes, starts, excluded).tolist() == expected


@pytest.fixture(scope="module")
def challenge(real_data):
    """(hg19 lengths, exclusion list) of chr20, chr21 and chr22."""
    with (real_data / "genome" / "hg19.chrom.sizes").open() as handle:
        sizes = dict(line.split() for line in handle)
    assembly = Assembly.from_sizes((chrom, int(sizes[chrom])) for chrom in CHALLENGE_BINS)
    path = real_data / "annotation" / "wgEncodeDacMapabilityConsensusExcludable.bed.gz"
    excluded, notes = merged_regions([path], assembly)
    with gzip.open(path, "rt") as handle:
        elsewhere = sum(line.split("\t")[0] not in CHALLENGE_BINS for line in handle)
    assert f"{elsewhere:,} rows lie on chromosomes that the genome lacks" in notes[0]
    return assembly, excluded


@pytest.mark.real
@pytest.mark.parametrize("chrom", CHALLENGE_BINS)
def test_the_challenge_has_as_many_bins(challenge, chrom):
    assembly, excluded = challenge
    assert len(benchmark_bin_starts(assembly.length(chrom), excluded[chrom])) == CHALLENGE_BINS[chrom]


@pytest.mark.real
@pytest.mark.parametrize("chrom", CHALLENGE_BINS)
def test_the_challenge_has_the_same_bins_row_by_row(challenge, real_data, chrom):
    assembly, excluded = challenge
    tiles = []
    with (real_data / "dream" / "test_regions.blacklistfiltered.merged.bed").open() as handle:
        for line in handle:
            name, start, end = line.split()[:3]
            if name == chrom:
                tiles.append(np.arange(int(start), int(end) - 200 + 1, 50))
    np.testing.assert_array_equal(benchmark_bin_starts(assembly.length(chrom), excluded[chrom]), np.concatenate(tiles))
