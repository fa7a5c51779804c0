"""Where the encoder's tokens and the task features meet: layers at 50-bp strides, and the TFs' outputs on them.

Legend: B windows, W window_bp, L tokens, D width, n strides of a window, F track channels, M motifs, T TFs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ebert_core.config import FusionConfig
from ebert_core.model.encoder import Encoder, initialise_linear
from ebert_core.model.stride_features import Composition, MotifScan, base_indicators
from ebert_core.model.trees import NEIGHBOURS, REACH, Trees, averaged, bin_numbers
from ebert_core.vocabulary import BIN_BP, STATE_BIN_BP, STRIDE_BP, STRIDES_PER_BIN

# Of PyTorch or of NumPy.
Logits = TypeVar("Logits", Tensor, NDArray[np.float32])
_INITIAL_LOGIT: Final = -2.5
# Strides between a convolution's taps, layer by layer, then again from the start: 31 strides to either side in five.
_DILATIONS: Final = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class BindingShape:
    """Shape of what stands on the encoder.

    Attributes:
        fusion: its layers.
        composition: whether it reads the strides' composition.
        motifs: (number, width of the widest) of the motifs it reads; (0, 1) for none.
        num_tracks: F, channels of the task features that are handed in; 0 for none.
        num_trees: boosted trees of a TF, beside the network; 0 for none.
    """

    fusion: FusionConfig = field(default_factory=FusionConfig)
    composition: bool = False
    motifs: tuple[int, int] = (0, 1)
    num_tracks: int = 0
    num_trees: int = 0

    @property
    def num_features(self) -> int:
        """Channels of all task features of a stride."""
        return self.motifs[0] + 2 * self.composition + self.num_tracks


class StrideBlock(nn.Module):
    """A residual convolution over three strides, some strides apart."""

    def __init__(self, config: FusionConfig, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.norm = nn.LayerNorm(config.width)
        self.taps = nn.Linear(3 * config.width, config.width)
        self.out = nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)
        initialise_linear(self.taps)
        initialise_linear(self.out, gain=0.3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, D) -> (B, n, D); beyond the ends there is nothing, 0."""
        padded, d = F.pad(self.norm(x), (0, 0, self.dilation, self.dilation)), self.dilation
        # As one matrix product: a CPU's convolution over so few strides is several times slower.
        taps = torch.cat([padded[:, : -2 * d], padded[:, d:-d], padded[:, 2 * d :]], dim=-1)
        return x + self.dropout(self.out(F.gelu(self.taps(taps))))


class BindingModel(nn.Module):
    """Encoder, task features, layers at strides, and one logit per 200-bp bin and TF.

    A bin is bound when something in it is, so its four strides meet in a log-sum-exp with one learned offset per place.

    Args:
        encoder: pre-trained or fresh.
        num_tfs: T.
        shape: of the rest.
        motifs: the scan of `shape.motifs`; None makes one to be filled from saved weights.
    """

    def __init__(
        self, encoder: Encoder, num_tfs: int, shape: BindingShape | None = None, motifs: MotifScan | None = None
    ) -> None:
        super().__init__()
        shape = shape or BindingShape()
        self.encoder, self.shape = encoder, shape
        self.motifs = motifs or MotifScan(None, shape.motifs)
        self.composition = Composition()
        self.head = BindingHead(encoder.config.width, encoder.num_states, num_tfs, shape)

    def forward(self, bases: Tensor, states: Tensor, tracks: Tensor | None = None, *, encode: bool = True) -> Tensor:
        """Logits of the bins that begin at strides 0 .. n - 4 of the window.

        Args:
            bases: base codes, integer (B, W).
            states: state codes, integer (B, W / 200).
            tracks: task features, float (B, n, F); None where the shape has none.
            encode: whether the encoder has a say. Before its first step with one, it has none anyway.

        Returns:
            float32 (B, n - 3, T).
        """
        features = self.features(bases, tracks)
        tokens = None
        if encode:
            early = self.head.early(features) if self.head.early is not None else None
            tokens = self.tokens_of(bases, states, early)
        logits: Tensor = self.head(tokens, features, states)
        return logits

    def tokens_of(self, bases: Tensor, states: Tensor, early: Tensor | None) -> Tensor:
        """Tokens (B, L, D) of windows that the encoder reads in blocks, each on its own."""
        batch, window_bp = bases.shape
        block_bp = self.shape.fusion.encoder_bp
        if not block_bp or window_bp <= block_bp:
            tokens: Tensor = self.encoder(bases, states, beside=early)
            return tokens
        # Blocks are as long as can be with equal lengths that are multiples of 200.
        bins = window_bp // STATE_BIN_BP
        most = max(1, block_bp // STATE_BIN_BP)
        blocks = next(number for number in range(-(-bins // most), bins + 1) if bins % number == 0)
        tokens = self.encoder(
            bases.reshape(batch * blocks, -1),
            states.reshape(batch * blocks, -1),
            beside=None if early is None else early.reshape(batch * blocks, -1, early.shape[-1]),
        )
        return tokens.reshape(batch, -1, tokens.shape[-1])

    def grow(self, trees: Trees) -> None:
        """Add trees that were fitted to this model's task features."""
        self.head.trees = trees
        self.shape = replace(self.shape, num_trees=trees.value.shape[1])

    @property
    def listens(self) -> bool:
        """Whether the head listens to the encoder at all; before its first step with the encoder it does not."""
        return bool(self.head.from_tokens.weight.any())

    def keep_tfs(self, num_tfs: int) -> None:
        """Drop all outputs but the first; those were learned beside, to help the encoder."""
        out = self.head.out
        if num_tfs < out.out_features:
            kept = nn.Linear(out.in_features, num_tfs, device=out.weight.device)
            kept.weight.data.copy_(out.weight[:num_tfs])
            kept.bias.data.copy_(out.bias[:num_tfs])
            self.head.out = kept

    def features(self, bases: Tensor, tracks: Tensor | None) -> Tensor:
        """All task features of the strides, float32 (B, n, F + M + 2)."""
        found = [] if tracks is None else [tracks.float()]
        if self.shape.composition or self.shape.motifs[0]:
            shown = base_indicators(bases)
            if self.shape.composition:
                found.append(self.composition(shown))
            found.append(self.motifs(shown))
        if not found:
            return torch.zeros(bases.shape[0], bases.shape[1] // STRIDE_BP, 0, device=bases.device)
        return torch.cat(found, dim=-1)


class BindingHead(nn.Module):
    """Tokens and task features -> logits."""

    def __init__(self, encoder_width: int, num_states: int, num_tfs: int, shape: BindingShape) -> None:
        super().__init__()
        width, config = shape.fusion.width, shape.fusion
        self.feature_dropout = config.feature_dropout
        self.from_tokens = nn.Linear(2 * encoder_width, width)
        self.from_features: nn.Module | None = None
        self.early: nn.Module | None = None
        if shape.num_features:
            self.from_features = _linear(shape.num_features, width)
            self.from_states = nn.Embedding(num_states + 1, width)
            nn.init.normal_(self.from_states.weight, std=0.1)
            if config.early:
                self.early = _linear(shape.num_features, encoder_width)
        if shape.motifs[0]:
            # What the features say is learned first; the encoder adds to it, beginning with nothing.
            nn.init.zeros_(self.from_tokens.weight)
            nn.init.zeros_(self.from_tokens.bias)
        else:
            initialise_linear(self.from_tokens)
        self.mix = _linear(width, width)
        self.blocks = nn.Sequential(
            *(StrideBlock(config, _DILATIONS[i % len(_DILATIONS)]) for i in range(config.num_layers))
        )
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, num_tfs)
        self.place = nn.Parameter(torch.zeros(STRIDES_PER_BIN))
        self.num_states = num_states
        self.trees = Trees(num_tfs, shape.num_trees) if shape.num_trees else None
        initialise_linear(self.out)
        # Few bins are bound; a head that begins by saying so does not spend its first steps on it.
        nn.init.constant_(self.out.bias, _INITIAL_LOGIT - math.log(STRIDES_PER_BIN))

    @property
    def reach(self) -> int:
        """Strides to either side of a bin that have a say in it, the encoder left out."""
        layers = sum(block.dilation for block in self.blocks if isinstance(block, StrideBlock))
        return layers if self.trees is None else max(layers, REACH)

    def forward(self, tokens: Tensor | None, features: Tensor, states: Tensor) -> Tensor:
        """Logits of the bins at strides 0 .. n - 4, float32 (B, n - 3, T); arguments as of `network`."""
        return self.with_trees(self.network(tokens, features, states), features, states)

    def with_trees(
        self,
        logits: Tensor,
        features: Tensor,
        states: Tensor,
        *,
        tfs: Sequence[int] | None = None,
        bins: Tensor | None = None,
    ) -> Tensor:
        """The network's logits and the trees', each with its share, where trees have a say; the logits where not.

        Args:
            logits: of the network, (B, K, T).
            features, states: of the windows, as of `network`.
            tfs: numbers of the TFs that the logits are of; None is all.
            bins: strides at which the bins begin that the logits are of, (B, K); None is all of a window's.
        """
        if self.trees is None:
            return logits
        answers, informed = self.tree_answers(features, states, tfs, bins)
        share = self.trees.share if tfs is None else self.trees.share[list(tfs)]
        return torch.where(informed, mixed(logits, answers, share), logits)

    def tree_answers(
        self, features: Tensor, states: Tensor, tfs: Sequence[int] | None = None, bins: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits of the trees, float32 (B, K, T), and whether they have a say, bool (B, K, 1); as of `with_trees`."""
        assert self.trees is not None
        numbers = bin_numbers(features, states, self.num_states)
        informed = self.trees.informed(features, states)
        if bins is None:
            return averaged(self.trees(numbers, tfs), informed), informed
        # The asked bins, those between them, and their neighbours; none beyond the window's ends has a say.
        first = bins.amin(dim=1, keepdim=True) - NEIGHBOURS
        length = int((bins - first).max()) + 1 + NEIGHBOURS
        near = first + torch.arange(length, device=bins.device)
        there = (near >= 0) & (near < numbers.shape[1])
        rows, at = torch.arange(len(bins), device=bins.device)[:, None], near.clamp(0, numbers.shape[1] - 1)
        answers = averaged(self.trees(numbers[rows, at], tfs), informed[rows, at] & there[..., None])
        return answers[rows, bins - first], informed[rows, bins]

    def network(self, tokens: Tensor | None, features: Tensor, states: Tensor) -> Tensor:
        """Logits without the trees' say.

        Args:
            tokens: of the encoder, (B, L, D); None leaves it out.
            features: (B, n, features).
            states: state codes, (B, W / 200).

        Returns:
            float32 (B, n - 3, T).
        """
        if self.training and self.feature_dropout:
            shown = torch.rand(features.shape[0], 1, features.shape[2], device=features.device) >= self.feature_dropout
            features = features * shown
        parts = []
        if tokens is not None:
            strides = tokens.unflatten(1, (features.shape[1], -1))
            parts.append(self.from_tokens(torch.cat([strides.mean(dim=2), strides.amax(dim=2)], dim=-1)))
        if self.from_features is not None:
            by_bin = self.from_states(states.int()).unsqueeze(2)
            by_bin = by_bin.expand(-1, -1, STATE_BIN_BP // STRIDE_BP, -1)
            parts += [self.from_features(features), by_bin.flatten(1, 2)]
        x = torch.stack(parts).sum(dim=0) if len(parts) > 1 else parts[0]
        x = x + self.mix(F.gelu(x))
        logits = self.out(self.norm(self.blocks(x))).float()
        return (logits.unfold(1, STRIDES_PER_BIN, 1) + self.place).logsumexp(dim=-1)


def mixed(network: Logits, trees: Logits, share: Logits) -> Logits:
    """Of network and trees, (..., T), with the trees' share, (T,). NumPy's are PyTorch's to the bit."""
    return network + share * (trees - network)


def num_bins(window_bp: int) -> int:
    """Bins that lie wholly in a window."""
    return (window_bp - BIN_BP) // STRIDE_BP + 1


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    initialise_linear(layer)
    return layer
