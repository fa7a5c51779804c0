"""Attention: against torch's own, complex rotary positions, and numerical gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ebert_core.config import EncoderConfig
from ebert_core.model.attention import Attention, rotary_turns, rotate

CPU = torch.device("cpu")


def attention_of(num_heads: int, width: int = 16) -> Attention:
    """Weights large enough that every part matters, biases included."""
    attention = Attention(EncoderConfig(width=width, num_heads=num_heads))
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_(std=0.5)
    return attention.double()


def complex_rotary(x: torch.Tensor) -> torch.Tensor:
    """Rotary positions as Su et al. write them: feature pairs are complex numbers, turned by position times rate."""
    half = x.shape[-1] // 2
    rates = 10_000.0 ** (-2 * np.arange(half) / x.shape[-1])
    turns = torch.from_numpy(np.exp(1j * np.arange(x.shape[-2])[:, None] * rates))
    turned = torch.complex(x[..., :half].double(), x[..., half:].double()) * turns
    return torch.cat([turned.real, turned.imag], dim=-1).to(x.dtype)


def by_torch(attention: Attention, x: torch.Tensor) -> torch.Tensor:
    """The same in torch's fused kernel, which on a CPU our module never calls."""
    batch, length, _ = x.shape
    q, k, v = (
        part.view(batch, length, attention.num_heads, -1).transpose(1, 2)
        for part in F.linear(x, attention.qkv.weight, attention.qkv.bias).chunk(3, dim=-1)
    )
    mixed = F.scaled_dot_product_attention(complex_rotary(q), complex_rotary(k), v)
    return F.linear(mixed.transpose(1, 2).flatten(2), attention.out.weight, attention.out.bias)


@pytest.mark.parametrize("shape", [(7, 2), (1, 4), (2, 3, 40, 16)])
def test_rotate_turns_complex_pairs(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    turned = rotate(x, rotary_turns(shape[-2], shape[-1], CPU))
    torch.testing.assert_close(turned, complex_rotary(x), atol=1e-5, rtol=1e-5)


def test_rotate_makes_scores_relative() -> None:
    q, k = torch.randn(8).expand(30, 8), torch.randn(8).expand(30, 8)
    turns = rotary_turns(30, 8, CPU)
    scores = rotate(q, turns) @ rotate(k, turns).T
    torch.testing.assert_close(scores[:-3, :-3], scores[3:, 3:], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(scores[0, 0], scores[0, 1], atol=1e-3)
    torch.testing.assert_close(rotate(q, turns).norm(dim=-1), q.norm(dim=-1))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_values_and_gradients_equal_torchs_kernel(num_heads: int, batch: int) -> None:
    attention = attention_of(num_heads)
    turns = rotary_turns(21, 16 // num_heads, CPU)
    inputs, outputs = [], []
    for attend in (lambda x: attention(x, turns), lambda x: by_torch(attention, x)):
        torch.manual_seed(1)
        attention.zero_grad()
        x = torch.randn(batch, 21, 16, dtype=torch.float64, requires_grad=True)
        found = attend(x)
        (found * torch.randn_like(found)).sum().backward()
        inputs.append(x)
        outputs.append([found.detach(), x.grad, *(parameter.grad for parameter in attention.parameters())])
    assert torch.equal(*inputs)
    # The angles are float32.
    for ours, theirs in zip(*outputs, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


def test_gradients_are_the_slopes() -> None:
    attention, turns = attention_of(2, width=8), rotary_turns(5, 4, CPU)
    x = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: attention(x, turns), (x,))


def test_without_positions_it_is_torchs_module() -> None:
    attention = attention_of(2)
    oracle = nn.MultiheadAttention(16, 2, batch_first=True).double()
    oracle.load_state_dict(
        {
            "in_proj_weight": attention.qkv.weight,
            "in_proj_bias": attention.qkv.bias,
            "out_proj.weight": attention.out.weight,
            "out_proj.bias": attention.out.bias,
        }
    )
    x = torch.randn(2, 13, 16, dtype=torch.float64)
    nowhere = torch.ones(13, 4, dtype=torch.float64), torch.zeros(13, 4, dtype=torch.float64)
    expected = oracle(x, x, x, need_weights=False)[0]
    torch.testing.assert_close(attention(x, nowhere), expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("bf16", [False, True])
def test_predicting_says_what_training_says(bf16: bool) -> None:
    """Without a backward pass, the weights of one window at a time are kept."""
    attention, turns = attention_of(2).float(), rotary_turns(30, 8, CPU)
    x = torch.randn(4, 30, 16)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16, cache_enabled=False):
        training = attention(x, turns)
        with torch.inference_mode():
            predicting = attention(x, turns)
    assert training.requires_grad
    assert training.dtype == (torch.bfloat16 if bf16 else torch.float32)
    assert torch.equal(training, predicting)


def test_bf16_is_near_and_the_same_each_time() -> None:
    attention, turns = attention_of(2, width=64).float(), rotary_turns(50, 32, CPU)
    x = torch.randn(2, 50, 64) / 4
    results = []
    for bf16 in (False, True, True):
        attention.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16, cache_enabled=False):
            found = attention(x, turns).float()
        found.square().sum().backward()
        results.append([found.detach(), *(parameter.grad.clone() for parameter in attention.parameters())])
    exact, first, second = results
    assert all(map(torch.equal, first, second))
    # bf16 keeps 8 bits; sums of 64 such products are good to a few per cent of the largest.
    for near, value in zip(first, exact, strict=True):
        assert (near - value).abs().max() < 0.05 * value.abs().max()


def test_second_derivatives_are_refused() -> None:
    attention, turns = attention_of(2), rotary_turns(5, 8, CPU)
    x = torch.randn(1, 5, 16, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(attention(x, turns).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()
