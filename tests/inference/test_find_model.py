"""Finding a model by the TFs that it knows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ebert_core.data.dataset import Dataset
from ebert_core.errors import EbertError, InputError, UnknownNameError
from ebert_core.inference.models import LoadedModel, find_model, load_model
from ebert_core.model.device import Device


@pytest.fixture
def models(make_model: Callable[..., Path], tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    make_model(folder / "CTCF", "CTCF")
    make_model(folder / "MAX", "MAX")
    make_model(folder / "all", "CTCF", "MAX", "REST")
    (folder / "notes.txt").write_text("x")
    (folder / "empty").mkdir()
    (folder / "dataset").mkdir()
    (folder / "dataset" / "ebert.json").write_text('{"kind": "dataset"}')
    return folder


@pytest.mark.parametrize(
    ("tfs", "name"),
    [(["CTCF"], "CTCF"), (["max"], "MAX"), (["REST"], "all"), (["max", "rest"], "all"), (["MAX", "CTCF"], "all")],
)
def test_the_model_that_knows_them_or_is_called_after_them(models: Path, tfs: list[str], name: str) -> None:
    assert find_model(models, tfs) == models / name


def test_several_without_a_name_that_decides(models: Path, make_model: Callable[..., Path]) -> None:
    make_model(models / "second", "CTCF", "MAX", "REST")
    with pytest.raises(EbertError, match="several models know REST: all, second") as caught:
        find_model(models, ["REST"])
    assert "--model" in caught.value.hint
    assert find_model(models, ["CTCF"]) == models / "CTCF"


def test_a_name_decides_whatever_the_order(make_model: Callable[..., Path], tmp_path: Path) -> None:
    make_model(tmp_path / "CTCF+MAX", "CTCF", "MAX")
    make_model(tmp_path / "second", "CTCF", "MAX")
    assert find_model(tmp_path, ["CTCF", "MAX"]).name == "CTCF+MAX"
    assert find_model(tmp_path, ["max", "ctcf"]).name == "CTCF+MAX"


def test_what_a_killed_run_left_is_no_model(models: Path, make_model: Callable[..., Path]) -> None:
    make_model(models / ".mine.partial-4711", "REST")
    assert find_model(models, ["REST"]) == models / "all"


def test_an_unknown_tf_suggests(models: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown TF 'CTFC'") as caught:
        find_model(models, ["MAX", "CTFC"])
    assert "CTCF" in caught.value.hint


def test_no_single_model_knows_them(make_model: Callable[..., Path], tmp_path: Path) -> None:
    make_model(tmp_path / "CTCF", "CTCF")
    make_model(tmp_path / "MAX", "MAX")
    with pytest.raises(EbertError, match="no single model knows CTCF, MAX"):
        find_model(tmp_path, ["CTCF", "MAX"])


@pytest.mark.parametrize("folder", ["nothing", "."])
def test_no_model_at_all(tmp_path: Path, folder: str) -> None:
    with pytest.raises(EbertError, match="there is no model in") as caught:
        find_model(tmp_path / folder, ["CTCF"])
    assert "ebert finetune" in caught.value.hint


def test_a_loaded_model_knows_its_tfs(models: Path, toy_dataset: Dataset, device: Device, model: LoadedModel) -> None:
    loaded = load_model(models / "all", toy_dataset, device)
    assert loaded.tfs == ["CTCF", "MAX", "REST"]
    assert [loaded.index(name) for name in ("rest", "CTCF", "Max")] == [2, 0, 1]
    assert not loaded.module.training
    with pytest.raises(UnknownNameError) as caught:
        loaded.index("RESTT")
    assert "REST" in caught.value.hint
    assert loaded.calibration("MAX").slope == 0.6
    assert loaded.state_model == toy_dataset.state_model


def test_what_a_model_has_seen(model: LoadedModel) -> None:
    assert model.trained_on == {
        "tfs": ["CTCF", "MAX"],
        "cells": ["GM12878"],
        "regions": [["chr1", 0, 60_000], ["chr2", 0, 41_337]],
        "window_bp": 2_000,
    }
    assert model.pretrained_on is None
    read = {"cells": ["HepG2"], "train": [["chr1", 0, 9]], "valid": [["chr2", 5, 7]], "assembly": {}}
    manifest = {**model.manifest, "started_from": {"checkpoint": "pretrained", "data": read}}
    pretrained = LoadedModel(model.path, model.module, manifest).pretrained_on
    assert pretrained == {"cells": ["HepG2"], "regions": [["chr1", 0, 9], ["chr2", 5, 7]]}


DAMAGE = {
    "no calibration": (("calibration",), None, "no 'calibration'"),
    "no calibration of a TF": (("calibration", "MAX"), None, "no 'MAX'"),
    "no slope": (("calibration", "MAX", "slope"), None, "no 'slope'"),
    "no threshold table": (("calibration", "MAX", "thresholds"), None, "no 'thresholds'"),
    "no recall": (("calibration", "MAX", "thresholds", "recall"), None, "no 'recall'"),
    "recall too short": (("calibration", "MAX", "thresholds", "recall"), [1.0], "differ in length"),
    "recall not a number": (("calibration", "MAX", "thresholds", "recall"), ["x"] * 4, "could not convert"),
    "precision over 1": (("calibration", "MAX", "thresholds", "precision"), [2.0] * 4, "not from 0 to 1"),
    "precision of others": (("calibration", "MAX", "thresholds", "precision"), [0.5] * 4, "contradict each other"),
    "thresholds unordered": (("calibration", "MAX", "thresholds", "threshold"), [0.5] * 4, "not in order"),
    "thresholds of another kind": (("calibration", "MAX", "thresholds"), [0.4], "damaged"),
    "no origin": (("started_from",), None, "no 'started_from'"),
    "an unknown origin": (("started_from",), {"moon": 1}, "no 'scratch'"),
    "an origin without regions": (("started_from",), {"data": {"cells": [], "valid": []}}, "no 'train'"),
    "an impossible window": (("config", "window_bp"), 1_001, "config: Value error, window_bp = 1001"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_manifest(models: Path, toy_dataset: Dataset, device: Device, damage: str) -> None:
    keys, value, problem = DAMAGE[damage]
    path = models / "all" / "ebert.json"
    manifest = json.loads(path.read_text())
    inner = manifest
    for key in keys[:-1]:
        inner = inner[key]
    if value is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="is damaged or of another version of ebert") as caught:
        load_model(models / "all", toy_dataset, device)
    assert problem in caught.value.message
    assert str(path) in caught.value.message
    assert "ebert finetune" in caught.value.hint
