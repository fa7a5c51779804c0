"""Learning rate and parameter groups, against torch's own schedulers."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ebert_core.config import EncoderConfig, OptimizerConfig
from ebert_core.model.checkpoint import BindingModel
from ebert_core.model.encoder import Encoder
from ebert_core.training.schedule import build_optimizer, learning_rate

fractions = st.floats(0, 1)


@given(st.integers(1, 300), fractions, fractions)
def test_rate_rises_then_falls_within_its_limits(steps: int, warmup: float, final: float) -> None:
    config = OptimizerConfig(learning_rate=0.01, warmup_fraction=warmup, final_fraction=final)
    rates = [learning_rate(step, steps, config) for step in range(steps + 5)]
    rising = max(1, round(warmup * steps))
    assert all(0 < rate <= 0.01 * (1 + 1e-12) for rate in rates[:steps])
    assert rates[rising - 1] == pytest.approx(0.01)
    assert all(later > earlier for earlier, later in itertools.pairwise(rates[:rising]))
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(rates[rising - 1 :]))
    assert rates[steps + 1] == pytest.approx(0.01 * final)


@pytest.mark.parametrize(("steps", "warmup", "final"), [(50, 0.1, 0.05), (40, 0.0, 0.0), (7, 0.5, 0.3)])
def test_rate_is_torchs_linear_then_cosine(steps: int, warmup: float, final: float) -> None:
    config = OptimizerConfig(learning_rate=0.2, warmup_fraction=warmup, final_fraction=final)
    rising = max(1, round(warmup * steps))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - rising, eta_min=0.2 * final)
    for step in range(steps):
        if step < rising:
            assert learning_rate(step, steps, config) == pytest.approx(0.2 * (step + 1) / rising)
        else:
            assert learning_rate(step, steps, config) == pytest.approx(cosine.get_last_lr()[0], abs=1e-9)
            optimizer.step()
            cosine.step()


@pytest.mark.parametrize(
    ("steps", "warmup", "decay", "final"), [(60, 0.1, 0.25, 0.1), (40, 0.0, 1.0, 0.0), (9, 0.5, 0.9, 0.2)]
)
def test_wsd_is_torchs_linear_constant_linear(steps: int, warmup: float, decay: float, final: float) -> None:
    """The schedulers of torch one after the other; a decay that would begin in the warm-up begins at its end."""
    config = OptimizerConfig(
        learning_rate=0.2, schedule="wsd", warmup_fraction=warmup, decay_fraction=decay, final_fraction=final
    )
    rising = max(1, round(warmup * steps))
    begin = max(rising, steps - round(decay * steps))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, final, total_iters=steps - begin)
    for step in range(steps):
        found = learning_rate(step, steps, config)
        if step < rising:
            assert found == pytest.approx(0.2 * (step + 1) / rising)
        elif step < begin:
            assert found == 0.2
        else:
            assert found == pytest.approx(falling.get_last_lr()[0], abs=1e-9)
            optimizer.step()
            falling.step()


@given(st.integers(1, 300), fractions, fractions, fractions)
def test_wsd_stays_within_its_limits(steps: int, warmup: float, decay: float, final: float) -> None:
    config = OptimizerConfig(
        learning_rate=0.01, schedule="wsd", warmup_fraction=warmup, decay_fraction=decay, final_fraction=final
    )
    rates = [learning_rate(step, steps, config) for step in range(steps + 5)]
    assert all(0 < rate <= 0.01 * (1 + 1e-12) for rate in rates[:steps])
    assert rates[steps + 1] == pytest.approx(0.01 * final)


def test_only_matrices_decay_and_every_parameter_learns_once() -> None:
    config = EncoderConfig(width=16, num_layers=2, num_heads=2, stem_channels=8)
    model = BindingModel(Encoder(config, 5), 2)
    optimizer = build_optimizer([(model.encoder, 0.25), (model.head, 1.0)], OptimizerConfig(weight_decay=0.3))
    grouped = [(p, group) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(id(p) for p, _ in grouped) == sorted(id(p) for p in model.parameters())
    in_encoder = {id(p) for p in model.encoder.parameters()}
    for parameter, group in grouped:
        assert group["weight_decay"] == (0.3 if parameter.dim() >= 2 else 0)
        assert group["share"] == (0.25 if id(parameter) in in_encoder else 1.0)


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    optimizer = build_optimizer([(model, 1.0)], OptimizerConfig())
    assert [p is model.weight for group in optimizer.param_groups for p in group["params"]] == [True]
