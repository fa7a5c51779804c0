"""Pre-training: masked language modelling on DNA paired with chromatin states."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebert_core.artifacts import digest_of
from ebert_core.config import PretrainConfig
from ebert_core.data.batches import IGNORED, GenomeStore, MaskedBatch, MaskedBatches
from ebert_core.data.dataset import Dataset
from ebert_core.data.masking import hidden_count
from ebert_core.data.windows import eligible_starts
from ebert_core.errors import EbertError
from ebert_core.genome.regions import Region, hold_back, subtract, whole
from ebert_core.model.checkpoint import PretrainingModel, vocabulary_entry
from ebert_core.model.device import Device
from ebert_core.model.encoder import count_parameters
from ebert_core.training.baselines import held_out_baselines
from ebert_core.training.distributed import ALONE, Ranks
from ebert_core.training.loop import LoopConfig, Surroundings
from ebert_core.training.progress import Meter, no_content, training_flops
from ebert_core.training.resume import LoopState
from ebert_core.training.run_folder import Publication, RunTarget, train_and_publish
from ebert_core.training.steps import StepConfig, cut
from ebert_core.vocabulary import NUM_BASES, STATE_BIN_BP, STATE_UNKNOWN

# Without --valid-chrom, this share of every chromosome is held back to score the run.
_VALID_FRACTION: Final = 0.02
_TRAIN_STREAM, _VALID_STREAM, _BASELINE_STREAM = 0, 1, 3
# What a run may change without becoming another one: how the work is laid out, not what is learned.
_LAYOUT: Final = {
    "micro_batch", "checkpoint_every", "checkpoint_minutes", "checkpoints_kept", "parallel", "activation_checkpointing",
    "data_placement",
}  # fmt: skip


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
        asked = dict.fromkeys(dataset.resolve_cell(name) for name in cells) or dataset.state_cells
        chosen = tuple(cell for cell in asked if cell not in left_out)
        if not chosen:
            raise EbertError("no cell type is left to pre-train on", "name some with --cell, or exclude fewer")
        regions = whole(dataset.assembly, dataset.assembly.require(chroms) if chroms else None)
        if valid:
            if not (kept := subtract(regions, valid)):
                raise EbertError("no chromosome is left to train on", "hold back less with --valid-chrom")
            return cls(dataset, chosen, tuple(kept), tuple(subtract(valid, [])))
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


class LanguageLosses(nn.Module):
    """The sums that pre-training is about, as one forward pass over a batch."""

    def __init__(self, module: PretrainingModel, recompute: bool = False) -> None:
        super().__init__()
        self.model = module
        self._recompute = recompute

    def forward(self, batch: MaskedBatch) -> Tensor:
        """(3,): nats over hidden bases, nats over hidden states, hidden states said right."""
        tokens = self.model.encoder(batch.bases, batch.states, self._recompute and self.training)
        logits = self.model.head.base_logits(tokens, batch.base_index).float()
        bases = _cross_entropy(logits.view(-1, NUM_BASES), batch.base_targets.view(-1))
        logits = self.model.head.state_logits(tokens, batch.state_index).float()
        states = _cross_entropy(logits, batch.state_targets)
        right = (logits.detach().argmax(dim=-1) == batch.state_targets).sum()
        return torch.stack([bases, states, right.float()])


class MaskedLanguageObjective:
    """Cross-entropy of hidden bases, plus that of hidden states at a smaller weight."""

    def __init__(self, data: PretrainData, config: PretrainConfig, module: PretrainingModel, device: Device) -> None:
        self.module = module
        self.losses: nn.Module = LanguageLosses(module, config.activation_checkpointing)
        self.weights = (1.0, config.masking.state_loss_weight if config.use_states else 0.0, 0.0)
        self.store = GenomeStore(data.dataset, data.cells, device.device, config.data_placement)
        self._baselines: dict[str, Any] | None = None
        self._config, self._device = config, device
        self.starts = _require_starts(data.dataset, data.train, config.window_bp, "training")
        valid = _require_starts(data.dataset, data.valid, config.window_bp, "validation")
        self._train = MaskedBatches(self.store, self.starts, config, rare_states=config.rare_states)
        self._valid = MaskedBatches(self.store, valid, config)

    @property
    def num_windows(self) -> int:
        """Distinct training windows, times cell types."""
        return self._train.num_pairs

    def groups(self) -> list[tuple[nn.Module, float]]:
        return [(self.module, 1.0)]

    def draw(self, step: int, first: int, count: int) -> MaskedBatch:
        return self._shown(self._train.draw(_TRAIN_STREAM, step, first, count, self._config.global_batch))

    def _shown(self, batch: MaskedBatch) -> MaskedBatch:
        """The batch as the model may see it: without states where the run goes without."""
        if not self._config.use_states:
            batch.states.fill_(STATE_UNKNOWN)
        return batch

    def counts(self, batch: MaskedBatch) -> Tensor:
        states = (batch.state_targets != IGNORED).sum()
        return torch.stack([(batch.base_targets != IGNORED).sum(), states, states]).double()

    def tensors(self, batch: MaskedBatch) -> dict[str, Tensor]:
        return vars(batch)

    def figures(self, means: list[float]) -> dict[str, float]:
        bits = {"bits_per_base": means[0] / math.log(2)}
        return bits | ({"state_loss": means[1], "state_accuracy": means[2]} if self._config.use_states else {})

    def evaluate(self, ranks: Ranks = ALONE) -> dict[str, Any]:
        """Bits per hidden base, and bits and accuracy per hidden state, over the held-back windows of all ranks.

        Beside them, under `baselines`, what the same windows give away without a model.
        """
        config = self._config
        totals = torch.zeros(2, 3, dtype=torch.float64, device=self.store.batch_device)
        for first, count in cut(config.valid_windows, ranks.size, ranks.rank, config.micro_batch):
            place = (first, count) if count else (0, 1)
            batch = self._shown(self._valid.draw(_VALID_STREAM, 0, *place, config.valid_windows))
            with self._device.autocast():
                sums = self.losses(batch)
            totals += torch.stack([sums.double(), self.counts(batch)]) * (count > 0)
        sums, counts = ranks.add_up(totals)
        bits, state_bits, _ = (sums / counts.clamp(min=1) / math.log(2)).tolist()
        score = -bits if config.masking.dna_rate else -state_bits
        figures: dict[str, Any] = {"score": score, "valid_bits_per_base": bits}
        if config.use_states:
            accuracy = float(sums[2] / counts[2].clamp(min=1))
            figures |= {"valid_bits_per_state": state_bits, "valid_state_accuracy": accuracy}
        if self._baselines is None:
            self._baselines = ranks.share(self._measured_baselines() if ranks.is_first else {})
        return {**figures, "baselines": self._baselines}

    def _measured_baselines(self) -> dict[str, Any]:
        config = self._config
        many = config.steps * config.global_batch
        return held_out_baselines(
            lambda first, count: self._train.draw(_BASELINE_STREAM, 0, first, count, many),
            self._shown(self._valid.draw(_VALID_STREAM, 0, 0, config.valid_windows, config.valid_windows)),
            many * config.window_bp,
            self.store.num_states,
        )


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")


def _require_starts(dataset: Dataset, regions: tuple[Region, ...], window_bp: int, what: str) -> np.ndarray:
    starts = eligible_starts(dataset, regions, window_bp)
    if len(starts) == 0:
        raise EbertError(
            f"no window of {window_bp:,} bp without N-runs or excluded regions is in the {what} part",
            "choose other chromosomes (--chrom, --valid-chrom), or shorter windows (--set window_bp=1000)",
        )
    return starts


def flops_per_window(config: PretrainConfig, num_states: int) -> float:
    """Floating-point operations of training on one window, forward and backward."""
    tokens, bins = config.window_bp // config.encoder.token_bp, config.window_bp // STATE_BIN_BP
    hidden = hidden_count(config.masking.dna_rate, tokens), hidden_count(config.masking.state_rate, bins)

    def call(module: PretrainingModel) -> Tensor:
        found = module.encoder(no_content(1, config.window_bp), no_content(1, bins))
        bases = module.head.base_logits(found, no_content(hidden[0]))
        return bases.sum() + module.head.state_logits(found, no_content(hidden[1])).sum()

    return training_flops(lambda: PretrainingModel(config.encoder, num_states), call)


def step_config(config: PretrainConfig) -> StepConfig:
    """How a step of this run is made."""
    return StepConfig(
        config.steps, config.global_batch, config.micro_batch, config.optimizer, config.seed, config.parallel
    )


def build_model(config: PretrainConfig, num_states: int, device: Device) -> PretrainingModel:
    """Fresh weights, a function of the seed."""
    torch.manual_seed(config.seed)
    return PretrainingModel(config.encoder, num_states).to(device.device)


def pretrain(data: PretrainData, config: PretrainConfig, target: RunTarget, around: Surroundings) -> Path:
    """Pre-train an encoder and publish its checkpoint.

    Returns:
        `target.output`: a folder with `weights.safetensors`, `ebert.json` and `journal.jsonl`.

    Raises:
        EbertError: no window to read, an output in the way, too little memory, or a loss that is not finite.
        KeyboardInterrupt: stopped and saved; `Requeue` is one.
    """
    state_model, device, ranks = data.dataset.require_state_model(), around.device, around.ranks
    num_states = len(state_model.states)
    module = build_model(config, num_states, device)
    num_parameters = count_parameters(module)
    objective = MaskedLanguageObjective(data, config, module, device)
    around.reporter.log(
        f"device {device.describe()}{f', {ranks.size} ranks' if ranks.size > 1 else ''}; {num_parameters:,} "
        f"parameters; {objective.num_windows:,} (window, cell type) pairs of {config.window_bp:,} bp; "
        f"{objective.store.describe()}"
    )

    def body(state: LoopState) -> dict[str, Any]:
        return {
            "config": config.model_dump(),
            "vocabulary": vocabulary_entry(config.encoder, state_model),
            "data": data.describe(),
            "num_parameters": num_parameters,
            "best_step": state.best_step,
            "held_out": state.best_figures,
        }

    loop = LoopConfig(
        step_config(config),
        evaluate_every=config.evaluate_every,
        checkpoint_every=config.checkpoint_every,
        checkpoint_minutes=config.checkpoint_minutes,
        checkpoints_kept=config.checkpoints_kept,
    )
    fingerprint = digest_of({"config": config.model_dump(exclude=_LAYOUT), "data": data.describe()})
    # The trained module may be in shards; what is published is whole.
    published = module if ranks.size == 1 else PretrainingModel(config.encoder, num_states)
    meter = Meter(
        config.global_batch * config.window_bp // config.encoder.token_bp,
        lambda: config.global_batch * flops_per_window(config, num_states),
        device,
        ranks.size,
        around.reporter,
    )
    train_and_publish(objective, loop, around, target, Publication("checkpoint", fingerprint, published, body), meter)
    return target.output
