"""Motif hits and composition of strides, against every hit scored by itself and against the evaluation's own scan."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebert_core.evaluation.motif_hits import hit_scores
from ebert_core.model.stride_features import Composition, MotifScan, base_indicators
from ebert_core.vocabulary import BASE_MASKED, BASE_N, reverse_complement


def random_motif(rng: np.random.Generator, width: int) -> np.ndarray:
    probabilities = rng.dirichlet([0.5] * 4, size=width)
    return np.log2((0.99 * probabilities + 0.0025) / 0.25).astype(np.float32)


def scanned(motifs: list[np.ndarray], codes: np.ndarray) -> np.ndarray:
    """Best hits in bits, (n, M) of one window."""
    return MotifScan(motifs).scores(base_indicators(torch.from_numpy(codes)[None]))[0].numpy()


def hit_by_hit(motif: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The best hit of each stride, one placement and strand at a time; what is unknown or outside says nothing.

    The middle of a motif of even width lies between two bases: it counts to the base that follows in its own direction.
    """
    width, length = len(motif), len(codes)
    best = np.full(length // 50, -np.inf)
    for start in range(-width, length + 1):
        for reverse in (False, True):
            score = 0.0
            for place in range(width):
                at = start + width - 1 - place if reverse else start + place
                if 0 <= at < length and codes[at] < 4:
                    score += motif[place, 3 - codes[at] if reverse else codes[at]]
            middle = start + (width - 1) // 2 if reverse else start + width // 2
            if 0 <= middle < length:
                best[middle // 50] = max(best[middle // 50], score)
    return best


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 13), min_size=1, max_size=3))
def test_the_best_hit_centred_in_each_stride_hit_by_hit(seed: int, widths: list[int]) -> None:
    """Even and odd widths together, either strand, N and the ends of the window."""
    rng = np.random.default_rng(seed)
    motifs = [random_motif(rng, width) for width in widths]
    codes = rng.integers(0, 4, 200, dtype=np.uint8)
    codes[rng.random(200) < 0.05] = BASE_N
    at = int(rng.integers(0, 150))
    codes[at : at + int(rng.integers(0, 50))] = BASE_N
    expected = np.stack([hit_by_hit(motif, codes) for motif in motifs], axis=1)
    np.testing.assert_allclose(scanned(motifs, codes), expected, atol=1e-4)


@pytest.mark.parametrize("width", [7, 8, 15, 20])
def test_hits_equal_those_of_the_evaluations_scan(width: int) -> None:
    """Which scores a bin's hits with tables of five bases; here a stride's hits are compared, over known bases."""
    rng = np.random.default_rng(width)
    motif = random_motif(rng, width)
    codes = rng.integers(0, 4, 2_000, dtype=np.uint8)
    found = scanned([motif], codes)[:, 0]
    scores = hit_scores(codes, np.arange(0, 1_801, 50), motif)  # (bins, first bp)
    by_start = np.concatenate([scores[:, :50].reshape(-1), scores[-1, 50:]])
    # Either strand's hit may count to either side of an even middle: strides without a hit on their edges agree.
    middles = np.arange(len(by_start)) + width // 2
    alike = 0
    for stride in range(1, 38):
        own = by_start[(middles > 50 * stride) & (middles < 50 * stride + 50)]
        edge = by_start[(middles == 50 * stride) | (middles == 50 * stride + 50)]
        if own.max() > edge.max():
            assert found[stride] == pytest.approx(own.max(), abs=1e-4)
            alike += 1
    assert alike > 20


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 16), min_size=1, max_size=4))
def test_the_other_strand_gives_the_same_mirrored(seed: int, widths: list[int]) -> None:
    rng = np.random.default_rng(seed)
    motifs = [random_motif(rng, width) for width in widths]
    codes = rng.integers(0, 5, 400, dtype=np.uint8)
    other = reverse_complement(codes[None])[0]
    np.testing.assert_allclose(scanned(motifs, other)[::-1], scanned(motifs, codes), atol=1e-4)
    shown = base_indicators(torch.from_numpy(np.stack([codes, other])))
    for feature in (MotifScan(motifs), Composition()):
        found = feature(shown)
        torch.testing.assert_close(found[0], found[1].flip(0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("width", [6, 7])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_perfect_site_scores_in_its_stride_only(width: int, reverse: bool) -> None:
    """Wherever it lies, and less in every other stride."""
    consensus = np.array([0, 1, 1, 2, 0, 3, 1], dtype=np.uint8)[:width]
    motif = np.full((width, 4), -4.0, dtype=np.float32)
    motif[np.arange(width), consensus] = 2.0
    site = reverse_complement(consensus[None])[0] if reverse else consensus
    for start in range(20, 120):
        codes = np.full(200, BASE_N, dtype=np.uint8)
        codes[start : start + width] = site
        scores = scanned([motif], codes)[:, 0]
        middle = start + ((width - 1) // 2 if reverse else width // 2)
        assert np.flatnonzero(scores == 2.0 * width).tolist() == [middle // 50]


# --- how rare a hit is


@pytest.fixture
def taught() -> tuple[MotifScan, torch.Tensor]:
    """A scan of three motifs and the 40,000 strides of random letters that it learned its background from."""
    rng = np.random.default_rng(2)
    scan = MotifScan([random_motif(rng, width) for width in (12, 15, 18)])
    bases = torch.from_numpy(rng.choice(5, p=[0.29, 0.2, 0.2, 0.29, 0.02], size=(1_000, 2_000)).astype(np.uint8))
    scan.learn_background(bases)
    return scan, bases


def test_a_hit_is_shown_by_the_share_of_strides_that_have_one_as_good(taught: tuple[MotifScan, torch.Tensor]) -> None:
    """Of the background itself, 10^-x lies at or over x, for each motif alike; between these a line stands in."""
    scan, bases = taught
    shown = torch.cat([scan(base_indicators(part)) for part in bases.split(100)]).flatten(0, 1) + 0.4343
    for power in np.arange(0, 4.1, 0.5):
        share = (shown >= power - 1e-3).float().mean(dim=0).numpy()
        # Scores are parted by a thousandth of a bit, which some ties do not survive.
        np.testing.assert_allclose(share, 10**-power, rtol=0.1, atol=2 / len(shown))


def test_rarity_equals_interpolation_between_sorted_scores(taught: tuple[MotifScan, torch.Tensor]) -> None:
    """numpy's sort and interp, one motif at a time."""
    scan, bases = taught
    background = torch.cat([scan.scores(base_indicators(part)) for part in bases.split(100)]).flatten(0, 1).numpy()
    other = torch.from_numpy(np.random.default_rng(9).integers(0, 5, (20, 2_000)))
    indicators = base_indicators(other)
    scores, found = scan.scores(indicators).flatten(0, 1).numpy(), scan(indicators).flatten(0, 1).numpy()
    for motif in range(3):
        falling = np.sort(background[:, motif])[::-1]
        ranks = np.minimum((10 ** (-0.5 * np.arange(11)) * len(falling)).astype(int), len(falling) - 1)
        expected = np.interp(scores[:, motif], falling[ranks] + 1e-3 * np.arange(11), 0.5 * np.arange(11))
        np.testing.assert_allclose(found[:, motif], expected - 0.4343, atol=0.02)
        # A higher score is never shown as a lower one.
        assert (np.diff(found[:, motif][np.argsort(scores[:, motif])]) >= -1e-5).all()
    assert found.min() >= -0.4344
    assert found.max() <= 5 - 0.4342


def test_the_ends_of_the_scale(taught: tuple[MotifScan, torch.Tensor]) -> None:
    scan, _ = taught
    kernel = scan.kernels[0]
    consensus = kernel[:, kernel.any(dim=0)].argmax(dim=0).tolist()
    best = torch.tensor([[0] * 20 + consensus + [0] * (30 - len(consensus))])
    assert scan(base_indicators(best))[0, 0, 0] > 2
    scan.knots += 100.0
    assert (scan(base_indicators(best)) + 0.4343).abs().max() < 1e-6
    scan.knots -= 200.0
    assert (scan(base_indicators(best)) + 0.4343 - 5).abs().max() < 1e-6


def test_hits_are_the_same_in_bf16(taught: tuple[MotifScan, torch.Tensor]) -> None:
    """Scores that are rounded would leave the scale that was learned from exact ones."""
    scan, bases = taught
    shown = base_indicators(bases[:20])
    with torch.autocast("cpu", torch.bfloat16):
        rounded = scan(shown)
    assert torch.equal(rounded, scan(shown))


@pytest.mark.parametrize("strides", [1, 7, 400])
def test_a_motif_that_says_nothing_is_no_nan(strides: int) -> None:
    """Nor one that was learned from next to nothing."""
    rng = np.random.default_rng(0)
    scan = MotifScan([np.zeros((8, 4), np.float32), np.full((8, 4), 1e-7, np.float32), random_motif(rng, 5)])
    bases = torch.from_numpy(rng.integers(0, 4, (strides, 50)))
    scan.learn_background(bases)
    assert (scan.knots.diff(dim=1) > 0).all()
    assert scan(base_indicators(bases)).isfinite().all()


def test_no_motif_is_no_channel() -> None:
    for scan in (MotifScan([]), MotifScan(None)):
        assert scan.num_motifs == 0
        assert scan(torch.zeros(3, 400, 4)).shape == (3, 8, 0)


def test_an_empty_scan_is_filled_from_the_weights_of_another() -> None:
    rng = np.random.default_rng(1)
    full = MotifScan([random_motif(rng, width) for width in (5, 12, 9)])
    assert full.kernels.shape == (6, 4, 13)
    full.learn_background(torch.randint(0, 4, (40, 1_000)))
    empty = MotifScan(None, (3, 13))
    empty.load_state_dict(full.state_dict())
    shown = base_indicators(torch.randint(0, 5, (2, 600)))
    assert torch.equal(empty(shown), full(shown))
    assert not list(full.parameters()), "motifs are not learned"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, BASE_MASKED), min_size=200, max_size=200))
def test_composition_by_counting(codes: list[int]) -> None:
    # Centred and scaled alike everywhere: A alone and CG alone say by how much.
    windows = torch.tensor([codes, [0] * 200, [1, 2] * 100], dtype=torch.uint8)
    found, none, most = Composition()(base_indicators(windows)).double()
    assert found.shape == (4, 2)
    shares = (found - none) / (most - none) * torch.tensor([1.0, 0.5])
    for stride, (gc, cpg) in enumerate(shares.tolist()):
        own = codes[50 * stride : 50 * stride + 50]
        pairs = sum(pair == (1, 2) for pair in itertools.pairwise(own))
        assert gc == pytest.approx((own.count(1) + own.count(2)) / 50, abs=1e-6)
        assert cpg == pytest.approx(pairs / 50, abs=1e-6)
    assert (most > 0).all()
    assert (none < 0).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_indicators_of_every_code(dtype: torch.dtype) -> None:
    shown = base_indicators(torch.tensor([[0, 1, 2, 3, BASE_N, BASE_MASKED]], dtype=dtype))
    assert shown.tolist() == [[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0] * 4, [0] * 4]]
    assert shown.dtype == torch.float32
