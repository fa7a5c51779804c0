"""What a model with task features predicts, saved and loaded, is what its training saw."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ebert_core.data.dataset import Dataset
from ebert_core.errors import EbertError
from ebert_core.evaluation.measures import measure
from ebert_core.genome.labels import BOUND, UNBOUND
from ebert_core.genome.regions import Region
from ebert_core.inference.models import LoadedModel, load_model
from ebert_core.inference.predictor import CellStates, Request, tracks_of
from ebert_core.inference.scan import model_score
from ebert_core.model.device import Device
from ebert_core.training.binding_validation import BindingValidation
from ebert_core.training.finetune_data import FinetuneChoice, choose_data
from tests.training.tuned import CONFIG, VALID, manifest_of

Predicted = Callable[..., list[np.ndarray]]


@pytest.fixture
def predicted(predict_whole: Callable[..., dict[str, np.ndarray]], device: Device) -> Predicted:
    """Probabilities (N,) of MAX per chromosome; states are HepG2's whatever the cell type."""

    def predict(
        model: LoadedModel,
        dataset: Dataset,
        cell: str,
        *,
        both_strands: bool = True,
        regions: tuple[Region, ...] = (VALID,),
    ) -> list[np.ndarray]:
        states = CellStates(cell, dataset.flat_states("HepG2"), "dataset")
        request = Request(("MAX",), states, regions, both_strands=both_strands)
        return [found[:, 0] for found in predict_whole(dataset, model, request, device).values()]

    return predict


def validated(
    tuned: LoadedModel, dataset: Dataset, device: Device, cell: str, *, both_strands: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """(logits, bound) of MAX, as training looks at its validation part."""
    data = choose_data(dataset, FinetuneChoice(("MAX",), valid=(VALID,), valid_cells=(cell,)))
    assert tuned.tracks is not None
    score = model_score(tuned.module, device, both_strands=both_strands)
    return BindingValidation(data, CONFIG, tuned.tracks.spec).logits(score, data.valid)["MAX", cell]


def labelled_bins(dataset: Dataset, cell: str) -> np.ndarray:
    labels = dataset.labels("MAX", cell, VALID.chrom)
    starts = np.arange(len(labels)) * 50
    inside = (starts >= VALID.start) & (starts + 200 <= VALID.end)
    return np.flatnonzero(inside & np.isin(labels, (BOUND, UNBOUND)))


@pytest.mark.parametrize("both_strands", [True, False])
def test_a_prediction_is_what_validation_saw(
    tuned: LoadedModel, toy_with_starts: Dataset, device: Device, both_strands: bool, predicted: Predicted
) -> None:
    """The same bins, tracks, states and strands; HepG2 was held out of training."""
    logits, _ = validated(tuned, toy_with_starts, device, "HepG2", both_strands=both_strands)
    (found,) = predicted(tuned, toy_with_starts, "HepG2", both_strands=both_strands)
    bins = labelled_bins(toy_with_starts, "HepG2")
    assert len(bins) == len(logits) > 200
    np.testing.assert_allclose(found[bins], tuned.calibration("MAX").probabilities(logits), rtol=1e-4)
    assert found[bins].std() > 1e-4


def test_saved_and_loaded_it_validates_as_it_did(
    tuned_folder: Path, tuned: LoadedModel, toy_with_starts: Dataset, device: Device
) -> None:
    """Measures in the manifest are of the module in memory, before it was written."""
    logits, bound = validated(tuned, toy_with_starts, device, "GM12878")
    noted = manifest_of(tuned_folder)["validation"]["MAX/GM12878"]
    for name, value in json.loads(json.dumps(vars(measure(logits, bound)), default=float)).items():
        assert noted[name] == pytest.approx(value, rel=1e-5), name


def test_every_feature_matters(tuned: LoadedModel, toy_with_starts: Dataset, device: Device) -> None:
    """Logits move with accessibility, with transcript starts and with the motifs of the sequence."""
    rng = np.random.default_rng(0)
    bases, states = torch.from_numpy(rng.integers(0, 4, (1, 1_000))), torch.ones(1, 5, dtype=torch.int64)
    tracks = torch.zeros(1, 20, 24)
    with torch.inference_mode():
        plain = tuned.module(bases, states, tracks)
        for channel in range(24):
            changed = tracks.clone()
            changed[..., channel] = 1.0
            assert not torch.allclose(tuned.module(bases, states, changed), plain, atol=1e-5), channel


def test_a_cell_type_without_accessibility_is_shown_as_unknown(
    tuned: LoadedModel, toy_with_starts: Dataset, predicted: Predicted
) -> None:
    """It has states only: its accessibility is that of a cell type that nobody knows, not of one without signal."""
    read = tracks_of(toy_with_starts, tuned, "MyCell", "chr2")
    assert read is not None
    shown = read(np.array([20_000, 30_000]))
    assert (shown[..., [0, 2, 3]] == 0).all()
    assert (shown[..., 4] == 1).all()
    assert (shown[..., 1] > 0).any()
    nobody = tracks_of(toy_with_starts, tuned, "Nobody", "chr2")
    assert nobody is not None
    assert np.array_equal(shown[..., :6], nobody(np.array([20_000, 30_000]))[..., :6])
    (own,), (mine,) = (predicted(tuned, toy_with_starts, cell) for cell in ("HepG2", "MyCell"))
    assert not np.allclose(mine, own, equal_nan=True, atol=1e-4)


def test_a_dataset_without_any_accessibility_is_enough(
    tuned_folder: Path,
    copied_starts: Dataset,
    tuned: LoadedModel,
    toy_with_starts: Dataset,
    device: Device,
    predicted: Predicted,
) -> None:
    """Then the others' mean is unknown too, which the reader says."""
    copied_starts.manifest["accessibility"] = {}
    loaded = load_model(tuned_folder, copied_starts, device)
    assert loaded.tracks is not None
    assert loaded.tracks.missing == ["the mean accessibility is of 0 cell types, without GM12878"]
    read = tracks_of(copied_starts, loaded, "HepG2", "chr2")
    assert read is not None
    assert (read(np.array([20_000]))[..., :5] == 0).all()
    (found,) = predicted(loaded, copied_starts, "HepG2")
    (own,) = predicted(tuned, toy_with_starts, "HepG2")
    assert np.array_equal(np.isnan(found), np.isnan(own))


def test_a_dataset_without_transcript_starts_is_refused(
    tuned_folder: Path, toy_dataset: Dataset, device: Device
) -> None:
    with pytest.raises(EbertError, match="reads distances to transcript starts") as caught:
        load_model(tuned_folder, toy_dataset, device)
    assert "ebert prepare --tss" in caught.value.hint


def test_a_chromosomes_neighbour_does_not_shine_into_it(
    tuned_folder: Path, toy_with_starts: Dataset, device: Device, monkeypatch: pytest.MonkeyPatch, predicted: Predicted
) -> None:
    """On the flat axis chr2 follows chr1: with chr2's tracks turned round, the end of chr1 stays as it was."""
    ends = (Region("chr1", 58_000, 60_000), Region("chr2", 0, 2_000))
    before = predicted(load_model(tuned_folder, toy_with_starts, device), toy_with_starts, "HepG2", regions=ends)
    flat_accessibility = Dataset.flat_accessibility

    def turned(self: Dataset, cell: str) -> np.ndarray:
        track = np.array(flat_accessibility(self, cell))
        track[1_200:2_020] = track[1_200:2_020][::-1]
        return track

    monkeypatch.setattr(Dataset, "flat_accessibility", turned)
    after = predicted(load_model(tuned_folder, toy_with_starts, device), toy_with_starts, "HepG2", regions=ends)
    assert (~np.isnan(before[0])).sum() > 30
    assert np.array_equal(before[0], after[0], equal_nan=True)
    assert not np.array_equal(before[1], after[1], equal_nan=True)
