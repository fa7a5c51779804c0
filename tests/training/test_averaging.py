"""The average of the weights: by hand, and that a stop never leaves it in the module."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

from ebert_core.training import averaging
from ebert_core.training.averaging import AveragedWeights


def test_it_is_the_recurrence_by_hand():
    module = nn.Linear(1, 1, bias=False)
    average = AveragedWeights(module, 0.5)
    expected = module.weight.item()
    for step in range(1, 30):
        with torch.no_grad():
            module.weight += 1
        average.update(step)
        keep = min(0.5, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * module.weight.item()
    assert average.values[0].item() == pytest.approx(expected)


@pytest.mark.parametrize("stop", ["nowhere", "within", "on the way out"])
def test_a_stop_leaves_the_own_weights(monkeypatch, stop):
    module = nn.Linear(3, 2)
    average = AveragedWeights(module, 0.9)
    with torch.no_grad():
        module.weight += 1
    own = module.weight.detach().clone()

    @contextlib.contextmanager
    def too_late():
        raise KeyboardInterrupt
        yield

    with contextlib.suppress(KeyboardInterrupt), average.applied():
        assert not torch.equal(module.weight, own)
        if stop == "within":
            raise KeyboardInterrupt
        if stop == "on the way out":
            monkeypatch.setattr(averaging, "uninterrupted", too_late)
    monkeypatch.undo()
    average.put_back()
    assert torch.equal(module.weight, own)
    with torch.no_grad():
        module.weight += 1
    average.put_back()  # once is enough
    assert torch.equal(module.weight, own + 1)
