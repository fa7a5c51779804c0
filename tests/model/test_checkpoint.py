"""Checkpoints and models on disk: exact round trips, and refusals that name the fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ebert_core.artifacts import MANIFEST_NAME, file_entry
from ebert_core.config import EncoderConfig, FusionConfig, PretrainConfig
from ebert_core.epigenome.state_models import BUILT_IN, State, StateModel
from ebert_core.errors import EbertError, InputError
from ebert_core.model.checkpoint import (
    WEIGHTS_FILE,
    PretrainingModel,
    features_entry,
    load_weights,
    read_checkpoint,
    read_model,
    require_same_states,
    save,
    vocabulary_entry,
)
from ebert_core.model.encoder import Encoder
from ebert_core.model.fusion import BindingModel, BindingShape
from ebert_core.model.stride_features import MotifScan

TINY = EncoderConfig(width=16, num_layers=1, num_heads=2, stem_channels=8)
ROADMAP = BUILT_IN["roadmap18"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "pretrained"
    folder.mkdir()
    torch.manual_seed(3)
    body = {
        "config": PretrainConfig(encoder=TINY).model_dump(),
        "vocabulary": vocabulary_entry(TINY, ROADMAP),
        "data": {"cells": ["A"]},
    }
    save(folder, "checkpoint", PretrainingModel(TINY, 18), body)
    return folder


def binding_model(early: bool = False) -> tuple[BindingModel, BindingShape]:
    """A model of two TFs that reads two motifs, the composition and three tracks."""
    torch.manual_seed(4)
    rng = np.random.default_rng(4)
    scan = MotifScan([rng.normal(size=(width, 4)).astype(np.float32) for width in (6, 9)])
    shape = BindingShape(FusionConfig(width=8, num_layers=2, early=early), True, (2, 9), 3)
    return BindingModel(Encoder(TINY, 18), 2, shape, scan), shape


def saved_model(folder: Path, early: bool = False) -> Path:
    folder.mkdir()
    module, shape = binding_model(early)
    body = {
        "tfs": ["CTCF", "MAX"],
        "config": {"fusion": shape.fusion.model_dump()},
        "encoder": TINY.model_dump(),
        "features": features_entry(shape, ["CTCF (MA0139.1)", "MAX"], {"tss": True}),
        "vocabulary": vocabulary_entry(TINY, ROADMAP),
    }
    save(folder, "model", module, body)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saved_model(tmp_path / "models")


READERS = [("checkpoint", read_checkpoint), ("model", read_model)]
both_kinds = pytest.mark.parametrize(("kind", "read"), READERS)


def change(folder: Path, mend: Callable[[dict[str, Any]], None]) -> None:
    path = folder / MANIFEST_NAME
    manifest = json.loads(path.read_text())
    mend(manifest)
    path.write_text(json.dumps(manifest))


def rewrite(folder: Path, mend: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the weights and let the manifest vouch for them."""
    path = folder / WEIGHTS_FILE
    tensors = load_file(path)
    mend(tensors)
    path.unlink()
    save_file(tensors, path)
    change(folder, lambda manifest: manifest["files"].update({WEIGHTS_FILE: file_entry(path)}))


def refuses(read: Callable[[Path], object], folder: Path, *words: str) -> EbertError:
    with pytest.raises(EbertError) as caught:
        read(folder)
    for word in words:
        assert word in f"{caught.value.message} {caught.value.hint}"
    return caught.value


def test_checkpoint_round_trip_is_exact(checkpoint: Path) -> None:
    torch.manual_seed(3)
    expected = PretrainingModel(TINY, 18).state_dict()
    module, states, manifest = read_checkpoint(checkpoint)
    assert states == ROADMAP
    assert manifest["data"] == {"cells": ["A"]}
    assert module.encoder.config == TINY
    assert module.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("early", [False, True])
def test_model_round_trip_is_exact(tmp_path: Path, early: bool) -> None:
    expected, shape = binding_model(early)
    (module,), states, manifest = read_model(saved_model(tmp_path / "models", early))
    assert (states, manifest["tfs"]) == (ROADMAP, ["CTCF", "MAX"])
    assert module.shape == shape
    assert not module.training
    bases, codes, tracks = torch.randint(0, 4, (2, 600)), torch.randint(0, 19, (2, 3)), torch.randn(2, 12, 3)
    assert torch.equal(module(bases, codes, tracks), expected.eval()(bases, codes, tracks))


def test_a_model_without_features_round_trips(tmp_path: Path) -> None:
    shape = BindingShape(FusionConfig(width=8, num_layers=0))
    expected = BindingModel(Encoder(TINY, 18), 1, shape)
    body = {
        "tfs": ["CTCF"],
        "config": {"fusion": shape.fusion.model_dump()},
        "encoder": TINY.model_dump(),
        "features": features_entry(shape, [], {}),
        "vocabulary": vocabulary_entry(TINY, ROADMAP),
    }
    save(tmp_path, "model", expected, body)
    (module,), *_ = read_model(tmp_path)
    assert module.shape == shape
    bases, codes = torch.randint(0, 4, (2, 600)), torch.randint(0, 20, (2, 3))
    assert torch.equal(module(bases, codes), expected.eval()(bases, codes))


def test_the_file_holds_the_parameters_and_the_motifs(model: Path) -> None:
    """What else a model computes is not saved."""
    parameters = {name for name, _ in read_model(model)[0][0].named_parameters()}
    assert set(load_file(model / WEIGHTS_FILE)) == parameters | {"motifs.kernels", "motifs.knots"}


FEATURE_DAMAGE = {
    "no features": lambda manifest: manifest.pop("features"),
    "features of another kind": lambda manifest: manifest.update(features=[1, 2]),
    "nothing in them": lambda manifest: manifest.update(features={}),
    "features null": lambda manifest: manifest.update(features=None),
    "motifs without names": lambda manifest: manifest["features"].update(motifs=2),
    "a motif too many": lambda manifest: manifest["features"].update(motifs=["a", "b", "c"]),
    "a motif too few": lambda manifest: manifest["features"].update(motifs=["a"]),
    "wider motifs": lambda manifest: manifest["features"].update(motif_width=11),
    "motifs of no width": lambda manifest: manifest["features"].update(motif_width=0),
    "motifs of negative width": lambda manifest: manifest["features"].update(motif_width=-9),
    "a width in words": lambda manifest: manifest["features"].update(motif_width="nine"),
    "tracks too many": lambda manifest: manifest["features"].update(num_tracks=4),
    "negative tracks": lambda manifest: manifest["features"].update(num_tracks=-3),
    "no number of tracks": lambda manifest: manifest["features"].pop("num_tracks"),
    "no composition": lambda manifest: manifest["features"].update(composition=False),
    "no layers": lambda manifest: manifest["config"].pop("fusion"),
    "layers of another kind": lambda manifest: manifest["config"].update(fusion=7),
    "an unknown setting of the layers": lambda manifest: manifest["config"]["fusion"].update(depth=2),
    "a layer too few": lambda manifest: manifest["config"]["fusion"].update(num_layers=1),
    "wider layers": lambda manifest: manifest["config"]["fusion"].update(width=9),
    "layers of no width": lambda manifest: manifest["config"]["fusion"].update(width=0),
    "features shown early": lambda manifest: manifest["config"]["fusion"].update(early=True),
    "no settings": lambda manifest: manifest.pop("config"),
}


@pytest.mark.parametrize("damage", FEATURE_DAMAGE)
def test_damaged_features_are_one_error(model: Path, damage: str) -> None:
    change(model, FEATURE_DAMAGE[damage])
    error = refuses(read_model, model, str(model))
    assert isinstance(error, InputError)
    assert "\n" not in error.message
    assert any(word in error.message for word in ("task features", "does not fit its manifest"))


@both_kinds
def test_a_broken_digest_is_refused(kind: str, read: Any, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    data = bytearray((folder / WEIGHTS_FILE).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(data)
    refuses(read, folder, WEIGHTS_FILE, "digest", f"ebert {'pretrain' if kind == 'checkpoint' else 'finetune'}")
    (folder / WEIGHTS_FILE).write_bytes(data[:-1])
    refuses(read, folder, "bytes")
    (folder / WEIGHTS_FILE).unlink()
    refuses(read, folder, "missing")


@both_kinds
def test_a_missing_tensor_is_refused(kind: str, read: Any, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    rewrite(folder, lambda tensors: tensors.pop("encoder.norm.weight"))
    refuses(read, folder, WEIGHTS_FILE, "encoder.norm.weight")


@both_kinds
def test_a_tensor_too_many_is_refused(kind: str, read: Any, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    rewrite(folder, lambda tensors: tensors.update(stranger=torch.zeros(2)))
    refuses(read, folder, "stranger")


@both_kinds
def test_weights_of_another_shape_are_refused(kind: str, read: Any, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    rewrite(folder, lambda tensors: tensors.update({"encoder.norm.weight": torch.zeros(17)}))
    refuses(read, folder, "encoder.norm.weight", "17", "16")


@both_kinds
def test_a_state_alphabet_of_another_size_is_refused(kind: str, read: Any, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    other = BUILT_IN["roadmap15"].to_json()
    change(folder, lambda manifest: manifest["vocabulary"].update(state_model=other))
    refuses(read, folder, "state")


@both_kinds
def test_another_vocabulary_of_bases_is_refused(kind: str, read: Any, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    change(folder, lambda manifest: manifest["vocabulary"].update(bases="TGCA"))
    refuses(read, folder, "TGCA", "ACGT")


@both_kinds
def test_another_token_length_is_refused(kind: str, read: Any, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    change(folder, lambda manifest: manifest["vocabulary"].update(token_bp=6))
    refuses(read, folder, "6", "10")


@both_kinds
@pytest.mark.parametrize("token_bp", [7, "ten", None])
def test_a_shape_that_cannot_be_is_refused(
    kind: str, read: Any, token_bp: object, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(kind)

    def spoil(manifest: dict[str, Any]) -> None:
        shape = manifest["config"]["encoder"] if kind == "checkpoint" else manifest["encoder"]
        shape["token_bp"] = token_bp

    change(folder, spoil)
    refuses(read, folder, MANIFEST_NAME)


@both_kinds
@pytest.mark.parametrize("key", ["vocabulary", "files"])
def test_a_manifest_without_a_key_is_refused(kind: str, read: Any, key: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    change(folder, lambda manifest: manifest.pop(key))
    refuses(read, folder, MANIFEST_NAME, key)


@both_kinds
def test_another_kind_or_version_is_refused(kind: str, read: Any, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    change(folder, lambda manifest: manifest.update(format_version=99))
    refuses(read, folder, "version 99", "reads version")
    change(folder, lambda manifest: manifest.update(kind="dataset"))
    refuses(read, folder, "dataset", kind)
    (folder / MANIFEST_NAME).unlink()
    refuses(read, folder, MANIFEST_NAME)
    refuses(read, folder.with_name("nothing"), "is not there")


def test_a_checkpoint_is_no_model(checkpoint: Path, model: Path) -> None:
    refuses(read_model, checkpoint, "holds a checkpoint, expected a model")
    refuses(read_checkpoint, model, "holds a model, expected a checkpoint")


@pytest.mark.parametrize("data", [b"", b"1234567", b"\xff" * 64])
def test_damaged_safetensors(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(data)
    with pytest.raises(InputError, match="safetensors"):
        load_weights(path)


def test_states_of_two_alphabets_do_not_join() -> None:
    require_same_states(ROADMAP, StateModel(ROADMAP.name, tuple(ROADMAP.states)), "model m")
    with pytest.raises(EbertError, match=r"model m .* 18 states of roadmap18, .* 15 states of roadmap15"):
        require_same_states(ROADMAP, BUILT_IN["roadmap15"], "model m")
    swapped = StateModel(ROADMAP.name, (ROADMAP.states[1], ROADMAP.states[0], *ROADMAP.states[2:]))
    with pytest.raises(EbertError):
        require_same_states(ROADMAP, swapped, "model m")


def test_a_state_may_change_its_colour() -> None:
    first, *rest = ROADMAP.states
    painted = StateModel(ROADMAP.name, (State(first.number, first.name, "#123456"), *rest))
    require_same_states(ROADMAP, painted, "model m")
