"""Choosing where to compute."""

from __future__ import annotations

import os

import pytest
import torch

from ebert_core.errors import EbertError
from ebert_core.model import device as device_module
from ebert_core.model.device import Precision, choose_device, set_threads


@pytest.mark.parametrize("name", ["gpu", "mps", "meta", "cuda:x", ""])
def test_unknown_devices_are_refused(name: str) -> None:
    with pytest.raises(EbertError, match="device") as caught:
        choose_device(name)
    assert "cpu" in caught.value.hint


def test_a_run_never_falls_back_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EbertError, match="no GPU"):
        choose_device("cuda")
    assert choose_device("auto").device.type == "cpu"


@pytest.mark.parametrize(("flags", "bf16"), [("sse avx512_bf16", True), ("amx_bf16", True), ("sse avx512f", False)])
def test_auto_takes_bf16_where_the_cpu_has_it(monkeypatch: pytest.MonkeyPatch, flags: str, bf16: bool) -> None:
    monkeypatch.setattr(device_module, "_cpu_flags", lambda: frozenset(flags.split()))
    assert choose_device("cpu").bf16 is bf16
    assert choose_device("cpu", "bf16").bf16 is True
    assert choose_device("cpu", "fp32").bf16 is False


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_precision_of_products(precision: str, dtype: torch.dtype) -> None:
    chosen = choose_device("cpu", precision)
    with chosen.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    assert chosen.describe() == f"cpu ({torch.get_num_threads()} threads), {precision}"


@pytest.mark.parametrize("shape", [(300, 768, 256), (2, 64, 100)])
def test_fp32_products_are_fp32(shape: tuple[int, int, int]) -> None:
    """Whatever library computes them: bf16 products would be wrong in the third digit."""
    rows, inner, columns = shape
    left, right = torch.randn(rows, inner), torch.randn(inner, columns)
    exact = left.double() @ right.double()
    with choose_device("cpu", "fp32").autocast():
        error = ((left @ right).double() - exact).abs().max() / exact.abs().max()
    assert error < 1e-5


@pytest.mark.parametrize(
    ("flags", "precision", "mode"),
    [("avx512f", "fp32", "medium"), ("amx_bf16", "fp32", "highest"), ("avx512_bf16", "bf16", "highest")],
)
def test_products_are_never_rounded_unasked(
    monkeypatch: pytest.MonkeyPatch, flags: str, precision: Precision, mode: str
) -> None:
    monkeypatch.setattr(device_module, "_cpu_flags", lambda: frozenset(flags.split()))
    torch.set_float32_matmul_precision("highest")
    choose_device("cpu", precision)
    assert torch.get_float32_matmul_precision() == mode


def test_threads() -> None:
    before = torch.get_num_threads()
    try:
        set_threads(2)
        assert torch.get_num_threads() == 2
        set_threads(None)
        assert torch.get_num_threads() == len(os.sched_getaffinity(0))
    finally:
        torch.set_num_threads(before)


def test_an_interrupted_context_leaves_no_stale_weights() -> None:
    """Ctrl-C may cut the exit of a context; a later run of the same process must still see its weights change."""
    chosen = choose_device("cpu", "bf16")
    lost = chosen.autocast()
    lost.__enter__()
    try:
        layer, x = torch.nn.Linear(2, 2), torch.ones(1, 2)
        with chosen.autocast():
            before = layer(x)
        with torch.no_grad():
            layer.weight.add_(1.0)
        with chosen.autocast():
            assert not torch.equal(layer(x), before)
    finally:
        lost.__exit__(None, None, None)
