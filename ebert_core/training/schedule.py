"""Learning rate and optimiser: pure functions of the step and of the configuration."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from ebert_core.config import OptimizerConfig


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """Rate of 0-based `step` of `steps`: a linear warm-up, then what `config.schedule` says.

    `cosine` falls along half a cosine from the peak to its final fraction (Loshchilov & Hutter 2017). `wsd` (warm-up,
    stable, decay; Hu et al. 2024) stays at the peak and falls in a straight line over the last `decay_fraction` of all
    steps; a decay that would begin within the warm-up begins at its end.
    """
    warmup = max(1, round(config.warmup_fraction * steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    begin = warmup if config.schedule == "cosine" else max(warmup, steps - round(config.decay_fraction * steps))
    progress = min(1.0, max(0.0, (step - begin) / max(1, steps - begin)))
    left = 0.5 * (1 + math.cos(math.pi * progress)) if config.schedule == "cosine" else 1 - progress
    return config.learning_rate * (config.final_fraction + (1 - config.final_fraction) * left)


def build_optimizer(groups: Iterable[tuple[nn.Module, float]], config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW over (module, share of the learning rate); matrices decay, vectors and embeddings' rows of one do not.

    Each parameter group carries its share as `group["share"]`; the loop multiplies it by the step's rate.
    """
    parameter_groups = []
    for module, share in groups:
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for decay, chosen in (
            (config.weight_decay, [p for p in parameters if p.dim() >= 2]),
            (0.0, [p for p in parameters if p.dim() < 2]),
        ):
            if chosen:
                parameter_groups.append({"params": chosen, "weight_decay": decay, "share": share})
    return torch.optim.AdamW(parameter_groups, lr=config.learning_rate, betas=(0.9, 0.98), eps=1e-8, fused=True)
