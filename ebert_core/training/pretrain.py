"""Pre-training: masked language modelling on DNA paired with chromatin states."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ebert_core.artifacts import digest_of
from ebert_core.config import PretrainConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.masking import MaskedBatch, mask_batch
from ebert_core.data.windows import WindowReader, eligible_starts, step_generator
from ebert_core.errors import EbertError
from ebert_core.genome.regions import Region, hold_back, subtract, whole
from ebert_core.model.checkpoint import PretrainingModel, save, vocabulary_entry
from ebert_core.model.device import Device
from ebert_core.model.encoder import count_parameters
from ebert_core.reporting import SILENT, Reporter
from ebert_core.training.loop import LoopConfig, train
from ebert_core.training.run_folder import RunTarget, finish_run, open_run
from ebert_core.training.schedule import build_optimizer
from ebert_core.vocabulary import BASE_N, NUM_BASES

# Without --valid-chrom, this share of every chromosome is held back to score the run.
_VALID_FRACTION: Final = 0.02
_IGNORED: Final = -100
_TRAIN_STREAM, _VALID_STREAM = 0, 1


@dataclass(frozen=True)
class PretrainData:
    """What a run reads.

    Attributes:
        cells: cell types whose states are paired with the sequence.
        train, valid: regions; windows lie wholly in one or the other.
    """

    dataset: Dataset
    cells: tuple[str, ...]
    train: tuple[Region, ...]
    valid: tuple[Region, ...]

    @classmethod
    def choose(
        cls, dataset: Dataset, cells: list[str], chroms: list[str], valid: list[Region], exclude_cells: list[str]
    ) -> PretrainData:
        """Resolve a user's choice; empty lists mean all cell types, all chromosomes, the default validation part."""
        dataset.require_state_model()
        left_out = {dataset.resolve_cell(name) for name in exclude_cells}
        asked = [dataset.resolve_cell(name) for name in cells] or list(dataset.state_cells)
        chosen = tuple(cell for cell in asked if cell not in left_out)
        if not chosen:
            raise EbertError("no cell type is left to pre-train on", "name some with --cell, or exclude fewer")
        regions = whole(dataset.assembly, dataset.assembly.require(chroms) if chroms else None)
        if valid:
            return cls(dataset, chosen, tuple(subtract(regions, valid)), tuple(valid))
        kept, held = hold_back(regions, _VALID_FRACTION)
        return cls(dataset, chosen, tuple(kept), tuple(held))

    def describe(self) -> dict[str, Any]:
        """For manifests."""
        return {
            "cells": list(self.cells),
            "train": [[r.chrom, r.start, r.end] for r in self.train],
            "valid": [[r.chrom, r.start, r.end] for r in self.valid],
            "assembly": self.dataset.assembly.to_json(),
            "dataset": self.dataset.digests(self.cells),
        }


class MaskedLanguageObjective:
    """Cross-entropy of hidden bases, plus that of hidden states at a smaller weight."""

    def __init__(self, data: PretrainData, config: PretrainConfig, module: PretrainingModel, device: Device) -> None:
        self.module = module
        self._config = config
        self._device = device
        self._num_states = len(data.dataset.require_state_model().states)
        self._reader = WindowReader(data.dataset, data.cells, config.window_bp)
        self._num_cells = len(data.cells)
        self._starts = _require_starts(data.dataset, data.train, config.window_bp, "training")
        valid = _require_starts(data.dataset, data.valid, config.window_bp, "validation")
        self._valid = self._draw(valid, _VALID_STREAM, 0, config.valid_windows)

    @property
    def num_windows(self) -> int:
        """Distinct training windows, times cell types."""
        return len(self._starts) * self._num_cells

    def bases_per_part(self) -> int:
        return self._config.micro_batch * self._config.window_bp

    def _draw(self, starts: np.ndarray, stream: int, step: int, count: int) -> MaskedBatch:
        """`count` random (window, cell type, strand) triples of a step, masked."""
        rng = step_generator(self._config.seed, stream, step)
        batch = self._reader.read(rng.choice(starts, count), rng.integers(self._num_cells, size=count))
        batch = batch.flipped(rng.random(count) < 0.5)
        return mask_batch(rng, batch, self._config.masking, self._config.encoder.token_bp, self._num_states)

    def loss(self, step: int, part: int) -> tuple[Tensor, dict[str, float]]:
        parts = self._config.global_batch // self._config.micro_batch
        batch = self._draw(self._starts, _TRAIN_STREAM, step * parts + part, self._config.micro_batch)
        base_loss, state_loss, _ = self._losses(batch)
        loss = base_loss + self._config.masking.state_loss_weight * state_loss
        return loss, {
            "bits_per_base": float(base_loss.detach()) / math.log(2),
            "state_loss": float(state_loss.detach()),
        }

    def _losses(self, batch: MaskedBatch) -> tuple[Tensor, Tensor, float]:
        """(nats per hidden base, nats per hidden state, share of hidden states said right)."""
        to = functools.partial(_to_tensor, device=self._device.device)
        base_mask, state_mask = to(batch.base_mask), to(batch.state_mask)
        tokens = self.module.encoder(to(batch.bases), to(batch.states))
        targets = to(batch.base_targets).view(*base_mask.shape, -1)[base_mask].long()
        targets = torch.where(targets < BASE_N, targets, _IGNORED)
        logits = self.module.head.base_logits(tokens, base_mask).float()
        base_loss = _mean_cross_entropy(logits.view(-1, NUM_BASES), targets.view(-1))
        state_targets = to(batch.state_targets)[state_mask].long() - 1
        state_logits = self.module.head.state_logits(tokens, state_mask).float()
        state_loss = _mean_cross_entropy(state_logits, state_targets)
        right = (state_logits.argmax(dim=-1) == state_targets).float().mean() if len(state_targets) else torch.zeros(())
        return base_loss, state_loss, float(right)

    def evaluate(self) -> dict[str, Any]:
        """Bits per hidden base and accuracy of hidden states on the held-back windows."""
        sums = np.zeros(3)
        size = self._config.micro_batch
        pieces = [_slice(self._valid, first, first + size) for first in range(0, self._config.valid_windows, size)]
        for piece in pieces:
            with self._device.autocast():
                base_loss, state_loss, right = self._losses(piece)
            sums += [float(base_loss) / math.log(2), float(state_loss) / math.log(2), right]
        bits, state_bits, accuracy = (sums / len(pieces)).tolist()
        return {
            "score": -bits,
            "valid_bits_per_base": bits,
            "valid_bits_per_state": state_bits,
            "valid_state_accuracy": accuracy,
        }


def _require_starts(dataset: Dataset, regions: tuple[Region, ...], window_bp: int, what: str) -> np.ndarray:
    starts = eligible_starts(dataset, regions, window_bp)
    if len(starts) == 0:
        raise EbertError(
            f"no window of {window_bp:,} bp without N-runs or excluded regions is in the {what} part",
            "choose other chromosomes (--chrom, --valid-chrom), or shorter windows (--set window_bp=1000)",
        )
    return starts


def _to_tensor(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)


def _mean_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over targets that count; zero where none does (a mean of nothing would be NaN)."""
    total = F.cross_entropy(logits, targets, ignore_index=_IGNORED, reduction="sum")
    return total / (targets != _IGNORED).sum().clamp(min=1)


def _slice(batch: MaskedBatch, first: int, last: int) -> MaskedBatch:
    return MaskedBatch(**{name: array[first:last] for name, array in vars(batch).items()})


def pretrain(
    data: PretrainData,
    config: PretrainConfig,
    target: RunTarget,
    device: Device,
    reporter: Reporter = SILENT,
) -> Path:
    """Pre-train an encoder and publish its checkpoint.

    Returns:
        `target.output`: a folder with `weights.safetensors`, `ebert.json` and `journal.jsonl`.

    Raises:
        EbertError: no window to read, an output in the way, or a loss that is not finite.
    """
    state_model = data.dataset.require_state_model()
    torch.manual_seed(config.seed)
    module = PretrainingModel(config.encoder, len(state_model.states)).to(device.device)
    objective = MaskedLanguageObjective(data, config, module, device)
    with open_run(target, "checkpoint") as working:
        reporter.log(
            f"device {device.describe()}; {count_parameters(module):,} parameters; reading "
            f"{objective.num_windows:,} (window, cell type) pairs of {config.window_bp:,} bp"
        )
        state, best = train(
            objective,
            build_optimizer([(module, 1.0)], config.optimizer),
            LoopConfig(
                steps=config.steps,
                parts=config.global_batch // config.micro_batch,
                evaluate_every=config.evaluate_every,
                checkpoint_every=config.checkpoint_every,
                patience=None,
                optimizer=config.optimizer,
                seed=config.seed,
            ),
            device,
            working,
            reporter,
            digest_of({"config": config.model_dump(), "data": data.describe()}),
        )
        module.load_state_dict(best)

        def write(folder: Path) -> None:
            body = {
                "config": config.model_dump(),
                "vocabulary": vocabulary_entry(config.encoder, state_model),
                "data": data.describe(),
                "num_parameters": count_parameters(module),
                "best_step": state.best_step,
                "held_out": state.best_figures,
            }
            save(folder, "checkpoint", module, body)

        finish_run(working, target, write)
    return target.output
