"""The dense scan: long windows over a chromosome, each 200-bp bin answered by exactly one of them.

The windows lie on a grid that is fixed to the chromosome, so a bin's value does not depend on the region that was asked
for. A window answers the bins of its core; the `context_bp` on either side of the core are only read. Beyond the ends
of a chromosome the window holds N and unknown states.

A model whose encoder reads blocks, each on its own, gives a bin the same logits in any window that holds the same
blocks and all that the layers at strides reach. So its windows here begin and end with blocks that are fixed to the
chromosome, and may be longer than those of its training, with less to read twice, or shorter where few bins are asked.

Legend: B windows, W window_bp, n strides of a window, K bins of a core, N bins of a chromosome, T TFs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ebert_core.data.windows import Batch
from ebert_core.genome.intervals import Positions
from ebert_core.model.device import Device
from ebert_core.model.fusion import BindingModel
from ebert_core.vocabulary import BASE_N, BIN_BP, STATE_BIN_BP, STATE_UNKNOWN, STRIDE_BP, reverse_complement

# bp of a pass of the model. On a CPU the products run at their full rate from about here on, and no activation of the
# usual sizes is over the 32 MB that glibc keeps for reuse (benchmarks/scan.py).
_PASS_BP: Final = {"cpu": 51_200, "cuda": 409_600}

Score = Callable[[Batch], NDArray[np.float32]]
"""Windows (B, W) -> logits (B, (W - 200) / 50 + 1, T)."""

Tracks = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Starts of windows on the chromosome (may lie partly outside), (B,) -> their task features, (B, W / 50, F)."""


@dataclass(frozen=True)
class ScanGeometry:
    """Windows of a scan.

    Attributes:
        window_bp: a multiple of `grid_bp`.
        context_bp: read but not answered at either side; a multiple of `grid_bp`.
        grid_bp: windows begin at its multiples: 200, or the blocks of an encoder that reads a window in such.
    """

    window_bp: int
    context_bp: int
    grid_bp: int = STATE_BIN_BP

    @property
    def core_bp(self) -> int:
        """Distance between windows: the largest multiple of `grid_bp` whose bins all have their context."""
        answerable = self.window_bp - 2 * self.context_bp - BIN_BP + STRIDE_BP
        return max(answerable // self.grid_bp * self.grid_bp, self.grid_bp)

    @property
    def core_bins(self) -> int:
        """K."""
        return self.core_bp // STRIDE_BP

    def windows_at_once(self, device: Device) -> int:
        """Windows of a pass of the model."""
        return max(1, _PASS_BP[device.device.type] // self.window_bp)

    def read_bp(self, bins: Positions) -> int:
        """How many bp the windows hold that answer the bins of these numbers."""
        return len(np.unique(bins // self.core_bins)) * self.window_bp


def scan_geometries(module: BindingModel, trained: ScanGeometry) -> tuple[ScanGeometry, ...]:
    """The windows in which a scan may show a model a chromosome; the answers are the same to rounding.

    Args:
        module: the model.
        trained: the windows of its training.

    Returns:
        Long ones, then short ones for bins that lie apart; `trained` alone where the encoder reads a window as a whole.
    """
    block = module.shape.fusion.encoder_bp
    if not block or trained.window_bp <= block:
        return (trained,)
    reach = module.head.reach * STRIDE_BP
    # The features of a window's first stride miss what lies before it. Shown to the encoder, all of its block knows.
    blocks = -(-max(trained.context_bp, reach) // block) + (module.head.early is not None)
    # One block more than the core and its context, for the last bins' further strides.
    long = max(_PASS_BP["cpu"] // block, 2 * blocks + 2)
    return tuple(ScanGeometry(number * block, blocks * block, block) for number in (long, 2 * blocks + 2))


def scan(
    score: Score,
    bases: NDArray[np.uint8],
    states: NDArray[np.uint8] | None,
    wanted: NDArray[np.bool_],
    geometry: ScanGeometry,
    batch_windows: int,
    tracks: Tracks | None = None,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Score the wanted bins of one chromosome, a few windows at a time.

    Args:
        score: the model.
        bases: base codes of the chromosome, shape (length,).
        states: state codes, shape (ceil(length / 200),); None for unknown everywhere.
        wanted: bins to score, shape (N,).
        geometry: window and context.
        batch_windows: windows per call of `score`.
        tracks: task features; None where the model reads none.

    Yields:
        (bin indices, logits) of wanted bins, shapes (n,) and (n, T); every wanted bin exactly once, in order.
    """
    num_windows = -(-len(wanted) // geometry.core_bins)
    padded = np.zeros(num_windows * geometry.core_bins, dtype=bool)
    padded[: len(wanted)] = wanted
    per_window = padded.reshape(num_windows, geometry.core_bins)
    busy = np.flatnonzero(per_window.any(axis=1))
    context_strides = geometry.context_bp // STRIDE_BP
    for first in range(0, len(busy), batch_windows):
        windows = busy[first : first + batch_windows]
        starts = windows * geometry.core_bp - geometry.context_bp
        batch = gather(bases, states, starts, geometry.window_bp)
        logits = score(batch if tracks is None else replace(batch, tracks=tracks(starts)))
        core = logits[:, context_strides : context_strides + geometry.core_bins]
        chosen = per_window[windows]
        bins = windows[:, None] * geometry.core_bins + np.arange(geometry.core_bins)
        yield bins[chosen], core[chosen]


def gather(
    bases: NDArray[np.uint8], states: NDArray[np.uint8] | None, starts: NDArray[np.int64], window_bp: int
) -> Batch:
    """Windows at `starts` (multiples of 200, may lie partly outside), with N and unknown beyond the ends."""
    at = starts[:, None] + np.arange(window_bp)
    window = bases[np.clip(at, 0, len(bases) - 1)]
    window[(at < 0) | (at >= len(bases))] = BASE_N
    shown = np.full((len(starts), window_bp // STATE_BIN_BP), STATE_UNKNOWN, dtype=np.uint8)
    if states is not None:
        bins = starts[:, None] // STATE_BIN_BP + np.arange(window_bp // STATE_BIN_BP)
        inside = (bins >= 0) & (bins < len(states))
        shown[inside] = states[bins[inside]]
    return Batch(window, shown)


def model_score(module: BindingModel, device: Device, *, both_strands: bool, tfs: Sequence[int] | None = None) -> Score:
    """The scoring function of a model: logits of one strand, or their mean over both.

    Args:
        tfs: numbers of the TFs whose logits are given, in their order; None is all.
    """

    def score(batch: Batch) -> NDArray[np.float32]:
        with torch.inference_mode(), device.autocast():
            logits, features, states = _network(module, device, batch, both_strands=both_strands)
            if tfs is not None:
                logits = logits[..., tfs]
            # Trees answer the same on both strands.
            logits = module.head.with_trees(logits, features, states, tfs=tfs)
        return logits.cpu().numpy()

    return score


def opinions_score(module: BindingModel, device: Device) -> Score:
    """What a model with trees makes its logits of, float32 (B, n - 3, T, 2): the network's, the mean over both strands,
    and the trees', or the network's again where trees have no say."""

    def score(batch: Batch) -> NDArray[np.float32]:
        with torch.inference_mode(), device.autocast():
            logits, features, states = _network(module, device, batch, both_strands=True)
            answers, informed = module.head.tree_answers(features, states)
            answers = torch.where(informed, answers, logits)
        return torch.stack([logits, answers], dim=-1).cpu().numpy()

    return score


def _network(
    module: BindingModel, device: Device, batch: Batch, *, both_strands: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The network's logits of one strand or their mean over both, the task features, and the states of windows."""
    bases, states = _tensor(batch.bases, device), _tensor(batch.states, device)
    tracks = None if batch.tracks is None else _tensor(batch.tracks, device)
    encode = module.listens
    features = module.features(bases, tracks)
    logits = _logits(module, bases, states, features, encode=encode)
    if both_strands:
        # Read on the other strand, the last bin of a window comes first. Task features are of both strands anyway: a
        # stride has the same.
        other = _tensor(reverse_complement(batch.bases), device)
        turned = _logits(module, other, states.flip(1), features.flip(1), encode=encode)
        logits = (logits + turned.flip(1)) / 2
    return logits, features, states


def _logits(module: BindingModel, bases: Tensor, states: Tensor, features: Tensor, *, encode: bool) -> Tensor:
    """`BindingModel.forward` without trees and with task features that are known already, float32 (B, n - 3, T)."""
    tokens = None
    if encode:
        early = None if module.head.early is None else module.head.early(features)
        tokens = module.tokens_of(bases, states, early)
    logits: Tensor = module.head.network(tokens, features, states)
    return logits.float()


def _tensor(array: NDArray[np.generic], device: Device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device.device)
