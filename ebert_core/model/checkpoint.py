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


def weights_name(member: int) -> str:
    """File of an ensemble's member, from 0: `weights.safetensors`, `weights-2.safetensors`, ..."""
    return f"weights-{member + 1}.safetensors" if member else WEIGHTS_FILE


def save(folder: Path, kind: str, module: nn.Module | Sequence[nn.Module], body: dict[str, Any]) -> None:
    """Write weights, one file per module, and the manifest into an empty folder (the caller publishes it)."""
    files = {}
    for number, member in enumerate([module] if isinstance(module, nn.Module) else module):
        path = folder / weights_name(number)
        save_weights(member.state_dict(), path)
        files[path.name] = file_entry(path)
    version = {"checkpoint": CHECKPOINT_FORMAT, "model": MODEL_FORMAT}[kind]
    write_json(folder / MANIFEST_NAME, build_manifest(kind, version, {**body, "files": files}))


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


def read_model(folder: Path) -> tuple[tuple[BindingModel, ...], StateModel, dict[str, Any]]:
    """A fine-tuned model: (its members on the CPU in evaluation mode, its state model, its manifest).

    Most models have one member; an ensemble's answer is the mean of its members' logits.
    """
    manifest = read_manifest(folder, "model", MODEL_FORMAT)
    config, state_model = _read_tokens(folder, manifest, "model")
    shape, members = _shape(folder, manifest), []
    for number in range(max(1, len(manifest["files"]))):
        module = BindingModel(Encoder(config, len(state_model.states)), len(manifest["tfs"]), shape)
        _fill(module, folder, manifest, "model", weights_name(number))
        members.append(module.eval())
    return tuple(members), state_model, manifest


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
        "num_trees": shape.num_trees,
        "tracks": tracks,
    }


def _shape(folder: Path, manifest: dict[str, Any]) -> BindingShape:
    """The inverse of `features_entry`, with the layers of the configuration."""
    try:
        features = manifest["features"]
        width, num_tracks = int(features["motif_width"]), int(features["num_tracks"])
        num_trees = int(features["num_trees"])
        if width < 1 or num_tracks < 0 or num_trees < 0:
            raise ValueError(f"motif_width is {width}, num_tracks {num_tracks}, num_trees {num_trees}")
        return BindingShape(
            FusionConfig.model_validate(manifest["config"]["fusion"]),
            bool(features["composition"]),
            (len(features["motifs"]), width),
            num_tracks,
            num_trees,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            folder / MANIFEST_NAME,
            f"says nothing that can be read of its task features ({fault_of(error, 'config.fusion')})",
            f"make it anew with `{MADE_BY['model']}`",
        ) from None


def _fill(module: nn.Module, folder: Path, manifest: dict[str, Any], kind: str, name: str = WEIGHTS_FILE) -> None:
    if name not in manifest["files"]:
        raise InputError(folder / MANIFEST_NAME, f"lists no {name}", f"make it anew with `{MADE_BY[kind]}`")
    path = check_file(folder, name, manifest["files"][name], kind)
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
