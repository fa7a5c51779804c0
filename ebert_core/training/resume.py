"""Resume points: all that a run needs to go on as if it had never been stopped.

A point is a folder that appears whole or not at all; earlier points go only after it is there. It holds whole tensors
whatever the number of ranks, so a run may go on with another number.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from ebert_core.artifacts import publish_folder, read_json, write_json
from ebert_core.errors import EbertError, InputError
from ebert_core.model.checkpoint import load_weights, save_weights
from ebert_core.training.averaging import AveragedWeights
from ebert_core.training.distributed import Ranks, kept_weights, kept_whole, load_whole, shard_like

RESUME_PREFIX: Final = "resume-step-"
Weights = dict[str, Tensor]


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


@dataclass(frozen=True)
class Trained:
    """What changes while a run trains.

    Attributes:
        module: its weights.
        optimizer: its moments.
        average: the running average of the weights, where one is kept.
        best: weights of the best evaluation so far; on rank 0 only.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    average: AveragedWeights | None
    best: dict[str, Tensor]


class ResumePoints:
    """The resume points of a run.

    Args:
        folder: the run's working folder.
        fingerprint: digest of the configuration and the data; a point of another run is refused.
        keep: how many of the latest points stay.
    """

    def __init__(self, folder: Path, fingerprint: str, keep: int, ranks: Ranks) -> None:
        self._folder = folder
        self._fingerprint = fingerprint
        self._keep = keep
        self._ranks = ranks

    def save(self, state: LoopState, trained: Trained) -> None:
        """Write a point; only when it is whole are the earlier ones removed. Every rank must call it."""
        earlier = resume_points(self._folder)
        target = self._folder / f"{RESUME_PREFIX}{state.step:08d}"
        # Rank 0 may be ahead of the others; all must come to the same answer.
        if self._ranks.share(target in earlier):
            return
        weights = kept_weights(trained.module, self._ranks)
        moments = {
            f"{index}.{name}": value
            for index, kept in trained.optimizer.state_dict()["state"].items()
            for name, value in kept.items()
        }
        values = trained.average.values if trained.average else []
        averaged = {str(number): value for number, value in enumerate(values)}
        moments, averaged = kept_whole(moments, self._ranks), kept_whole(averaged, self._ranks)
        if self._ranks.is_first:
            self._write(target, state, trained.best, (weights, moments, averaged))
            for path in earlier[: max(0, len(earlier) - self._keep + 1)]:
                shutil.rmtree(path, ignore_errors=True)
        # A rank that leaves after this, because of a stop, must not make somebody end rank 0 before it has written.
        self._ranks.largest(0)

    def _write(self, target: Path, state: LoopState, best: Weights, now: tuple[Weights, Weights, Weights]) -> None:
        weights, moments, averaged = now
        with publish_folder(target) as staged:
            save_weights(weights, staged / "weights.safetensors")
            save_weights(best, staged / "best.safetensors")
            save_weights(moments, staged / "optimizer.safetensors")
            if averaged:
                save_weights(averaged, staged / "average.safetensors")
            write_json(staged / "state.json", {"fingerprint": self._fingerprint, **vars(state)})

    def restore(self, trained: Trained) -> LoopState:
        """Fill `trained` from the latest point; a fresh state where there is none.

        Raises:
            EbertError: the point is of another run, or it is damaged.
        """
        points = self._ranks.share(resume_points(self._folder))
        if not points:
            return LoopState()
        try:
            return self._read(points[-1], trained)
        except InputError as error:
            if len(points) > 1:
                error.hint = f"remove {points[-1]} to go on from {points[-2].name}"
            raise

    def _read(self, point: Path, trained: Trained) -> LoopState:
        saved = read_json(point / "state.json")
        refuse_other_run(self._folder, same=saved.pop("fingerprint") == self._fingerprint)
        load_whole(trained.module, load_weights(point / "weights.safetensors"))
        parameters = [parameter for group in trained.optimizer.param_groups for parameter in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in load_weights(point / "optimizer.safetensors").items():
            index, _, key = name.partition(".")
            like = parameters[int(index)] if tensor.dim() else tensor
            moments.setdefault(int(index), {})[key] = shard_like(tensor, like)
        groups = trained.optimizer.state_dict()["param_groups"]
        trained.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        if trained.average:
            averaged = load_weights(point / "average.safetensors")
            for number, value in enumerate(trained.average.values):
                value.copy_(shard_like(averaged[str(number)], value))
        if self._ranks.is_first:
            trained.best.update(load_weights(point / "best.safetensors"))
        self._ranks.largest(0)  # nobody trains on, and removes points, while another rank still reads them
        return LoopState(**saved)


def refuse_other_run(working: Path, *, same: bool) -> None:
    """`EbertError` unless what the folder holds may be resumed."""
    if not same:
        raise EbertError(
            f"{working} holds an unfinished run with other settings or other data",
            "repeat its command exactly, or start anew with --overwrite",
        )


def resume_points(folder: Path) -> list[Path]:
    """Whole resume points of a run, the latest last."""
    return sorted(path for path in folder.glob(f"{RESUME_PREFIX}*") if (path / "state.json").is_file())
