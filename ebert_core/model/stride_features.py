"""Features of 50-bp strides that the sequence itself gives: motif hits and base composition.

They are computed from the bases a model is shown, never looked up, so that they follow a changed base, a variant or the
other strand.

Legend: B windows, W window_bp, n strides of a window, M motifs, K width of the widest motif.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ebert_core.vocabulary import BASE_MASKED, NUM_BASES, STRIDE_BP

_NUM_KNOTS: Final = 11
_KNOT_STEP: Final = 0.5
_TIE_BITS: Final = 1e-3
_AT_ONCE: Final = 16
# Mean of -log10 of a uniform number.
_USUAL_RARITY: Final = 0.4343


class MotifScan(nn.Module):
    """Bases -> how rare the best hit of every motif is that is centred in each stride, on either strand.

    A score in bits says little across motifs, and a network is slow to find the few highest of a motif that binds
    seldom. So a hit is shown as -log10 of the share of strides that have one as good.

    Args:
        log_odds: float32 (width, 4) of each motif: log2 of probability over background. None makes an empty scan of
            `shape`, to be filled from saved weights.
        shape: (M, K) where `log_odds` is None.

    Attributes (buffers, saved with the weights):
        kernels: (2 M, 4, K), the motifs and their reverse complements, centred.
        knots: (M, 11), the scores that 10^0, 10^-0.5 ... 10^-5 of the strides reach; see `learn_background`.
    """

    kernels: Tensor
    knots: Tensor

    def __init__(self, log_odds: Sequence[NDArray[np.float32]] | None, shape: tuple[int, int] = (0, 1)) -> None:
        super().__init__()
        if log_odds is not None:
            # An odd width, so that a kernel has a middle.
            shape = len(log_odds), max((len(each) for each in log_odds), default=1) | 1
        kernels = torch.zeros(2 * shape[0], NUM_BASES, shape[1])
        best = torch.ones(shape[0], 1)
        for number, each in enumerate(log_odds or ()):
            columns = torch.from_numpy(np.ascontiguousarray(each.T))
            first = (shape[1] - len(each)) // 2
            kernels[2 * number, :, first : first + len(each)] = columns
            # A motif of even width has no middle: the other strand's lies one bp further on, as it does when mirrored.
            first = shape[1] - first - len(each)
            kernels[2 * number + 1, :, first : first + len(each)] = columns.flip(0, 1)
            best[number] = float(each.max(axis=1).sum())
        self.register_buffer("kernels", kernels)
        # Until a background is learned: from half of the best possible score up to all of it.
        self.register_buffer("knots", best * torch.linspace(0.5, 1, _NUM_KNOTS))

    @property
    def num_motifs(self) -> int:
        """M."""
        return self.kernels.shape[0] // 2

    @torch.no_grad()
    def scores(self, shown: Tensor) -> Tensor:
        """Indicators of the bases, float (B, W, 4), 0 for unknown -> best hits in bits, float32 (B, n, M)."""
        image = shown.transpose(1, 2).unsqueeze(2)
        kernels = self.kernels.unsqueeze(2)
        # In bf16 scores are rounded more coarsely than the knots of a short motif lie apart.
        with torch.autocast(shown.device.type, enabled=False):
            scores = F.conv2d(image, kernels.to(image.dtype), padding=(0, kernels.shape[3] // 2))
        best = F.max_pool2d(scores, (1, STRIDE_BP)).squeeze(2).transpose(1, 2)
        return best.float().unflatten(2, (self.num_motifs, 2)).amax(dim=3)

    @torch.no_grad()
    def learn_background(self, bases: Tensor) -> None:
        """Set the knots from base codes of stretches of a genome, (B, W): some 10^5 strides for the rarest."""
        parts = [self.scores(base_indicators(part)).flatten(0, 1) for part in bases.split(_AT_ONCE)]
        scores = torch.cat(parts).sort(dim=0, descending=True).values
        ranks = (10.0 ** (-_KNOT_STEP * torch.arange(_NUM_KNOTS)) * len(scores)).long().clamp(max=len(scores) - 1)
        # Scores are sums of few terms: ties are parted, so that there is a line between any two knots.
        self.knots.copy_(scores[ranks].T + _TIE_BITS * torch.arange(_NUM_KNOTS))

    @torch.no_grad()
    def forward(self, shown: Tensor) -> Tensor:
        """Indicators of the bases, float (B, W, 4), 0 for unknown -> float32 (B, n, M).

        -0.4 for a hit that all strides have, 4.6 for one that 10^-5 of them reach or fewer.
        """
        if not self.num_motifs:
            return shown.new_zeros(shown.shape[0], shown.shape[1] // STRIDE_BP, 0, dtype=torch.float32)
        scores = self.scores(shown)
        flat = scores.flatten(0, 1).T.contiguous()
        above = torch.searchsorted(self.knots, flat).clamp(1, _NUM_KNOTS - 1)
        low, high = self.knots.gather(1, above - 1), self.knots.gather(1, above)
        share = ((flat - low) / (high - low)).clamp(0, 1)
        rarity = _KNOT_STEP * (above - 1 + share)
        return (rarity.T - _USUAL_RARITY).reshape(scores.shape)


class Composition(nn.Module):
    """Indicators of the bases -> the shares of G or C and of CpG in each stride, centred and scaled for hg19."""

    def forward(self, shown: Tensor) -> Tensor:
        """Float (B, W, 4) -> float32 (B, n, 2); CpGs that cross into the next stride do not count."""
        strides = shown.float().unflatten(1, (-1, STRIDE_BP))
        gc = strides[..., 1:3].sum(dim=(2, 3)) / STRIDE_BP
        cpg = (strides[:, :, :-1, 1] * strides[:, :, 1:, 2]).sum(dim=2) / STRIDE_BP
        return torch.stack([(gc - 0.42) / 0.12, (cpg - 0.01) / 0.01], dim=-1)


def base_indicators(bases: Tensor) -> Tensor:
    """Base codes (B, W) -> float32 (B, W, 4): 1 at the base's place; all 0 for N and for masked bases."""
    table = torch.zeros(BASE_MASKED + 1, NUM_BASES, device=bases.device)
    table[:NUM_BASES] = torch.eye(NUM_BASES, device=bases.device)
    return F.embedding(bases.int(), table)
