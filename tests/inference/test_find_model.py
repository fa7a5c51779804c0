"""Finding a model by the TFs that it knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ebert_core.data.dataset import Dataset
from ebert_core.errors import EbertError, UnknownNameError
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
