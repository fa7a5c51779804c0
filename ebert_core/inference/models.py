"""Finding and opening fine-tuned models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebert_core.artifacts import read_json
from ebert_core.config import FinetuneConfig
from ebert_core.data.dataset import Dataset
from ebert_core.epigenome.state_models import StateModel
from ebert_core.errors import EbertError, UnknownNameError
from ebert_core.genome.assembly import Assembly
from ebert_core.inference.scan import ScanGeometry
from ebert_core.model.calibration import Calibration
from ebert_core.model.checkpoint import BindingModel, read_model, require_same_states
from ebert_core.model.device import Device


@dataclass(frozen=True)
class LoadedModel:
    """A fine-tuned model and what it remembers."""

    path: Path
    module: BindingModel
    manifest: dict[str, Any]

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

    def geometry(self) -> ScanGeometry:
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
    for manifest_path in sorted(folder.glob("[!.]*/ebert.json")):
        manifest = read_json(manifest_path)
        if isinstance(manifest, dict) and manifest.get("kind") == "model":
            known[manifest_path.parent] = [name.casefold() for name in manifest["tfs"]]
    if not known:
        raise EbertError(
            f"there is no model in {folder}", "make one with `ebert finetune --tf NAME`, or name it with --model"
        )
    for tf in tfs:
        if not any(tf.casefold() in names for names in known.values()):
            spelled = [name for path in known for name in read_json(path / "ebert.json")["tfs"]]
            raise UnknownNameError("TF", tf, spelled)
    fitting = [path for path, names in known.items() if all(tf.casefold() in names for tf in tfs)]
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


def load_model(path: Path, dataset: Dataset, device: Device) -> LoadedModel:
    """A model, checked against the dataset it is to read.

    Raises:
        EbertError: its assembly or its state alphabet is another one.
    """
    module, state_model, manifest = read_model(path)
    known = Assembly.from_sizes((name, length) for name, length in manifest["data"]["assembly"]["chroms"])
    if clash := known.clash(dataset.assembly):
        raise EbertError(
            f"model {path} was trained on {known.name}, the dataset is {dataset.assembly.name}: {clash}",
            "use a dataset and a model of one assembly",
        )
    if dataset.state_model is not None:
        require_same_states(state_model, dataset.state_model, f"model {path}")
    return LoadedModel(path, module.to(device.device), manifest)
