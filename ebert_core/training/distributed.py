"""One run on several processes ("ranks"): who they are, how they talk, and how the model is spread over them.

Ranks are started by torchrun, by `ebert pretrain --devices` or by a batch system; all set the variables RANK,
WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. Tensors on a GPU travel by NCCL, everything else by gloo.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from ebert_core.config import Parallel
from ebert_core.errors import EbertError
from ebert_core.training.interrupts import AnotherRankFailed
from ebert_core.training.launch import LAUNCHED

# A rank that hears nothing for so long gives up. Saving and a share of an evaluation must fit in.
_TIMEOUT: Final = timedelta(minutes=15)
_ERRORS, _LEFT = "ebert/errors", "ebert/left"
_FAREWELL_SECONDS: Final = 3.0

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run. With `size` 1 nothing is sent anywhere.

    Attributes:
        rank: 0-based number of this process. Rank 0 writes and speaks.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def add_up(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def largest(self, *values: int) -> list[int]:
        """Of each value the largest over the ranks."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return [int(value) for value in tensor.tolist()]

    def share(self, value: T) -> T:
        """Rank 0's value."""
        if self.size == 1:
            return value
        holder: list[Any] = [value]
        dist.broadcast_object_list(holder, src=0, device=torch.device("cpu"))
        found: T = holder[0]
        return found

    def collect(self, value: T) -> list[T]:
        """The values of all ranks, by rank."""
        if self.size == 1:
            return [value]
        holder: list[Any] = [None] * self.size
        dist.all_gather_object(holder, value)
        return holder


ALONE: Final = Ranks()


def asked_ranks() -> int:
    """How many ranks the environment speaks of; 1 where none was started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextlib.contextmanager
def joined(timeout: timedelta = _TIMEOUT) -> Iterator[Ranks]:
    """Join the ranks that the environment speaks of, and leave them at the end.

    An error on any rank ends all of them with one message: the first rank to fail speaks, the others, cut off from it
    or having met the same fault, leave with `AnotherRankFailed`.
    """
    if asked_ranks() == 1:
        yield ALONE
        return
    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise EbertError(
            f"WORLD_SIZE = {asked_ranks()} asks for several ranks, but {missing[0]} is not set",
            "start them with torchrun or with --devices",
        )
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=timeout))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    except (dist.DistError, RuntimeError, ValueError) as error:
        raise EbertError(
            f"rank {os.environ['RANK']} could not join the others ({_first_line(error)})",
            "check MASTER_ADDR and MASTER_PORT, and that all ranks were started",
        ) from None
    try:
        yield Ranks(rank, size)
    except Exception as error:
        raise _explained(error, store, rank, size) from (None if isinstance(error, EbertError) else error)
    finally:
        with contextlib.suppress(Exception):
            dist.destroy_process_group()
        with contextlib.suppress(Exception):
            _say_farewell(store, rank, size)


def _explained(error: Exception, store: Any, rank: int, size: int) -> Exception:
    """What this rank leaves with: its own error where it is the first to fail."""
    try:
        first = store.add(_ERRORS, 1) == 1
    except Exception:
        first = "TORCHELASTIC_RUN_ID" not in os.environ  # rank 0 held the store, and is gone without a word
    lost = isinstance(error, dist.DistError) or (type(error) is RuntimeError and _is_of_the_network(str(error)))
    if not first or (lost and LAUNCHED in os.environ):
        return AnotherRankFailed("another rank failed")
    if lost:
        return EbertError(
            f"rank {rank} of {size} lost another rank ({_first_line(error)})",
            "it was killed, or its machine is gone; the same command with --resume goes on from the last resume point",
        )
    if isinstance(error, EbertError) and rank:
        error.message = f"rank {rank}: {error.message}"
    return error


def _is_of_the_network(text: str) -> bool:
    return any(word in text for word in ("gloo", "Gloo", "NCCL", "Connection closed", "Connection reset"))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]


def _say_farewell(store: Any, rank: int, size: int) -> None:
    """Keep the store of rank 0 open until the others have left or have had the time to."""
    if not rank:
        until = time.monotonic() + _FAREWELL_SECONDS
        while store.add(_LEFT, 0) < size - 1 and time.monotonic() < until:
            time.sleep(0.01)
    else:
        store.add(_LEFT, 1)


def spread(module: nn.Module, ranks: Ranks, how: Parallel, device: torch.device) -> nn.Module:
    """The module whose forward and backward work on all ranks; `module` itself on one.

    `ddp`: every rank holds all weights, and the gradients are averaged while the backward pass goes on. `fsdp`: every
    rank holds a share of each block's weights, gradients and moments, and gathers a block when it is needed (FSDP2);
    the parameters of `module` become shards in place.
    """
    if ranks.size == 1:
        return module
    if how == "ddp":
        with warnings.catch_warnings():
            # The newer name of this argument is missing in the oldest torch that we run on.
            warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
            return DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True)
    mesh = init_device_mesh(device.type, (ranks.size,))
    for blocks in [part for part in module.modules() if isinstance(part, nn.ModuleList)]:
        for block in blocks:
            fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module


def forget_gathered(module: nn.Module) -> None:
    """Drop what a forward pass without a backward one left gathered; nothing where there are no shards.

    FSDP keeps the outermost weights gathered after a forward pass, for the backward one. Where none comes and the
    shards change (a running average is taken out again), the next forward pass would read the old weights.
    """
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def whole(tensor: Tensor) -> Tensor:
    """A shard's whole tensor (all ranks must ask for it); any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, sample: Tensor) -> Tensor:
    """A whole tensor, known to every rank, as a shard where `sample` is one."""
    if not isinstance(sample, DTensor):
        return tensor
    place = tensor.to(sample.device)
    return distribute_tensor(place, sample.device_mesh, sample.placements, src_data_rank=None)


def kept_weights(module: nn.Module, ranks: Ranks) -> dict[str, Tensor]:
    """A copy of a module's whole weights, on rank 0 and on the CPU; empty on the other ranks."""
    return kept_whole(module.state_dict(), ranks)


def kept_whole(tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """Copies of whole tensors, on rank 0 and on the CPU; empty on the other ranks. One shard is whole at a time."""
    kept = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if ranks.is_first:
            kept[name] = full.to("cpu", copy=True)
    return kept


def load_whole(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Fill a module, sharded or not, with whole weights."""
    found = module.state_dict()
    module.load_state_dict({name: shard_like(tensor, found[name]) for name, tensor in weights.items()})
