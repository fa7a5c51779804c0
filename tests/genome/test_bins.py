"""The grid of bins: brute force on toy chromosomes, and the ENCODE-DREAM challenge's own rows on hg19."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebert_core.errors import EbertError, UnknownNameError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.bins import HELD_OUT_CHROMS, BenchmarkBins, all_bin_starts, benchmark_bin_starts, scorable
from ebert_core.genome.intervals import merge
from ebert_core.io.bed import merged_regions, read_bin_regions

EXCLUDED = st.lists(st.tuples(st.integers(0, 3_000), st.integers(1, 300)), max_size=4).map(
    lambda pairs: merge(
        np.array([start for start, _ in pairs], dtype=np.int64),
        np.array([start + width for start, width in pairs], dtype=np.int64),
    )
)
# The challenge's rows per chromosome, from the organisers' region file.
SOME_CHALLENGE_BINS = {
    "chr1": 4_980_065, "chr8": 2_905_087, "chr20": 1_258_450, "chr21": 957_859, "chr22": 1_025_608, "chrX": 3_097_086
}  # fmt: skip
HG19 = Assembly.built_in("hg19")
TOY = Assembly.from_sizes([("chr2", 5_000), ("chr10", 3_000), ("chr1", 2_000), ("chrM", 500)])


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


# Cuts at multiples of 50, of which every other stretch is a region; those under 200 bp are left out.
REGIONS = st.lists(st.integers(0, 99), max_size=12, unique=True).map(
    lambda cuts: [
        (50 * a, 50 * b) for a, b in zip(sorted(cuts)[::2], sorted(cuts)[1::2], strict=False) if 50 * (b - a) >= 200
    ]
)


def arrays(pairs):
    both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def named(**chroms):
    return {chrom: arrays(pairs) for chrom, pairs in chroms.items()}


@given(REGIONS, st.randoms())
def test_regions_in_any_order_are_tiled_in_rising_order(pairs, random):
    expected = sorted(start for a, b in pairs for start in range(a, b - 200 + 1, 50))
    random.shuffle(pairs)
    bins = BenchmarkBins.from_regions(TOY, named(chr2=pairs))
    starts = bins.starts("chr2")
    assert starts.tolist() == expected
    assert starts.dtype == np.int64
    assert bins.chroms == (("chr2",) if expected else ())
    assert bins.num_rows() == bins.num_rows(["chr2"]) == len(expected)


@given(st.lists(st.integers(1, 3_000), min_size=1, max_size=4), EXCLUDED)
def test_bins_of_an_exclusion_list_equal_those_of_every_chromosome_by_itself(lengths, excluded):
    assembly = Assembly.from_sizes((f"chr{i}", length) for i, length in enumerate(lengths))
    bins = BenchmarkBins.from_exclusion(assembly, lambda chrom: excluded)
    for chrom, length in zip(assembly.chroms, lengths, strict=True):
        expected = [s for s in range(0, length, 50) if 600 <= s < length - 600 and not touches(s, excluded)]
        assert bins.starts(chrom).tolist() == expected
        assert bins.num_rows([chrom]) == len(expected)
        assert (chrom in bins.chroms) == bool(expected)
    # The regions they tile are regions in the sense of a file.
    again = BenchmarkBins.from_regions(assembly, bins.regions)
    assert all(np.array_equal(again.starts(chrom), bins.starts(chrom)) for chrom in assembly.chroms)


def test_an_exclusion_list_need_not_be_sorted_nor_disjoint():
    loose = BenchmarkBins.from_exclusion(TOY, lambda chrom: arrays([(2_000, 2_010), (1_000, 1_400), (1_200, 1_300)]))
    tidy = BenchmarkBins.from_exclusion(TOY, lambda chrom: arrays([(1_000, 1_400), (2_000, 2_010)]))
    assert all(np.array_equal(loose.starts(chrom), tidy.starts(chrom)) for chrom in TOY.chroms)


def test_chromosomes_come_in_lexicographic_order():
    bins = BenchmarkBins.from_exclusion(TOY, lambda chrom: arrays([]))
    assert bins.chroms == ("chr1", "chr10", "chr2")
    assert bins.starts("chrM").tolist() == []
    assert bins.num_rows() == sum(len(bins.starts(chrom)) for chrom in bins.chroms)
    assert bins.num_rows([]) == 0
    for asked in (bins.starts, lambda chrom: bins.num_rows([chrom])):
        with pytest.raises(UnknownNameError, match="chr3"):
            asked("chr3")


@pytest.mark.parametrize(
    ("pairs", "problem"),
    [
        ([(600, 1_000), (950, 1_200)], "region 950-1,200 overlaps another"),
        ([(600, 1_000), (600, 1_000)], "region 600-1,000 overlaps another"),
        ([(600, 750)], "region 600-750 is shorter than a bin (200 bp)"),
        ([(1_000, 600)], "is shorter than a bin"),
        ([(610, 1_010)], "region 610-1,010 begins at no multiple of 50"),
        ([(600, 1_010)], "region 600-1,010 is no multiple of 50 bp long"),
        ([(4_000, 5_050)], "region 4,000-5,050 goes past the chromosome's end (5,000 bp)"),
        ([(-50, 500)], "region -50-500 begins below 0"),
    ],
)
def test_regions_that_bins_cannot_tile(pairs, problem):
    with pytest.raises(EbertError, match=re.escape(problem)) as caught:
        BenchmarkBins.from_regions(TOY, named(chr1=[(600, 800)], chr2=pairs))
    assert caught.value.message.startswith("chr2: ")
    assert caught.value.hint


def test_regions_on_an_unknown_chromosome():
    with pytest.raises(UnknownNameError, match="chr3"):
        BenchmarkBins.from_regions(TOY, named(chr3=[(600, 800)]))


@pytest.fixture(scope="module")
def challenge(real_data):
    """The challenge's bins by its region file."""
    regions, notes = read_bin_regions(real_data / "dream" / "test_regions.blacklistfiltered.merged.bed", HG19)
    assert notes == []
    return BenchmarkBins.from_regions(HG19, regions)


@pytest.mark.real
def test_the_built_in_hg19_is_the_real_one(real_data):
    with (real_data / "genome" / "hg19.chrom.sizes").open() as handle:
        assert {chrom: int(length) for chrom, length in map(str.split, handle)} == {
            chrom: HG19.length(chrom) for chrom in HG19.chroms
        }


@pytest.mark.real
def test_the_challenges_rows(challenge):
    assert challenge.num_rows() == 60_519_747
    assert challenge.num_rows(HELD_OUT_CHROMS) == 8_843_011
    assert challenge.num_rows(set(HG19.chroms) - set(HELD_OUT_CHROMS)) == 51_676_736
    assert {chrom: challenge.num_rows([chrom]) for chrom in SOME_CHALLENGE_BINS} == SOME_CHALLENGE_BINS
    numbered = [f"chr{number}" for number in range(1, 23)]
    assert challenge.chroms == (*sorted(numbered), "chrX")
    assert challenge.chroms[:3] == ("chr1", "chr10", "chr11")


# The challenge kept these four bins although they touch ENCODE's DAC list, at two of its 411 regions.
KEPT_BY_THE_CHALLENGE = {"chr1": [233_318_500], "chr11": [122_874_100, 122_874_150, 122_874_200]}


@pytest.mark.real
def test_the_exclusion_list_gives_the_challenges_bins_row_by_row(challenge, real_data):
    path = real_data / "annotation" / "wgEncodeDacMapabilityConsensusExcludable.bed.gz"
    excluded, _ = merged_regions([path], HG19)
    empty = arrays([])
    bins = BenchmarkBins.from_exclusion(HG19, lambda chrom: excluded.get(chrom, empty))
    assert bins.chroms == challenge.chroms
    for chrom in HG19.chroms:
        rows = challenge.starts(chrom)
        expected = rows[~np.isin(rows, KEPT_BY_THE_CHALLENGE.get(chrom, []))]
        np.testing.assert_array_equal(bins.starts(chrom), expected)
    assert bins.num_rows() == challenge.num_rows() - 4


@pytest.mark.real
@pytest.mark.parametrize("chrom", ["chr20", "chrX"])
def test_the_region_file_is_tiled_line_by_line(challenge, real_data, chrom):
    tiles = []
    with (real_data / "dream" / "test_regions.blacklistfiltered.merged.bed").open() as handle:
        for line in handle:
            name, start, end = line.split()[:3]
            if name == chrom:
                tiles.append(np.arange(int(start), int(end) - 200 + 1, 50))
    np.testing.assert_array_equal(challenge.starts(chrom), np.concatenate(tiles))
