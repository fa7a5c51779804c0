"""Self-attention over the tokens of a window, with rotary positions (Su et al. 2021).

No padding exists, so there is no mask. A GPU has a fused kernel; a CPU is faster with the products written out.

Legend: B windows, L tokens, D width, H heads, d = D / H channels of a head.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ebert_core.config import EncoderConfig

Turns = tuple[Tensor, Tensor]


def rotary_turns(length: int, head_width: int, device: torch.device) -> Turns:
    """Cosines and sines by which position turns a head's channels, each float32 (L, d / 2).

    Channel c and channel c + d / 2 are one complex number; position p turns it by p * 10000^(-2c / d).
    """
    rates = 10_000.0 ** (-torch.arange(0, head_width, 2, device=device, dtype=torch.float32) / head_width)
    angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * rates
    return angles.cos(), angles.sin()


def rotate(x: Tensor, turns: Turns) -> Tensor:
    """Turn the channels of (..., L, d) by their positions."""
    cos, sin = (table.to(x.dtype) for table in turns)
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


class Attention(nn.Module):
    """Every token of a window reads all of them."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, turns: Turns) -> Tensor:
        """(B, L, D) and the turns of L positions -> (B, L, D)."""
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.num_heads, -1)
        if x.device.type == "cpu":
            return self.out(_WindowByWindow.apply(qkv, *turns))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(rotate(q, turns), rotate(k, turns), v)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class _WindowByWindow(torch.autograd.Function):
    """Attention for the CPU: explicit products, one window after the other.

    In bf16 the fused kernel is the slow path there (docs/lab-notes.md). The L x L weights of one window stay in the
    cache between the product that makes them and the product that reads them; those of a whole batch do not.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(B, L, 3, H, d) and the turns -> (B, L, D)."""
        batch, length, _, heads, channels = qkv.shape
        cos, sin = _scaled(cos, sin, channels, qkv.dtype)
        parts = qkv.permute(2, 0, 3, 1, 4)
        q, k = turned = _turn(parts[:2], cos, sin, qkv.new_empty(2, *parts.shape[1:]))
        v = parts[2].contiguous()
        # Predicting needs the weights of one window at a time, a backward pass those of all.
        weights = qkv.new_empty(batch if ctx.needs_input_grad[0] else 1, heads, length, length)
        scores, mixed = torch.empty_like(weights[0]), torch.empty_like(v)
        for b in range(batch):
            torch.bmm(q[b], k[b].transpose(1, 2), out=scores)
            kept = torch.softmax(scores, dim=-1, out=weights[b % len(weights)])
            torch.bmm(kept, v[b], out=mixed[b])
        ctx.save_for_backward(turned, v, weights, cos, sin)
        return mixed.transpose(1, 2).reshape(batch, length, heads * channels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        turned, v, weights, cos, sin = ctx.saved_tensors
        batch, heads, length, channels = v.shape
        q, k = turned
        grad = grad.reshape(batch, length, heads, channels).transpose(1, 2).contiguous()
        grad_turned, grad_v = torch.empty_like(turned), torch.empty_like(v)
        grad_weights, grad_scores = torch.empty_like(weights[0]), torch.empty_like(weights[0])
        for b in range(batch):
            torch.bmm(weights[b].transpose(1, 2), grad[b], out=grad_v[b])
            torch.bmm(grad[b], v[b].transpose(1, 2), out=grad_weights)
            torch._softmax_backward_data(grad_weights, weights[b], -1, grad.dtype, grad_input=grad_scores)
            torch.bmm(grad_scores, k[b], out=grad_turned[0, b])
            torch.bmm(grad_scores.transpose(1, 2), q[b], out=grad_turned[1, b])
        grad_qkv = grad.new_empty(batch, length, 3, heads, channels)
        parts = grad_qkv.permute(2, 0, 3, 1, 4)
        _turn(grad_turned, cos, -sin, parts[:2])
        parts[2].copy_(grad_v)
        return grad_qkv, None, None


def _scaled(cos: Tensor, sin: Tensor, channels: int, dtype: torch.dtype) -> Turns:
    """Turns for queries and keys at once, (2, 1, 1, L, d) and (2, 1, 1, L, d / 2); those of the queries also hold the
    d^-0.5 of the scores."""
    scale = cos.new_tensor([channels**-0.5, 1.0]).view(2, 1, 1, 1, 1)
    return (scale * torch.cat([cos, cos], dim=-1)).to(dtype), (scale * sin).to(dtype)


def _turn(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> Tensor:
    """`rotate` into a given tensor."""
    half = x.shape[-1] // 2
    torch.mul(x, cos, out=out)
    out[..., :half].addcmul_(x[..., half:], sin, value=-1)
    out[..., half:].addcmul_(x[..., :half], sin)
    return out
