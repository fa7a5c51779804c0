"""One optimiser step: the same global batch gives the same step, however it is cut.

A global batch of G examples is cut into ranks x parts pieces that differ by one example at most; rank r does the pieces
from r * parts on, one forward and backward pass each. Every rank does the same number of passes, so that nobody waits
for a pass that never comes; a rank left without an example in a pass runs one with no weight. Losses are sums over
targets, divided by the number of targets in the whole global batch: the cut changes the result by rounding only, and
dropout, whose noise belongs to the piece.
"""

from __future__ import annotations

import contextlib
import gc
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ebert_core.artifacts import publish_file
from ebert_core.config import OptimizerConfig, Parallel
from ebert_core.errors import EbertError
from ebert_core.model.checkpoint import save_weights
from ebert_core.model.device import Device
from ebert_core.reporting import SILENT, Reporter
from ebert_core.training.averaging import AveragedWeights
from ebert_core.training.distributed import ALONE, Ranks, spread, whole
from ebert_core.training.schedule import build_optimizer, learning_rate

NOT_FINITE_PREFIX: Final = "not-finite-step-"


class Objective(Protocol):
    """What a run learns."""

    @property
    def module(self) -> nn.Module:
        """What is trained and published."""
        ...

    @property
    def losses(self) -> nn.Module:
        """Holds `module`; its forward takes a batch and gives the sums of K losses over their targets, (K,)."""
        ...

    @property
    def weights(self) -> tuple[float, ...]:
        """Of each of the K mean losses in what is minimised."""
        ...

    def groups(self) -> list[tuple[nn.Module, float]]:
        """Disjoint parts of `module` with their share of the learning rate."""
        ...

    def draw(self, step: int, first: int, count: int) -> Any:
        """Examples first .. first + count - 1 of the global batch of 0-based `step`, on the device.

        An example is a function of (seed, step, its number): no cut of the batch changes it.
        """
        ...

    def counts(self, batch: Any) -> Tensor:
        """How many targets each of the K sums has, float64 (K,)."""
        ...

    def tensors(self, batch: Any) -> dict[str, Tensor]:
        """A batch as it is saved to be looked at."""
        ...

    def figures(self, means: list[float]) -> dict[str, float]:
        """What the journal says of the K mean losses of a step."""
        ...

    def evaluate(self, ranks: Ranks) -> dict[str, Any]:
        """Figures on held-out data, the same on every rank; `score` among them is the higher the better."""
        ...


@dataclass(frozen=True)
class StepConfig:
    """How a step is made.

    Attributes:
        steps: of the whole run, for the schedule.
        global_batch: examples per step.
        micro_batch: examples per forward pass at most.
        optimizer: learning rate, clipping, averaging.
        seed: of dropout.
        parallel: how the model is spread over several ranks.
    """

    steps: int
    global_batch: int
    micro_batch: int
    optimizer: OptimizerConfig
    seed: int
    parallel: Parallel = "ddp"


@dataclass(frozen=True)
class StepFigures:
    """What a step told: the loss, its parts for the journal, the gradient's norm before clipping, the rate."""

    loss: float
    figures: dict[str, float]
    norm: float
    rate: float


def cut(global_batch: int, ranks: int, rank: int, micro_batch: int) -> list[tuple[int, int]]:
    """A rank's pieces of a global batch: (first example, number of examples, at most `micro_batch`; may be 0)."""
    parts = math.ceil(math.ceil(global_batch / ranks) / micro_batch)
    ends = [global_batch * piece // (ranks * parts) for piece in range(ranks * parts + 1)]
    return [(ends[piece], ends[piece + 1] - ends[piece]) for piece in range(rank * parts, (rank + 1) * parts)]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was asked for and not there."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


class Stepper:
    """Makes steps.

    Args:
        objective: what is learned.
        config: how.
        device: place and precision.
        ranks: this process among those of the run.
        folder: where the batch of a step that is not finite is saved; None saves none.
        reporter: told of smaller micro-batches.

    Attributes:
        optimizer: AdamW.
        average: the running average of the weights, or None.
        micro_batch: examples per forward pass at most; halved where memory does not suffice.
    """

    def __init__(
        self,
        objective: Objective,
        config: StepConfig,
        device: Device,
        ranks: Ranks = ALONE,
        folder: Path | None = None,
        reporter: Reporter = SILENT,
    ) -> None:
        self.micro_batch = min(config.micro_batch, -(-config.global_batch // ranks.size))
        self._objective, self._config, self._device = objective, config, device
        self._ranks, self._folder, self._reporter = ranks, folder, reporter
        self._model = spread(objective.losses, ranks, config.parallel, device.device)
        self.optimizer = build_optimizer(objective.groups(), config.optimizer)
        decay = config.optimizer.ema_decay
        self.average = AveragedWeights(objective.module, decay) if decay else None
        self._weights = torch.tensor(objective.weights, dtype=torch.float64, device=device.device)
        # One rank alone finds out as it goes. With ddp, the others could not be told in the middle of a pass.
        self._fits = ranks.size == 1 or config.parallel == "fsdp"

    @property
    def pieces(self) -> list[tuple[int, int]]:
        """This rank's cut of a global batch."""
        return cut(self._config.global_batch, self._ranks.size, self._ranks.rank, self.micro_batch)

    def learn(self, step: int) -> StepFigures:
        """The gradients of 0-based `step`, clipped; `apply` moves the weights.

        Raises:
            EbertError: the loss or its gradient is not finite, or one example alone takes more memory than there is.
        """
        rate = learning_rate(step, self._config.steps, self._config.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        self._objective.losses.train()
        while not self._fits:
            self._try_memory(step)
        while (found := self._gradients(step)) is None:
            self._halve()
        sums, counts = found
        norm = whole(nn.utils.clip_grad_norm_(self._objective.module.parameters(), self._config.optimizer.clip_norm))
        totals = self._ranks.add_up(torch.stack(sums).sum(dim=0).double())
        means = (totals / counts.clamp(min=1)).tolist()
        loss = sum(weight * mean for weight, mean in zip(self._objective.weights, means, strict=True))
        if not (np.isfinite(loss) and torch.isfinite(norm)):
            self._refuse(step, loss, sums)
        return StepFigures(loss, self._objective.figures(means), float(norm), rate)

    def apply(self, step: int) -> None:
        """Move the weights, and their average, by the gradients of `step`. Not to be cut in the middle.

        Raises:
            EbertError: no memory for the optimiser's moments.
        """
        try:
            self.optimizer.step()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise EbertError(
                f"not enough memory on {self._device.device} for the optimiser's moments",
                "take a smaller preset, or several devices with --set parallel=fsdp",
            ) from None
        if self.average:
            self.average.update(step + 1)

    def _gradients(self, step: int) -> tuple[list[Tensor], Tensor] | None:
        """This rank's sums by piece and all ranks' counts, the gradients in place; None where memory gave out."""
        try:
            batches = [(*piece, self._draw(step, *piece)) for piece in self.pieces]
            counts = torch.stack([self._objective.counts(batch) * (count > 0) for _, count, batch in batches]).sum(0)
            self._ranks.add_up(counts)
            self.optimizer.zero_grad(set_to_none=True)
            sums = []
            for number, (first, count, batch) in enumerate(batches):
                with self._synchronised(number == len(batches) - 1):
                    sums.append(self._pass(step, first, count, batch, counts))
            return sums, counts
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if self._ranks.size > 1:
                raise EbertError(
                    f"out of memory at step {step + 1:,} with micro-batches of {self.micro_batch} windows",
                    f"the same command with --resume and --set micro_batch={max(1, self.micro_batch // 2)} goes on",
                ) from None
            return None  # what the failed pass held is free once this block is left

    def _draw(self, step: int, first: int, count: int) -> Any:
        return self._objective.draw(step, first, count) if count else self._objective.draw(step, 0, 1)

    def _pass(self, step: int, first: int, count: int, batch: Any, counts: Tensor) -> Tensor:
        """Forward and backward over one piece; returns its sums."""
        # For dropout: a function of the piece, whichever rank does it. Mixed, because the CPU's generator takes the
        # lowest 32 bits of a seed only.
        seed = np.random.SeedSequence([self._config.seed, step, first]).generate_state(1)[0]
        torch.manual_seed(int(seed))
        with self._device.autocast():
            sums: Tensor = self._model(batch)
        sums = sums * (count > 0)
        # Ranks are averaged, so each counts as often as there are ranks.
        scale = (self._weights * self._ranks.size / counts.clamp(min=1)).to(sums.dtype)
        (sums * scale).sum().backward()
        return sums.detach()

    def _synchronised(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Ranks add up their gradients in a step's last pass; shards do in every pass, to hold no whole gradient."""
        model: Any = self._model
        alone = isinstance(model, DistributedDataParallel) and not last
        return model.no_sync() if alone else contextlib.nullcontext()

    def _try_memory(self, step: int) -> None:
        """Run this rank's largest piece without the others; unless all had the memory for it, smaller pieces it is."""
        failed = False
        first, count = max(self.pieces, key=lambda piece: piece[1])
        try:
            batch = self._draw(step, first, count)
            with self._synchronised(False):
                self._pass(step, first, count, batch, torch.ones_like(self._objective.counts(batch)))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failed = True
        self.optimizer.zero_grad(set_to_none=True)
        self._fits = not self._ranks.largest(int(failed))[0]
        if not self._fits:
            self._halve()

    def _halve(self) -> None:
        if self.micro_batch == 1:
            raise EbertError(
                f"not enough memory on {self._device.device} for a single window",
                "take shorter windows (--set window_bp=...), a smaller preset, or --set activation_checkpointing=true",
            )
        self.micro_batch = (self.micro_batch + 1) // 2
        self.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if self._device.device.type == "cuda":
            torch.cuda.empty_cache()
        self._reporter.warn(
            f"out of memory: micro-batches of {self.micro_batch} windows from here on; the global batch stays the same"
        )

    def _refuse(self, step: int, loss: float, sums: list[Tensor]) -> None:
        """Save what a step stumbled over, and stop: the first piece whose loss is not finite, else the whole batch."""
        own = [piece for piece, values in zip(self.pieces, sums, strict=True) if not torch.isfinite(values).all()]
        bad = [piece for pieces in self._ranks.collect(own) for piece in pieces if piece[1]]
        first, count = bad[0] if bad else (0, self._config.global_batch)
        where = ""
        if self._folder and self._ranks.is_first:
            path = self._folder / f"{NOT_FINITE_PREFIX}{step + 1:08d}.safetensors"
            tensors = self._objective.tensors(self._objective.draw(step, first, count))
            place = {"step": step + 1, "first_example": first, "loss": loss}
            with publish_file(path, overwrite=True) as staged:
                save_weights({**tensors, **{name: torch.tensor(value) for name, value in place.items()}}, staged)
            where = f"; its batch is in {path}"
        examples = f", examples {first} to {first + count - 1}" if bad else ""
        raise EbertError(
            f"the loss or its gradient is not finite at step {step + 1:,} (loss {loss}{examples}){where}",
            "the last resume point is still there; if this comes again, lower the learning rate "
            "(--set optimizer.learning_rate=...) and start anew with --overwrite",
        )
