"""State tracks of the demo world: painting against a loop, the alphabet, and what realistic segments look like."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebert_core.epigenome.state_models import BUILT_IN
from ebert_core.simulation.factors import FACTORS, STATE_CLASSES, open_bins
from ebert_core.simulation.landscape import paint
from ebert_core.simulation.states import CODE, MNEMONICS, STATE_NAMES, cell_states, segments


@pytest.fixture(scope="module")
def tracks(small_genome):
    return [cell_states(np.random.default_rng(seed), small_genome.landscape, small_genome.domains) for seed in range(6)]


def test_the_alphabet_is_roadmaps():
    assert tuple(state.label for state in BUILT_IN["roadmap18"].states) == MNEMONICS


def test_every_state_has_one_class_and_every_factor_a_preference_for_each():
    assert sorted(name for names in STATE_CLASSES.values() for name in names) == sorted(STATE_NAMES)
    for factor in FACTORS:
        assert set(factor.preference) == set(STATE_CLASSES)
        assert factor.preference_by_code[CODE["TssA"]] == factor.preference["promoter"]
        assert factor.preference_by_code[0] == -np.inf


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(-3, 10), st.integers(1, 9)), max_size=12),
)
def test_paint_equals_a_loop(pieces):
    starts, lengths, codes = (
        np.array(column, dtype=np.int64) for column in (list(zip(*pieces, strict=True)) or [[]] * 3)
    )
    track, slow = np.zeros(40, np.uint8), np.zeros(40, np.uint8)
    paint(track, starts, lengths, codes.astype(np.uint8))
    for start, length, code in pieces:
        slow[start : start + max(length, 0)] = code
    np.testing.assert_array_equal(track, slow)


@given(st.lists(st.integers(1, 3), max_size=30))
def test_segments_tile_the_track_and_neighbours_differ(codes):
    track = np.array(codes, dtype=np.uint8)
    starts, ends, kinds = segments(track)
    np.testing.assert_array_equal(np.repeat(kinds, ends - starts), track)
    assert (kinds[1:] != kinds[:-1]).all()


def runs(track):
    starts, ends, codes = segments(track)
    return {name: (ends - starts)[codes == code] for name, code in CODE.items()}


def test_quiescent_and_repressed_segments_are_long_and_regulatory_ones_short(tracks):
    lengths = {name: np.concatenate([runs(track)[name] for track in tracks]).mean() for name in STATE_NAMES}
    for short in ("TssA", "TssFlnkU", "TssFlnkD", "EnhA1", "EnhA2", "EnhG1", "TssBiv"):
        assert 1.5 < lengths[short] < 5
    for long in ("Quies", "ReprPC", "ReprPCWk", "Tx"):
        assert lengths[long] > 8


def test_every_state_occurs_and_quiescence_is_commonest(tracks):
    counts = np.bincount(np.concatenate(tracks), minlength=19)
    assert counts[0] == 0
    assert (counts[1:] > 0).all()
    assert counts.argmax() == CODE["Quies"]
    assert 0.05 < np.mean([open_bins(track).mean() for track in tracks]) < 0.2


def test_promoters_are_flanked_and_followed_by_transcription(tracks, small_genome):
    landscape = small_genome.landscape
    flanks = [CODE[name] for name in ("TssFlnk", "TssFlnkU", "TssFlnkD")]
    transcribed = [CODE["Tx"], CODE["TxWk"]]
    for track in tracks:
        codes = segments(track)[2]
        inner = np.flatnonzero(codes[1:-1] == CODE["TssA"]) + 1
        beside = np.isin(np.stack([codes[inner - 1], codes[inner + 1]]), flanks)
        assert beside.mean() > 0.9  # a flicker may come between
        active = np.flatnonzero(landscape.is_promoter & (track[landscape.centre] == CODE["TssA"]))
        downstream = landscape.centre[active] + 7 * landscape.strand[active]
        upstream = landscape.centre[active] - 7 * landscape.strand[active]
        assert np.isin(track[downstream], transcribed).mean() > np.isin(track[upstream], transcribed).mean() + 0.2


def test_promoters_are_shared_more_than_enhancers(tracks):
    def shared(names):
        codes = [CODE[name] for name in names]
        masks = [np.isin(track, codes) for track in tracks]
        pairs = [(a, b) for i, a in enumerate(masks) for b in masks[:i]]
        return np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs])

    assert shared(["TssA"]) > shared(["EnhA1", "EnhA2", "EnhG1", "EnhG2"]) + 0.1


def test_transcription_starts_lie_in_cpg_islands(tracks, small_genome):
    islands = np.zeros(small_genome.landscape.num_bins, dtype=bool)
    islands[small_genome.landscape.centre[small_genome.landscape.island_bp > 0]] = True
    for track in tracks:
        assert islands[track == CODE["TssA"]].mean() > 20 * islands[track == CODE["Quies"]].mean()


def test_gaps_are_quiescent(tracks, small_genome):
    for track in tracks:
        assert (track[~small_genome.landscape.known] == CODE["Quies"]).all()
