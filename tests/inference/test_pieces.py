"""Pieces share out the bins of a request: each once, with its fate, against a base-by-base reading of the rule."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebert_core.data.dataset import Dataset
from ebert_core.errors import EbertError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.intervals import merge
from ebert_core.genome.regions import Region, whole
from ebert_core.inference.pieces import Coverage, Piece, Plan, bins_of, joined, make_plan, piece_bins


class Genome(SimpleNamespace):
    """Chromosomes that look like a dataset."""

    def sequence(self, chrom: str) -> np.ndarray:
        return self.codes[chrom]

    def excluded(self, chrom: str) -> tuple[np.ndarray, np.ndarray]:
        return self.gone[chrom]


@st.composite
def genomes(draw: st.DrawFn) -> Genome:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lengths = {name: draw(st.integers(1, 4_000)) for name in draw(st.sampled_from([("b",), ("b", "a"), ("c10", "c2")]))}
    codes, gone = {}, {}
    for chrom, length in lengths.items():
        codes[chrom] = rng.integers(0, 4, length).astype(np.uint8)
        for _ in range(int(rng.integers(3))):
            start = rng.integers(length)
            codes[chrom][start : start + rng.integers(1, 1_000)] = 4
            codes[chrom][rng.integers(length)] = 0
        ends = rng.integers(1, length + 1, int(rng.integers(4)))
        gone[chrom] = merge(np.maximum(ends - rng.integers(1, 200, len(ends)), 0), ends)
    return Genome(assembly=Assembly.from_sizes(lengths.items()), codes=codes, gone=gone)


def regions_of(draw: st.DrawFn, genome: Genome) -> list[Region]:
    found = []
    for _ in range(draw(st.integers(1, 5))):
        chrom = draw(st.sampled_from(genome.assembly.chroms))
        start = draw(st.integers(0, genome.assembly.length(chrom) - 1))
        found.append(Region(chrom, start, draw(st.integers(start + 1, genome.assembly.length(chrom)))))
    return found


def fates_by_hand(genome: Genome, regions: list[Region]) -> dict[tuple[str, int], str]:
    """(chromosome, number of bin) -> what becomes of it, of the bins asked for."""
    found = {}
    for chrom, length in zip(genome.assembly.chroms, genome.assembly.lengths, strict=True):
        gone = np.zeros(length, dtype=bool)
        for start, end in zip(*genome.gone[chrom], strict=True):
            gone[start:end] = True
        for start in range(0, length - 199, 50):
            for region in regions:
                if region.chrom != chrom:
                    continue
                if region.length >= 50:
                    asked = region.start <= start + 100 < region.end
                else:
                    middle = (region.start + region.end - 1) // 2
                    asked = region.start <= start + 100 < region.end or start + 75 <= middle < start + 125
                if asked:
                    here = slice(start, start + 200)
                    fate = "excluded" if gone[here].any() else "wanted"
                    found[chrom, start // 50] = fate if (genome.codes[chrom][here] != 4).any() else "all_n"
    return found


def plan_or_none(genome: Genome, regions: list[Region], bins_at_once: int, core_bins: int = 4) -> Plan | None:
    try:
        return make_plan(genome, regions, core_bins, bins_at_once)
    except EbertError:  # no bin to score
        return None


@settings(max_examples=200, deadline=None)
@given(genomes(), st.data(), st.integers(1, 40))
def test_each_bin_that_was_asked_for_is_in_one_piece_with_its_fate(
    genome: Genome, data: st.DataObject, bins_at_once: int
) -> None:
    regions = regions_of(data.draw, genome)
    expected = fates_by_hand(genome, regions)
    plan = plan_or_none(genome, regions, bins_at_once)
    if plan is None:
        assert "wanted" not in expected.values()
        return
    found = [
        ((piece.chrom, int(number)), fate)
        for piece in plan.pieces
        for fate in ("wanted", "all_n", "excluded")
        for number in bins_of(getattr(piece, fate))
    ]
    assert dict(found) == expected
    assert len(found) == len(expected)
    counts = [list(expected.values()).count(fate) for fate in ("wanted", "all_n", "excluded")]
    assert plan.coverage == Coverage(*counts)
    assert list(plan.chroms) == sorted({region.chrom for region in regions})
    assert [piece.number for piece in plan.pieces] == list(range(len(plan.pieces)))
    places = [(piece.chrom, int(number)) for piece in plan.pieces for number in piece.bins]
    assert places == sorted(places)
    step = max(1, bins_at_once // 4) * 4
    for piece in plan.pieces:
        numbers = np.concatenate([bins_of(runs) for runs in (piece.wanted, piece.all_n, piece.excluded)])
        assert len(set((numbers // step).tolist())) == 1


@settings(max_examples=100, deadline=None)
@given(genomes(), st.data(), st.integers(1, 40), st.integers(1, 7))
def test_shards_share_out_the_pieces(genome: Genome, data: st.DataObject, bins_at_once: int, of: int) -> None:
    plan = plan_or_none(genome, regions_of(data.draw, genome), bins_at_once)
    if plan is None:
        return
    shards = [plan.shard(number, of) for number in range(1, of + 1)]
    assert [piece for shard in shards for piece in shard] == list(plan.pieces)
    largest = max(piece.coverage.scored for piece in plan.pieces)
    for shard in shards:
        assert abs(sum(piece.coverage.scored for piece in shard) - plan.coverage.scored / of) <= largest


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_digest_tells_requests_apart(toy_dataset: Dataset, data: st.DataObject) -> None:
    digests = {}
    for _ in range(3):
        start = data.draw(st.integers(10_000, 30_000))
        region = Region("chr2", start, start + data.draw(st.integers(200, 10_000)))
        plan = make_plan(toy_dataset, [region], 20, 40)
        bins = tuple((piece.chrom, *piece.bins.tolist()) for piece in plan.pieces)
        assert digests.setdefault(plan.digest, bins) == bins
        assert make_plan(toy_dataset, [region, region], 20, 40).digest == plan.digest


def test_the_order_of_regions_does_not_matter_and_chromosomes_are_sorted() -> None:
    genome = Genome(assembly=Assembly.from_sizes([("chr2", 900), ("chr10", 900)]))
    genome.codes = {chrom: np.zeros(900, np.uint8) for chrom in genome.assembly.chroms}
    genome.gone = {chrom: (np.empty(0, int), np.empty(0, int)) for chrom in genome.assembly.chroms}
    plan = make_plan(genome, whole(genome.assembly), 4, 8)
    assert plan.digest == make_plan(genome, whole(genome.assembly)[::-1], 4, 8).digest
    assert [piece.chrom for piece in plan.pieces] == ["chr10", "chr10", "chr2", "chr2"]


def test_no_bin_to_score(toy_dataset: Dataset) -> None:
    with pytest.raises(EbertError, match="no bin to score: 6 hold only N and 2 are excluded") as caught:
        make_plan(toy_dataset, [Region("chr1", 21_000, 21_300), Region("chr1", 40_500, 40_600)], 20, 100)
    assert "regions" in caught.value.hint


def test_hundreds_of_thousands_of_overlapping_regions_take_a_moment(toy_dataset: Dataset) -> None:
    starts = np.random.default_rng(0).integers(0, 40_000, 300_000).tolist()
    regions = [Region("chr2", start, start + 500) for start in starts]
    began = time.perf_counter()
    plan = make_plan(toy_dataset, regions, 20, 100)
    assert time.perf_counter() - began < 5
    bins = np.concatenate([piece.bins for piece in plan.pieces])
    assert len(bins) == len(set(bins.tolist())) == plan.coverage.scored > 700


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), max_size=20), st.integers(1, 4))
def test_runs_of_pieces_are_joined_where_they_touch(steps: list[tuple[int, int]], parts: int) -> None:
    runs, at = [], 0
    for gap, length in steps:
        runs.append((at + gap, at + gap + length))
        at += gap + length
    every = np.array(runs, dtype=np.int64).reshape(-1, 2)
    whole_runs = joined(np.array_split(every, parts))
    assert bins_of(whole_runs).tolist() == bins_of(every).tolist()
    assert (whole_runs[1:, 0] > whole_runs[:-1, 1]).all()


@pytest.mark.parametrize(("num_tfs", "expected"), [(1, 100_000), (40, 100_000), (400, 10_000), (10**8, 1)])
def test_many_tfs_make_small_pieces(num_tfs: int, expected: int) -> None:
    assert piece_bins(num_tfs) == expected


def test_a_piece_knows_its_bins() -> None:
    nothing = np.empty((0, 2), dtype=np.int64)
    piece = Piece(0, "chr1", np.array([[3, 5], [9, 10]]), nothing, np.array([[5, 9]]))
    assert piece.bins.tolist() == [3, 4, 9]
    assert piece.coverage == Coverage(3, 0, 4)
