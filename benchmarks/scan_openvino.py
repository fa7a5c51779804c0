"""benchmarks/scan.py --openvino: the encoder, which is nearly all of the scan's work, by OpenVINO and by PyTorch.

Both read the blocks of one long window on one thread in bf16. OpenVINO is given attention as plain products and a
softmax, which it fuses by itself. `differ` compares both with PyTorch in fp32, mean absolute difference of tokens.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scan_world import STATES, random_model
from torch import Tensor

from ebert_core.config import PRESETS, finetune_defaults
from ebert_core.inference.packed import packed
from ebert_core.model.attention import Attention, Turns, rotate
from ebert_core.model.device import choose_device
from ebert_core.vocabulary import STATE_BIN_BP

BLOCKS, BLOCK_BP = 32, 1_600


def traceable(attention: Attention, x: Tensor, turns: Turns) -> Tensor:
    """`Attention.forward` in operations that can be exported."""
    batch, length, width = x.shape
    q, k, v = attention.qkv(x).view(batch, length, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    weights = torch.softmax(rotate(q, turns) @ rotate(k, turns).transpose(2, 3) * q.shape[-1] ** -0.5, dim=-1)
    return attention.out((weights @ v).transpose(1, 2).reshape(batch, length, width))


def openvino(rounds: int) -> dict[str, Any]:
    """Blocks per second of each size and engine."""
    return {size: of_size(size, rounds) for size in ("tiny", "small")}


def of_size(size: str, rounds: int) -> dict[str, Any]:
    config = PRESETS[size].encoder
    finetune = finetune_defaults(config, motifs=True).model_copy(update={"trees": 0})
    module = random_model(config, finetune, num_tracks=6)
    device = choose_device("cpu", "bf16")
    rng = np.random.default_rng(0)
    bases = torch.from_numpy(rng.integers(0, 4, (BLOCKS, BLOCK_BP), dtype=np.uint8))
    states = torch.from_numpy(rng.integers(1, STATES + 1, (BLOCKS, BLOCK_BP // STATE_BIN_BP), dtype=np.uint8))
    twin = packed(module, device)

    def ours() -> Tensor:
        with torch.inference_mode(), device.autocast():
            return twin.encoder(bases, states)

    with torch.inference_mode():
        exact = module.encoder(bases, states).numpy()
    theirs = compiled(module.encoder, bases, states)
    engines: dict[str, Callable[[], Any]] = {"torch": ours, "openvino": theirs}
    found: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(rounds + 1):
        for name, run in engines.items():
            started = time.process_time()
            run()
            if number:
                found[name].append(BLOCKS / (time.process_time() - started))
    rates = {name: statistics.median(values) for name, values in found.items()}
    return {
        "blocks_per_s": {name: round(rate, 1) for name, rate in rates.items()},
        "openvino_vs_torch": round(rates["openvino"] / rates["torch"], 2),
        "differ": {
            "torch": round(float(np.abs(ours().float().numpy() - exact).mean()), 5),
            "openvino": round(float(np.abs(theirs() - exact).mean()), 5),
        },
    }


def compiled(encoder: torch.nn.Module, bases: Tensor, states: Tensor) -> Callable[[], Any]:
    """The encoder by OpenVINO; `ImportError` where there is none."""
    import openvino as ov

    forward, Attention.forward = Attention.forward, traceable  # type: ignore[method-assign]
    try:
        with torch.inference_mode():
            graph = ov.convert_model(encoder, example_input=(bases, states))
    finally:
        Attention.forward = forward  # type: ignore[method-assign]
    for place, shown in enumerate((bases, states)):
        graph.inputs[place].get_node().set_partial_shape(ov.PartialShape(list(shown.shape)))
    graph.validate_nodes_and_infer_types()
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    request = ov.Core().compile_model(graph, "CPU", settings).create_infer_request()
    inputs = {0: bases.numpy(), 1: states.numpy()}
    return lambda: request.infer(inputs)[0]
