"""Boosted trees on the task features: a second opinion beside the network's, of another kind.

A tree asks three questions, each whether one number is above a threshold, and has a leaf for each of the eight answers.

Legend: B windows, n strides of a window, F channels of task features, K states, P numbers of a bin, T TFs, M trees of a
TF, N bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebert_core.vocabulary import STATE_BIN_BP, STRIDE_BP, STRIDES_PER_BIN

DEPTH: Final = 3
NODES: Final = 2**DEPTH - 1
LEAVES: Final = 2**DEPTH
# Strides to either side of a bin over which its surroundings are taken: the best within 200 bp, the mean within 1 kb.
_NEAR: Final = 4
_AROUND: Final = 20
# Bins overlap and a peak binds several, while trees answer for each on its own: their noise is averaged over
# neighbours, those at distances 0, 1, 2 with these weights (docs/lab-notes.md).
_NEIGHBOURS: Final = (3, 2, 1)
NEIGHBOURS: Final = len(_NEIGHBOURS) - 1
"""Bins to either side of one whose answers have a say in its log-odds."""
REACH: Final = _AROUND + NEIGHBOURS
"""Strides to either side of a bin that have a say in its log-odds."""
NUMBERS_OF_A_CHANNEL: Final = 3
"""P is so many times F + K."""
# Bins at a time: on a CPU so few that their answers stay in a core's cache.
_AT_ONCE: Final = {"cpu": 512, "cuda": 8_192}


def bin_numbers(features: Tensor, states: Tensor, num_states: int) -> Tensor:
    """What a tree may ask about the bins at strides 0 .. n - 4, the same on both strands.

    Of every channel of the task features, and of whether a stride is in a state: the largest value in the bin, the
    largest within 200 bp, the mean within 1 kb. Beyond a window's ends there is nothing.

    Args:
        features: (B, n, F).
        states: state codes (B, n / 4), 0 unknown.

    Returns:
        float32 (B, n - 3, P).
    """
    codes = states.long().repeat_interleave(STATE_BIN_BP // STRIDE_BP, dim=1)
    shown = F.one_hot(codes, num_states + 1)[..., 1:].float()
    channels = torch.cat([features.float(), shown], dim=-1).transpose(1, 2)
    here = F.max_pool1d(channels, STRIDES_PER_BIN, 1)
    near = F.max_pool1d(F.pad(channels, (_NEAR, _NEAR)), STRIDES_PER_BIN + 2 * _NEAR, 1)
    around = F.avg_pool1d(F.pad(channels, (_AROUND, _AROUND)), STRIDES_PER_BIN + 2 * _AROUND, 1)
    return torch.cat([here, near, around], dim=1).transpose(1, 2)


def averaged(told: Tensor, informed: Tensor) -> Tensor:
    """Answers of consecutive bins, each averaged with its neighbours', as far as there are such that are informed.

    Args:
        told: of the trees, (B, K, T).
        informed: bool (B, K, 1).

    Returns:
        float32 (B, K, T); 0 where nothing near a bin is informed.
    """
    weights, there = torch.zeros_like(told[..., :1]), informed.to(told.dtype)
    total, told = torch.zeros_like(told), torch.where(informed, told, 0.0)
    for apart, weight in enumerate(_NEIGHBOURS):
        before, behind = slice(max(told.shape[1] - apart, 0)), slice(apart, None)
        for to, of in ((before, behind), (behind, before)) if apart else ((before, before),):
            total[:, to] += weight * told[:, of]
            weights[:, to] += weight * there[:, of]
    return total / weights.clamp(min=1)


class Trees(nn.Module):
    """M trees per TF; their sum is a log-odds.

    What is unknown looks to a tree like what is closed, so trees have no say where a cell type lacks what they were
    fitted to: its accessibility, or its states.

    Args:
        num_tfs, num_trees: T, M.

    Attributes:
        needs: int32 (2,): the channel of the task features that says whether the cell type's own accessibility is
            known, -1 if they do without; and whether the bin's state must be known.
        asked: which number each question is about, int32 (T, M, 7); question 0 first, then 1 or 2, then 3 .. 6.
        threshold: float32 (T, M, 7).
        value: of the leaves, float32 (T, M, 8).
        base: float32 (T,).
        share: of the trees in the model's log-odds, float32 (T,), 0 to 1; the rest is the network's.
    """

    needs: Tensor
    asked: Tensor
    threshold: Tensor
    value: Tensor
    base: Tensor
    share: Tensor

    def __init__(self, num_tfs: int, num_trees: int) -> None:
        super().__init__()
        self.register_buffer("needs", torch.tensor([-1, 0], dtype=torch.int32))
        self.register_buffer("asked", torch.zeros(num_tfs, num_trees, NODES, dtype=torch.int32))
        self.register_buffer("threshold", torch.full((num_tfs, num_trees, NODES), torch.inf))
        self.register_buffer("value", torch.zeros(num_tfs, num_trees, LEAVES))
        self.register_buffer("base", torch.zeros(num_tfs))
        self.register_buffer("share", torch.full((num_tfs,), 0.5))

    def forward(self, numbers: Tensor, tfs: Sequence[int] | None = None) -> Tensor:
        """(..., P) -> log-odds, float32 (..., T), of the TFs of these numbers; None is all."""
        flat, tfs = numbers.reshape(-1, numbers.shape[-1]), range(len(self.value)) if tfs is None else tfs
        found = self._by_numpy(flat, tfs) if flat.device.type == "cpu" else self._by_torch(flat, tfs)
        return found.unflatten(0, numbers.shape[:-1])

    def _by_numpy(self, numbers: Tensor, tfs: Sequence[int]) -> Tensor:
        """(N, P) -> (N, T). PyTorch would share out each of many short steps among its threads: twice the time alone,
        and many times that beside another program."""
        asked, threshold = (each.numpy() for each in self._by_question())
        values, trees = self.value.numpy(), np.arange(self.value.shape[1])[:, None] * LEAVES
        found = np.empty((len(numbers), len(tfs)), dtype=np.float32)
        for first in range(0, len(numbers), _AT_ONCE["cpu"]):
            some = slice(first, first + _AT_ONCE["cpu"])
            columns = np.ascontiguousarray(numbers[some].numpy().T)
            for row, place in enumerate(tfs):
                leaf = _leaf(columns.take(asked[place], axis=0) > threshold[place], np.uint8) + trees
                found[some, row] = values[place].ravel().take(leaf).sum(axis=0) + self.base[place].item()
        return torch.from_numpy(found)

    def _by_torch(self, numbers: Tensor, tfs: Sequence[int]) -> Tensor:
        """The same where the tensors lie."""
        asked, threshold = self._by_question()
        found = []
        for part in numbers.split(_AT_ONCE["cuda"]):
            columns, by_tf = part.t().contiguous(), []
            for place in tfs:
                leaf = _leaf(columns.index_select(0, asked[place]) > threshold[place], torch.uint8).long()
                by_tf.append(self.value[place].gather(1, leaf).sum(dim=0) + self.base[place])
            found.append(torch.stack(by_tf, dim=1))
        return torch.cat(found)

    def _by_question(self) -> tuple[Tensor, Tensor]:
        """`asked` (T, 7 M) and `threshold` (T, 7 M, 1): all trees' first questions, then all their second ones."""
        return self.asked.transpose(1, 2).flatten(1), self.threshold.transpose(1, 2).flatten(1)[..., None]

    def silent(self) -> Tensor:
        """Whether a TF's trees were left without answers, bool (T,)."""
        return (self.value == 0).flatten(1).all(dim=1)

    def informed(self, features: Tensor, states: Tensor) -> Tensor:
        """Whether a window shows what the trees need of the bins at strides 0 .. n - 4, bool (B, n - 3, 1).

        Args:
            features: (B, n, F).
            states: state codes (B, n / 4), 0 unknown.
        """
        strides = (states != 0).repeat_interleave(STATE_BIN_BP // STRIDE_BP, dim=1)
        found = strides.unfold(1, STRIDES_PER_BIN, 1).any(dim=-1) | (self.needs[1] == 0)
        if features.shape[-1]:
            own = features.index_select(-1, self.needs[:1].clamp(min=0))[:, : found.shape[1], 0]
            found = found & ((own > 0) | (self.needs[0] < 0))
        return found[..., None]


def _leaf(above: Any, code: Any) -> Any:
    """Answers to the questions, (7 M, N) of NumPy or PyTorch -> the leaf's number, (M, N) of type `code`."""
    q = above.reshape(NODES, -1, above.shape[-1])
    first = q[0]
    second = _either(first, q[2], q[1])
    third = _either(first, _either(second, q[6], q[5]), _either(second, q[4], q[3]))
    return 4 * first.view(code) + 2 * second.view(code) + third.view(code)


def _either(condition: Any, if_true: Any, if_false: Any) -> Any:
    return (condition & if_true) | (~condition & if_false)
