from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from ebert_core import artifacts
from ebert_core.config import EncoderConfig, FinetuneConfig, FusionConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.task_features import TrackSpec
from ebert_core.genome.regions import Region, whole
from ebert_core.inference.calls import ThresholdTable
from ebert_core.inference.models import LoadedModel, load_model
from ebert_core.inference.pieces import Piece, Plan, Scored, make_plan, score_pieces
from ebert_core.model.checkpoint import features_entry, save, vocabulary_entry
from ebert_core.model.device import Device, choose_device
from ebert_core.model.encoder import Encoder
from ebert_core.model.fusion import BindingModel, BindingShape
from ebert_core.reporting import Advance

TINY = EncoderConfig(width=16, num_layers=1, num_heads=2, stem_channels=8)
FUSION = FusionConfig(width=16, num_layers=1)
TABLE = ThresholdTable(
    thresholds=np.array([0.9, 0.5, 0.4, 0.1]),
    precision=np.array([0.5, 0.9, 0.8, 0.3]),
    recall=np.array([0.1, 0.4, 0.6, 1.0]),
    num_bound=10,
    num_unbound=90,
)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tiny products on one thread, and no waiting for the disk."""
    monkeypatch.setattr(artifacts, "_flush", lambda path: None)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def device() -> Device:
    return choose_device("cpu", "fp32")


@pytest.fixture(scope="session")
def make_model(toy_dataset: Dataset) -> Callable[..., Path]:
    """A function that writes a model folder with random weights, as fine-tuning would."""

    def make(folder: Path, *tfs: str, **config: object) -> Path:
        torch.manual_seed(7)
        shape = BindingShape(FUSION)
        module = BindingModel(Encoder(TINY, 18), len(tfs), shape)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.normal_(std=0.4)
        data = {
            "tfs": list(tfs),
            "cells": ["GM12878"],
            "valid_cells": ["GM12878"],
            "train": [["chr1", 0, 60_000]],
            "valid": [["chr2", 0, 41_337]],
            "assembly": toy_dataset.assembly.to_json(),
        }
        assert toy_dataset.state_model is not None
        body = {
            "tfs": list(tfs),
            "config": FinetuneConfig(
                **{"window_bp": 2_000, "context_bp": 400, "fusion": FUSION, **config}
            ).model_dump(),
            "encoder": TINY.model_dump(),
            "features": features_entry(shape, [], TrackSpec().to_json()),
            "vocabulary": vocabulary_entry(TINY, toy_dataset.state_model),
            "data": data,
            "calibration": {
                tf: {"slope": 0.5 + 0.1 * t, "intercept": -1.0 - t, "thresholds": TABLE.to_json()}
                for t, tf in enumerate(tfs)
            },
            "started_from": {"scratch": TINY.model_dump()},
        }
        folder.mkdir(parents=True)
        save(folder, "model", module, body)
        return folder

    return make


@pytest.fixture(scope="session")
def model(
    make_model: Callable[..., Path],
    toy_dataset: Dataset,
    device: Device,
    tmp_path_factory: pytest.TempPathFactory,
) -> LoadedModel:
    """A model of CTCF and MAX on the toy dataset's assembly."""
    return load_model(make_model(tmp_path_factory.mktemp("models") / "all", "CTCF", "MAX"), toy_dataset, device)


@pytest.fixture
def copied_dataset(toy_dataset: Dataset, tmp_path: Path) -> Callable[[], Dataset]:
    """A function that opens a fresh copy of the toy dataset, free to be changed."""

    def copied() -> Dataset:
        folder = tmp_path / f"copy{len(list(tmp_path.glob('copy*')))}"
        shutil.copytree(toy_dataset.path, folder)
        return Dataset.open(folder)

    return copied


@dataclass
class MadeUp:
    """Two TFs with made-up probabilities on pieces of the toy genome, as a scan would give them.

    Attributes:
        plan: its pieces.
        tables: chromosome -> probability and spread of every bin, shape (N, 2); NaN where a bin gets none.
        scored: numbers of the pieces that were asked for, in that order.
    """

    dataset: Dataset
    plan: Plan
    tables: dict[str, np.ndarray]
    spreads: dict[str, np.ndarray]
    with_spread: bool = False
    scored: list[int] = field(default_factory=list)

    def values(self, piece: Piece, advance: Advance) -> Scored:
        self.scored.append(piece.number)
        advance(len(piece.bins), piece.chrom)
        spread = self.spreads[piece.chrom][piece.bins] if self.with_spread else None
        return Scored(piece, self.tables[piece.chrom][piece.bins], spread)

    def pieces(self) -> Iterator[Scored]:
        return score_pieces(self.plan.pieces, self.values, lambda amount, note="": None)


@pytest.fixture
def made_up(toy_dataset: Dataset) -> Callable[..., MadeUp]:
    """A function: seed, regions and bins per piece -> `MadeUp`."""

    def make(seed: int = 0, regions: Sequence[Region] | None = None, bins_at_once: int = 300) -> MadeUp:
        rng = np.random.default_rng(seed)
        plan = make_plan(toy_dataset, regions or whole(toy_dataset.assembly), 20, bins_at_once)
        tables, spreads = {}, {}
        for chrom in plan.chroms:
            shape = (max(0, (toy_dataset.assembly.length(chrom) - 200) // 50 + 1), 2)
            wanted = np.zeros(shape[0], dtype=bool)
            for piece in plan.pieces:
                if piece.chrom == chrom:
                    wanted[piece.bins] = True
            for made in (tables, spreads):
                made[chrom] = np.where(wanted[:, None], rng.random(shape), np.nan).astype(np.float32)
        return MadeUp(toy_dataset, plan, tables, spreads)

    return make
