"""A model's weights laid out for the bf16 products of a CPU: once, not at every product."""

from __future__ import annotations

import copy
import itertools
from typing import Final

import torch
from torch import Tensor, nn

from ebert_core.model.device import Device
from ebert_core.model.encoder import Block
from ebert_core.model.fusion import BindingModel

_EXACT_GELU: Final = "none"  # beside "tanh", its approximation


class PackedLinear(nn.Module):
    """A linear layer in bf16 with packed weights, and the GELU that follows it, if one does, before rounding to bf16.

    Args:
        layer: what it does.
        gelu: whether `nn.GELU()` comes next.
    """

    def __init__(self, layer: nn.Linear, *, gelu: bool = False) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().bfloat16().contiguous())
        self._bias = None if layer.bias is None else layer.bias.detach().bfloat16()
        self._activation = "gelu" if gelu else "none"

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> bf16 (..., outputs)."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise(
            x.bfloat16(), self._weight, self._bias, self._activation, [], _EXACT_GELU
        )
        return result


def can_pack(device: Device) -> bool:
    """Whether this PyTorch has packed bf16 products for the device."""
    operations = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    return (
        device.device.type == "cpu"
        and device.bf16
        and torch.backends.mkldnn.is_available()
        and all(hasattr(torch.ops.mkldnn, name) for name in operations)
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def packed(module: BindingModel, device: Device) -> BindingModel:
    """The model, for inference only, with the layers of its encoder's blocks packed; itself where they cannot be.

    It shares all other weights with `module`.
    """
    if not can_pack(device):
        return module
    tensors = itertools.chain(module.parameters(), module.buffers())
    twin = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    for block in twin.encoder.blocks:
        assert isinstance(block, Block)
        block.attention.register_module("qkv", PackedLinear(block.attention.qkv))
        block.attention.register_module("out", PackedLinear(block.attention.out))
        widen, _, narrow = block.mlp
        assert isinstance(widen, nn.Linear)
        assert isinstance(narrow, nn.Linear)
        block.mlp = nn.Sequential(PackedLinear(widen, gelu=True), PackedLinear(narrow))
    return twin
