"""The head of pre-training: fills in masked bases and states.

Legend: B windows, L tokens, D width, M state bins, S states.
"""

from __future__ import annotations

from torch import Tensor, nn

from ebert_core.config import EncoderConfig
from ebert_core.model.encoder import initialise_linear
from ebert_core.vocabulary import NUM_BASES, STATE_BIN_BP


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
