"""The head of pre-training, against loops over single tokens and bins."""

from __future__ import annotations

import pytest
import torch

from ebert_core.config import EncoderConfig
from ebert_core.model.heads import MaskedLanguageHead

TINY = EncoderConfig(width=16, num_layers=1, num_heads=2, stem_channels=8)
STATES = 7


def shaken(head: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_()
    return head


@pytest.mark.parametrize("token_bp", [5, 10, 50])
def test_base_logits_are_those_of_the_tokens_asked_for_in_order(token_bp: int) -> None:
    head = shaken(MaskedLanguageHead(TINY.model_copy(update={"token_bp": token_bp}), STATES))
    tokens, asked = torch.randn(3, 8, 16), [(2, 7), (0, 0), (1, 3), (0, 5)]
    logits = head.base_logits(tokens, torch.tensor([row * 8 + place for row, place in asked]))
    assert logits.shape == (4, token_bp, 4)
    for found, (row, place) in zip(logits, asked, strict=True):
        torch.testing.assert_close(found.flatten(), head.bases(tokens[row, place]))


@pytest.mark.parametrize("token_bp", [10, 50])
def test_state_logits_read_the_mean_of_the_bins_own_tokens(token_bp: int) -> None:
    head = shaken(MaskedLanguageHead(TINY.model_copy(update={"token_bp": token_bp}), STATES))
    per_bin = 200 // token_bp
    tokens = torch.randn(2, 5 * per_bin, 16)
    asked = [(0, 0), (1, 4), (0, 3), (1, 2)]
    logits = head.state_logits(tokens, torch.tensor([row * 5 + place for row, place in asked]))
    assert logits.shape == (4, STATES)
    for found, (row, place) in zip(logits, asked, strict=True):
        own = torch.stack([tokens[row, place * per_bin + i] for i in range(per_bin)])
        torch.testing.assert_close(found, head.states(own.mean(dim=0)), atol=1e-5, rtol=1e-5)


def test_nothing_masked_gives_no_logits() -> None:
    head = MaskedLanguageHead(TINY, STATES)
    nothing = torch.empty(0, dtype=torch.int64)
    assert head.base_logits(torch.randn(2, 20, 16), nothing).shape == (0, 10, 4)
    assert head.state_logits(torch.randn(2, 20, 16), nothing).shape == (0, STATES)


def test_only_what_is_asked_for_learns() -> None:
    head = shaken(MaskedLanguageHead(TINY, STATES))
    tokens = torch.randn(2, 40, 16, requires_grad=True)
    head.base_logits(tokens, torch.tensor([3, 41])).sum().backward()
    assert tokens.grad.abs().sum(dim=-1).nonzero().tolist() == [[0, 3], [1, 1]]
    tokens.grad = None
    head.state_logits(tokens, torch.tensor([2])).sum().backward()
    assert tokens.grad.abs().sum(dim=-1).nonzero().tolist() == [[1, place] for place in range(20)]
