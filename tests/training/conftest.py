from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from ebert_core import artifacts
from ebert_core.data.dataset import Dataset
from ebert_core.model.device import Device, choose_device


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


@pytest.fixture
def copied_dataset(toy_dataset: Dataset, tmp_path: Path) -> Callable[[], Dataset]:
    """A function that opens a fresh copy of the toy dataset, free to be changed."""

    def copied() -> Dataset:
        folder = tmp_path / f"copy{len(list(tmp_path.glob('copy*')))}"
        shutil.copytree(toy_dataset.path, folder)
        return Dataset.open(folder)

    return copied
