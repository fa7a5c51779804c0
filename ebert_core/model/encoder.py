"""The paired-token encoder: DNA at base resolution and chromatin states at 200 bp become one row of tokens.

A token stands for `token_bp` bases. Its embedding is the sum of three parts: motif detectors run over single bases and
pooled to the token (they see motifs at any offset), the token's own bases spelt out (the language model must know them
exactly), and the chromatin state of the 200-bp bin it lies in. Then pre-norm transformer blocks. The encoder knows its
configuration and the number of states, and no data room.

Legend: B windows, W window_bp, L tokens, D width, S states.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ebert_core.config import EncoderConfig
from ebert_core.model.attention import Attention, Turns, rotary_turns
from ebert_core.vocabulary import BASE_MASKED, BASE_N, STATE_BIN_BP

# Indicator channels of the stem: A, C, G, T, masked. N has none.
_CHANNELS = 5
_STEM_GAIN = 0.25


class Stem(nn.Module):
    """Bases (B, W) -> token embeddings (B, L, D)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.token_bp = config.token_bp
        self.motifs = nn.Conv1d(
            _CHANNELS, config.stem_channels, config.stem_kernel_bp, padding=config.stem_kernel_bp // 2
        )
        self.from_motifs = nn.Linear(config.stem_channels, config.width)
        self.from_bases = nn.Linear(config.token_bp * _CHANNELS, config.width, bias=False)
        indicators = torch.zeros(BASE_MASKED + 1, _CHANNELS)
        indicators[:BASE_N, :BASE_N] = torch.eye(BASE_N)
        indicators[BASE_MASKED, BASE_N] = 1.0
        self.register_buffer("indicators", indicators, persistent=False)

    def forward(self, bases: Tensor) -> Tensor:
        batch, window_bp = bases.shape
        shown = F.embedding(bases.int(), self.get_buffer("indicators"))
        # An image of height 1 whose channels lie innermost, as the indicators do: on a CPU, convolution and pooling run
        # along contiguous channels then. Pooling before the activation leaves token_bp times less to activate.
        image = shown.transpose(1, 2).unsqueeze(2)
        kernels, reach = self.motifs.weight.unsqueeze(2), self.motifs.kernel_size[0] // 2
        responses = F.conv2d(image, kernels, self.motifs.bias, padding=(0, reach))
        detected = F.max_pool2d(responses, (1, self.token_bp)).squeeze(2).transpose(1, 2)
        spelt = shown.reshape(batch, window_bp // self.token_bp, self.token_bp * _CHANNELS)
        return self.from_motifs(F.gelu(detected)) + self.from_bases(spelt)


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, config.mlp_ratio * config.width),
            nn.GELU(),
            nn.Linear(config.mlp_ratio * config.width, config.width),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, turns: Turns) -> Tensor:
        """(B, L, D) and the turns of L positions -> (B, L, D)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), turns))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class Encoder(nn.Module):
    """The encoder.

    Args:
        config: its shape.
        num_states: states of the state model, S. State codes are 0 unknown, 1..S, S + 1 masked.
    """

    def __init__(self, config: EncoderConfig, num_states: int) -> None:
        super().__init__()
        self.config = config
        self.num_states = num_states
        self.stem = Stem(config)
        self.state_embedding = nn.Embedding(num_states + 2, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.width)
        self.apply(functools.partial(_initialise, num_layers=config.num_layers))

    def forward(self, bases: Tensor, states: Tensor, recompute: bool = False, beside: Tensor | None = None) -> Tensor:
        """Token representations.

        Args:
            bases: base codes, integer (B, W); W a multiple of 200.
            states: state codes, integer (B, W / 200).
            recompute: keep only the input of each block for the backward pass and compute the rest again: much less
                memory, a third more work.
            beside: added to the embeddings of every token of a 50-bp stride, (B, W / 50, D).

        Returns:
            (B, L, D) with L = W / token_bp.
        """
        x = self.stem(bases)
        by_bin = x.unflatten(1, (states.shape[1], STATE_BIN_BP // self.config.token_bp))
        x = (by_bin + self.state_embedding(states.int()).unsqueeze(2)).flatten(1, 2)
        if beside is not None:
            x = (x.unflatten(1, (beside.shape[1], -1)) + beside.unsqueeze(2)).flatten(1, 2)
        turns = rotary_turns(x.shape[1], self.config.width // self.config.num_heads, x.device)
        for block in self.blocks:
            x = checkpoint(block, x, turns, use_reentrant=False) if recompute else block(x, turns)
        return self.norm(x)


def initialise_linear(layer: nn.Linear, gain: float = 1.0) -> None:
    """Normal weights of variance gain^2 / inputs, no bias: outputs as large as inputs at any width.

    BERT's fixed 0.02 suits a width of 768; at 128 the signal fades from layer to layer (docs/lab-notes.md).
    """
    nn.init.normal_(layer.weight, std=gain * layer.in_features**-0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _initialise(module: nn.Module, num_layers: int) -> None:
    """Weights by the number of inputs; the residual branches' last layers shrunk by depth as in GPT-2."""
    if isinstance(module, nn.Linear):
        initialise_linear(module)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv1d):
        # Small detectors turn faster: the optimiser's steps have one size whatever the weight.
        nn.init.normal_(module.weight, std=_STEM_GAIN * module.kernel_size[0] ** -0.5)
        assert module.bias is not None
        nn.init.zeros_(module.bias)
    elif isinstance(module, Block):
        for last in (module.attention.out, module.mlp[2]):
            assert isinstance(last, nn.Linear)
            initialise_linear(last, gain=(2 * num_layers) ** -0.5)


def count_parameters(module: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
