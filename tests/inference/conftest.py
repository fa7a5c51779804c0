from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ebert_core import artifacts
from ebert_core.config import EncoderConfig, FinetuneConfig
from ebert_core.data.dataset import Dataset
from ebert_core.inference.calls import ThresholdTable
from ebert_core.inference.models import LoadedModel, load_model
from ebert_core.model.checkpoint import BindingModel, save, vocabulary_entry
from ebert_core.model.device import Device, choose_device
from ebert_core.model.encoder import Encoder

TINY = EncoderConfig(width=16, num_layers=1, num_heads=2, stem_channels=8)
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
        module = BindingModel(Encoder(TINY, 18), len(tfs))
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
            "config": FinetuneConfig(**{"window_bp": 2_000, "context_bp": 400, **config}).model_dump(),
            "encoder": TINY.model_dump(),
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
