"""The encoder: against torch's own layer, a convolution by brute force, and what hidden tokens may not do."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import get_type_hints

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ebert_cli import pretrain
from ebert_core.config import PRESETS, EncoderConfig
from ebert_core.model.checkpoint import PretrainingModel
from ebert_core.model.encoder import Block, Encoder, Stem, count_parameters
from ebert_core.vocabulary import BASE_MASKED, BASE_N, NUM_BASES

STATES = 5
TINY = EncoderConfig(width=16, num_layers=2, num_heads=2, stem_channels=8, stem_kernel_bp=7)
# No blocks: a token sees its own bases, its detectors' reach and its own state, and nothing else.
LOCAL = TINY.model_copy(update={"num_layers": 0})


def windows(batch: int = 2, window_bp: int = 800, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    bases = rng.integers(0, NUM_BASES, (batch, window_bp), dtype=np.uint8)
    return torch.from_numpy(bases), torch.from_numpy(rng.integers(1, STATES + 1, (batch, window_bp // 200)))


def shaken(module: nn.Module) -> nn.Module:
    """Weights large enough that every part matters, biases included."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module.eval()


@pytest.mark.parametrize("token_bp", [1, 2, 5, 10, 25, 50])
@pytest.mark.parametrize("window_bp", [200, 1000])
def test_shape(token_bp: int, window_bp: int) -> None:
    config = TINY.model_copy(update={"token_bp": token_bp})
    bases, states = windows(3, window_bp)
    assert Encoder(config, STATES)(bases, states).shape == (3, window_bp // token_bp, 16)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_block_is_torchs_own_layer(batch: int) -> None:
    """Values and gradients in float64, positions left out on both sides."""
    block = shaken(Block(TINY)).double()
    layer = nn.TransformerEncoderLayer(16, 2, 64, 0.0, "gelu", batch_first=True, norm_first=True).double()
    names = {
        "attention_norm": "norm1",
        "attention.qkv.": "self_attn.in_proj_",
        "attention.out": "self_attn.out_proj",
        "mlp_norm": "norm2",
        "mlp.0": "linear1",
        "mlp.2": "linear2",
    }

    def torchs_name(name: str) -> str:
        ours = next(ours for ours in names if name.startswith(ours))
        return names[ours] + name.removeprefix(ours)

    layer.load_state_dict({torchs_name(name): tensor for name, tensor in block.state_dict().items()})
    nowhere = torch.ones(11, 4, dtype=torch.float64), torch.zeros(11, 4, dtype=torch.float64)
    x = torch.randn(batch, 11, 16, dtype=torch.float64)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    found, expected = block(ours, nowhere), layer(theirs)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
    weight = torch.randn_like(x)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-9, rtol=1e-9)
    gradients = {name: parameter.grad for name, parameter in layer.named_parameters()}
    for name, parameter in block.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[torchs_name(name)], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_recomputing_changes_nothing(dropout: float) -> None:
    encoder = Encoder(TINY.model_copy(update={"dropout": dropout}), STATES)
    results = []
    for recompute in (False, True):
        torch.manual_seed(1)
        encoder.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            tokens = encoder(*windows(), recompute=recompute)
        tokens.square().sum().backward()
        results.append([tokens.detach(), *(parameter.grad for parameter in encoder.parameters())])
    assert all(torch.equal(kept, again) for kept, again in zip(*results, strict=True))


def test_the_encoder_needs_no_room_but_its_own() -> None:
    script = (
        "import sys, ebert_core.model.encoder, ebert_core.model.heads\n"
        "print(*(name for name in sys.modules if name.startswith('ebert')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    rooms = {name.split(".")[1] for name in done.stdout.split() if "." in name}
    assert rooms == {"config", "errors", "model", "vocabulary"}


def test_stem_detects_and_spells_by_brute_force() -> None:
    stem = shaken(Stem(TINY))
    bases = torch.randint(0, BASE_MASKED + 1, (1, 200), dtype=torch.uint8)
    channel = {0: 0, 1: 1, 2: 2, 3: 3, BASE_MASKED: 4}
    shown = torch.zeros(200, 5)
    for place, base in enumerate(bases[0].tolist()):
        if base != BASE_N:
            shown[place, channel[base]] = 1
    reach = TINY.stem_kernel_bp // 2
    padded = F.pad(shown.T, (reach, reach))
    responses = torch.stack(
        [
            (stem.motifs.weight * padded[:, place : place + TINY.stem_kernel_bp]).sum(dim=(1, 2)) + stem.motifs.bias
            for place in range(200)
        ]
    )
    expected = torch.stack(
        [
            stem.from_motifs(F.gelu(responses[first : first + 10].amax(dim=0)))
            + stem.from_bases.weight @ shown[first : first + 10].flatten()
            for first in range(0, 200, 10)
        ]
    )
    torch.testing.assert_close(stem(bases)[0], expected, atol=1e-4, rtol=1e-4)


def test_n_contributes_nothing() -> None:
    stem = shaken(Stem(TINY))
    bases, _ = windows(2, 400)
    flank = torch.full((2, 200), BASE_N, dtype=torch.uint8)
    torch.testing.assert_close(stem(torch.cat([flank, bases, flank], dim=1))[:, 20:60], stem(bases))
    nothing = stem.from_motifs(F.gelu(stem.motifs.bias))
    torch.testing.assert_close(stem(flank), nothing.expand(2, 20, 16))


@pytest.mark.parametrize("seed", range(4))
def test_what_is_hidden_cannot_influence_any_output(seed: int) -> None:
    """Two truths that differ only under the mask look the same to the model; one base beside it does not."""
    rng = np.random.default_rng(seed)
    hidden = np.repeat(rng.random((3, 80)) < 0.4, TINY.token_bp, axis=1)
    hidden_bins = rng.random((3, 4)) < 0.5
    encoder = shaken(Encoder(TINY, STATES))
    bases = rng.integers(0, BASE_N + 1, (3, 800), dtype=np.uint8)
    states = rng.integers(1, STATES + 1, (3, 4), dtype=np.uint8)

    def tokens(bases: np.ndarray, states: np.ndarray) -> torch.Tensor:
        shown = np.where(hidden, np.uint8(BASE_MASKED), bases), np.where(hidden_bins, np.uint8(STATES + 1), states)
        return encoder(*map(torch.from_numpy, shown))

    other_bases = np.where(hidden, rng.integers(0, BASE_N + 1, bases.shape, dtype=np.uint8), bases)
    other_states = np.where(hidden_bins, rng.integers(1, STATES + 1, states.shape, dtype=np.uint8), states)
    assert (bases != other_bases).any()
    assert torch.equal(tokens(bases, states), tokens(other_bases, other_states))
    place = np.flatnonzero(~hidden[0])[0]
    other_bases[0, place] = (bases[0, place] + 1) % 4
    assert not torch.equal(tokens(bases, states)[0], tokens(other_bases, states)[0])


def test_hidden_bases_get_no_gradient() -> None:
    encoder = shaken(Encoder(TINY, STATES))
    bases, states = windows(1, 400)
    bases[0, 100:130] = BASE_MASKED
    indicators = encoder.stem.indicators[bases.int()].requires_grad_()
    # One row per position, so that the lookup hands every position its own indicator.
    encoder.stem.indicators = indicators[0]
    places = torch.arange(400)[None]
    encoder(places, states)[0, 20].sum().backward()
    by_place = indicators.grad[0].abs().sum(dim=1)
    assert (by_place > 0).all()
    # The only thing the model sees of a hidden base is the fifth channel.
    assert (indicators[0, 100:130, :4] == 0).all()
    assert (indicators[0, 100:130, 4] == 1).all()


def test_a_state_reaches_exactly_its_own_tokens() -> None:
    encoder = shaken(Encoder(LOCAL, STATES))
    bases, states = windows(1)
    other = states.clone()
    other[0, 2] = states[0, 2] % STATES + 1
    changed = (encoder(bases, states) != encoder(bases, other)).any(dim=-1)[0]
    assert changed.nonzero().flatten().tolist() == list(range(40, 60))


def test_a_base_reaches_exactly_its_detectors() -> None:
    encoder = shaken(Encoder(LOCAL, STATES))
    bases, states = windows(1)
    reached: set[int] = set()
    for base in range(4):
        other = bases.clone()
        other[0, 402] = base
        reached |= set((encoder(bases, states) != encoder(other, states)).any(dim=-1)[0].nonzero().flatten().tolist())
    # 3 bp to either side of 402: 399 lies in token 39.
    assert {40} <= reached <= {39, 40}
    assert 39 in reached


@pytest.mark.parametrize("code", [0, STATES + 1])
def test_states_change_the_whole_window(code: int) -> None:
    encoder = shaken(Encoder(TINY, STATES))
    bases, states = windows(1)
    other = states.clone()
    other[0, 0] = code
    assert (encoder(bases, states) != encoder(bases, other)).any(dim=-1).all()


def test_unknown_and_masked_states_are_two_things() -> None:
    encoder = Encoder(TINY, STATES)
    rows = encoder.state_embedding.weight
    assert rows.shape == (STATES + 2, 16)
    assert len({tuple(row.tolist()) for row in rows}) == STATES + 2


def test_windows_of_a_batch_do_not_meet() -> None:
    encoder = shaken(Encoder(TINY, STATES))
    bases, states = windows(4)
    together = encoder(bases, states)
    for row in range(4):
        alone = encoder(bases[row : row + 1], states[row : row + 1])[0]
        torch.testing.assert_close(together[row], alone, atol=1e-4, rtol=1e-4)


def test_dropout_only_while_training() -> None:
    encoder = Encoder(TINY.model_copy(update={"dropout": 0.5}), STATES)
    bases, states = windows(1)
    assert not torch.equal(encoder(bases, states), encoder(bases, states))
    encoder.eval()
    assert torch.equal(encoder(bases, states), encoder(bases, states))


@pytest.mark.parametrize("width", [64, 512])
def test_fresh_weights_keep_a_signals_size_at_any_width(width: int) -> None:
    encoder = Encoder(EncoderConfig(width=width, num_layers=8, num_heads=2, stem_channels=64), STATES)
    block = encoder.blocks[3]
    x = torch.randn(200, width)
    for layer in (block.attention.qkv, block.mlp[0]):
        assert layer(x).std().item() == pytest.approx(1, rel=0.1)
    # 16 branches add up to one more signal of the same size.
    assert block.attention.out(x).std().item() == pytest.approx(1 / 4, rel=0.1)
    assert block.mlp[2](torch.randn(200, 4 * width)).std().item() == pytest.approx(1 / 4, rel=0.1)
    assert all((p == 0).all() for name, p in encoder.named_parameters() if name.endswith(".bias"))


def test_presets_have_the_sizes_that_the_help_names() -> None:
    text = get_type_hints(pretrain.run, include_extras=True)["preset"].__metadata__[0].help
    told = dict(re.findall(r"(\w+) \(([\d.]+) M", text))
    assert set(told) == set(PRESETS)
    for name, preset in PRESETS.items():
        with torch.device("meta"):
            millions = count_parameters(PretrainingModel(preset.encoder, 18)) / 1e6
        digits = len(told[name].partition(".")[2])
        assert round(millions, digits) == float(told[name]), name


def test_base_has_the_blocks_of_bert_base() -> None:
    with torch.device("meta"):
        blocks = Encoder(PRESETS["base"].encoder, 18).blocks
    # Devlin et al. 2019, 12 layers of 768: 4 projections, two layers of 3072, two norms each.
    layer = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    assert count_parameters(blocks) == 12 * layer


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_gpu_says_the_same_as_the_cpu() -> None:
    encoder = shaken(Encoder(TINY, STATES))
    bases, states = windows()
    expected = encoder(bases, states)
    found = encoder.cuda()(bases.cuda(), states.cuda()).cpu()
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
