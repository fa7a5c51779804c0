"""Checkpoints and models on disk: weights in safetensors, everything else in the manifest.

A checkpoint (of `ebert pretrain`) holds the encoder and the masked-language head; a model (of `ebert finetune`) holds
the encoder and the binding head, and remembers TFs, cell types, regions, assembly, vocabularies and calibration.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ebert_core.artifacts import (
    CHECKPOINT_FORMAT,
    MADE_BY,
    MANIFEST_NAME,
    MODEL_FORMAT,
    build_manifest,
    check_file,
    file_entry,
    read_manifest,
    write_json,
)
from ebert_core.config import EncoderConfig, FusionConfig, encoder_of
from ebert_core.epigenome.state_models import StateModel
from ebert_core.errors import EbertError, InputError
from ebert_core.model.encoder import Encoder
from ebert_core.model.fusion import BindingModel, BindingShape
from ebert_core.model.heads import MaskedLanguageHead
from ebert_core.settings import fault_of
from ebert_core.vocabulary import BASES

WEIGHTS_FILE: Final = "weights.safetensors"


class PretrainingModel(nn.Module):
    """Encoder and masked-language head."""

    def __init__(self, config: EncoderConfig, num_states: int) -> None:
        super().__init__()
        self.encoder = Encoder(config, num_states)
        self.head = MaskedLanguageHead(config, num_states)


def vocabulary_entry(config: EncoderConfig, state_model: StateModel) -> dict[str, Any]:
    """What a manifest says of the tokens."""
    return {"bases": BASES, "token_bp": config.token_bp, "state_model": state_model.to_json()}


def save(folder: Path, kind: str, module: nn.Module, body: dict[str, Any]) -> None:
    """Write weights and manifest into an empty folder (the caller publishes it)."""
    weights = folder / WEIGHTS_FILE
    save_weights(module.state_dict(), weights)
    version = {"checkpoint": CHECKPOINT_FORMAT, "model": MODEL_FORMAT}[kind]
    manifest = build_manifest(kind, version, {**body, "files": {WEIGHTS_FILE: file_entry(weights)}})
    write_json(folder / MANIFEST_NAME, manifest)


def save_weights(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Tensors by name into one safetensors file; `OSError` where the disk is full."""
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        # safetensors keeps the system's error number in its words only.
        if found := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from None
        raise


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file; `InputError` where it is damaged."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(path, f"is not a whole safetensors file ({error})", "make it anew") from None


def read_checkpoint(folder: Path) -> tuple[PretrainingModel, StateModel, dict[str, Any]]:
    """A pre-trained checkpoint: (modules on the CPU, its state model, its manifest)."""
    manifest = read_manifest(folder, "checkpoint", CHECKPOINT_FORMAT)
    config, state_model = _read_tokens(folder, manifest, "checkpoint")
    module = PretrainingModel(config, len(state_model.states))
    _fill(module, folder, manifest, "checkpoint")
    return module, state_model, manifest


def read_model(folder: Path) -> tuple[BindingModel, StateModel, dict[str, Any]]:
    """A fine-tuned model: (modules on the CPU in evaluation mode, its state model, its manifest)."""
    manifest = read_manifest(folder, "model", MODEL_FORMAT)
    config, state_model = _read_tokens(folder, manifest, "model")
    module = BindingModel(Encoder(config, len(state_model.states)), len(manifest["tfs"]), _shape(folder, manifest))
    _fill(module, folder, manifest, "model")
    return module.eval(), state_model, manifest


def _read_tokens(folder: Path, manifest: dict[str, Any], kind: str) -> tuple[EncoderConfig, StateModel]:
    """The encoder's shape and the state model; `InputError` where this program cannot have written the manifest."""
    path, rebuild = folder / MANIFEST_NAME, f"make it anew with `{MADE_BY[kind]}`"
    for key in ("vocabulary", "files", *(["tfs"] if kind == "model" else [])):
        if key not in manifest:
            raise InputError(path, f"says nothing of its {key}", rebuild)
    config = encoder_of(manifest, path)
    try:
        state_model = StateModel.from_json(manifest["vocabulary"]["state_model"])
    except (KeyError, TypeError, ValueError):
        raise InputError(path, "names no state model", rebuild) from None
    known = vocabulary_entry(config, state_model)
    for name in ("bases", "token_bp"):
        if (found := manifest["vocabulary"].get(name)) != known[name]:
            raise InputError(
                path, f"was made for {name} {found}, this program and its weights have {known[name]}", rebuild
            )
    return config, state_model


def features_entry(shape: BindingShape, motifs: Sequence[str], tracks: dict[str, Any]) -> dict[str, Any]:
    """What a model's manifest says of its task features.

    Args:
        shape: of the model.
        motifs: what its motifs are called, in order.
        tracks: of `TrackSpec.to_json`.
    """
    return {
        "composition": shape.composition,
        "motifs": list(motifs),
        "motif_width": shape.motifs[1],
        "num_tracks": shape.num_tracks,
        "tracks": tracks,
    }


def _shape(folder: Path, manifest: dict[str, Any]) -> BindingShape:
    """The inverse of `features_entry`, with the layers of the configuration."""
    try:
        features = manifest["features"]
        width, num_tracks = int(features["motif_width"]), int(features["num_tracks"])
        if width < 1 or num_tracks < 0:
            raise ValueError(f"motif_width is {width}, num_tracks {num_tracks}")
        return BindingShape(
            FusionConfig.model_validate(manifest["config"]["fusion"]),
            bool(features["composition"]),
            (len(features["motifs"]), width),
            num_tracks,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            folder / MANIFEST_NAME,
            f"says nothing that can be read of its task features ({fault_of(error, 'config.fusion')})",
            f"make it anew with `{MADE_BY['model']}`",
        ) from None


def _fill(module: nn.Module, folder: Path, manifest: dict[str, Any], kind: str) -> None:
    path = check_file(folder, WEIGHTS_FILE, manifest["files"][WEIGHTS_FILE], kind)
    try:
        module.load_state_dict(load_weights(path))
    except RuntimeError as error:
        raise InputError(path, f"does not fit its manifest: {str(error).splitlines()[-1].strip()}") from None


def require_same_states(found: StateModel, expected: StateModel, what: str) -> None:
    """Refuse to join a model and states of different alphabets; colours may differ."""
    if [state.label for state in found.states] != [state.label for state in expected.states]:
        raise EbertError(
            f"{what} knows the {len(found.states)} states of {found.name}, the data have the "
            f"{len(expected.states)} states of {expected.name}",
            "use a checkpoint and data of one state model: pre-train on this dataset, or prepare states of that model",
        )
