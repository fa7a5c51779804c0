"""Fine-tuning: one logit per 200-bp bin and TF on the pre-trained encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ebert_core.artifacts import digest_of
from ebert_core.config import EncoderConfig, FinetuneConfig
from ebert_core.data.windows import step_generator
from ebert_core.epigenome.state_models import StateModel
from ebert_core.evaluation.measures import measure
from ebert_core.genome.labels import BOUND, UNBOUND
from ebert_core.genome.regions import Region
from ebert_core.inference.scan import ScanGeometry, model_score, scan
from ebert_core.model.checkpoint import BindingModel, read_checkpoint, require_same_states, save, vocabulary_entry
from ebert_core.model.device import Device
from ebert_core.model.encoder import Encoder, count_parameters
from ebert_core.reporting import SILENT, Reporter
from ebert_core.training.calibration import fit_calibration, threshold_table
from ebert_core.training.finetune_data import BindingWindows, FinetuneData
from ebert_core.training.loop import LoopConfig, train
from ebert_core.training.run_folder import RunTarget, finish_run, open_run
from ebert_core.training.schedule import build_optimizer
from ebert_core.vocabulary import BIN_BP, STATE_BIN_BP, STRIDE_BP

_TRAIN_STREAM = 2
_SCAN_WINDOWS = 8


class BindingObjective:
    """Binary cross-entropy over bound and unbound bins; validated by auPRC over the validation part."""

    def __init__(self, data: FinetuneData, config: FinetuneConfig, module: BindingModel, device: Device) -> None:
        self.module = module
        self.windows = BindingWindows(data, config)
        self._data = data
        self._config = config
        self._device = device
        self._regions = _thinned(data.valid, config.valid_bp // max(1, len(data.valid_cells)))

    def bases_per_part(self) -> int:
        return self._config.micro_batch * self._config.window_bp

    def loss(self, step: int, part: int) -> tuple[Tensor, dict[str, float]]:
        parts = self._config.global_batch // self._config.micro_batch
        rng = step_generator(self._config.seed, _TRAIN_STREAM, step * parts + part)
        batch = self.windows.draw(rng, self._config.micro_batch)
        place = self._device.device
        logits = self.module(
            torch.from_numpy(np.ascontiguousarray(batch.windows.bases)).to(place),
            torch.from_numpy(np.ascontiguousarray(batch.windows.states)).to(place),
        )
        counts = torch.from_numpy(batch.counts).to(place)
        targets = torch.from_numpy(batch.bound).to(place)[counts].float()
        total = F.binary_cross_entropy_with_logits(logits[counts], targets, reduction="sum")
        return total / counts.sum().clamp(min=1), {}  # a mean of nothing would be NaN

    def evaluate(self) -> dict[str, Any]:
        """Mean auPRC over TFs and validation cell types, and each of them."""
        by_pair = {}
        for (tf, cell), (logits, bound) in self.validate(self._regions).items():
            if bound.any() and not bound.all():
                by_pair[f"{tf}/{cell}"] = measure(logits, bound).auprc
        mean = float(np.mean(list(by_pair.values()))) if by_pair else 0.0
        return {"score": mean, "valid_auprc": mean, "by_pair": by_pair}

    def validate(
        self, regions: Sequence[Region], *, both_strands: bool = False
    ) -> dict[tuple[str, str], tuple[NDArray[np.float32], NDArray[np.bool_]]]:
        """(TF, cell type) -> (logits, bound) of the labelled bins of the regions; ambiguous bins left out."""
        dataset = self._data.dataset
        geometry = ScanGeometry(self._config.window_bp, self._config.context_bp)
        score = model_score(self.module, self._device, both_strands=both_strands)
        pieces: dict[tuple[str, str], list[tuple[NDArray[np.float32], NDArray[np.bool_]]]] = {}
        for cell in self._data.valid_cells:
            tfs = [(t, tf) for t, tf in enumerate(self._data.tfs) if cell in dataset.cells_of(tf)]
            for region in regions:
                with_states = self._config.use_states and cell in dataset.state_cells
                states = dataset.states(cell, region.chrom) if with_states else None
                labels = {tf: dataset.labels(tf, cell, region.chrom) for _, tf in tfs}
                starts = np.arange(next(iter(labels.values())).size, dtype=np.int64) * STRIDE_BP
                inside = (starts >= region.start) & (starts + BIN_BP <= region.end)
                wanted = inside & np.any([(codes == BOUND) | (codes == UNBOUND) for codes in labels.values()], axis=0)
                for bins, logits in scan(
                    score, dataset.sequence(region.chrom), states, wanted, geometry, _SCAN_WINDOWS
                ):
                    for t, tf in tfs:
                        known = (labels[tf][bins] == BOUND) | (labels[tf][bins] == UNBOUND)
                        pieces.setdefault((tf, cell), []).append((logits[known, t], labels[tf][bins][known] == BOUND))
        return {
            pair: (np.concatenate([a for a, _ in parts]), np.concatenate([b for _, b in parts]))
            for pair, parts in pieces.items()
        }

    def calibrate(self) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
        """Per TF slope, intercept and threshold table, per pair the measures, on the whole validation part.

        Both strands are read, as `ebert predict` does, so that its probabilities are those of the table.
        """
        self.module.eval()
        found = self.validate(self._data.valid, both_strands=True)
        calibrations: dict[str, dict[str, Any]] = {}
        measures = {}
        for tf in self._data.tfs:
            own = {cell: values for (name, cell), values in found.items() if name == tf}
            logits = np.concatenate([values[0] for values in own.values()])
            bound = np.concatenate([values[1] for values in own.values()])
            calibration = fit_calibration(logits, bound)
            table = threshold_table(calibration.probabilities(logits), bound)
            calibrations[tf] = {**vars(calibration), "thresholds": table.to_json()}
            for cell, (cell_logits, cell_bound) in own.items():
                if cell_bound.any():
                    measures[f"{tf}/{cell}"] = vars(measure(cell_logits, cell_bound))
        return calibrations, measures


def _thinned(regions: Sequence[Region], most_bp: int, piece_bp: int = 100_000) -> list[Region]:
    """Pieces of the regions, evenly spread, `most_bp` together."""
    pieces = [
        Region(region.chrom, max(start, region.start), min(start + piece_bp, region.end))
        for region in regions
        for start in range(region.start // STATE_BIN_BP * STATE_BIN_BP, region.end, piece_bp)
    ]
    keep = max(1, most_bp // piece_bp)
    if len(pieces) <= keep:
        return list(regions)
    return [pieces[i] for i in np.linspace(0, len(pieces) - 1, keep).round().astype(int)]


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
    encoder: tuple[Encoder, dict[str, Any]],
    target: RunTarget,
    device: Device,
    reporter: Reporter = SILENT,
) -> Path:
    """Fine-tune an encoder for the chosen TFs and publish the model.

    Args:
        encoder: from `starting_encoder`.

    Returns:
        `target.output`: a folder with `weights.safetensors`, `ebert.json` and `journal.jsonl`.

    Raises:
        EbertError: an output in the way, nothing to train on, or a loss that is not finite.
    """
    torch.manual_seed(config.seed)
    trunk, origin = encoder
    module = BindingModel(trunk, len(data.tfs)).to(device.device)
    objective = BindingObjective(data, config, module, device)
    with open_run(target, "model") as working:
        reporter.log(
            f"device {device.describe()}; {count_parameters(module):,} parameters; {len(data.tfs)} TF(s); "
            f"{objective.windows.num_starts:,} windows of {config.window_bp:,} bp in each of {', '.join(data.cells)}"
        )
        reporter.log(
            f"training on {_shown(data.train)}; validating on {_shown(data.valid)} of {', '.join(data.valid_cells)}"
        )
        if stateless := _without_states(data, config):
            reporter.warn(f"the dataset has no states of {', '.join(stateless)}: read with unknown states")
        state, best = train(
            objective,
            build_optimizer([(module.encoder, config.encoder_rate), (module.head, 1.0)], config.optimizer),
            LoopConfig(
                steps=config.steps,
                parts=config.global_batch // config.micro_batch,
                evaluate_every=config.evaluate_every,
                checkpoint_every=config.evaluate_every,
                patience=config.patience,
                optimizer=config.optimizer,
                seed=config.seed,
            ),
            device,
            working,
            reporter,
            digest_of({"config": config.model_dump(), "data": data.describe(), "encoder": origin}),
        )
        module.load_state_dict(best)
        calibrations, measures = objective.calibrate()

        def write(folder: Path) -> None:
            body = {
                "tfs": list(data.tfs),
                "config": config.model_dump(),
                "encoder": trunk.config.model_dump(),
                "vocabulary": vocabulary_entry(trunk.config, data.dataset.require_state_model()),
                "data": data.describe(),
                "started_from": origin,
                "num_parameters": count_parameters(module),
                "best_step": state.best_step,
                "validation": measures,
                "calibration": calibrations,
            }
            save(folder, "model", module, body)

        finish_run(working, target, write)
    return target.output


def _without_states(data: FinetuneData, config: FinetuneConfig) -> list[str]:
    """Cell types that a run with states reads without, because the dataset has none of them."""
    cells = dict.fromkeys([*data.cells, *data.valid_cells])
    return [cell for cell in cells if config.use_states and cell not in data.dataset.state_cells]


def _shown(regions: Sequence[Region]) -> str:
    shown = [str(region) for region in regions[:4]]
    return ", ".join(shown) + (f" and {len(regions) - 4} more" if len(regions) > 4 else "")
