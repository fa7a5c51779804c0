"""A small fine-tuning run with every task feature, for the tests of what it keeps and of what it predicts."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from ebert_core.config import EncoderConfig, FeatureConfig, FinetuneConfig, FusionConfig, OptimizerConfig
from ebert_core.data.dataset import Dataset
from ebert_core.genome.regions import Region
from ebert_core.io.motifs import Motif
from ebert_core.model.device import Device
from ebert_core.training.ensemble import finetune_ensemble
from ebert_core.training.finetune import finetune, starting_encoder
from ebert_core.training.finetune_data import FinetuneChoice, choose_data
from ebert_core.training.loop import Surroundings
from ebert_core.training.run_folder import RunTarget

TINY = EncoderConfig(width=16, num_layers=1, num_heads=2, stem_channels=8)
CONFIG = FinetuneConfig(
    optimizer=OptimizerConfig(learning_rate=2e-3, ema_decay=0.9),
    fusion=FusionConfig(width=16, num_layers=2, dropout=0.2, feature_dropout=0.1, encoder_bp=200),
    window_bp=1_000,
    context_bp=200,
    global_batch=4,
    micro_batch=2,
    steps=6,
    evaluate_every=3,
    valid_bp=10_000,
    importance=0.5,
    head_share=0.5,
    features=FeatureConfig(other_states=True),
)
SMALL_BACKGROUND = 50  # windows
VALID = Region("chr2", 20_000, 41_337)
CHOICE = FinetuneChoice(("MAX",), also=("CTCF",), held_out_cells=("HepG2",), valid=(VALID,))


class Trained:
    """Runs fine-tuning in a folder."""

    def __init__(self, dataset: Dataset, motifs: list[Motif], device: Device, folder: Path) -> None:
        self.dataset, self.motifs, self.device, self.folder = dataset, motifs, device, folder

    def __call__(
        self, name: str, config: FinetuneConfig = CONFIG, motifs: list[Motif] | None = None, **target: bool
    ) -> Path:
        train = finetune if config.members == 1 else finetune_ensemble
        return train(
            choose_data(self.dataset, CHOICE),
            config,
            functools.partial(starting_encoder, None, TINY, self.dataset.require_state_model()),
            self.motifs if motifs is None else motifs,
            RunTarget(self.folder / name, **target),
            Surroundings(self.device),
        )


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "ebert.json").read_text())
    return manifest
