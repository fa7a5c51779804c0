"""The dense scan: each wanted bin answered once, by a window that shows it with its context, on a fixed grid."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ebert_core.config import EncoderConfig, FusionConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.windows import Batch
from ebert_core.inference.models import LoadedModel
from ebert_core.inference.scan import ScanGeometry, Tracks, model_score, scan, scan_geometries
from ebert_core.model.device import Device
from ebert_core.model.encoder import Encoder
from ebert_core.model.fusion import BindingModel, BindingShape
from ebert_core.model.stride_features import MotifScan
from ebert_core.vocabulary import reverse_complement

# What a fake model answers for a bin, one column each.
FIRST, LAST, STATE_OF_FIRST, STATE_OF_LAST, PLACE, WINDOW_BP = range(6)
# Positions are told apart from the code for N, which is 4.
ORIGIN = 1_000


def telltale(batch: Batch) -> np.ndarray:
    """For each bin: its first and last base, the states of these, where in the window it lies, and how wide that is."""
    window_bp = batch.bases.shape[1]
    starts = np.arange(0, window_bp - 199, 50)
    columns = [
        batch.bases[:, starts],
        batch.bases[:, starts + 199],
        batch.states[:, starts // 200],
        batch.states[:, (starts + 199) // 200],
        np.broadcast_to(starts, (len(batch.bases), len(starts))),
        np.full((len(batch.bases), len(starts)), window_bp),
    ]
    return np.stack(columns, axis=-1)


@dataclass(frozen=True)
class World:
    """A chromosome whose bases are their own positions, and whose states are their own numbers."""

    length: int

    @property
    def bases(self) -> np.ndarray:
        return ORIGIN + np.arange(self.length)

    @property
    def states(self) -> np.ndarray:
        return (1 + np.arange(-(-self.length // 200)) % 250).astype(np.uint8)

    @property
    def num_bins(self) -> int:
        return max(0, (self.length - 200) // 50 + 1)


@st.composite
def geometries(draw: st.DrawFn) -> ScanGeometry:
    context = draw(st.integers(0, 5)) * 200
    return ScanGeometry(2 * context + 400 + 200 * draw(st.integers(0, 20)), context)


def collected(world: World, wanted: np.ndarray, geometry: ScanGeometry, batch: int, states: bool = True) -> tuple:
    bins, answers = [np.empty(0, np.int64)], [np.empty((0, 6))]
    shown = world.states if states else None
    for found, logits in scan(telltale, world.bases, shown, wanted, geometry, batch):
        assert len(found) == len(logits) > 0
        bins.append(found)
        answers.append(logits)
    return np.concatenate(bins), np.concatenate(answers)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 20_000),
    geometries(),
    st.sampled_from(["all", "none", "sparse", "dense", "runs"]),
    st.integers(1, 9),
    st.integers(0, 2**32 - 1),
)
def test_every_wanted_bin_once_with_its_own_bases_states_and_context(
    length: int, geometry: ScanGeometry, pattern: str, batch: int, seed: int
) -> None:
    world, rng = World(length), np.random.default_rng(seed)
    share = {"all": 1.0, "none": 0.0, "sparse": 0.02, "dense": 0.9, "runs": 0.3}[pattern]
    wanted = rng.random(world.num_bins) < share
    if pattern == "runs":
        wanted = np.repeat(rng.random(world.num_bins // 40 + 1) < share, 40)[: world.num_bins]
    bins, answers = collected(world, wanted, geometry, batch)
    assert bins.tolist() == np.flatnonzero(wanted).tolist()
    starts = bins * 50
    assert (answers[:, FIRST] == ORIGIN + starts).all()
    assert (answers[:, LAST] == ORIGIN + starts + 199).all()
    assert (answers[:, STATE_OF_FIRST] == world.states[starts // 200]).all()
    assert (answers[:, STATE_OF_LAST] == world.states[(starts + 199) // 200]).all()
    assert (answers[:, PLACE] >= geometry.context_bp).all()
    assert (answers[:, PLACE] + 200 <= geometry.window_bp - geometry.context_bp).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(200, 20_000), geometries(), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_an_answer_depends_neither_on_the_batch_nor_on_what_else_was_asked(
    length: int, geometry: ScanGeometry, batch: int, other_batch: int, seed: int
) -> None:
    world = World(length)
    everything = np.ones(world.num_bins, dtype=bool)
    some = np.random.default_rng(seed).random(world.num_bins) < 0.3
    bins, answers = collected(world, everything, geometry, batch)
    assert bins.tolist() == list(range(world.num_bins))
    _, again = collected(world, some, geometry, other_batch)
    assert np.array_equal(again, answers[some])


@given(geometries())
def test_geometry(geometry: ScanGeometry) -> None:
    assert geometry.core_bp % 200 == 0
    assert geometry.core_bins * 50 == geometry.core_bp
    # The core is the longest that fits: the last bin of a longer one would lack context.
    first, last = geometry.context_bp, geometry.context_bp + geometry.core_bp - 50
    assert first >= geometry.context_bp
    assert last + 200 <= geometry.window_bp - geometry.context_bp
    assert last + 200 + 200 > geometry.window_bp - geometry.context_bp


def test_the_grid_is_fixed_to_the_chromosome() -> None:
    """A bin is answered from the same place of its window whichever bins are asked for."""
    world, geometry = World(9_000), ScanGeometry(2_000, 400)
    for number in range(world.num_bins):
        wanted = np.zeros(world.num_bins, dtype=bool)
        wanted[number] = True
        _, answers = collected(world, wanted, geometry, 3)
        assert answers[0, PLACE] == 400 + 50 * (number % 20)


def test_beyond_the_ends_lie_n_and_unknown() -> None:
    seen: list[Batch] = []

    def spy(batch: Batch) -> np.ndarray:
        seen.append(batch)
        return telltale(batch)

    world = World(1_030)
    list(scan(spy, world.bases, world.states, np.ones(world.num_bins, dtype=bool), ScanGeometry(2_000, 400), 10))
    (batch,) = seen
    assert batch.bases.shape == (1, 2_000)
    assert batch.bases[0].tolist() == [4] * 400 + list(range(ORIGIN, ORIGIN + 1_030)) + [4] * 570
    assert batch.states[0].tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 0, 0]


@pytest.mark.parametrize(
    ("length", "num_bins"), [(1, 0), (150, 0), (199, 0), (200, 1), (249, 1), (250, 2), (1_000, 17)]
)
def test_short_contigs(length: int, num_bins: int) -> None:
    world = World(length)
    bins, answers = collected(world, np.ones(num_bins, dtype=bool), ScanGeometry(4_000, 1_000), 8)
    assert bins.tolist() == list(range(num_bins))
    assert (answers[:, FIRST] == ORIGIN + 50 * bins).all()


def test_no_states_are_unknown_states() -> None:
    world = World(5_000)
    _, answers = collected(world, np.ones(world.num_bins, dtype=bool), ScanGeometry(2_000, 400), 8, states=False)
    assert (answers[:, [STATE_OF_FIRST, STATE_OF_LAST]] == 0).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(200, 9_000), geometries(), st.integers(1, 9))
def test_tracks_are_those_of_the_windows_strides(length: int, geometry: ScanGeometry, batch_windows: int) -> None:
    """Asked for by the windows' starts, which may lie outside the chromosome; each bin sees its own four."""
    world = World(length)

    def tracks(starts: np.ndarray) -> np.ndarray:
        assert (starts % 200 == 0).all()
        strides = starts[:, None] // 50 + np.arange(geometry.window_bp // 50)
        return np.stack([strides, -strides], axis=-1).astype(np.float32)

    def score(batch: Batch) -> np.ndarray:
        assert batch.tracks is not None
        return np.stack([batch.tracks[:, place : -3 + place or None, 0] for place in range(4)], axis=-1)

    wanted = np.ones(world.num_bins, dtype=bool)
    found = [np.empty((0, 4))]
    for bins, own in scan(score, world.bases, None, wanted, geometry, batch_windows, tracks):
        assert np.array_equal(own, bins[:, None] + np.arange(4))
        found.append(own)
    assert len(np.concatenate(found)) == world.num_bins


# --- a model's score


class Counting:
    """A stand-in for a model: for each bin, how many bases of one kind, and a state."""

    listens = True

    def __init__(self, *bases: int) -> None:
        self.bases = bases
        self.head = CountingHead()

    def features(self, bases: Tensor, tracks: Tensor | None) -> Tensor:
        return torch.zeros(len(bases), bases.shape[1] // 50, 0)

    def tokens_of(self, bases: Tensor, states: Tensor, early: Tensor | None) -> Tensor:
        ours = sum((bases == base).float() for base in self.bases)
        return ours.unflatten(1, (-1, 50)).sum(dim=-1)


class Treeless:
    def with_trees(self, logits: Tensor, *_: Tensor, tfs: None) -> Tensor:
        return logits


class CountingHead(Treeless):
    early = None

    def network(self, tokens: Tensor, features: Tensor, states: Tensor) -> Tensor:
        counts = tokens.unfold(1, 4, 1).sum(dim=-1)
        # The state of the bin's first half counts little, that of its second half much: the strands differ.
        strides = states.repeat_interleave(4, dim=1).float().unfold(1, 4, 1)
        return torch.stack([counts, strides @ torch.tensor([0.0, 1.0, 0.0, 100.0])], dim=-1)


@pytest.fixture
def windows() -> Batch:
    rng = np.random.default_rng(3)
    return Batch(rng.integers(0, 5, (4, 1_000), dtype=np.uint8), rng.integers(0, 19, (4, 5), dtype=np.uint8))


def test_both_strands_are_averaged_bin_by_bin(windows: Batch, device: Device) -> None:
    score = model_score(Counting(0), device, both_strands=True)(windows)
    for row, place in itertools.product(range(4), range(17)):
        own = windows.bases[row, 50 * place : 50 * place + 200]
        # On the other strand, A is read where T stands.
        assert score[row, place, 0] == ((own == 0).sum() + (own == 3).sum()) / 2
        states = windows.states[row].repeat(4)[place : place + 4].astype(float)
        there, back = states[1] + 100 * states[3], states[2] + 100 * states[0]
        assert score[row, place, 1] == pytest.approx((there + back) / 2)


class Looking(Treeless):
    """A stand-in for a model that says what the tracks are at the third stride of each bin."""

    listens = False

    @property
    def head(self) -> Looking:
        return self

    def features(self, bases: Tensor, tracks: Tensor) -> Tensor:
        return tracks

    def network(self, tokens: None, features: Tensor, states: Tensor) -> Tensor:
        assert tokens is None
        return features[:, 2:-1]


def test_tracks_are_turned_with_their_window(windows: Batch, device: Device) -> None:
    tracks = np.random.default_rng(4).normal(size=(4, 20, 2)).astype(np.float32)
    shown = replace(windows, tracks=tracks)
    assert np.array_equal(model_score(Looking(), device, both_strands=False)(shown), tracks[:, 2:-1])
    both = model_score(Looking(), device, both_strands=True)(shown)
    for row, place in itertools.product(range(4), range(17)):
        # The third stride of a bin that is read from its end is its second.
        np.testing.assert_allclose(both[row, place], (tracks[row, place + 2] + tracks[row, place + 1]) / 2, rtol=1e-5)


def test_one_strand_is_the_models_own_answer(windows: Batch, device: Device) -> None:
    score = model_score(Counting(0), device, both_strands=False)(windows)
    own = np.stack([(windows.bases[:, first : first + 200] == 0).sum(axis=1) for first in range(0, 801, 50)], axis=1)
    assert np.array_equal(score[..., 0], own)
    assert score.dtype == np.float32


def test_both_strands_give_one_answer_for_either_strand(windows: Batch, model: LoadedModel, device: Device) -> None:
    score = model_score(model.module, device, both_strands=True)
    other = Batch(reverse_complement(windows.bases), windows.states[:, ::-1])
    np.testing.assert_allclose(score(other)[:, ::-1], score(windows), atol=1e-4)
    one = model_score(model.module, device, both_strands=False)
    assert not np.allclose(one(other)[:, ::-1], one(windows), atol=1e-2)


@pytest.mark.parametrize("chrom", ["chr1", "chr2"])
def test_dense_scan_equals_one_window_at_a_time(
    toy_dataset: Dataset, model: LoadedModel, device: Device, chrom: str
) -> None:
    codes, states = toy_dataset.sequence(chrom), toy_dataset.states("HepG2", chrom)
    wanted = np.ones((len(codes) - 200) // 50 + 1, dtype=bool)
    geometry = model.geometry()
    assert (geometry.window_bp, geometry.context_bp, geometry.core_bp) == (2_000, 400, 1_000)
    score = model_score(model.module, device, both_strands=False)
    found = np.concatenate([logits for _, logits in scan(score, codes, states, wanted, geometry, 8)])
    # Far more N at either end than any window reaches.
    padded = np.concatenate([np.full(400, 4), codes, np.full(4_000, 4)])
    padded_states = np.concatenate([np.zeros(2), states, np.zeros(20)])
    for start in range(0, 50 * len(wanted), 1_000 * 7):
        window = torch.from_numpy(padded[start : start + 2_000])[None].to(torch.uint8)
        shown = torch.from_numpy(padded_states[start // 200 : start // 200 + 10])[None].to(torch.uint8)
        with torch.inference_mode():
            expected = model.module(window, shown)[0, 8:28].numpy()
        own = found[start // 50 : start // 50 + 20]
        np.testing.assert_allclose(own, expected[: len(own)], atol=1e-4)
    assert found.std() > 0.1


# --- models whose encoder reads blocks

BLOCK_BP = 400


def block_model(early: bool = False, layers: int = 3) -> BindingModel:
    """Random weights; reads motifs, composition and two tracks, and reaches 1 + 2 + 4 strides with three layers."""
    rng = np.random.default_rng(11)
    scan_of = MotifScan([rng.normal(size=(width, 4)).astype(np.float32) for width in (6, 11, 20)])
    fusion = FusionConfig(width=16, num_layers=layers, encoder_bp=BLOCK_BP, early=early)
    shape = BindingShape(fusion, True, (3, scan_of.kernels.shape[2]), 2)
    torch.manual_seed(5)
    config = EncoderConfig(width=16, num_layers=2, num_heads=2, stem_channels=8)
    module = BindingModel(Encoder(config, 18), 3, shape, scan_of).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module


def land(length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bases, states and tracks (strides, 2) of a chromosome."""
    rng = np.random.default_rng(length)
    bases = rng.choice(5, size=length, p=[0.24, 0.24, 0.24, 0.24, 0.04]).astype(np.uint8)
    return bases, rng.integers(0, 19, -(-length // 200), dtype=np.uint8), rng.normal(size=(length // 50 + 1, 2))


def tracks_in(values: np.ndarray, window_bp: int) -> Tracks:
    def tracks(starts: np.ndarray) -> np.ndarray:
        at = starts[:, None] // 50 + np.arange(window_bp // 50)
        inside = (at >= 0) & (at < len(values))
        return (values[np.clip(at, 0, len(values) - 1)] * inside[..., None]).astype(np.float32)

    return tracks


def one_window(module: BindingModel, place: tuple[np.ndarray, np.ndarray, np.ndarray], start: int, bp: int) -> Tensor:
    """Both strands' mean logits of a window by the model's own forward pass: (bins, T)."""
    bases, states, values = place
    shown = [bases[at] if 0 <= at < len(bases) else 4 for at in range(start, start + bp)]
    by_bin = [states[at] if 0 <= at < len(states) else 0 for at in range(start // 200, (start + bp) // 200)]
    beside = [values[at] if 0 <= at < len(values) else [0, 0] for at in range(start // 50, (start + bp) // 50)]
    with torch.inference_mode():
        there = (torch.tensor([shown]).long(), torch.tensor([by_bin]).long(), torch.tensor(np.array([beside])).float())
        complement = torch.tensor([3, 2, 1, 0, 4])
        back = (complement[there[0]].flip(1), there[1].flip(1), there[2].flip(1))
        return (module(*there) + module(*back).flip(1))[0] / 2


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("layers", [0, 3])
@pytest.mark.parametrize("length", [9_870, 410, 399, 200])
def test_dense_equals_slow_whatever_the_window(early: bool, layers: int, length: int, device: Device) -> None:
    """Each bin as the model answers it in a window of its own, with the same blocks and more around them.

    Also on contigs shorter than a block.
    """
    module, place = block_model(early, layers), land(length)
    wanted = np.ones((length - 200) // 50 + 1, dtype=bool)
    expected = {}
    for number in range(0, len(wanted), 29 if length > 1_000 else 1):
        first = (number * 50 // BLOCK_BP - 4) * BLOCK_BP
        expected[number] = one_window(module, place, first, 10 * BLOCK_BP)[number - first // 50].numpy()
    score, choices = model_score(module, device, both_strands=True), scan_geometries(module, ScanGeometry(4_800, 400))
    for geometry in (*choices, replace(choices[0], window_bp=4_800)):
        tracks = tracks_in(place[2], geometry.window_bp)
        found = np.concatenate([logits for _, logits in scan(score, *place[:2], wanted, geometry, 2, tracks)])
        np.testing.assert_allclose(found[list(expected)], list(expected.values()), rtol=1e-4, atol=1e-5)
    assert length < 1_000 or found.std(axis=0).min() > 0.03


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("layers", [0, 1, 3, 5, 7])
def test_windows_of_blocks(early: bool, layers: int) -> None:
    long, short = scan_geometries(block_model(early, layers), ScanGeometry(4_800, 400))
    reach = 50 * sum((1, 2, 4, 8, 16, 1, 2)[:layers])
    for geometry in (long, short):
        assert geometry.grid_bp == BLOCK_BP
        for measure in (geometry.window_bp, geometry.context_bp, geometry.core_bp):
            assert measure % BLOCK_BP == 0
        assert geometry.context_bp >= max(400, reach + BLOCK_BP * early)
        # The last bin of the core has three strides more to read, and what these reach.
        behind = geometry.window_bp - geometry.context_bp - geometry.core_bp
        assert behind >= max(400, reach + BLOCK_BP * early) + 150
    assert short.core_bp == BLOCK_BP
    assert long.core_bp > 0.8 * long.window_bp


def test_windows_that_are_read_as_a_whole_stay_as_trained(model: LoadedModel) -> None:
    trained = ScanGeometry(2_000, 400)
    assert scan_geometries(model.module, trained) == (trained,)
    assert scan_geometries(block_model(), ScanGeometry(BLOCK_BP, 0)) == (ScanGeometry(BLOCK_BP, 0),)


def test_apart_lying_bins_are_read_in_short_windows() -> None:
    long, short = scan_geometries(block_model(), ScanGeometry(4_800, 400))
    rng = np.random.default_rng(0)
    apart, together = np.sort(rng.choice(200_000, 20, replace=False)), np.arange(3_000, 9_000)
    assert short.read_bp(apart) == short.window_bp * len({bin_ // short.core_bins for bin_ in apart.tolist()})
    assert short.read_bp(apart) < long.read_bp(apart)
    assert short.read_bp(together) > long.read_bp(together)
