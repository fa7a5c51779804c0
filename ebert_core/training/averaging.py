"""The running average of the weights: smoother than the weights themselves, so often the better model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ebert_core.training.interrupts import uninterrupted


class AveragedWeights:
    """Exponential moving average of a module's trained parameters.

    Args:
        module: whose parameters are averaged.
        decay: share of the old average that a step keeps, once the run is old enough for it.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._decay = decay
        self.values = [parameter.detach().clone() for parameter in self._parameters]
        self._own: list[Tensor] = []

    def update(self, step: int) -> None:
        """Take in the weights after 1-based `step`; young runs forget faster, so that the first weights fade."""
        keep = min(self._decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for value, parameter in zip(self.values, self._parameters, strict=True):
                value.lerp_(parameter.detach(), 1 - keep)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The module holds the average within the block, and its own weights again after it."""
        self._own = [parameter.detach().clone() for parameter in self._parameters]
        try:
            self._fill(self.values)
            yield
        finally:
            self.put_back()

    def put_back(self) -> None:
        """The module holds its own weights; whoever saves calls this, for a stop may have come just before it here."""
        with uninterrupted():
            if self._own:
                self._fill(self._own)
                self._own = []

    def _fill(self, values: list[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self._parameters, values, strict=True):
                parameter.copy_(value)
