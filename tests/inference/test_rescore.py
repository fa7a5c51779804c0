"""Windows in which something was changed: the same logits as of whole windows, and no more work than that takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebert_core.config import EncoderConfig, FusionConfig
from ebert_core.data.windows import Batch
from ebert_core.errors import EbertError
from ebert_core.inference.rescore import Changes, block_bp, model_rescore, rescored
from ebert_core.inference.scan import model_score
from ebert_core.model.device import Device, choose_device
from ebert_core.model.encoder import Encoder
from ebert_core.model.fusion import BindingModel, BindingShape
from ebert_core.model.stride_features import MotifScan
from ebert_core.model.trees import REACH, Trees
from ebert_core.vocabulary import reverse_complement
from tests.inference.plain import plain_rescore

TRACKS = 3


def make(
    window_layers: int = 2,
    encoder_bp: int = 800,
    *,
    early: bool = False,
    motifs: tuple[int, ...] = (6, 19),
    width: int = 16,
) -> BindingModel:
    """A model with random weights."""
    torch.manual_seed(3)
    rng = np.random.default_rng(3)
    fusion = FusionConfig(width=16, num_layers=window_layers, encoder_bp=encoder_bp, early=early)
    scan = MotifScan([np.float32(rng.normal(0, 1.5, (width, 4))) for width in motifs]) if motifs else None
    shape = (0, 1) if scan is None else (len(motifs), scan.kernels.shape[2])
    encoder = Encoder(EncoderConfig(width=16, num_layers=1, num_heads=2, stem_channels=8), 18)
    module = BindingModel(encoder, 3, BindingShape(fusion, bool(motifs), shape, TRACKS if motifs else 0), scan)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
        module.head.out.weight.mul_(5)
    return module.eval()


def windows_of(rng: np.random.Generator, num: int, window_bp: int, *, tracks: bool) -> Batch:
    bases = rng.integers(0, 4, (num, window_bp)).astype(np.uint8)
    bases[0, : window_bp // 4] = 4
    states = rng.integers(0, 19, (num, window_bp // 200)).astype(np.uint8)
    shown = rng.normal(size=(num, window_bp // 50, TRACKS)).astype(np.float32) if tracks else None
    return Batch(bases, states, shown)


def changes_of(rng: np.random.Generator, windows: Batch, num: int, most_bins: int = 5) -> Changes:
    """Substitutions, insertions, states; some alternatives are the window itself; bins anywhere."""
    of = rng.integers(0, len(windows.bases), num)
    bases, states = windows.bases[of], windows.states[of]
    window_bp = bases.shape[1]
    for row, (kind, at) in enumerate(zip(rng.integers(0, 5, num), rng.integers(0, window_bp - 60, num), strict=True)):
        if kind < 2:
            bases[row, at] = (bases[row, at] + 1) % 4
        elif kind == 2:
            bases[row, at + 20 :] = bases[row, at:-20]
        elif kind == 3:
            states[row, at // 200] = (states[row, at // 200] + 1) % 19
    last = window_bp // 50 - 4
    first = rng.integers(0, last + 1, num)
    bins = np.minimum(first[:, None] + np.arange(most_bins), last)
    starts = np.arange(len(windows.bases)) * window_bp
    return Changes(windows, starts, of, bases, states, bins)


def agree(module: BindingModel, device: Device, changes: Changes, atol: float = 1e-4, both: bool = True) -> None:
    found = model_rescore([module], device, both_strands=both)(changes)
    expected = plain_rescore(model_score(module, device, both_strands=both))(changes)
    for each, other in zip(found, expected, strict=True):
        assert each.dtype == np.float32
        np.testing.assert_allclose(each, other, atol=atol)
    assert np.abs(found[0] - found[1]).max() > 20 * atol


SHAPES = {
    "as fine-tuned with motifs": (5, 1_600, False, 12_800),
    "the window at once": (0, 0, False, 1_600),
    "one block a state bin": (1, 200, False, 2_000),
    "blocks that do not divide the window": (2, 800, False, 2_200),
    "features shown to the encoder": (2, 800, True, 2_400),
    "reach over the window": (5, 800, True, 1_600),
}


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_the_logits_are_those_of_whole_windows(name: str, both: bool, device: Device) -> None:
    layers, encoder_bp, early, window_bp = SHAPES[name]
    rng = np.random.default_rng(1)
    windows = windows_of(rng, 3, window_bp, tracks=True)
    agree(make(layers, encoder_bp, early=early), device, changes_of(rng, windows, 40), both=both)


@pytest.mark.parametrize("layers", [0, 5], ids=["trees reach further", "layers reach further"])
def test_trees_are_asked_about_what_a_change_reaches(layers: int, device: Device) -> None:
    module, rng = make(layers, 400), np.random.default_rng(4)
    numbers = 3 * (module.shape.num_features + 18)
    trees = Trees(3, 30)
    trees.asked[:] = torch.from_numpy(rng.integers(0, numbers, trees.asked.shape))
    trees.threshold[:] = torch.from_numpy(rng.normal(0.1, 0.3, trees.threshold.shape))
    trees.value[:] = torch.from_numpy(rng.normal(size=trees.value.shape))
    trees.share[:] = torch.tensor([0.5, 0.7, 1.0])
    module.grow(trees)
    assert (module.head.reach, module.shape.num_trees) == (max(REACH, 31 * (layers == 5)), 30)
    windows = windows_of(rng, 3, 8_000, tracks=True)
    agree(module, device, changes_of(rng, windows, 40))
    # Asked once for both strands, they say what they say on either.
    strands = [
        module(*(torch.from_numpy(np.ascontiguousarray(each)) for each in shown)).detach()
        for shown in (
            (windows.bases, windows.states, windows.tracks),
            (reverse_complement(windows.bases), windows.states[:, ::-1], windows.tracks[:, ::-1]),
        )
    ]
    expected = (strands[0] + strands[1].flip(1)) / 2
    both = model_score(module, device, both_strands=True)(windows)
    np.testing.assert_allclose(both, expected, atol=1e-4)
    # Only some TFs' answers: the same.
    some = model_score(module, device, both_strands=True, tfs=[2, 0])(windows)
    np.testing.assert_array_equal(some, both[..., [2, 0]])


@settings(max_examples=10, deadline=None)
@given(
    st.integers(0, 4),
    st.sampled_from([0, 200, 400, 600, 1_000]),
    st.booleans(),
    st.integers(2, 12),
    st.sampled_from([(), (5,), (4, 51), (104,)]),
    st.integers(1, 30),
    st.integers(0, 99),
)
def test_any_shape(
    layers: int, encoder_bp: int, early: bool, bins: int, motifs: tuple[int, ...], most_bins: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    windows = windows_of(rng, 2, 200 * bins, tracks=bool(motifs))
    module = make(layers, encoder_bp, early=early, motifs=motifs)
    changes = changes_of(rng, windows, 12, most_bins)
    own, other = model_rescore([module], CPU, both_strands=True)(changes)
    expected = plain_rescore(model_score(module, CPU, both_strands=True))(changes)
    np.testing.assert_allclose(own, expected[0], atol=2e-4)
    np.testing.assert_allclose(other, expected[1], atol=2e-4)


CPU = choose_device("cpu", "fp32")


def test_portions_change_nothing(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    changes = changes_of(rng, windows_of(rng, 4, 2_400, tracks=True), 60)
    rescore = model_rescore([make()], device, both_strands=True)
    together = rescore(changes)
    for name in ("_TOKEN_BYTES", "_ENCODED_BP", "_READ_BP"):
        monkeypatch.setattr(f"ebert_core.inference.rescore.{name}", 1)
    for own, other in zip(together, rescore(changes), strict=True):
        np.testing.assert_allclose(own, other, atol=1e-5)


def test_in_bf16_they_differ_by_its_rounding() -> None:
    """As much as the model's own two precisions differ, not more."""
    rng = np.random.default_rng(6)
    changes = changes_of(rng, windows_of(rng, 2, 2_400, tracks=True), 30)
    module, coarse = make(), choose_device("cpu", "bf16")
    fine = plain_rescore(model_score(module, CPU, both_strands=True))(changes)
    plain = plain_rescore(model_score(module, coarse, both_strands=True))(changes)
    found = model_rescore([module], coarse, both_strands=True)(changes)
    rounding = max(np.abs(a - b).max() for a, b in zip(fine, plain, strict=True))
    assert max(np.abs(a - b).max() for a, b in zip(fine, found, strict=True)) < 2 * rounding


def test_an_ensemble_answers_with_the_mean_of_its_members(device: Device) -> None:
    members, rng = [make(), make(1, 400)], np.random.default_rng(10)
    changes = changes_of(rng, windows_of(rng, 2, 2_400, tracks=True), 20)
    together = model_rescore(members, device, both_strands=True)(changes)
    alone = [plain_rescore(model_score(member, device, both_strands=True))(changes) for member in members]
    for found, one, other in zip(together, *alone, strict=True):
        np.testing.assert_allclose(found, (one + other) / 2, atol=1e-4)
        assert found.dtype == np.float32


@pytest.fixture
def blocks_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens that every call of an encoder was asked for."""
    found: list[int] = []
    forward = Encoder.forward

    def counted(self: Encoder, bases: torch.Tensor, *more: object, **named: object) -> torch.Tensor:
        found.append(len(bases) * bases.shape[1])
        return forward(self, bases, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Encoder, "forward", counted)
    return found


def test_only_changed_blocks_are_read_again(device: Device, blocks_read: list[int]) -> None:
    rng = np.random.default_rng(7)
    windows = windows_of(rng, 1, 12_800, tracks=True)
    bases = np.repeat(windows.bases, 20, axis=0)
    # In the fourth block, so that the 31 strides to either side of the bins lie in the third to the fifth.
    for row in range(20):
        bases[row, 5_500 + row] = (bases[row, 5_500 + row] + 1) % 4
    states = np.repeat(windows.states, 20, axis=0)
    changes = Changes(
        windows, np.zeros(1, np.int64), np.zeros(20, np.int64), bases, states, np.full((20, 1), 5_450 // 50)
    )
    model_rescore([make(5, 1_600)], device, both_strands=True)(changes)
    assert sum(blocks_read) == 2 * 1_600 * (3 + 20)
    blocks_read.clear()
    model_rescore([make(5, 1_600)], device, both_strands=False)(
        Changes(windows, changes.starts, changes.of, np.repeat(windows.bases, 20, axis=0), states, changes.bins)
    )
    assert sum(blocks_read) == 1_600 * 3


def test_an_encoder_without_a_say_is_not_asked(device: Device, blocks_read: list[int]) -> None:
    module, rng = make(), np.random.default_rng(8)
    with torch.no_grad():
        module.head.from_tokens.weight.zero_()
        module.head.from_tokens.bias.zero_()
    agree(module, device, changes_of(rng, windows_of(rng, 2, 2_400, tracks=True), 20))
    assert not blocks_read


@pytest.mark.parametrize("encoder_bp", [0, 200, 600, 800, 1_600, 3_000])
@pytest.mark.parametrize("window_bp", [200, 1_000, 1_600, 2_200, 3_400, 12_800])
def test_the_blocks_are_those_of_the_model(window_bp: int, encoder_bp: int, blocks_read: list[int]) -> None:
    module = make(0, encoder_bp, motifs=())
    lengths: list[int] = []
    module.encoder.register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[1]))
    with torch.inference_mode():
        module(torch.zeros(1, window_bp, dtype=torch.uint8), torch.zeros(1, window_bp // 200, dtype=torch.uint8))
    assert lengths == [block_bp(window_bp, encoder_bp)]


def test_what_is_no_number_is_told() -> None:
    rng = np.random.default_rng(9)
    changes = changes_of(rng, windows_of(rng, 1, 800, tracks=False), 2)
    bad = np.full((2, 5, 1), np.nan, np.float32)
    for found in ((bad, bad * 0 + 1), (np.zeros_like(bad), bad)):
        if np.isnan(found[0]).all() or np.isnan(found[1]).all():
            with pytest.raises(EbertError, match="the model gives no number for some bins of chr7"):
                rescored(lambda _, found=found: found, changes, "chr7")
