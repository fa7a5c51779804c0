"""Heads on the encoder: fill in masked bases and states, and say where TFs bind.

Legend: B windows, L tokens, D width, M state bins, S states, T TFs, n strides of a window.
"""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebert_core.config import EncoderConfig
from ebert_core.model.encoder import initialise_linear
from ebert_core.vocabulary import BIN_BP, NUM_BASES, STATE_BIN_BP, STRIDE_BP, STRIDES_PER_BIN

_INITIAL_LOGIT: Final = -2.5


class MaskedLanguageHead(nn.Module):
    """Says the bases of masked tokens, base by base, and the states of masked bins."""

    def __init__(self, config: EncoderConfig, num_states: int) -> None:
        super().__init__()
        self.token_bp = config.token_bp
        self.bases = nn.Sequential(
            nn.Linear(config.width, config.width),
            nn.GELU(),
            nn.LayerNorm(config.width),
            nn.Linear(config.width, config.token_bp * NUM_BASES),
        )
        self.states = nn.Linear(config.width, num_states)
        for layer in (self.bases[0], self.bases[3], self.states):
            assert isinstance(layer, nn.Linear)
            initialise_linear(layer)

    def base_logits(self, tokens: Tensor, masked: Tensor) -> Tensor:
        """Logits of the bases of some tokens, in the order asked for.

        Args:
            tokens: (B, L, D), what the encoder gave.
            masked: int64 (K,), places of `tokens.flatten(0, 1)`: token l of window b is b * L + l.

        Returns:
            (K, token_bp, 4), in the precision of the matrix products.
        """
        return self.bases(tokens.flatten(0, 1).index_select(0, masked)).view(-1, self.token_bp, NUM_BASES)

    def state_logits(self, tokens: Tensor, masked: Tensor) -> Tensor:
        """Logits of the states of some 200-bp bins, read off the mean of a bin's own tokens.

        Args:
            tokens: (B, L, D), what the encoder gave.
            masked: int64 (K,), places among the B * M bins: bin m of window b is b * M + m.

        Returns:
            (K, S), in the precision of the matrix products; column s is state code s + 1.
        """
        bins = tokens.view(-1, STATE_BIN_BP // self.token_bp, tokens.shape[-1])
        return self.states(bins.index_select(0, masked).mean(dim=1))


class BindingHead(nn.Module):
    """One logit per 200-bp bin and TF: tokens are pooled to 50-bp strides, a bin pools its four strides.

    A bin is bound when something in it is, so strides meet in a log-sum-exp with one learned offset per place.
    """

    def __init__(self, config: EncoderConfig, num_tfs: int) -> None:
        super().__init__()
        self.tokens_per_stride = STRIDE_BP // config.token_bp
        self.hidden = nn.Linear(2 * config.width, config.width)
        self.out = nn.Linear(config.width, num_tfs)
        self.place = nn.Parameter(torch.zeros(STRIDES_PER_BIN))
        for layer in (self.hidden, self.out):
            initialise_linear(layer)
        # Few bins are bound; a head that begins by saying so does not spend its first steps on it.
        nn.init.constant_(self.out.bias, _INITIAL_LOGIT - math.log(STRIDES_PER_BIN))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L, D) -> logits (B, n - 3, T) of the bins that begin at strides 0 .. n - 4 of the window."""
        batch, _, width = tokens.shape
        strides = tokens.view(batch, -1, self.tokens_per_stride, width)
        pooled = torch.cat([strides.mean(dim=2), strides.amax(dim=2)], dim=-1)
        logits = self.out(F.gelu(self.hidden(pooled))).float()
        return (logits.unfold(1, STRIDES_PER_BIN, 1) + self.place).logsumexp(dim=-1)


def num_bins(window_bp: int) -> int:
    """Bins that lie wholly in a window."""
    return (window_bp - BIN_BP) // STRIDE_BP + 1
