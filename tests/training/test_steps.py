"""Cuts of a global batch, and what a lack of memory says."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ebert_core.training.steps import cut, is_out_of_memory

sizes = st.integers(1, 40)


@given(sizes, st.integers(1, 9), sizes)
def test_every_example_is_in_one_piece_and_every_rank_makes_as_many_passes(batch: int, ranks: int, micro: int) -> None:
    pieces = [cut(batch, ranks, rank, micro) for rank in range(ranks)]
    assert len({len(of_rank) for of_rank in pieces}) == 1
    flat = list(itertools.chain(*pieces))
    assert [example for first, count in flat for example in range(first, first + count)] == list(range(batch))
    counts = [count for _, count in flat]
    assert max(counts) <= micro
    assert max(counts) - min(counts) <= 1
    assert len(pieces[0]) == -(-max(sum(count for _, count in of_rank) for of_rank in pieces) // micro), (
        "no more passes"
    )


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 9))
def test_a_batch_that_divides_is_cut_into_whole_micro_batches(parts: int, ranks: int, micro: int) -> None:
    """Then dropout's noise, which belongs to the piece, is the same on any number of ranks too."""
    batch = parts * ranks * micro
    together = [piece for rank in range(ranks) for piece in cut(batch, ranks, rank, micro)]
    assert together == cut(batch, 1, 0, micro) == [(first, micro) for first in range(0, batch, micro)]


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_a_lack_of_memory_looks_like(error: Exception, answer: bool) -> None:
    assert is_out_of_memory(error) is answer


def test_the_cpu_says_so_in_these_words() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
