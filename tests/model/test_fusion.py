"""Where tokens and task features meet: against loops over strides and bins, and by how far a change reaches."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from ebert_core.config import EncoderConfig, FusionConfig
from ebert_core.model.encoder import Encoder
from ebert_core.model.fusion import BindingHead, BindingModel, BindingShape, StrideBlock, num_bins
from ebert_core.model.stride_features import MotifScan
from ebert_core.vocabulary import reverse_complement

TINY = EncoderConfig(width=16, num_layers=1, num_heads=2, stem_channels=8)
NO_LAYERS = FusionConfig(width=12, num_layers=0)


def shaken(module: torch.nn.Module, std: float = 1.0) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=std)
    return module.eval()


def reading(fusion: FusionConfig = NO_LAYERS, num_tfs: int = 2, tracks: int = 3) -> BindingModel:
    """A model of two motifs, composition and some tracks."""
    rng = np.random.default_rng(5)
    scan = MotifScan([rng.normal(size=(width, 4)).astype(np.float32) for width in (6, 9)])
    shape = BindingShape(fusion, composition=True, motifs=(2, 9), num_tracks=tracks)
    return shaken(BindingModel(Encoder(TINY, 18), num_tfs, shape, scan), 0.3)


def windows(count: int = 2, window_bp: int = 1_000, tracks: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        torch.randint(0, 5, (count, window_bp)),
        torch.randint(0, 19, (count, window_bp // 200)),
        torch.randn(count, window_bp // 50, tracks),
    )


# --- the head


def head_and_inputs(token_bp: int, num_tracks: int, num_layers: int = 0) -> tuple[BindingHead, list[torch.Tensor]]:
    """A head of three TFs, and tokens, features and states of two windows of 800 bp."""
    fusion = NO_LAYERS.model_copy(update={"num_layers": num_layers})
    head = shaken(BindingHead(16, 18, 3, BindingShape(fusion, num_tracks=num_tracks)))
    tokens, features = torch.randn(2, 800 // token_bp, 16), torch.randn(2, 16, num_tracks)
    return head, [tokens, features, torch.randint(0, 19, (2, 4), dtype=torch.uint8)]


@pytest.mark.parametrize("num_tracks", [0, 3])
def test_a_bin_is_bound_when_something_in_it_is(num_tracks: int) -> None:
    """Logits of the strides, as the last layer gives them, meet four by four, each place with its own offset."""
    head, inputs = head_and_inputs(10, num_tracks, num_layers=2)
    by_stride: list[torch.Tensor] = []
    head.out.register_forward_hook(lambda module, given, found: by_stride.append(found.detach()))
    found = head(*inputs)
    assert (found.shape, found.dtype) == ((2, num_bins(800), 3), torch.float32)
    (strides,), offsets = by_stride, head.place.tolist()
    for row, place, tf in itertools.product(range(2), range(13), range(3)):
        own = sum(math.exp(float(strides[row, place + i, tf]) + offsets[i]) for i in range(4))
        assert found[row, place, tf].item() == pytest.approx(math.log(own), abs=1e-3)


@pytest.mark.parametrize("token_bp", [5, 10, 25, 50])
@pytest.mark.parametrize("num_tracks", [0, 3])
def test_without_layers_a_bin_sees_what_lies_in_it(token_bp: int, num_tracks: int) -> None:
    """Its own tokens, features and states, all of them, and no others."""
    head, (tokens, features, states) = head_and_inputs(token_bp, num_tracks)
    before = head(tokens, features, states).detach()

    def changed(*inputs: torch.Tensor) -> list[int]:
        return np.flatnonzero((head(*inputs) != before).any(dim=(0, 2)).numpy()).tolist()

    for stride in (0, 5, 15):
        bins = [place for place in range(13) if place <= stride <= place + 3]
        first = stride * 50 // token_bp
        for token in (first, first + 50 // token_bp - 1):
            other = tokens.clone()
            other[:, token] = torch.randn(2, 16) + 5
            assert changed(other, features, states) == bins
        if num_tracks:
            other = features.clone()
            other[:, stride] += 1
            assert changed(tokens, other, states) == bins
    if num_tracks:
        other = states.clone()
        other[:, 2] = 18 - other[:, 2] if (other[:, 2] != 9).all() else (other[:, 2] + 1) % 19
        assert changed(tokens, features, other) == list(range(5, 12))


@pytest.mark.parametrize("dilation", [1, 2, 16])
def test_a_layer_by_brute_force(dilation: int) -> None:
    """Each stride sees itself and one to either side, so many strides off, as a convolution would."""
    block = shaken(StrideBlock(FusionConfig(width=6), dilation))
    x = torch.randn(2, 20, 6)
    normed = block.norm(x)
    weight = block.taps.weight.unflatten(1, (3, 6)).permute(0, 2, 1)  # (out, in, taps)
    taps = F.conv1d(normed.transpose(1, 2), weight, block.taps.bias, padding=dilation, dilation=dilation)
    torch.testing.assert_close(block(x), x + block.out(F.gelu(taps.transpose(1, 2))), atol=1e-4, rtol=1e-4)


@given(st.integers(1, 60))
def test_num_bins_counts_bins_that_lie_in_the_window(units: int) -> None:
    window_bp = 200 * units
    assert num_bins(window_bp) == sum(start + 200 <= window_bp for start in range(0, window_bp, 50))


def test_a_fresh_head_says_that_few_bins_are_bound() -> None:
    for tracks in (0, 4):
        head = BindingHead(16, 18, 2, BindingShape(num_tracks=tracks)).eval()
        logits = head(torch.randn(20, 60, 16), torch.randn(20, 12, tracks), torch.randint(0, 19, (20, 3)))
        assert -5 < logits.mean() < -1.5


@pytest.mark.parametrize("early", [False, True])
def test_every_parameter_learns(early: bool) -> None:
    model = reading(FusionConfig(width=12, num_layers=2, early=early))
    model(*windows()).sum().backward()
    frozen = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert frozen == []


def test_the_encoder_begins_with_nothing_to_say_beside_motifs() -> None:
    """Which are learned first; without them it says what the sequence means."""
    model, batch = BindingModel(Encoder(TINY, 18), 2, reading().shape).eval(), windows()
    assert not model.listens
    torch.testing.assert_close(model(*batch), model(*batch, encode=False))
    assert BindingModel(Encoder(TINY, 18), 2, BindingShape(NO_LAYERS, num_tracks=3)).listens
    shaken(model)
    assert model.listens
    assert not torch.allclose(model(*batch), model(*batch, encode=False), atol=1e-2)


def test_without_the_encoder_nothing_of_it_is_computed_or_learned() -> None:
    model = reading(FusionConfig(width=12, num_layers=1, early=True))
    model.encoder.forward = None  # type: ignore[method-assign, assignment]
    model(*windows(), encode=False).sum().backward()
    learned = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert learned == {"head"}
    assert model.head.from_tokens.weight.grad is None
    assert all(p.grad is not None for p in model.head.from_features.parameters())


@pytest.mark.parametrize("dropout", [{"dropout": 0.5, "feature_dropout": 0}, {"dropout": 0, "feature_dropout": 0.5}])
def test_dropout_is_for_training_only(dropout: dict[str, float]) -> None:
    model = reading(FusionConfig(width=12, num_layers=2, **dropout))
    batch = windows()
    assert torch.equal(model(*batch), model(*batch))
    model.train()
    assert not torch.equal(model(*batch), model(*batch))


# --- the model


@pytest.mark.parametrize(("num_layers", "reach"), [(0, 0), (1, 1), (2, 3), (3, 7), (5, 31), (6, 32)])
def test_how_far_a_track_reaches(num_layers: int, reach: int) -> None:
    """A bin sees the tracks of its own four strides and of as many beside as the layers add up to, and no others."""
    model = reading(FusionConfig(width=8, num_layers=num_layers), num_tfs=1)
    bases, states, tracks = windows(1, 4_000)
    tracks.requires_grad_()
    for place in (0, 38, 76):
        (slope,) = torch.autograd.grad(model(bases, states, tracks)[0, place].sum(), tracks)
        seen = np.flatnonzero(slope[0].abs().sum(dim=-1).numpy())
        assert seen.min() >= place - reach
        assert seen.max() <= place + 3 + reach
        assert seen.min() == max(0, place - reach)
        assert seen.max() == min(79, place + 3 + reach)


@pytest.mark.parametrize(("encoder_bp", "strides"), [(0, 40), (2_000, 40), (1_000, 20), (600, 8), (400, 8)])
def test_shown_early_a_track_reaches_as_far_as_the_encoder_reads(encoder_bp: int, strides: int) -> None:
    """Its attention carries it, through the block that the encoder reads at once."""
    model = reading(FusionConfig(width=8, num_layers=0, early=True, encoder_bp=encoder_bp), num_tfs=1)
    bases, states, tracks = windows(1, 2_000)
    tracks.requires_grad_()
    (slope,) = torch.autograd.grad(model(bases, states, tracks)[0, 0].sum(), tracks)
    assert np.flatnonzero(slope[0].abs().sum(dim=-1).numpy()).tolist() == list(range(strides))


@pytest.mark.parametrize(
    ("window_bp", "encoder_bp", "block_bp"),
    [(1_600, 0, 1_600), (1_600, 1_600, 1_600), (1_600, 1_599, 800), (1_600, 500, 400), (3_000, 1_600, 1_000)],
)
def test_the_encoder_reads_blocks_of_equal_length(window_bp: int, encoder_bp: int, block_bp: int) -> None:
    """Each as if it were alone; on the other strand they are the same blocks."""
    fusion = NO_LAYERS.model_copy(update={"encoder_bp": encoder_bp})
    model = shaken(BindingModel(Encoder(TINY, 18), 1, BindingShape(fusion)), 0.3)
    read: list[tuple[int, int]] = []
    model.encoder.register_forward_hook(lambda module, given, found: read.append(tuple(given[0].shape)))
    bases, states, _ = windows(2, window_bp)
    found = model(bases, states)
    assert read == [(2 * window_bp // block_bp, block_bp)]
    for first in range(0, window_bp, block_bp):
        alone = model(bases[:, first : first + block_bp], states[:, first // 200 : (first + block_bp) // 200])
        here = found[:, first // 50 : first // 50 + alone.shape[1]]
        torch.testing.assert_close(here, alone, atol=1e-4, rtol=1e-4)


def test_features_are_those_of_the_strides_in_their_order() -> None:
    model = reading()
    bases, _, tracks = windows()
    found = model.features(bases, tracks)
    assert found.shape == (2, 20, model.shape.num_features) == (2, 20, 7)
    assert torch.equal(found[..., :3], tracks)
    # One window of a stride and the motifs' half width gives the same as the long one.
    for stride in (1, 7, 18):
        middle = model.features(bases[:, 50 * stride - 50 : 50 * stride + 100], tracks[:, stride - 1 : stride + 2])
        torch.testing.assert_close(found[:, stride], middle[:, 1])


def test_features_of_the_other_strand_are_mirrored() -> None:
    model = reading()
    bases, _, tracks = windows()
    other = torch.from_numpy(reverse_complement(bases.numpy().astype(np.uint8)))
    mirrored = model.features(other, tracks.flip(1)).flip(1)
    torch.testing.assert_close(mirrored, model.features(bases, tracks), atol=1e-4, rtol=1e-4)


def test_a_changed_base_changes_the_motif_features_about_it_only() -> None:
    """They are computed from what is shown, never looked up."""
    model = reading()
    bases, _, tracks = windows(1)
    before = model.features(bases, tracks)
    bases[0, 475] = (bases[0, 475] + 1) % 4
    changed = (model.features(bases, tracks) != before).any(dim=-1)[0]
    assert set(np.flatnonzero(changed.numpy())) <= {9}
    assert changed[9]


def test_without_features_tracks_may_be_left_out() -> None:
    model = shaken(BindingModel(Encoder(TINY, 18), 2, BindingShape(NO_LAYERS)), 0.3)
    bases, states, _ = windows()
    assert model.features(bases, None).shape == (2, 20, 0)
    assert torch.equal(model(bases, states), model(bases, states, torch.zeros(2, 20, 0)))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_any_integers_will_do(dtype: torch.dtype) -> None:
    model = reading()
    bases, states, tracks = windows()
    torch.testing.assert_close(model(bases.to(dtype), states.to(dtype), tracks), model(bases, states, tracks))


def test_outputs_that_were_learned_beside_can_be_dropped() -> None:
    model = reading(FusionConfig(width=12, num_layers=1), num_tfs=5)
    batch = windows()
    before = model(*batch)
    model.keep_tfs(2)
    torch.testing.assert_close(model(*batch), before[..., :2])
    assert model.head.out.weight.shape == (2, 12)
    kept = model.head.out
    for number in (2, 7):
        model.keep_tfs(number)
        assert model.head.out is kept, "there is nothing to drop"


def test_the_number_of_channels() -> None:
    assert BindingShape().num_features == 0
    assert BindingShape(composition=True).num_features == 2
    assert BindingShape(composition=True, motifs=(7, 21), num_tracks=6).num_features == 15
