"""Fine-tuning: one logit per 200-bp bin and TF on the pre-trained encoder."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebert_core.artifacts import digest_of
from ebert_core.config import EncoderConfig, FinetuneConfig
from ebert_core.data.task_features import TrackSpec
from ebert_core.data.windows import step_generator
from ebert_core.epigenome.state_models import StateModel
from ebert_core.genome.regions import Region
from ebert_core.inference.packed import packed
from ebert_core.inference.scan import model_score, opinions_score
from ebert_core.io.motifs import Motif
from ebert_core.model.checkpoint import features_entry, read_checkpoint, require_same_states, vocabulary_entry
from ebert_core.model.device import Device
from ebert_core.model.encoder import Encoder, count_parameters
from ebert_core.model.fusion import BindingModel, BindingShape
from ebert_core.model.stride_features import MotifScan
from ebert_core.model.trees import Trees
from ebert_core.training.binding_validation import BindingValidation
from ebert_core.training.binding_windows import BindingWindows, LabelledBatch, background_bases
from ebert_core.training.boosting import fit_trees
from ebert_core.training.distributed import ALONE, Ranks
from ebert_core.training.finetune_data import FinetuneData
from ebert_core.training.loop import LoopConfig, Surroundings
from ebert_core.training.progress import Meter, no_content, training_flops
from ebert_core.training.resume import LoopState
from ebert_core.training.run_folder import Publication, RunTarget, train_and_publish
from ebert_core.training.steps import StepConfig
from ebert_core.training.tree_shares import chosen_shares, judged
from ebert_core.vocabulary import STATE_BIN_BP, STRIDE_BP

_TRAIN_STREAM = 2
_SCAN_WINDOWS = 8


@dataclass(frozen=True)
class BindingBatch:
    """Windows on the device with what is known of their bins; see `LabelledBatch`. Tracks may have no channel."""

    bases: Tensor
    states: Tensor
    tracks: Tensor
    bound: Tensor
    weights: Tensor


class BindingLosses(nn.Module):
    """The sum that fine-tuning is about, as one forward pass over a batch."""

    def __init__(self, module: BindingModel) -> None:
        super().__init__()
        self.model = module
        self.encode = True

    def forward(self, batch: BindingBatch) -> Tensor:
        """(1,): binary cross-entropy, weighted by bin."""
        logits = self.model(batch.bases, batch.states, batch.tracks, encode=self.encode)
        bound = batch.bound.float()
        total = F.binary_cross_entropy_with_logits(logits, bound, weight=batch.weights, reduction="sum")
        return total[None]


class BindingObjective:
    """Binary cross-entropy over bound and unbound bins; validated by auPRC over the validation part."""

    def __init__(
        self,
        data: FinetuneData,
        config: FinetuneConfig,
        module: BindingModel,
        device: Device,
        tracks: TrackSpec | None = None,
    ) -> None:
        self.module = module
        self.losses = BindingLosses(module)
        self.head_steps = round(config.head_share * config.steps) if module.shape.motifs[0] else 0
        self.weights = (1.0,)
        self.windows = BindingWindows(data, config, tracks)
        self.validation = BindingValidation(data, config, tracks)
        self.tfs, self._config, self._device = data.tfs, config, device
        self._latest: tuple[int, LabelledBatch] | None = None

    def groups(self) -> list[tuple[nn.Module, float]]:
        encoder, rate, decay = self.module.encoder, self._config.encoder_rate, self._config.layer_decay
        layers: list[nn.Module] = [nn.ModuleList([encoder.stem, encoder.state_embedding]), *encoder.blocks]
        shares = [rate * decay**below for below in range(len(layers) - 1, -1, -1)]
        return [(self.module.head, 1.0), (encoder.norm, rate), *zip(layers, shares, strict=True)]

    def draw(self, step: int, first: int, count: int) -> BindingBatch:
        # The whole global batch is drawn at once and kept for the step's other parts.
        if self._latest is None or self._latest[0] != step:
            rng = step_generator(self._config.seed, _TRAIN_STREAM, step)
            self._latest = step, self.windows.draw(rng, self._config.global_batch)
        self.losses.encode = step >= self.head_steps
        batch, rows = self._latest[1], slice(first, first + count)
        windows = batch.windows
        none = np.zeros((len(windows.bases), windows.bases.shape[1] // STRIDE_BP, 0), dtype=np.float32)
        tracks = none if windows.tracks is None else windows.tracks
        arrays = (windows.bases, windows.states, tracks, batch.bound, batch.weights)
        return BindingBatch(*(torch.from_numpy(a[rows].copy()).to(self._device.device) for a in arrays))

    def counts(self, batch: BindingBatch) -> Tensor:
        return batch.weights.sum()[None].double()

    def tensors(self, batch: BindingBatch) -> dict[str, Tensor]:
        return vars(batch)

    def figures(self, means: list[float]) -> dict[str, float]:
        return {}

    def evaluate(self, ranks: Ranks = ALONE) -> dict[str, Any]:
        """Mean auPRC over TFs and validation cell types, and each of them."""
        return self.validation.evaluate(model_score(self.module, self._device, both_strands=False))

    def calibrate(self) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
        """See `BindingValidation.calibrate`; before that, the share of each TF's trees is chosen."""
        self.module.eval()
        # With the products of `ebert predict`.
        module, trees = packed(self.module, self._device), self.module.head.trees
        if trees is None:
            return self.validation.calibrate(
                self.validation.whole(model_score(module, self._device, both_strands=True))
            )
        opinions = self.validation.whole(opinions_score(module, self._device))
        shares = chosen_shares(self.tfs, opinions)
        shares[trees.silent().cpu().numpy()] = 0
        trees.share.copy_(torch.from_numpy(shares))
        return self.validation.calibrate(judged(self.tfs, opinions, shares))


Start = Callable[[int], tuple[Encoder, dict[str, Any]]]
"""Seed -> (the encoder to fine-tune, where it came from): `starting_encoder` of a run."""


def starting_encoder(
    checkpoint: Path | None, shape: EncoderConfig, state_model: StateModel, seed: int
) -> tuple[Encoder, dict[str, Any]]:
    """The encoder to fine-tune, and where it came from: a checkpoint, or fresh weights of `shape` where it is None."""
    if checkpoint is None:
        torch.manual_seed(seed)
        return Encoder(shape, len(state_model.states)), {"scratch": shape.model_dump()}
    pretrained, known, manifest = read_checkpoint(checkpoint)
    require_same_states(known, state_model, f"checkpoint {checkpoint}")
    origin = {"checkpoint": str(checkpoint), "weights": manifest["files"], "data": manifest["data"]}
    return pretrained.encoder, origin


def finetune(
    data: FinetuneData,
    config: FinetuneConfig,
    start: Start,
    motifs: Sequence[Motif],
    target: RunTarget,
    around: Surroundings,
) -> Path:
    """Fine-tune an encoder for the chosen TFs and publish the model; `config.members` is not looked at.

    Args:
        start: makes the encoder.
        motifs: from `io.motifs.choose_motifs`; none where no motif file was named.

    Returns:
        `target.output`: a folder with `weights.safetensors`, `ebert.json` and `journal.jsonl`.

    Raises:
        EbertError: an output in the way, nothing to train on, too little memory, or a loss that is not finite.
        KeyboardInterrupt: stopped and saved; `Requeue` is one.
    """
    if config.trees:
        importlib.import_module("sklearn.ensemble")  # what is broken shows before the hours, not after
    trunk, origin = start(config.seed)
    torch.manual_seed(config.seed)
    tracks = TrackSpec.choose(data.dataset, config.features, data.held_out_cells, states=config.use_states)
    scanner = MotifScan([motif.log_odds() for motif in motifs])
    width = scanner.kernels.shape[2]
    if motifs:
        scanner.learn_background(torch.from_numpy(background_bases(data)))
    shape = BindingShape(config.fusion, config.features.composition, (len(motifs), width), len(tracks.channels))
    module = BindingModel(trunk, len(data.outputs), shape, scanner).to(around.device.device)
    objective = BindingObjective(data, config, module, around.device, tracks)
    _announce(data, config, objective, around)

    def body(state: LoopState) -> dict[str, Any]:
        module.keep_tfs(len(data.tfs))
        if not module.listens:
            around.reporter.warn(
                f"the best weights are those of step {state.best_step:,}, before the encoder joined: "
                "the model reads the task features alone"
            )
        if config.trees:
            around.reporter.log(f"fitting {config.trees} trees for each of {len(data.tfs)} TF(s)")
            module.grow(fit_trees(data, config, module, around.device, tracks, around.reporter))
        calibrations, measures = objective.calibrate()
        shares = {} if module.head.trees is None else _shares(data, module.head.trees)
        if shares:
            told = ", ".join(f"{tf} {share:.0%}" for tf, share in shares.items())
            around.reporter.log(f"the trees' share in the answer, chosen on the validation part: {told}")
            if silent := [tf for tf, share in shares.items() if not share]:
                around.reporter.log(f"no trees for {', '.join(silent)}: nothing to tell bound from unbound bins by")
        return {
            "tfs": list(data.tfs),
            "config": config.model_dump(),
            "encoder": trunk.config.model_dump(),
            "features": features_entry(module.shape, [motif.label for motif in motifs], tracks.to_json()),
            "vocabulary": vocabulary_entry(trunk.config, data.dataset.require_state_model()),
            "data": data.describe(tracks.state_cells),
            "started_from": origin,
            "num_parameters": count_parameters(module),
            "best_step": state.best_step,
            "validation": measures,
            "calibration": calibrations,
            **({"tree_shares": shares} if shares else {}),
        }

    loop = LoopConfig(
        StepConfig(config.steps, config.global_batch, config.micro_batch, config.optimizer, config.seed),
        evaluate_every=config.evaluate_every,
        checkpoint_every=config.evaluate_every,
        checkpoint_minutes=config.checkpoint_minutes,
        patience=config.patience,
        patient_until=objective.head_steps,
    )
    train_and_publish(
        objective,
        loop,
        around,
        target,
        Publication("model", fingerprint_of(data, config, origin, motifs, tracks), module, body),
        _meter(config, trunk, around, head_first=objective.head_steps > 0),
    )
    return target.output


def _shares(data: FinetuneData, trees: Trees) -> dict[str, float]:
    return dict(zip(data.tfs, (round(share, 1) for share in trees.share.tolist()), strict=True))


def fingerprint_of(
    data: FinetuneData, config: FinetuneConfig, origin: dict[str, Any], motifs: Sequence[Motif], tracks: TrackSpec
) -> str:
    """Digest of what makes a run what it is; `origin` is where its encoder came from."""
    shown = config.model_dump(exclude={"micro_batch", "checkpoint_minutes"})
    return digest_of(
        {
            "config": shown,
            "data": data.describe(tracks.state_cells),
            "encoder": origin,
            "motifs": [motif.label for motif in motifs],
        }
    )


def _announce(data: FinetuneData, config: FinetuneConfig, objective: BindingObjective, around: Surroundings) -> None:
    """The first lines of a run."""
    around.reporter.log(
        f"device {around.device.describe()}; {count_parameters(objective.module):,} parameters; {len(data.tfs)} TF(s); "
        f"{objective.windows.num_starts:,} windows of {config.window_bp:,} bp in each of {', '.join(data.cells)}"
    )
    around.reporter.log(
        f"training on {_shown(data.train)}; validating on {_shown(data.valid)} of {', '.join(data.valid_cells)}"
    )
    if stateless := _without_states(data, config):
        around.reporter.warn(f"the dataset has no states of {', '.join(stateless)}: read with unknown states")


def _meter(config: FinetuneConfig, trunk: Encoder, around: Surroundings, *, head_first: bool) -> Meter:
    def flops() -> float:
        def call(module: Encoder) -> Tensor:
            return module(no_content(1, config.window_bp), no_content(1, config.window_bp // STATE_BIN_BP))

        return config.global_batch * training_flops(lambda: Encoder(trunk.config, trunk.num_states), call)

    tokens = config.global_batch * config.window_bp // trunk.config.token_bp
    return Meter(tokens, None if head_first else flops, around.device, reporter=around.reporter)


def _without_states(data: FinetuneData, config: FinetuneConfig) -> list[str]:
    """Cell types that a run with states reads without, because the dataset has none of them."""
    cells = dict.fromkeys([*data.cells, *data.valid_cells])
    return [cell for cell in cells if config.use_states and cell not in data.dataset.state_cells]


def _shown(regions: Sequence[Region]) -> str:
    shown = [str(region) for region in regions[:4]]
    return ", ".join(shown) + (f" and {len(regions) - 4} more" if len(regions) > 4 else "")
