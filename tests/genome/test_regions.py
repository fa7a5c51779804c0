"""Regions: how they are typed, what is left when some are taken away, and what is held back for validation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebert_core.errors import EbertError, UnknownNameError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.regions import Region, hold_back, overlap_bp, parse_region, subtract, whole

ASSEMBLY = Assembly(("chr1", "chr2", "chrM"), (10_000, 2_345, 170))
REGIONS = st.lists(
    st.builds(
        lambda chrom, start, width: Region(chrom, start, start + width),
        st.sampled_from(["chr1", "chr2"]),
        st.integers(0, 50),
        st.integers(1, 30),
    ),
    max_size=6,
)


def positions(regions):
    return {(region.chrom, at) for region in regions for at in range(region.start, region.end)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("chr1", Region("chr1", 0, 10_000)),
        ("1", Region("chr1", 0, 10_000)),
        (" chr1 ", Region("chr1", 0, 10_000)),
        ("MT", Region("chrM", 0, 170)),
        ("chr1:0-10000", Region("chr1", 0, 10_000)),
        ("chr1:0-10,000", Region("chr1", 0, 10_000)),
        ("1:1,000-2,000", Region("chr1", 1_000, 2_000)),
        ("chr2:2,344-", Region("chr2", 2_344, 2_345)),
        ("chr2:7-8", Region("chr2", 7, 8)),
    ],
)
def test_parse(text, expected):
    assert parse_region(text, ASSEMBLY) == expected


def test_a_chromosome_whose_name_holds_a_colon_is_found_whole():
    assembly = Assembly(("HLA-A*01:01:01", "chr1"), (500, 1_000))
    assert parse_region("HLA-A*01:01:01", assembly) == Region("HLA-A*01:01:01", 0, 500)
    assert parse_region("HLA-A*01:01:01:10-20", assembly) == Region("HLA-A*01:01:01", 10, 20)


@pytest.mark.parametrize("text", ["chr1:5-5", "chr1:6-5", "chr1:0-10,001", "chr2:2,345-", "chr1:10000-10001"])
def test_an_empty_or_overlong_region_is_refused(text):
    with pytest.raises(EbertError, match="is empty or goes past the end of chr") as caught:
        parse_region(text, ASSEMBLY)
    assert "0-based" in caught.value.hint


@pytest.mark.parametrize("text", ["chr1:abc", "chr1:-5-10", "chr1:5", "chr1:1.5-3", "chr1:,-5", "1:", "chr1:1-2-3"])
def test_a_malformed_interval_is_refused(text):
    with pytest.raises(EbertError, match="is not a region") as caught:
        parse_region(text, ASSEMBLY)
    assert "chrom:start-end" in caught.value.hint


@pytest.mark.parametrize("text", ["chr9", "chr9:1-2", "", ":1-2", "chr9:abc", "chr1,chr2"])
def test_an_unknown_chromosome_is_refused(text):
    with pytest.raises(UnknownNameError):
        parse_region(text, ASSEMBLY)


def test_an_unknown_chromosome_gets_a_suggestion():
    with pytest.raises(UnknownNameError) as caught:
        parse_region("ch1:5-10", ASSEMBLY)
    assert "chr1" in caught.value.hint


@given(st.sampled_from(ASSEMBLY.chroms), st.data())
def test_what_is_printed_is_parsed_back(chrom, data):
    start = data.draw(st.integers(0, ASSEMBLY.length(chrom) - 1))
    region = Region(chrom, start, data.draw(st.integers(start + 1, ASSEMBLY.length(chrom))))
    assert parse_region(str(region), ASSEMBLY) == region
    assert region.length == region.end - region.start


@given(REGIONS, REGIONS)
def test_subtract_leaves_exactly_the_other_positions(regions, removed):
    left = subtract(regions, removed)
    assert positions(left) == positions(regions) - positions(removed)
    assert sum(region.length for region in left) == len(positions(left)), "disjoint"
    assert all(region.length > 0 for region in left)


@given(REGIONS)
def test_subtract_keeps_the_order_of_chromosomes(regions):
    left = subtract(regions, [])
    order = list(dict.fromkeys(region.chrom for region in regions))
    assert left == sorted(left, key=lambda region: (order.index(region.chrom), region.start))


@given(REGIONS, REGIONS)
def test_overlap_counts_shared_positions_whatever_overlaps_within_a_set(a, b):
    assert overlap_bp(a, b) == len(positions(a) & positions(b))


@given(st.integers(0, 30).map(lambda n: 200 * n), st.integers(1, 60_000), st.floats(0, 0.4))
def test_hold_back_splits_without_loss_on_multiples_of_200(start, length, fraction):
    region = Region("chr1", start, start + length)
    kept, held = hold_back([region], fraction)
    assert sum(part.length for part in kept + held) == length
    assert overlap_bp(kept, held) == 0
    assert overlap_bp([region], kept + held) == length
    for part in held:
        assert part.start % 200 == part.end % 200 == 0
        assert abs(part.length - fraction * length) <= 200
        assert abs(part.start - start - 0.6 * length) <= 200
    assert len(held) == (int(length * fraction) >= 200)


def test_a_region_too_short_to_split_is_kept_whole():
    region = Region("chr1", 0, 900)
    assert hold_back([region], 0.2) == ([region], [])


def test_whole():
    assert whole(ASSEMBLY) == [Region("chr1", 0, 10_000), Region("chr2", 0, 2_345), Region("chrM", 0, 170)]
    assert whole(ASSEMBLY, ["chr2"]) == [Region("chr2", 0, 2_345)]
