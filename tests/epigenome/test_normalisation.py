"""Normalisation across cell types: properties of the map, and ranks counted by sorting."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebert_core.epigenome.normalisation import (
    NUM_QUANTILES,
    Normaliser,
    Quantiles,
    cross_cell_mean,
    reference_of,
    to_reference,
)
from ebert_core.errors import EbertError


def a_track(seed: int, kind: str, size: int) -> np.ndarray:
    """A track as peaks give it (mostly 0, few distinct values, many ties) or as a signal does (hardly any 0 or tie)."""
    rng = np.random.default_rng(seed)
    if kind == "peaks":
        values = rng.choice(np.log1p(rng.integers(1, 60, size=rng.integers(1, 12))), size=size)
        values[rng.random(size) < rng.uniform(0.3, 0.98)] = 0
        values[rng.integers(size)] = 1.5  # never nothing at all
    else:
        values = np.log1p(rng.gamma(rng.uniform(0.3, 2), rng.uniform(0.5, 20), size=size))
    return values.astype(np.float16)


TRACKS = st.builds(
    a_track, st.integers(0, 10_000), st.sampled_from(["peaks", "signal"]), st.sampled_from([1, 7, 400, 3_000])
)


@settings(deadline=None, max_examples=60)
@given(TRACKS)
def test_quantiles_are_the_values_at_their_ranks(track):
    quantiles = Quantiles.of(track)
    falling = sorted((float(value) for value in track if value > 0), reverse=True)
    assert quantiles.share_positive == len(falling) / len(track)
    for i in (0, 1, 13, 100, 200, NUM_QUANTILES - 1):
        tail = math.exp(-i * math.log(1e6) / (NUM_QUANTILES - 1))
        assert quantiles.values[i] == falling[min(int(tail * len(falling)), len(falling) - 1)]
    assert (quantiles.values[0], quantiles.values[-1]) == (falling[-1], falling[0])


@settings(deadline=None, max_examples=60)
@given(TRACKS, st.integers(1, 5))
def test_slices_of_any_shape_have_the_distribution_of_the_whole(track, parts):
    slices = [part.reshape(1, -1) for part in np.array_split(track, parts)]
    assert Quantiles.of(slices) == Quantiles.of(iter(slices)) == Quantiles.of(track)


@settings(deadline=None, max_examples=60)
@given(TRACKS)
def test_a_track_with_the_references_distribution_stays_as_it_is(track):
    own = Quantiles.of(track)
    for reference in (own, Quantiles.of(track[::-1]), reference_of([own]), reference_of([own] * 3)):
        np.testing.assert_array_equal(to_reference(track, own, reference), track.astype(np.float32))


@settings(deadline=None, max_examples=60)
@given(TRACKS, TRACKS)
def test_ranks_are_kept_and_zero_stays_zero(track, other):
    mapped = to_reference(track, Quantiles.of(track), Quantiles.of(other))
    assert mapped.dtype == np.float32
    assert mapped.shape == track.shape
    order = np.argsort(track, kind="stable")
    assert (np.diff(mapped[order]) >= 0).all()
    assert (mapped[track == 0] == 0).all()
    assert (mapped[track > 0] > 0).all()
    assert mapped.max() <= float(other.max())


@settings(deadline=None, max_examples=60)
@given(TRACKS, TRACKS, st.sampled_from([0.5, 2.0]))
def test_a_factor_cancels(track, other, factor):
    scaled = (track * np.float16(factor)).astype(np.float16)
    if not np.array_equal(scaled.astype(np.float64), track.astype(np.float64) * factor):
        return  # beyond float16
    reference = Quantiles.of(other)
    once, twice = (to_reference(each, Quantiles.of(each), reference) for each in (track, scaled))
    np.testing.assert_allclose(twice, once, rtol=1e-6)


@settings(deadline=None, max_examples=60)
@given(st.lists(TRACKS, min_size=1, max_size=4))
def test_a_reference_lies_between_its_cell_types_in_any_order(tracks):
    cells = [Quantiles.of(track) for track in tracks]
    reference = reference_of(cells)
    assert reference.share_positive == max(cell.share_positive for cell in cells)
    assert reference.values[-1] <= max(cell.values[-1] for cell in cells) * (1 + 1e-12)
    np.testing.assert_allclose(reference_of(cells[::-1]).values, reference.values)


@settings(deadline=None, max_examples=60)
@given(TRACKS, TRACKS)
def test_json_and_back_is_the_same_to_the_last_bit(track, other):
    for quantiles in (Quantiles.of(track), reference_of([Quantiles.of(track), Quantiles.of(other)])):
        assert Quantiles.from_json(json.loads(json.dumps(quantiles.to_json()))) == quantiles


def test_equal_ranks_from_the_top_meet():
    """The strongest k of a track of few positive strides become the strongest k of one that is positive everywhere."""
    rng = np.random.default_rng(5)
    signal = np.unique(rng.gamma(1.0, 3.0, size=8_000).astype(np.float16))
    signal = signal[signal > 0]
    peaks = np.zeros(len(signal), dtype=np.float16)
    strongest = len(signal) // 50
    peaks[:strongest] = np.linspace(2, 9, strongest)
    assert len(np.unique(peaks)) == strongest + 1, "no ties, so that ranks are plain"
    mapped = to_reference(peaks, Quantiles.of(peaks), Quantiles.of(signal))
    falling = np.sort(signal)[::-1].astype(np.float64)
    for rank in (3, 10, 25, strongest - 3):
        got = mapped[strongest - 1 - rank]
        around = max(2, rank // 10)  # a quantile is about 5 % deeper than the last
        assert falling[rank + around] <= got <= falling[max(rank - around, 0)]
    back = to_reference(signal, Quantiles.of(signal), Quantiles.of(peaks))
    assert np.median(back) < 0.05 * back.max(), "what lies below every peak's rank becomes next to nothing"


def test_tracks_of_one_source_at_two_depths_agree_better_afterwards():
    rng = np.random.default_rng(8)
    rate = rng.gamma(0.3, 4.0, size=60_000)
    shallow, deep = (np.log1p(rng.poisson(rate * depth)).astype(np.float16) for depth in (0.5, 8.0))
    own, reference = Quantiles.of(shallow), Quantiles.of(deep)
    top = rate > np.quantile(rate, 0.95)
    before = np.abs(shallow[top].astype(float) - deep[top]).mean()
    after = np.abs(to_reference(shallow, own, reference)[top] - deep[top]).mean()
    assert after < 0.3 * before


def test_what_lies_outside_the_quantiles():
    """Quantiles of some chromosomes meet values of another."""
    own = Quantiles.of(np.array([0, 1, 2, 4], dtype=np.float16))
    reference = Quantiles.of(np.array([0, 3, 6, 9], dtype=np.float16))
    mapped = to_reference(np.array([0, 0.5, 1, 4, 6], dtype=np.float16), own, reference)
    np.testing.assert_allclose(mapped, [0, 1.5, 3, 9, 11])


def test_a_reference_of_only_ones():
    ones = Quantiles.of(np.array([0, 1, 1, 1, 0], dtype=np.float16))
    track = np.array([[0, 2], [5, 0], [3, 0]], dtype=np.float16)
    mapped = to_reference(track, Quantiles.of(track), ones)
    np.testing.assert_allclose(mapped, [[0, 1], [1, 0], [1, 0]], atol=0.4)
    assert mapped.shape == track.shape


def test_the_cross_cell_mean():
    rng = np.random.default_rng(2)
    tracks = [rng.gamma(1, k, size=(4, 30)).astype(np.float16) for k in (1, 2, 3)]
    reference = reference_of([Quantiles.of(track) for track in tracks])
    cells = [(track, Normaliser(Quantiles.of(track), reference)) for track in tracks]
    expected = np.mean([to_reference(track, Quantiles.of(track), reference) for track in tracks], axis=0)
    mean = cross_cell_mean(cells)
    assert (mean.dtype, mean.shape) == (np.float32, (4, 30))
    np.testing.assert_allclose(mean, expected, rtol=1e-6)
    with pytest.raises(ValueError, match="at least one"):
        cross_cell_mean([])
    with pytest.raises(ValueError, match="at least one"):
        reference_of([])


def test_what_no_track_holds_becomes_nan():
    own = Quantiles.of(np.array([1, 2], dtype=np.float16))
    mapped = Normaliser(own, own)(np.array([-1, np.nan, np.inf, -0.0, 2], dtype=np.float16))
    np.testing.assert_array_equal(mapped, [np.nan, np.nan, np.nan, 0, 2])


def test_what_has_no_quantiles():
    with pytest.raises(EbertError, match="no value above 0") as caught:
        Quantiles.of(np.zeros(5, dtype=np.float16))
    assert caught.value.hint
    for value in (-1, np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            Quantiles.of(np.array([1, value], dtype=np.float16))
    with pytest.raises(TypeError, match="float16, not float64"):
        Quantiles.of(np.ones(3))


@pytest.mark.parametrize(
    "change",
    [
        {"share_positive": 0}, {"share_positive": 1.5}, {"share_positive": float("nan")}, {"share_positive": None},
        {"values": [1.0] * 3}, {"values": None}, {"values": [2.0] + [1.0] * 255}, {"values": [0.0] * 256},
        {"values": [1.0] * 255 + [float("inf")]}, {"values": [float("nan")] * 256}, {"values": ["x"] * 256},
    ],
)  # fmt: skip
def test_damaged_json_is_refused(change):
    good = Quantiles.of(np.array([1, 2], dtype=np.float16)).to_json()
    with pytest.raises((TypeError, ValueError)):
        Quantiles.from_json({**good, **change})
    for key in change:
        with pytest.raises(KeyError):
            Quantiles.from_json({name: value for name, value in good.items() if name != key})


@pytest.mark.real
def test_real_peaks_come_to_one_distribution(real_data):
    from ebert_core.epigenome.accessibility import read_accessibility
    from ebert_core.genome.assembly import Assembly

    assembly = Assembly.from_sizes([("chr20", 63_025_520), ("chr22", 51_304_566)])
    tracks = [
        read_accessibility(real_data / "dnase" / f"{cell}.narrowPeak.gz", assembly)[0] for cell in ("K562", "GM12878")
    ]
    own = [Quantiles.of(track) for track in tracks]
    reference = reference_of(own)
    for track, quantiles in zip(tracks, own, strict=True):
        mapped = to_reference(track, quantiles, reference)
        strongest = np.sort(mapped)[::-1]
        for place in (60, 100, 150):
            rank = int(reference.share_positive * math.exp(-place * math.log(1e6) / 255) * len(track))
            assert strongest[rank] == pytest.approx(reference.values[place], rel=0.02)
