from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ebert_core import artifacts
from ebert_core.artifacts import file_entry
from ebert_core.config import PrepareConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.prepare import prepare
from ebert_core.genome.labels import pack_labels
from ebert_core.inference.models import LoadedModel, load_model
from ebert_core.io.motifs import Motif
from ebert_core.model.device import Device, choose_device
from ebert_core.training import binding_windows
from ebert_core.vocabulary import reverse_complement
from tests.training.tuned import SMALL_BACKGROUND, Trained


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


@pytest.fixture(scope="session")
def relabel() -> Callable[..., Dataset]:
    """A function that rewrites the label tracks of a copied dataset: change(tf, cell, codes) gives new codes, or None
    to drop the pair."""

    def rewritten(dataset: Dataset, change: Callable[[str, str, np.ndarray], np.ndarray | None]) -> Dataset:
        manifest = dataset.manifest
        for tf, cell in dataset.label_pairs:
            entry = manifest["labels"][tf][cell]
            chroms = [dataset.labels(tf, cell, chrom) for chrom in dataset.assembly.chroms]
            codes = change(tf, cell, np.concatenate(chroms))
            if codes is None:
                del manifest["labels"][tf][cell]
                continue
            path = dataset.path / entry["file"]
            path.unlink()
            np.save(path, pack_labels(codes.astype(np.uint8)))
            entry.update(file_entry(path))
        (dataset.path / "ebert.json").write_text(json.dumps(manifest))
        return Dataset.open(dataset.path)

    return rewritten


@pytest.fixture(scope="session")
def toy_with_starts(toy_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The toy dataset with transcript starts besides; do not change it."""
    folder = tmp_path_factory.mktemp("starts")
    shutil.copytree(toy_dataset.path, folder / "dataset")
    rows = [f"chr1\t{at}\t{at + 1}\t.\t.\t+\n" for at in range(1_500, 60_000, 9_000)]
    (folder / "starts.bed").write_text("".join([*rows, "chr2\t30007\t30008\t.\t.\t-\n"]))
    return prepare(PrepareConfig(output=folder / "dataset", tss=folder / "starts.bed")).dataset


@pytest.fixture(scope="session")
def toy_motifs() -> list[Motif]:
    """Motifs of odd and even width, the first of them the toy world's MAX."""

    def motif(name: str, letters: str) -> Motif:
        probabilities = np.full((len(letters), 4), 0.1, dtype=np.float32)
        probabilities[np.arange(len(letters)), ["ACGT".index(letter) for letter in letters]] = 0.7
        return Motif(f"MA0001.{len(letters)}", name, probabilities)

    return [motif("MAX", "ACCACGTGGT"), motif("SP1", "GGGCGGG")]


@pytest.fixture
def located(toy_dataset: Dataset) -> Callable[[np.ndarray], list[tuple[int, bool]]]:
    """A function: base codes of windows of 1,000 bp -> (flat start, whether read on the other strand) of each."""
    forward = {toy_dataset.flat_sequence[at : at + 1_000].tobytes(): at for at in range(0, 101_000, 200)}
    backward = {
        reverse_complement(toy_dataset.flat_sequence[at : at + 1_000]).tobytes(): at for at in range(0, 101_000, 200)
    }

    def find(bases: np.ndarray) -> list[tuple[int, bool]]:
        return [
            (forward[row.tobytes()], False) if row.tobytes() in forward else (backward[row.tobytes()], True)
            for row in bases
        ]

    return find


@pytest.fixture
def small_background(monkeypatch: pytest.MonkeyPatch) -> None:
    """Motifs learn how common their hits are from 200 kb in place of 20 Mb."""
    monkeypatch.setattr(binding_windows, "_BACKGROUND_WINDOWS", SMALL_BACKGROUND)


@pytest.fixture
def trained(
    small_background: None, toy_with_starts: Dataset, toy_motifs: list[Motif], device: Device, tmp_path: Path
) -> Trained:
    return Trained(toy_with_starts, toy_motifs, device, tmp_path)


@pytest.fixture(scope="session")
def tuned_folder(
    toy_with_starts: Dataset,
    toy_motifs: list[Motif],
    device: Device,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A model that reads everything; do not change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binding_windows, "_BACKGROUND_WINDOWS", SMALL_BACKGROUND)
        return Trained(toy_with_starts, toy_motifs, device, tmp_path_factory.mktemp("tuned"))("model")


@pytest.fixture
def tuned(tuned_folder: Path, toy_with_starts: Dataset, device: Device) -> LoadedModel:
    return load_model(tuned_folder, toy_with_starts, device)


@pytest.fixture
def copied_starts(toy_with_starts: Dataset) -> Dataset:
    """The dataset opened once more, so that its manifest may be changed in memory."""
    return Dataset.open(toy_with_starts.path)
