"""Learning rate and optimiser: pure functions of the step and of the configuration."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from ebert_core.config import OptimizerConfig


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """Rate of 0-based `step` of `steps`: linear warm-up, then a cosine from the peak to its final fraction."""
    warmup = max(1, round(config.warmup_fraction * steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.learning_rate * (config.final_fraction + (1 - config.final_fraction) * cosine)


def build_optimizer(groups: Iterable[tuple[nn.Module, float]], config: OptimizerConfig) -> torch.optim.AdamW:
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
            parameter_groups.append({"params": chosen, "weight_decay": decay, "share": share})
    return torch.optim.AdamW(parameter_groups, lr=config.learning_rate, betas=(0.9, 0.98), eps=1e-8, fused=True)
