"""Packed products: the same model to bf16 rounding, and its other weights are shared."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ebert_core.config import EncoderConfig, FusionConfig
from ebert_core.data.windows import Batch
from ebert_core.inference.packed import PackedLinear, can_pack, packed
from ebert_core.inference.scan import model_score
from ebert_core.model.device import Device
from ebert_core.model.encoder import Encoder
from ebert_core.model.fusion import BindingModel, BindingShape

BF16, FP32 = (Device(torch.device("cpu"), bf16) for bf16 in (True, False))
needs_packing = pytest.mark.skipif(not can_pack(BF16), reason="this CPU or PyTorch has no packed bf16 products")


@pytest.fixture
def module() -> BindingModel:
    torch.manual_seed(3)
    encoder = Encoder(EncoderConfig(width=64, num_layers=2, num_heads=2, stem_channels=16), 18)
    return BindingModel(encoder, 4, BindingShape(FusionConfig(width=32, num_layers=2))).eval()


@pytest.fixture
def batch() -> Batch:
    rng = np.random.default_rng(3)
    return Batch(rng.integers(0, 5, (3, 1_600), dtype=np.uint8), rng.integers(0, 19, (3, 8), dtype=np.uint8))


@needs_packing
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_packed_layer_is_the_layer_on_rounded_numbers(gelu: bool, bias: bool) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(48, 80, bias=bias)
    x = torch.randn(2, 5, 48)
    found = PackedLinear(layer, gelu=gelu)(x)
    assert found.dtype == torch.bfloat16
    expected = x.bfloat16().double() @ layer.weight.bfloat16().double().T
    expected = expected + (layer.bias.bfloat16().double() if bias else 0)
    if gelu:
        expected = expected * (1 + torch.erf(expected / 2**0.5)) / 2
    # bf16 keeps eight bits.
    torch.testing.assert_close(found.double(), expected, rtol=2**-7, atol=1e-3)


@needs_packing
def test_a_packed_model_is_as_near_to_fp32_as_an_unpacked_one(module: BindingModel, batch: Batch) -> None:
    exact = model_score(module, FP32, both_strands=True)(batch)
    rounded = model_score(module, BF16, both_strands=True)(batch)
    found = model_score(packed(module, BF16), BF16, both_strands=True)(batch)
    usual = np.abs(rounded - exact)
    assert 0 < np.abs(found - exact).mean() < 1.25 * usual.mean()
    assert np.abs(found - exact).max() < 2 * usual.max() < 0.1 * exact.std()


@needs_packing
def test_the_model_itself_stays_and_shares_what_is_not_packed(module: BindingModel) -> None:
    before = {name: value.clone() for name, value in module.state_dict().items()}
    twin = packed(module, BF16)
    assert twin is not module
    assert twin.head.out.weight.data_ptr() == module.head.out.weight.data_ptr()
    assert twin.listens == module.listens
    after = module.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert isinstance(twin.encoder.blocks[0].mlp[0], PackedLinear)


def test_in_fp32_nothing_is_packed(module: BindingModel) -> None:
    assert packed(module, FP32) is module
