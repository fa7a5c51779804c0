"""Motifs and DNA of the demo world: the scan against a loop, composition, symmetry, planting, repeats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebert_core.genome.assembly import Assembly
from ebert_core.simulation.factors import FACTORS, Factor, find_sites
from ebert_core.simulation.genome import stream
from ebert_core.simulation.landscape import composition_classes, repeat_room
from ebert_core.simulation.motifs import Motif, decoys, scan, words_of
from ebert_core.simulation.sequence import (
    COMPOSITIONS,
    ISLAND,
    letters_of,
    markov_sequence,
    markov_tables,
    paste_repeats,
    plant,
)
from ebert_core.vocabulary import BASE_CODES, encode_bases, reverse_complement

ROOMY = {"midpoint": 0.0, "slope": 1.0, "preference": {}, "planted": (0.0, 0.0)}


def slow_scan(codes, motif):
    """Score of the better strand, by a loop over positions."""
    best = []
    for start in range(len(codes) - motif.width + 1):
        window = codes[start : start + motif.width]
        strands = (window, reverse_complement(window))
        best.append(max(sum(np.log2(4 * motif.probabilities[i, b]) for i, b in enumerate(each)) for each in strands))
    return best


@given(seed=st.integers(0, 2**32 - 1), width=st.integers(6, 19), length=st.integers(19, 60))
@settings(max_examples=25, deadline=None)
def test_scan_equals_a_loop_on_both_strands(seed, width, length):
    rng = np.random.default_rng(seed)
    motif = Motif("X", rng.dirichlet(np.ones(4), size=width) * 0.96 + 0.01)
    codes = rng.integers(0, 4, size=length, dtype=np.uint8)
    np.testing.assert_allclose(scan(words_of(codes), motif), slow_scan(codes, motif), atol=1e-4)
    # The other strand has the same hits, in reverse order.
    np.testing.assert_allclose(
        scan(words_of(reverse_complement(codes)), motif)[::-1], scan(words_of(codes), motif), atol=1e-4
    )


def test_a_consensus_gets_its_strengths_and_leans_to_transitions():
    motif = Motif.from_consensus("X", "AC", "95")
    np.testing.assert_allclose(motif.probabilities[0], [0.97, 0.0075, 0.015, 0.0075])
    np.testing.assert_allclose(motif.probabilities[1], [0.105, 0.58, 0.105, 0.21])


def test_instances_follow_the_matrix_on_both_strands():
    motif = FACTORS[0].motif
    drawn = motif.sample(np.random.default_rng(0), 20_000)
    both = (motif.probabilities + motif.probabilities[::-1, ::-1]) / 2
    seen = np.stack([(drawn == code).mean(axis=0) for code in range(4)], axis=1)
    np.testing.assert_allclose(seen, both, atol=0.02)


def test_sharper_instances_score_higher():
    motif = FACTORS[1].motif
    means = [
        np.mean([scan(words_of(one), motif)[0] for one in motif.sample(np.random.default_rng(1), 300, sharpness)])
        for sharpness in (0.5, 1.0, 2.0)
    ]
    assert means == sorted(means)


def test_sites_skip_unknown_bases_chromosome_ends_and_worse_neighbours():
    motif = Motif.from_consensus("X", "ACCGGAAGTCAT", "9" * 12)
    assembly = Assembly.from_sizes([("a", 400), ("b", 400)])
    codes = np.zeros(800, dtype=np.uint8)
    instance = encode_bases(b"ACCGGAAGTCAT")
    plant(codes, np.array([100, 200, 400, 600]), np.stack([instance] * 4))  # the third straddles the two chromosomes
    codes[203] = 4
    site = Factor(motif=motif, cutoff=15.0, **ROOMY)
    assert find_sites(codes, words_of(codes), site, assembly).centre.tolist() == [100, 600]
    palindrome = Factor(motif=Motif.from_consensus("P", "ACCACGTGGT", "5699999965"), cutoff=5.0, **ROOMY)
    codes = np.full(800, 3, dtype=np.uint8)
    plant(codes, np.array([300]), encode_bases(b"ACCACGTGGT")[None])
    assert find_sites(codes, words_of(codes), palindrome, assembly).centre.tolist() == [300]


@pytest.fixture(scope="module")
def background():
    rng = np.random.default_rng(3)
    tables = markov_tables(rng, order=4)
    return {kind: markov_sequence(rng, np.full(300_000, kind, np.uint8), tables) for kind in (0, 3, ISLAND)}


def cpg_ratio(codes):
    pairs = np.mean((codes[:-1] == 1) & (codes[1:] == 2))
    return pairs / (np.mean(codes == 1) * np.mean(codes == 2))


def test_background_has_isochores_and_cpg_islands(background):
    gc = {kind: np.isin(codes, [1, 2]).mean() for kind, codes in background.items()}
    for kind, share in gc.items():
        assert share == pytest.approx(COMPOSITIONS[kind].gc, abs=0.05)
    assert cpg_ratio(background[0]) < 0.35
    assert cpg_ratio(background[ISLAND]) > 0.75


def test_background_is_the_same_on_both_strands(background):
    def words(codes):
        number = sum(codes[i : len(codes) - 3 + i].astype(int) * 4 ** (3 - i) for i in range(4))
        return np.bincount(number, minlength=256) / len(number)

    for codes in background.values():
        np.testing.assert_allclose(words(codes), words(reverse_complement(codes)), atol=1.5e-3)


def test_background_depends_on_the_last_four_bases(background):
    """Order 4 shows: the next base's frequencies differ between contexts that agree in their last base only."""
    codes = background[0]
    context = sum(codes[i : len(codes) - 4 + i].astype(int) * 4 ** (3 - i) for i in range(4))
    table = np.zeros((256, 4))
    np.add.at(table, (context, codes[4:]), 1)
    after_a = table[::4] / table[::4].sum(axis=1, keepdims=True)
    assert after_a.std(axis=0).min() > 0.02


def test_repeats_stay_in_their_room_and_resemble_their_family():
    rng = np.random.default_rng(4)
    codes = np.full(400_000, 4, dtype=np.uint8)
    room = np.ones(2_000, dtype=bool)
    room[500:900] = False
    family = rng.integers(0, 4, size=300, dtype=np.uint8)
    inside = paste_repeats(rng, codes, room, 0.1, [family])
    assert inside.mean() == pytest.approx(0.1, abs=0.01)
    assert not inside[500 * 200 : 900 * 200].any()
    assert ((codes < 4) == inside).all()
    starts = np.flatnonzero(np.diff(inside.astype(int), prepend=0) == 1)
    copies = np.stack([codes[start : start + 300] for start in starts])
    alike = np.maximum((copies == family).mean(axis=1), (copies == reverse_complement(family)).mean(axis=1))
    assert alike.mean() == pytest.approx(0.88, abs=0.01)
    assert alike.min() > 0.75


def test_soft_masking_and_gaps_survive_the_letters():
    codes = np.array([0, 1, 2, 3, 4, 0], dtype=np.uint8)
    assert letters_of(codes, np.array([1, 0, 1, 0, 1, 0], dtype=bool)).tobytes() == b"aCgTNA"


def test_the_finished_sequence(small_config, small_genome):
    codes, landscape = BASE_CODES[small_genome.letters], small_genome.landscape
    islands = np.zeros(len(codes), dtype=bool)
    for middle, length in zip(landscape.centre_bp, landscape.island_bp, strict=True):
        islands[middle - length // 2 : middle + length // 2] = True
    assert cpg_ratio(codes[islands]) > 0.7
    assert cpg_ratio(codes[~islands]) < 0.45
    lower = small_genome.letters >= ord("a")
    assert lower.mean() == pytest.approx(small_config.repeat_share, abs=0.02)
    assert not lower[np.repeat(~repeat_room(landscape), 200)].any()
    assert {chr(letter) for letter in np.unique(small_genome.letters)} > set("ACGTacgtN")
    assert np.isin(small_genome.letters, np.frombuffer(b"RYKMSWBDHV", np.uint8)).sum() == 40
    # Ten kb of N at the ends of the larger chromosomes.
    assert (codes[:10_000] == 4).all()
    assert (codes[10_000:40_000] < 4).mean() > 0.99
    assert composition_classes(stream(small_config, "x"), landscape).shape == codes.shape


def test_decoys_are_no_factor(small_genome):
    motifs = decoys(np.random.default_rng(0), 6)
    assert len({motif.name for motif in motifs}) == 6
    for motif in motifs:
        assert 8 <= motif.width <= 16
        np.testing.assert_allclose(motif.probabilities.sum(axis=1), 1)
