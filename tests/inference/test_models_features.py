"""Opening a model that reads task features: what it needs of a dataset, and manifests that are damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ebert_core.artifacts import write_json
from ebert_core.config import EncoderConfig, FeatureConfig, FusionConfig, PrepareConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.prepare import prepare
from ebert_core.data.task_features import TrackSpec
from ebert_core.data.windows import Batch
from ebert_core.errors import EbertError, InputError
from ebert_core.genome.regions import Region
from ebert_core.inference.models import LoadedModel, load_model
from ebert_core.inference.predictor import CellStates, Request, give_accessibility, tracks_of
from ebert_core.inference.scan import model_score
from ebert_core.model.checkpoint import features_entry, save
from ebert_core.model.device import Device
from ebert_core.model.encoder import Encoder
from ebert_core.model.fusion import BindingModel, BindingShape
from ebert_core.model.stride_features import MotifScan

TINY = EncoderConfig(width=16, num_layers=1, num_heads=2, stem_channels=8)


@pytest.fixture(scope="module")
def with_starts(toy_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("starts")
    shutil.copytree(toy_dataset.path, folder / "dataset")
    (folder / "starts.bed").write_text("chr1\t1500\t1501\t.\t.\t+\nchr2\t30007\t30008\t.\t.\t-\n")
    return prepare(PrepareConfig(output=folder / "dataset", tss=folder / "starts.bed")).dataset


@pytest.fixture
def folder(make_model: Callable[..., Path], with_starts: Dataset, tmp_path: Path) -> Path:
    """A model with random weights that reads accessibility, transcript starts, composition and a motif."""
    fusion = FusionConfig(width=16, num_layers=1)
    body = json.loads((make_model(tmp_path / "plain", "CTCF", "MAX", fusion=fusion) / "ebert.json").read_text())
    scan = MotifScan([np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)])
    spec = TrackSpec.choose(with_starts, FeatureConfig(other_states=True), ("HepG2",))
    shape = BindingShape(fusion, True, (1, 9), len(spec.channels))
    module = BindingModel(Encoder(TINY, 18), 2, shape, scan)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
    body["features"] = features_entry(shape, ["CTCF (MA0139.1)"], spec.to_json())
    target = tmp_path / "model"
    target.mkdir()
    save(target, "model", module, {key: body[key] for key in body.keys() - {"kind", "format_version", "files"}})
    return target


def opened(folder: Path, dataset: Dataset, device: Device) -> LoadedModel:
    return load_model(folder, dataset, device)


def change(folder: Path, mend: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "ebert.json"
    manifest = json.loads(path.read_text())
    mend(manifest)
    path.unlink()
    write_json(path, manifest)


# --- what it reads


def test_its_reader_is_that_of_the_dataset(folder: Path, with_starts: Dataset, device: Device) -> None:
    loaded = opened(folder, with_starts, device)
    assert loaded.tracks is not None
    assert loaded.tracks.dataset is with_starts
    assert loaded.tracks.spec == TrackSpec.choose(with_starts, FeatureConfig(other_states=True), ("HepG2",))
    assert loaded.tracks.missing == []


def test_a_model_of_the_sequence_alone_reads_no_tracks(model: LoadedModel, toy_dataset: Dataset) -> None:
    assert model.tracks is None
    assert tracks_of(toy_dataset, model, "HepG2", "chr1") is None


def test_a_dataset_without_transcript_starts(folder: Path, toy_dataset: Dataset, device: Device) -> None:
    with pytest.raises(EbertError, match=r"dataset .* holds none") as caught:
        opened(folder, toy_dataset, device)
    assert "ebert prepare --tss" in caught.value.hint


@pytest.mark.parametrize("cell", ["HepG2", "MyCell"])
@pytest.mark.parametrize("chrom", ["chr1", "chr2"])
def test_a_prediction_by_single_windows(
    folder: Path,
    with_starts: Dataset,
    device: Device,
    predict_whole: Callable[..., dict[str, np.ndarray]],
    cell: str,
    chrom: str,
) -> None:
    """Tracks read one window at a time, with the chromosome's ends; MyCell has no accessibility of its own."""
    loaded = opened(folder, with_starts, device)
    length = with_starts.assembly.length(chrom)
    regions = (Region(chrom, 0, 1_500), Region(chrom, length - 1_500, length))
    request = Request(("MAX",), CellStates(cell, None, "none"), regions)
    found = predict_whole(with_starts, loaded, request, device)[chrom]
    read, score = tracks_of(with_starts, loaded, cell, chrom), model_score(loaded.module, device, both_strands=True)
    assert read is not None
    codes = np.concatenate([np.full(400, 4), with_starts.sequence(chrom), np.full(4_000, 4)]).astype(np.uint8)
    scored = np.flatnonzero(~np.isnan(found[:, 0]))
    assert len(scored) > 40
    for number in scored[[0, 3, 20, -5, -1]]:
        window = number * 50 // 1_000 * 1_000  # the core; it begins 400 bp before
        tracks = read(np.array([window - 400]))
        assert (tracks[..., 3] > 0).any() == (cell == "HepG2")
        batch = Batch(codes[None, window : window + 2_000], np.zeros((1, 10), np.uint8), tracks)
        logits = score(batch)[0, 8 + (number * 50 - window) // 50, 1]
        expected = loaded.calibration("MAX").probabilities(np.array([logits]))
        np.testing.assert_allclose(found[number], expected, rtol=1e-4)


# --- accessibility that is handed in


PEAKS_OF_ANOTHER = "chr1\t100\t900\t.\t0\t.\t7.5\t-1\t-1\t400\n"


def test_a_file_takes_the_place_of_the_datasets_own(
    folder: Path, with_starts: Dataset, device: Device, toy_files, tmp_path: Path
) -> None:
    """Also for a cell type that has none; `hide` shows none whatever the dataset holds."""
    given, own = opened(folder, with_starts, device), opened(folder, with_starts, device)
    starts = np.arange(0, 40_000, 2_000)
    read_own = tracks_of(with_starts, own, "HepG2", "chr2")
    for cell in ("HepG2", "Mine"):
        give_accessibility(with_starts, given, cell, toy_files.accessibility / "HepG2.bigWig")
        read_given = tracks_of(with_starts, given, cell, "chr2")
        assert read_given is not None
        assert read_own is not None
        np.testing.assert_array_equal(read_given(starts), read_own(starts))
    path = tmp_path / "other.narrowPeak"
    path.write_text(PEAKS_OF_ANOTHER)
    give_accessibility(with_starts, given, "HepG2", path)
    assert not np.array_equal(
        read_given(starts)[..., 0], tracks_of(with_starts, given, "HepG2", "chr2")(starts)[..., 0]
    )
    give_accessibility(with_starts, given, "HepG2", None, hide=True)
    assert given.tracks is not None
    assert given.tracks.source("HepG2") == "none (asked for)"
    assert (tracks_of(with_starts, given, "HepG2", "chr2")(starts)[..., [0, 2, 3]] == 0).all()


FAULTY_FILES = {
    "empty": ("mine.narrowPeak", "", "has no data lines"),
    "of another assembly": ("mine.narrowPeak", PEAKS_OF_ANOTHER.replace("chr1", "chr7"), "chr7"),
    "past the end": ("mine.narrowPeak", PEAKS_OF_ANOTHER.replace("900", "90000"), "chr1"),
    "of another kind": ("mine.bw", PEAKS_OF_ANOTHER, "mine.bw"),
}


@pytest.mark.parametrize("fault", FAULTY_FILES)
def test_faults_of_a_file_are_told(
    folder: Path, with_starts: Dataset, device: Device, tmp_path: Path, fault: str
) -> None:
    name, content, told = FAULTY_FILES[fault]
    (tmp_path / name).write_text(content)
    loaded = opened(folder, with_starts, device)
    with pytest.raises(EbertError, match=told) as caught:
        give_accessibility(with_starts, loaded, "Mine", tmp_path / name)
    assert caught.value.hint


def test_a_file_for_a_model_that_reads_none(toy_dataset: Dataset, model: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(EbertError, match="does not read a cell type's own accessibility") as caught:
        give_accessibility(toy_dataset, model, "HepG2", tmp_path / "any.bw")
    assert "--accessibility" in caught.value.hint
    assert give_accessibility(toy_dataset, model, "HepG2", None, hide=True) == []


# --- damage


def spoiled(**changes: object) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest["features"]["tracks"].update(changes)


REFERENCE = {"share_positive": 0.5, "values": [1.0] * 256}
DAMAGE = {
    "no tracks": (lambda manifest: manifest["features"].pop("tracks"), "no 'tracks'"),
    "tracks of another kind": (lambda manifest: manifest["features"].update(tracks=3), "not subscriptable"),
    "no transcript starts": (lambda manifest: manifest["features"]["tracks"].pop("tss"), "no 'tss'"),
    "fewer tracks than weights": (spoiled(tss=False), "features.tracks has 23 channels, num_tracks is 24"),
    "no accessibility": (spoiled(accessibility_reference=None), "features.tracks has 19 channels, num_tracks is 24"),
    "no cells of the mean": (lambda manifest: manifest["features"]["tracks"].pop("mean_cells"), "no 'mean_cells'"),
    "reference of another kind": (spoiled(accessibility_reference=7), "not subscriptable"),
    "reference cut short": (
        spoiled(accessibility_reference={**REFERENCE, "values": [1.0] * 9}), "has 9 quantiles, expected 256",
    ),
    "reference out of order": (
        spoiled(accessibility_reference={**REFERENCE, "values": [2.0] + [1.0] * 255}), "quantiles never fall",
    ),
    "reference of no share": (spoiled(accessibility_reference={**REFERENCE, "share_positive": 0}), "share_positive is"),
    "reference in words": (spoiled(accessibility_reference={**REFERENCE, "values": ["x"] * 256}), "could not convert"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_tracks_are_one_error(folder: Path, with_starts: Dataset, device: Device, damage: str) -> None:
    spoil, problem = DAMAGE[damage]
    change(folder, spoil)
    with pytest.raises(InputError, match="is damaged or of another version of ebert") as caught:
        opened(folder, with_starts, device)
    assert problem in caught.value.message
    assert str(folder / "ebert.json") in caught.value.message
    assert "ebert finetune" in caught.value.hint


def test_features_that_do_not_fit_the_weights(folder: Path, with_starts: Dataset, device: Device) -> None:
    change(folder, lambda manifest: manifest["features"].update(num_tracks=25))
    with pytest.raises(InputError, match="does not fit its manifest"):
        opened(folder, with_starts, device)


def test_a_model_of_the_format_before_is_refused(folder: Path, with_starts: Dataset, device: Device) -> None:
    """Its head was another."""
    change(folder, lambda manifest: manifest.update(format_version=1))
    with pytest.raises(EbertError, match="has format version 1") as caught:
        opened(folder, with_starts, device)
    assert "ebert finetune" in caught.value.hint
