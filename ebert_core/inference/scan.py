"""The dense scan: long windows over a chromosome, each 200-bp bin answered by exactly one of them.

The windows lie on a grid that is fixed to the chromosome, so a bin's value does not depend on the region that was asked
for. A window answers the bins of its core; the `context_bp` on either side of the core are only read. Beyond the ends
of a chromosome the window holds N and unknown states.

Legend: B windows, W window_bp, K bins of a core, N bins of a chromosome, T TFs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ebert_core.data.windows import Batch
from ebert_core.model.device import Device
from ebert_core.model.fusion import BindingModel
from ebert_core.vocabulary import BASE_N, BIN_BP, STATE_BIN_BP, STATE_UNKNOWN, STRIDE_BP

Score = Callable[[Batch], NDArray[np.float32]]
"""Windows (B, W) -> logits (B, (W - 200) / 50 + 1, T)."""

Tracks = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Starts of windows on the chromosome (may lie partly outside), (B,) -> their task features, (B, W / 50, F)."""


@dataclass(frozen=True)
class ScanGeometry:
    """Windows of a scan.

    Attributes:
        window_bp: a multiple of 200.
        context_bp: read but not answered at either side; a multiple of 200.
    """

    window_bp: int
    context_bp: int

    @property
    def core_bp(self) -> int:
        """Distance between windows: the largest multiple of 200 whose bins all have their context."""
        answerable = self.window_bp - 2 * self.context_bp - BIN_BP + STRIDE_BP
        return max(answerable // STATE_BIN_BP * STATE_BIN_BP, STATE_BIN_BP)

    @property
    def core_bins(self) -> int:
        """K."""
        return self.core_bp // STRIDE_BP


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


def model_score(module: BindingModel, device: Device, *, both_strands: bool) -> Score:
    """The scoring function of a model: logits of one strand, or their mean over both."""
    encode = module.listens

    def forward(batch: Batch) -> torch.Tensor:
        bases = torch.from_numpy(np.ascontiguousarray(batch.bases)).to(device.device)
        states = torch.from_numpy(np.ascontiguousarray(batch.states)).to(device.device)
        tracks = (
            None if batch.tracks is None else torch.from_numpy(np.ascontiguousarray(batch.tracks)).to(device.device)
        )
        with torch.inference_mode(), device.autocast():
            return module(bases, states, tracks, encode=encode).float()

    def score(batch: Batch) -> NDArray[np.float32]:
        logits = forward(batch)
        if both_strands:
            # Read on the other strand, the last bin of a window comes first.
            other = forward(batch.flipped(np.ones(len(batch.bases), dtype=bool)))
            logits = (logits + other.flip(1)) / 2
        return logits.cpu().numpy()

    return score
