"""The scores of an ensemble: its members' logits side by side, or their mean.

Legend: B windows, W window_bp, n bins of a window, M members, T TFs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ebert_core.data.windows import Batch
from ebert_core.inference.scan import Score, model_score
from ebert_core.model.device import Device
from ebert_core.model.fusion import BindingModel


def members_score(
    members: Sequence[BindingModel], device: Device, *, both_strands: bool, tfs: Sequence[int] | None = None
) -> Score:
    """Windows -> logits (B, n, M * T): the TFs of these numbers of the first member, then of the next."""
    scores = [model_score(member, device, both_strands=both_strands, tfs=tfs) for member in members]

    def score(batch: Batch) -> NDArray[np.float32]:
        return np.concatenate([each(batch) for each in scores], axis=-1)

    return scores[0] if len(scores) == 1 else score


def mean_score(members: Sequence[BindingModel], device: Device, *, both_strands: bool) -> Score:
    """Windows -> the members' mean logits (B, n, T)."""
    joint = members_score(members, device, both_strands=both_strands)

    def score(batch: Batch) -> NDArray[np.float32]:
        return by_member(joint(batch), len(members)).mean(axis=-2)

    return joint if len(members) == 1 else score


def by_member(logits: NDArray[np.float32], members: int) -> NDArray[np.float32]:
    """(..., M * T) -> (..., M, T)."""
    return logits.reshape(*logits.shape[:-1], members, -1)
