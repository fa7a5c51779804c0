"""What a pre-training run would take, before it is begun; nothing is written.

Counted: parameters, tokens, work. Measured on this device: the time of up to 20 steps of one micro-batch each, of the
optimiser, and the bytes that a forward pass keeps for the backward one.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from ebert_core.config import PretrainConfig
from ebert_core.model.device import Device
from ebert_core.model.encoder import count_parameters
from ebert_core.training.loop import Surroundings
from ebert_core.training.pretrain import (
    MaskedLanguageObjective,
    PretrainData,
    build_model,
    flops_per_window,
    step_config,
)
from ebert_core.training.progress import measured_peak, synchronise
from ebert_core.training.steps import Stepper

_STEPS: Final = 20
_WARM_UP: Final = 2
# A probe that takes longer ends with the step in hand.
_MOST_SECONDS: Final = 60.0
_BYTES_PER_WEIGHT: Final = 4
# AdamW keeps two moments of each weight.
_MOMENTS: Final = 2


def dry_run(data: PretrainData, config: PretrainConfig, around: Surroundings) -> dict[str, Any]:
    """What the run would take.

    Returns:
        Tables `run`, `pass`, `memory_bytes` and `probe`. A pass shows each base of each epigenome once: as many tokens
        as the training windows of all cell types cover together. `seconds` are those of training steps; evaluations and
        resume points come on top.
    """
    device, ranks = around.device, around.ranks
    num_states = len(data.dataset.require_state_model().states)
    module = build_model(config, num_states, device)
    num_parameters = count_parameters(module)
    objective = MaskedLanguageObjective(data, config, module, device)
    activations = _kept_bytes(objective, device, min(config.micro_batch, -(-config.global_batch // ranks.size)))
    one_pass = replace(step_config(config), global_batch=min(config.global_batch, config.micro_batch * ranks.size))
    stepper = Stepper(objective, one_pass, device, ranks, reporter=around.reporter)
    timed, pass_seconds, move_seconds = _timed_steps(stepper, device, around)
    tokens_per_window = config.window_bp // config.encoder.token_bp
    flops = flops_per_window(config, num_states)
    windows_per_pass = covered_bp(objective.starts, config.window_bp) * len(data.cells) / config.window_bp
    step_seconds = pass_seconds * config.global_batch / one_pass.global_batch + move_seconds
    steps_per_pass = windows_per_pass / config.global_batch
    peak = measured_peak(device) * ranks.size
    work = config.global_batch * flops
    return {
        "run": {
            "device": device.describe(),
            "ranks": ranks.size,
            "parameters": num_parameters,
            "tokens_per_step": config.global_batch * tokens_per_window,
            "flops_per_token": flops / tokens_per_window,
            "flops_per_step": work,
            "steps": config.steps,
            "passes": config.steps / steps_per_pass,
            "seconds": config.steps * step_seconds,
        },
        "pass": {
            "pairs": objective.num_windows,
            "tokens": windows_per_pass * tokens_per_window,
            "flops": windows_per_pass * flops,
            "steps": steps_per_pass,
            "seconds": steps_per_pass * step_seconds,
        },
        "memory_bytes": {
            "weights_and_gradients": 2 * _BYTES_PER_WEIGHT * num_parameters,
            "optimiser": _MOMENTS * _BYTES_PER_WEIGHT * num_parameters,
            "activations": activations,
            "data": objective.store.num_bytes,
            "peak_on_gpu": torch.cuda.max_memory_allocated() if device.device.type == "cuda" else None,
        },
        "probe": {
            "steps": timed,
            "micro_batch": stepper.micro_batch,
            "seconds_per_step": step_seconds,
            "tokens_per_second": config.global_batch * tokens_per_window / step_seconds,
            "peak_flops_per_second": peak,
            "mfu": work / (step_seconds * peak),
        },
    }


def covered_bp(starts: np.ndarray, window_bp: int) -> int:
    """Bases in at least one of the windows that begin at `starts`."""
    return int(np.minimum(np.diff(np.sort(starts)), window_bp).sum()) + window_bp


def _kept_bytes(objective: MaskedLanguageObjective, device: Device, micro_batch: int) -> int:
    """Bytes of the tensors that a micro-batch's forward pass keeps for the backward one, beside the weights."""
    known = {parameter.untyped_storage().data_ptr() for parameter in objective.module.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def measured(windows: int) -> int:
        kept.clear()
        batch = objective.draw(0, 0, windows)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), device.autocast():
            objective.losses(batch)
        return sum(kept.values())

    # Two points: beside what grows with the windows, the weights' bf16 copies are kept once.
    one = measured(1)
    return one if micro_batch == 1 else one + (micro_batch - 1) * (measured(2) - one)


def _timed_steps(stepper: Stepper, device: Device, around: Surroundings) -> tuple[int, float, float]:
    """(steps timed, median seconds of a step's forward and backward pass, and of its optimiser)."""
    learned, moved, begin = [], [], time.perf_counter()
    with around.reporter.task("probing", _WARM_UP + _STEPS, "steps") as advance:
        for step in range(_WARM_UP + _STEPS):
            started = time.perf_counter()
            stepper.learn(step)
            synchronise(device)
            middle = time.perf_counter()
            stepper.apply(step)
            synchronise(device)
            learned.append(middle - started)
            moved.append(time.perf_counter() - middle)
            advance(1)
            if around.ranks.largest(int(time.perf_counter() - begin > _MOST_SECONDS))[0]:
                break
    # The first steps pay for what later ones find ready.
    kept = slice(_WARM_UP if len(learned) > _WARM_UP else 0, None)
    return len(learned[kept]), float(np.median(learned[kept])), float(np.median(moved[kept]))
