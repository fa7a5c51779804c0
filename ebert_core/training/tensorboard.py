"""The journal's figures for TensorBoard, an optional extra."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ebert_core.errors import EbertError


class TensorBoard:
    """A listener of the journal that writes every number as a scalar called `event/name`.

    A resumed run takes some steps again. What the folder holds of its first step and of later ones is no longer shown.

    Raises:
        EbertError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise EbertError(
                "TensorBoard is not installed", "pip install 'ebert[tensorboard]', or leave out --tensorboard"
            ) from None
        self._make, self._folder = SummaryWriter, folder
        self._writer: Any = None

    def __call__(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        if self._writer is None:
            self._writer = self._make(str(self._folder), purge_step=step)
        for name, value in scalars(event, values).items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()


def scalars(prefix: str, values: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of an event, those of its tables included: {'train/loss': 1.3, 'train/speed/mfu': 0.4}."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= scalars(f"{prefix}/{name}", value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[f"{prefix}/{name}"] = float(value)
    return found
