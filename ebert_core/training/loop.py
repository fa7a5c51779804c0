"""One training loop for every objective.

The loop owns steps, learning rate, accumulation, clipping, evaluation and the resume point. What is learned from which
batch is the objective's business. Everything random is a function of (seed, step), so a run that was stopped and
resumed goes through the same numbers as an unbroken one.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ebert_core.artifacts import publish_folder, read_json, write_json
from ebert_core.config import OptimizerConfig
from ebert_core.errors import EbertError
from ebert_core.model.checkpoint import load_weights, save_weights
from ebert_core.model.device import Device
from ebert_core.reporting import Reporter
from ebert_core.training.interrupts import uninterrupted
from ebert_core.training.journal import Journal
from ebert_core.training.schedule import learning_rate

RESUME_PREFIX: Final = "resume-step-"
JOURNAL_FILE: Final = "journal.jsonl"
_LOG_EVERY: Final = 20


class Objective(Protocol):
    """What a run learns."""

    @property
    def module(self) -> nn.Module:
        """What is trained."""
        ...

    def loss(self, step: int, part: int) -> tuple[Tensor, dict[str, float]]:
        """Mean loss over micro-batch `part` of `step`, and figures for the journal."""
        ...

    def evaluate(self) -> dict[str, Any]:
        """Figures on held-out data; `score` among them is the higher the better."""
        ...

    def bases_per_part(self) -> int:
        """Base pairs in one micro-batch, for the rate."""
        ...


@dataclass(frozen=True)
class LoopConfig:
    """How long and how often.

    Attributes:
        steps: optimiser steps.
        parts: micro-batches per step.
        evaluate_every, checkpoint_every: steps.
        patience: evaluations without a better score before stopping; None never stops early.
        optimizer: learning rate and clipping.
        seed: of dropout.
    """

    steps: int
    parts: int
    evaluate_every: int
    checkpoint_every: int
    patience: int | None
    optimizer: OptimizerConfig
    seed: int


@dataclass
class LoopState:
    """Where a run stands: what a resume needs beside weights and optimiser.

    Attributes:
        step: optimiser steps done.
        evaluated: step of the last evaluation done; a run stopped during an evaluation repeats it.
        best_score, best_step, best_figures: of the best evaluation.
    """

    step: int = 0
    evaluated: int = 0
    best_score: float = float("-inf")
    best_step: int = 0
    best_figures: dict[str, Any] | None = None


def train(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    config: LoopConfig,
    device: Device,
    folder: Path,
    reporter: Reporter,
    fingerprint: str,
) -> tuple[LoopState, dict[str, Tensor]]:
    """Run the loop, resuming from `folder/resume-step-*` where there is one.

    Args:
        folder: working folder of the run; gets the journal and the resume points.
        fingerprint: digest of the configuration and the data; a resume point of another run is refused.

    Returns:
        (the final state, weights of the best evaluation).

    Raises:
        EbertError: the loss is not finite, or the resume point is of another run.
        KeyboardInterrupt: passed on after the resume point was saved.
    """
    state, best = _restore(folder, objective.module, optimizer, fingerprint)
    journal = Journal(folder / JOURNAL_FILE, keep_until={"train": state.step, "evaluate": state.evaluated})
    if state.step:
        reporter.log(f"resumed at step {state.step:,} of {config.steps:,}")
    try:
        with reporter.task("training", config.steps - state.step, "steps") as advance:
            while True:
                if _evaluation_is_due(state, config):
                    _evaluate(objective, state, best, journal, reporter)
                if _is_stale(state, config):
                    reporter.log(f"stopped at step {state.step:,}: no better score since step {state.best_step:,}")
                    break
                if state.step and state.step % config.checkpoint_every == 0:
                    _save(folder, objective.module, optimizer, state, best, fingerprint)
                if state.step >= config.steps:
                    break
                loss = _step(objective, optimizer, config, device, state, journal)
                advance(1, f"loss {loss:.4f}")
        # What follows (calibration, publishing) may be stopped too, and must not cost the run.
        _save(folder, objective.module, optimizer, state, best, fingerprint)
    except KeyboardInterrupt:
        _save(folder, objective.module, optimizer, state, best, fingerprint)
        reporter.warn(f"interrupted at step {state.step:,}; go on with --resume")
        raise
    finally:
        journal.close()
    return state, best


def _step(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    config: LoopConfig,
    device: Device,
    state: LoopState,
    journal: Journal,
) -> float:
    """One optimiser step; returns its loss."""
    step = state.step
    rate = learning_rate(step, config.steps, config.optimizer)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]
    # For dropout. Mixed, because the CPU's generator takes the lowest 32 bits of a seed only.
    torch.manual_seed(int(np.random.SeedSequence([config.seed, step]).generate_state(1)[0]))
    objective.module.train()
    optimizer.zero_grad(set_to_none=True)
    sums: dict[str, float] = {}
    for part in range(config.parts):
        with device.autocast():
            loss, figures = objective.loss(step, part)
        (loss / config.parts).backward()
        for name, value in {"loss": float(loss.detach()), **figures}.items():
            sums[name] = sums.get(name, 0.0) + value / config.parts
    norm = nn.utils.clip_grad_norm_(objective.module.parameters(), config.optimizer.clip_norm)
    if not torch.isfinite(norm):
        raise EbertError(
            f"the loss or its gradient is not finite at step {step + 1:,} (loss {sums['loss']})",
            "the last resume point is still there; if this comes again, lower the learning rate "
            "(--set optimizer.learning_rate=...) and start anew with --overwrite",
        )
    with uninterrupted():
        optimizer.step()
        state.step += 1
        if state.step % _LOG_EVERY == 0 or state.step == config.steps:
            journal.write("train", state.step, **sums, gradient_norm=float(norm), learning_rate=rate)
    return sums["loss"]


def _evaluation_is_due(state: LoopState, config: LoopConfig) -> bool:
    on_time = state.step % config.evaluate_every == 0 or state.step == config.steps
    return on_time and state.step > state.evaluated


def _evaluate(
    objective: Objective, state: LoopState, best: dict[str, Tensor], journal: Journal, reporter: Reporter
) -> None:
    """Score the module; where that is the best score yet, its weights go into `best`."""
    objective.module.eval()
    with torch.inference_mode():
        figures = objective.evaluate()
    with uninterrupted():
        journal.write("evaluate", state.step, **figures)
        state.evaluated = state.step
        # The first evaluation counts whatever it says, so that a run always has weights to publish.
        if state.best_figures is None or figures["score"] > state.best_score:
            state.best_score, state.best_step, state.best_figures = figures["score"], state.step, figures
            best.update((name, tensor.detach().clone()) for name, tensor in objective.module.state_dict().items())
    shown = ", ".join(f"{name} {value:.4f}" for name, value in figures.items() if isinstance(value, float))
    reporter.log(f"step {state.step:,}: {shown}")


def _is_stale(state: LoopState, config: LoopConfig) -> bool:
    if config.patience is None:
        return False
    return state.step - state.best_step >= config.patience * config.evaluate_every


def _save(
    folder: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: LoopState,
    best: dict[str, Tensor],
    fingerprint: str,
) -> None:
    """Write a resume point; only when it is whole are the earlier ones removed."""
    earlier = resume_points(folder)
    target = folder / f"{RESUME_PREFIX}{state.step:08d}"
    if target in earlier:
        return
    with publish_folder(target) as staged:
        save_weights(module.state_dict(), staged / "weights.safetensors")
        save_weights(best, staged / "best.safetensors")
        moments = {
            f"{index}.{name}": value
            for index, values in optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }
        save_weights(moments, staged / "optimizer.safetensors")
        write_json(staged / "state.json", {"fingerprint": fingerprint, **vars(state)})
    for path in earlier:
        shutil.rmtree(path, ignore_errors=True)


def resume_points(folder: Path) -> list[Path]:
    """Whole resume points of a run, the latest last."""
    return sorted(path for path in folder.glob(f"{RESUME_PREFIX}*") if (path / "state.json").is_file())


def _restore(
    folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, fingerprint: str
) -> tuple[LoopState, dict[str, Tensor]]:
    points = resume_points(folder)
    if not points:
        return LoopState(), {}
    point = points[-1]
    saved = read_json(point / "state.json")
    if saved.pop("fingerprint") != fingerprint:
        raise EbertError(
            f"{folder} holds an unfinished run with other settings or other data",
            "repeat its command exactly, or start anew with --overwrite",
        )
    module.load_state_dict(load_weights(point / "weights.safetensors"))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in load_weights(point / "optimizer.safetensors").items():
        index, _, key = name.partition(".")
        moments.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return LoopState(**saved), load_weights(point / "best.safetensors")
