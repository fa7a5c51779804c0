"""One training loop for every objective.

The loop owns steps, evaluation, stopping and the resume points; `steps` makes a step. What is learned from which batch
is the objective's business. Everything random is a function of (seed, step), so a run that was stopped and resumed goes
through the same numbers as an unbroken one.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from ebert_core.model.device import Device
from ebert_core.reporting import SILENT, Reporter
from ebert_core.training.distributed import ALONE, Ranks, forget_gathered, kept_weights
from ebert_core.training.interrupts import Requeue, Stops, uninterrupted
from ebert_core.training.journal import Journal, Listener
from ebert_core.training.progress import Meter
from ebert_core.training.resume import LoopState, ResumePoints, Trained
from ebert_core.training.steps import Objective, StepConfig, Stepper

JOURNAL_FILE: Final = "journal.jsonl"
_LOG_EVERY: Final = 20


@dataclass(frozen=True)
class LoopConfig:
    """How long and how often.

    Attributes:
        step: how a step is made, and how many there are.
        evaluate_every, checkpoint_every: steps; 0 makes no resume point by steps.
        checkpoint_minutes: minutes of the wall clock between resume points; 0 makes none by time.
        checkpoints_kept: latest resume points that stay.
        patience: evaluations without a better score before stopping; None never stops early.
        patient_until: step before which no evaluation counts towards that.
    """

    step: StepConfig
    evaluate_every: int
    checkpoint_every: int
    checkpoint_minutes: float = 0.0
    checkpoints_kept: int = 1
    patience: int | None = None
    patient_until: int = 0


@dataclass(frozen=True)
class Surroundings:
    """What a run is given beside its objective.

    Attributes:
        device: place and precision.
        reporter: silent on all ranks but the first.
        ranks: this process among those of the run.
        stops: what this process was asked to do.
        listeners: told of every event of the journal.
    """

    device: Device
    reporter: Reporter = SILENT
    ranks: Ranks = ALONE
    stops: Stops = field(default_factory=Stops)
    listeners: tuple[Listener, ...] = ()


def train(
    objective: Objective,
    config: LoopConfig,
    around: Surroundings,
    folder: Path,
    fingerprint: str,
    meter: Meter | None = None,
) -> tuple[LoopState, dict[str, Tensor]]:
    """Run the loop, resuming from `folder/resume-step-*` where there is one.

    Args:
        folder: working folder of the run; gets the journal and the resume points.
        fingerprint: digest of the configuration and the data; a resume point of another run is refused.
        meter: measures the speed; None does not.

    Returns:
        (the final state, weights of the best evaluation on the CPU; on rank 0 only).

    Raises:
        EbertError: the loss is not finite, memory does not suffice, or the resume point is of another run.
        KeyboardInterrupt: passed on after the resume point was saved; `Requeue` is one.
    """
    return _Run(objective, config, around, folder, fingerprint, meter).run()


class _Run:
    def __init__(
        self,
        objective: Objective,
        config: LoopConfig,
        around: Surroundings,
        folder: Path,
        fingerprint: str,
        meter: Meter | None,
    ) -> None:
        self.objective, self.config, self.around, self.meter = objective, config, around, meter
        self.reporter, self.ranks = around.reporter, around.ranks
        self.stepper = Stepper(objective, config.step, around.device, self.ranks, folder, self.reporter)
        best: dict[str, Tensor] = {}
        self.trained = Trained(objective.module, self.stepper.optimizer, self.stepper.average, best)
        self.points = ResumePoints(folder, fingerprint, config.checkpoints_kept, self.ranks)
        self.state = self.points.restore(self.trained)
        self.saved = time.monotonic()
        kept = {"train": self.state.step, "evaluate": self.state.evaluated}
        path = folder / JOURNAL_FILE if self.ranks.is_first else None
        self.journal = Journal(path, keep_until=kept, listeners=around.listeners)

    def run(self) -> tuple[LoopState, dict[str, Tensor]]:
        """See `train`."""
        state, steps = self.state, self.config.step.steps
        gradients = torch.is_grad_enabled()
        if state.step:
            self.reporter.log(f"resumed at step {state.step:,} of {steps:,}")
        try:
            deferred = self.around.stops.deferred(self.ranks.size > 1)
            with deferred, self.reporter.task("training", steps - state.step, "steps") as advance:
                while True:
                    if self._evaluation_is_due():
                        self._evaluate()
                    if self._is_stale():
                        self.reporter.log(f"stopped at step {state.step:,}: no better score since {state.best_step:,}")
                        break
                    self._save_if_due()
                    if state.step >= steps:
                        break
                    advance(1, self._step())
            # What follows (calibration, publishing) may be stopped too, and must not cost the run.
            self._save()
        except KeyboardInterrupt as stop:
            with uninterrupted():  # a second stop must not cost what the first one saves
                # One that comes while an evaluation's context is left would leave the process without gradients.
                torch.set_grad_enabled(gradients)
                self._save()
                if isinstance(stop, Requeue):
                    stop.saved_step = state.step
                else:
                    self.reporter.warn(f"interrupted at step {state.step:,}; go on with --resume")
            raise
        finally:
            self.journal.close()
        return state, self.trained.best

    def _step(self) -> str:
        """One optimiser step; returns a note for the progress bar."""
        state, steps = self.state, self.config.step.steps
        began = time.perf_counter()
        figures = self.stepper.learn(state.step)
        with uninterrupted():
            self.stepper.apply(state.step)
            state.step += 1
            if self.meter:
                self.meter.add(time.perf_counter() - began)
            if state.step % _LOG_EVERY == 0 or state.step == steps:
                speed = {"speed": self.meter.read(steps - state.step)} if self.meter else {}
                told = {"gradient_norm": figures.norm, "learning_rate": figures.rate, **speed}
                self.journal.write("train", state.step, loss=figures.loss, **figures.figures, **told)
        bits = f"{figures.figures['bits_per_base']:.3f} bits per base" if "bits_per_base" in figures.figures else ""
        speed_note = self.meter.note() if self.meter else ""
        return ", ".join(part for part in (f"loss {figures.loss:.4f}", bits, speed_note) if part)

    def _evaluation_is_due(self) -> bool:
        step, every = self.state.step, self.config.evaluate_every
        return (step % every == 0 or step == self.config.step.steps) and step > self.state.evaluated

    def _evaluate(self) -> None:
        """Score the module; where that is the best score yet, its weights go into `best`."""
        module, state = self.objective.module, self.state
        self.objective.losses.eval()
        average = self.stepper.average
        with average.applied() if average else contextlib.nullcontext():
            # Not inference mode: FSDP gathers into buffers that training goes on to use.
            with torch.no_grad():
                figures = self.ranks.share(self.objective.evaluate(self.ranks))
            forget_gathered(self.objective.losses)
            # The first evaluation counts whatever it says, so that a run always has weights to publish.
            better = state.best_figures is None or figures["score"] > state.best_score
            weights = kept_weights(module, self.ranks) if better else {}
        with uninterrupted():
            self.journal.write("evaluate", state.step, **figures)
            state.evaluated = state.step
            if better:
                state.best_score, state.best_step, state.best_figures = figures["score"], state.step, figures
                self.trained.best.update(weights)
        told = {**figures, **figures.get("baselines", {})}.items()
        shown = ", ".join(f"{name} {value:.4f}" for name, value in told if isinstance(value, float))
        speed = self.meter.note() if self.meter else ""
        self.reporter.log(f"step {state.step:,}: {shown}" + (f"; {speed}" if speed else ""))

    def _is_stale(self) -> bool:
        if self.config.patience is None:
            return False
        since = max(self.state.best_step, self.config.patient_until)
        return self.state.step - since >= self.config.patience * self.config.evaluate_every

    def _save_if_due(self) -> None:
        """Make the resume points that are due, by rank 0's clock, and obey the stops that any rank has heard."""
        config, step = self.config, self.state.step
        by_steps = step > 0 and config.checkpoint_every > 0 and step % config.checkpoint_every == 0
        minutes = (time.monotonic() - self.saved) / 60
        by_time = self.ranks.is_first and 0 < config.checkpoint_minutes <= minutes
        # One rank alone obeys at once, so what it heard is behind it.
        listening = self.around.stops.heard if self.ranks.size > 1 else 0
        heard, due = self.ranks.largest(listening, int(by_steps or by_time))
        if due:
            self._save()
        Stops.obey(heard)

    def _save(self) -> None:
        if self.stepper.average:
            self.stepper.average.put_back()
        self.points.save(self.state, self.trained)
        self.saved = time.monotonic()
