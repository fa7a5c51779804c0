"""Which windows may be read, against brute force over every bin, and how a batch of them is gathered."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebert_core.config import PrepareConfig
from ebert_core.data.prepare import prepare
from ebert_core.data.windows import Batch, WindowReader, eligible_starts, step_generator
from ebert_core.errors import EbertError
from ebert_core.genome.regions import Region, whole

LENGTHS = {"chr1": 60_000, "chr2": 41_337, "chrShort": 150}


def is_eligible(dataset, chrom, start, window_bp):
    """By the letter: whole state bins on the chromosome, none mostly N, none touching the exclusion list."""
    if start + window_bp > dataset.assembly.length(chrom) // 200 * 200:
        return False
    codes = dataset.sequence(chrom)[start : start + window_bp]
    if any((codes[at : at + 200] == 4).sum() > 100 for at in range(0, window_bp, 200)):
        return False
    return not any(s < start + window_bp and e > start for s, e in zip(*dataset.excluded(chrom), strict=True))


@pytest.mark.parametrize("window_bp", [200, 2_000, 6_000])
def test_eligible_windows_equal_brute_force(toy_dataset, window_bp):
    expected = [
        toy_dataset.assembly.offset(chrom) + start
        for chrom in toy_dataset.assembly.chroms
        for start in range(0, toy_dataset.assembly.length(chrom), 200)
        if is_eligible(toy_dataset, chrom, start, window_bp)
    ]
    found = eligible_starts(toy_dataset, whole(toy_dataset.assembly), window_bp)
    assert found.tolist() == expected
    assert found.dtype == np.int64
    assert 0 < len(found) < sum(LENGTHS.values()) // 200


def test_a_bin_may_be_half_unknown(tmp_path):
    counts = [0, 99, 100, 101, 150, 200, 0]
    (tmp_path / "a.fa").write_text(">chr1\n" + "".join("N" * count + "A" * (200 - count) for count in counts) + "\n")
    dataset = prepare(PrepareConfig(output=tmp_path / "dataset", genome=tmp_path / "a.fa")).dataset
    assert eligible_starts(dataset, whole(dataset.assembly), 200).tolist() == [0, 200, 400, 1_200]
    assert eligible_starts(dataset, whole(dataset.assembly), 400).tolist() == [0, 200]


def test_a_window_longer_than_the_dataset_is_explained(toy_dataset):
    assert eligible_starts(toy_dataset, whole(toy_dataset.assembly), 200_000).shape == (0,)
    with pytest.raises(EbertError, match="windows of 200,000 bp are longer") as caught:
        WindowReader(toy_dataset, ["HepG2"], 200_000)
    assert "window_bp" in caught.value.hint


REGIONS = st.lists(
    st.sampled_from(list(LENGTHS)).flatmap(
        lambda chrom: st.tuples(st.integers(0, LENGTHS[chrom] - 1), st.integers(1, LENGTHS[chrom])).map(
            lambda pair: Region(chrom, pair[0], min(pair[0] + pair[1], LENGTHS[chrom]))
        )
    ),
    max_size=3,
)


@settings(deadline=None, max_examples=40)
@given(regions=REGIONS)
def test_windows_lie_in_their_region(toy_dataset, regions):
    window_bp = 1_000
    everywhere = eligible_starts(toy_dataset, whole(toy_dataset.assembly), window_bp).tolist()
    expected = []
    for region in regions:
        offset = toy_dataset.assembly.offset(region.chrom)
        first, last = offset + region.start, offset + region.end - window_bp
        expected += [start for start in everywhere if first <= start <= last]
    assert eligible_starts(toy_dataset, regions, window_bp).tolist() == expected


def test_no_window_crosses_to_the_next_chromosome(toy_dataset):
    starts = eligible_starts(toy_dataset, whole(toy_dataset.assembly), 2_000)
    chrom, position = toy_dataset.assembly.locate(starts)
    assert (position + 2_000 <= np.array(toy_dataset.assembly.lengths)[chrom]).all()
    assert set(chrom.tolist()) == {0, 1}


def test_no_region_no_window(toy_dataset):
    assert eligible_starts(toy_dataset, [], 2_000).shape == (0,)
    assert eligible_starts(toy_dataset, [Region("chrShort", 0, 150)], 200).shape == (0,)


def test_gather_equals_slices(toy_dataset):
    cells = ["GM12878", None, "MyCell"]
    reader = WindowReader(toy_dataset, cells, 2_000)
    rng = np.random.default_rng(1)
    starts = rng.choice(eligible_starts(toy_dataset, whole(toy_dataset.assembly), 2_000), size=60)
    index = rng.integers(3, size=60)
    batch = reader.read(starts, index)
    assert (batch.bases.shape, batch.states.shape) == ((60, 2_000), (60, 10))
    for row, (start, cell) in enumerate(zip(starts, index, strict=True)):
        chrom, position = (int(value) for value in toy_dataset.assembly.locate(start))
        name = toy_dataset.assembly.chroms[chrom]
        np.testing.assert_array_equal(batch.bases[row], toy_dataset.sequence(name)[position : position + 2_000])
        states = np.zeros(10)
        if cells[cell] is not None:
            states = toy_dataset.states(cells[cell], name)[position // 200 : position // 200 + 10]
        np.testing.assert_array_equal(batch.states[row], states)
    assert batch.states.any()


def test_a_batch_is_a_copy(toy_dataset):
    reader = WindowReader(toy_dataset, ["HepG2"], 2_000)
    batch = reader.read(np.array([2_000]), np.array([0]))
    batch.bases[:] = 4
    batch.states[:] = 0
    again = reader.read(np.array([2_000]), np.array([0]))
    assert (again.bases != 4).any()
    assert again.states.any()


COMPLEMENT = {0: 3, 1: 2, 2: 1, 3: 0, 4: 4}


@given(st.integers(0, 2**32 - 1), st.lists(st.booleans(), min_size=1, max_size=5))
def test_flipped_is_the_other_strand_and_twice_is_the_same(seed, reverse):
    rng = np.random.default_rng(seed)
    batch = Batch(
        rng.integers(0, 5, size=(len(reverse), 400), dtype=np.uint8),
        rng.integers(0, 19, size=(len(reverse), 2), dtype=np.uint8),
        rng.normal(size=(len(reverse), 8, 3)).astype(np.float32),
    )
    flipped = batch.flipped(np.array(reverse))
    for row, turned in enumerate(reverse):
        bases, states = batch.bases[row].tolist(), batch.states[row].tolist()
        if turned:
            bases, states = [COMPLEMENT[base] for base in reversed(bases)], states[::-1]
        assert flipped.bases[row].tolist() == bases
        assert flipped.states[row].tolist() == states
        # Strides change their order, the channels of a stride do not.
        tracks = batch.tracks[row].tolist()
        assert flipped.tracks[row].tolist() == (tracks[::-1] if turned else tracks)
    back = flipped.flipped(np.array(reverse))
    np.testing.assert_array_equal(back.tracks, batch.tracks)
    np.testing.assert_array_equal(back.bases, batch.bases)
    np.testing.assert_array_equal(back.states, batch.states)


def test_a_batch_without_tracks_has_none_on_either_strand():
    batch = Batch(np.zeros((1, 200), dtype=np.uint8), np.zeros((1, 1), dtype=np.uint8))
    assert batch.flipped(np.array([True])).tracks is None


def test_the_random_numbers_of_a_step():
    def draw(*key):
        return step_generator(*key).random(4).tolist()

    assert draw(0, 1, 5) == draw(0, 1, 5)
    assert len({tuple(draw(*key)) for key in [(0, 1, 5), (1, 1, 5), (0, 2, 5), (0, 1, 6)]}) == 4
    # Steps must not overlap however much one draws.
    long = set(step_generator(0, 0, 0).integers(2**63, size=20_000).tolist())
    assert not long & set(step_generator(0, 0, 1).integers(2**63, size=20_000).tolist())
