"""Finding and opening fine-tuned models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebert_core.artifacts import MADE_BY, MANIFEST_NAME, read_json
from ebert_core.config import FinetuneConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.task_features import TrackReader, TrackSpec
from ebert_core.epigenome.state_models import StateModel
from ebert_core.errors import EbertError, InputError, UnknownNameError
from ebert_core.genome.assembly import Assembly
from ebert_core.inference.calls import ThresholdTable
from ebert_core.inference.scan import ScanGeometry, scan_geometries
from ebert_core.model.calibration import Calibration
from ebert_core.model.checkpoint import read_model, require_same_states
from ebert_core.model.device import Device
from ebert_core.model.fusion import BindingModel
from ebert_core.settings import fault_of


@dataclass(frozen=True)
class LoadedModel:
    """A fine-tuned model and what it remembers.

    Attributes:
        path: its folder.
        members: in evaluation mode, on the device; their logits are averaged. Most models have one.
        manifest: its `ebert.json`.
        tracks: reads its task features from the dataset that it was opened with; None where it reads none.
    """

    path: Path
    members: tuple[BindingModel, ...]
    manifest: dict[str, Any]
    tracks: TrackReader | None = None

    @property
    def module(self) -> BindingModel:
        """The first member: its shape is that of all."""
        return self.members[0]

    @property
    def tfs(self) -> list[str]:
        return list(self.manifest["tfs"])

    @property
    def state_model(self) -> StateModel:
        """The alphabet of the states it reads."""
        return StateModel.from_json(self.manifest["vocabulary"]["state_model"])

    def index(self, tf: str) -> int:
        """Output of a TF; `UnknownNameError` where the model does not know it."""
        by_folded = {name.casefold(): i for i, name in enumerate(self.tfs)}
        if tf.casefold() not in by_folded:
            raise UnknownNameError("TF", tf, self.tfs)
        return by_folded[tf.casefold()]

    def calibration(self, tf: str) -> Calibration:
        values = self.manifest["calibration"][tf]
        return Calibration(values["slope"], values["intercept"])

    def thresholds(self, tf: str) -> ThresholdTable:
        """What calling sites at a threshold gave on the validation bins."""
        return ThresholdTable.from_json(self.manifest["calibration"][tf]["thresholds"])

    @property
    def trained_on(self) -> dict[str, Any]:
        """For the sidecars of predictions: what labels it has seen, validation parts too, in windows of how many bp.

        Keys: tfs, cells, regions ([chrom, start, end], bp) and window_bp.
        """
        data = self.manifest["data"]
        return {
            "tfs": data["tfs"],
            "cells": sorted({*data["cells"], *data["valid_cells"]}),
            "regions": [*data["train"], *data["valid"]],
            "window_bp": self.geometry().window_bp,
        }

    @property
    def pretrained_on(self) -> dict[str, Any] | None:
        """What pre-training read without labels: cells and regions; None where the encoder began fresh."""
        if "data" not in self.manifest["started_from"]:
            return None
        data = self.manifest["started_from"]["data"]
        return {"cells": data["cells"], "regions": [*data["train"], *data["valid"]]}

    @property
    def core_bins(self) -> int:
        """Bins that a window of a scan answers: what a scan is cut into should be multiples of it."""
        return self.scan_geometries()[0].core_bins

    def scan_geometries(self) -> tuple[ScanGeometry, ...]:
        """Windows in which it may be shown a chromosome, see `scan.scan_geometries`."""
        return scan_geometries(self.module, self.geometry())

    def geometry(self) -> ScanGeometry:
        """Windows of its training."""
        config = FinetuneConfig(**self.manifest["config"])
        return ScanGeometry(config.window_bp, config.context_bp)


def find_model(folder: Path, tfs: Sequence[str]) -> Path:
    """The model in `folder` that knows all the TFs; of several, the one that is called after them.

    Raises:
        UnknownNameError: no model knows a TF.
        EbertError: no single model knows them all, or several do.
    """
    known: dict[Path, list[str]] = {}
    # A hidden folder is what a killed run left of a model that it was about to publish.
    for manifest_path in sorted(folder.glob(f"[!.]*/{MANIFEST_NAME}")):
        manifest = read_json(manifest_path)
        if isinstance(manifest, dict) and manifest.get("kind") == "model":
            known[manifest_path.parent] = list(manifest.get("tfs", ()))
    if not known:
        raise EbertError(
            f"there is no model in {folder}", "make one with `ebert finetune --tf NAME`, or name it with --model"
        )
    for tf in tfs:
        if not any(_holds(names, tf) for names in known.values()):
            raise UnknownNameError("TF", tf, (name for names in known.values() for name in names))
    fitting = [path for path, names in known.items() if all(_holds(names, tf) for tf in tfs)]
    if not fitting:
        raise EbertError(f"no single model knows {', '.join(tfs)}", "predict them one by one, or name one with --model")
    asked = sorted(tf.casefold() for tf in tfs)
    named = [path for path in fitting if sorted(path.name.casefold().split("+")) == asked]
    if len(fitting) > 1 and not named:
        raise EbertError(
            f"several models know {', '.join(tfs)}: {', '.join(path.name for path in fitting)}",
            "say which with --model",
        )
    return (named or fitting)[0]


def _holds(names: Sequence[str], tf: str) -> bool:
    return tf.casefold() in (name.casefold() for name in names)


def load_model(path: Path, dataset: Dataset, device: Device) -> LoadedModel:
    """A model, checked against the dataset it is to read.

    Raises:
        InputError: its manifest is damaged or has settings that this program does not know.
        EbertError: its assembly or its state alphabet is another one.
    """
    members, state_model, manifest = read_model(path)
    known = _trained_on(manifest, path / MANIFEST_NAME)
    if clash := known.clash(dataset.assembly):
        raise EbertError(
            f"model {path} was trained on {known.name}, the dataset is {dataset.assembly.name}: {clash}",
            "use a dataset and a model of one assembly",
        )
    if dataset.state_model is not None:
        require_same_states(state_model, dataset.state_model, f"model {path}")
    spec = TrackSpec.from_json(manifest["features"]["tracks"])
    tracks = TrackReader(dataset, spec) if spec.channels else None
    return LoadedModel(path, tuple(member.to(device.device) for member in members), manifest, tracks)


def _trained_on(manifest: dict[str, Any], path: Path) -> Assembly:
    """The assembly of a model's manifest, after all that a prediction takes from the manifest was found in it."""
    try:
        FinetuneConfig.model_validate(manifest["config"])
        for tf in manifest["tfs"]:
            _require(manifest["calibration"][tf], "slope", "intercept", "thresholds")
            ThresholdTable.from_json(manifest["calibration"][tf]["thresholds"])
        features = manifest["features"]
        if (found := len(TrackSpec.from_json(features["tracks"]).channels)) != features["num_tracks"]:
            raise ValueError(f"features.tracks has {found} channels, num_tracks is {features['num_tracks']}")
        _require(manifest["data"], "tfs", "cells", "valid_cells", "train", "valid")
        if "data" in manifest["started_from"]:
            _require(manifest["started_from"]["data"], "cells", "train", "valid")
        else:
            _require(manifest["started_from"], "scratch")
        return Assembly.from_sizes((name, length) for name, length in manifest["data"]["assembly"]["chroms"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            path,
            f"is damaged or of another version of ebert ({fault_of(error, 'config')})",
            f"make it anew with `{MADE_BY['model']}`, or use the version that made it: {manifest.get('ebert_version')}",
        ) from None


def _require(value: dict[str, Any], *keys: str) -> None:
    for key in keys:
        if key not in value:
            raise KeyError(key)
