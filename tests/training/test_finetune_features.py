"""Fine-tuning with task features, from the run to a prediction of the model that was saved and loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ebert_core.config import EncoderConfig, FeatureConfig, FinetuneConfig, FusionConfig, OptimizerConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.task_features import ACCESSIBILITY_CHANNELS, TrackSpec
from ebert_core.errors import EbertError
from ebert_core.evaluation.measures import measure
from ebert_core.genome.labels import BOUND, UNBOUND
from ebert_core.genome.regions import Region
from ebert_core.inference.models import LoadedModel, load_model
from ebert_core.inference.predictor import CellStates, Request, predict_chroms, tracks_of
from ebert_core.io.motifs import Motif
from ebert_core.model.checkpoint import load_weights
from ebert_core.model.device import Device
from ebert_core.training import binding_windows
from ebert_core.training.binding_windows import background_bases
from ebert_core.training.finetune import BindingObjective, finetune, starting_encoder
from ebert_core.training.finetune_data import FinetuneChoice, choose_data
from ebert_core.training.journal import read_journal
from ebert_core.training.loop import Surroundings
from ebert_core.training.run_folder import RunTarget

TINY = EncoderConfig(width=16, num_layers=1, num_heads=2, stem_channels=8)
CONFIG = FinetuneConfig(
    optimizer=OptimizerConfig(learning_rate=2e-3, ema_decay=0.9),
    fusion=FusionConfig(width=16, num_layers=2, dropout=0.2, feature_dropout=0.1, encoder_bp=600),
    window_bp=1_000,
    context_bp=200,
    global_batch=4,
    micro_batch=2,
    steps=6,
    evaluate_every=3,
    valid_bp=10_000,
    importance=0.5,
    head_share=0.5,
)
VALID = Region("chr2", 20_000, 41_337)
CHOICE = FinetuneChoice(("MAX",), also=("CTCF",), held_out_cells=("HepG2",), valid=(VALID,))


class Trained:
    """Runs fine-tuning in a folder."""

    def __init__(self, dataset: Dataset, motifs: list[Motif], device: Device, folder: Path) -> None:
        self.dataset, self.motifs, self.device, self.folder = dataset, motifs, device, folder

    def __call__(
        self, name: str, config: FinetuneConfig = CONFIG, motifs: list[Motif] | None = None, **target: bool
    ) -> Path:
        return finetune(
            choose_data(self.dataset, CHOICE),
            config,
            starting_encoder(None, TINY, self.dataset.require_state_model(), config.seed),
            self.motifs if motifs is None else motifs,
            RunTarget(self.folder / name, **target),
            Surroundings(self.device),
        )


@pytest.fixture(scope="module", autouse=True)
def small_background() -> Iterator[None]:
    """Motifs learn how common their hits are from 200 kb in place of 20 Mb."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binding_windows, "_BACKGROUND_WINDOWS", 50)
        yield


@pytest.fixture
def trained(toy_with_starts: Dataset, toy_motifs: list[Motif], device: Device, tmp_path: Path) -> Trained:
    return Trained(toy_with_starts, toy_motifs, device, tmp_path)


@pytest.fixture(scope="module")
def folder(
    small_background: None,
    toy_with_starts: Dataset,
    toy_motifs: list[Motif],
    device: Device,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A model that reads everything; do not change it."""
    return Trained(toy_with_starts, toy_motifs, device, tmp_path_factory.mktemp("tuned"))("model")


@pytest.fixture
def model(folder: Path, toy_with_starts: Dataset, device: Device) -> LoadedModel:
    return load_model(folder, toy_with_starts, device)


@pytest.fixture
def copied_starts(toy_with_starts: Dataset) -> Dataset:
    """The dataset opened once more, so that its manifest may be changed in memory."""
    return Dataset.open(toy_with_starts.path)


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "ebert.json").read_text())
    return manifest


# --- what is kept


def test_a_model_remembers_what_it_reads(folder: Path, model: LoadedModel, toy_with_starts: Dataset) -> None:
    features = manifest_of(folder)["features"]
    assert features["motifs"] == ["MAX (MA0001.10)", "SP1 (MA0001.7)"]
    assert (features["motif_width"], features["num_tracks"], features["composition"]) == (11, 6, True)
    # Held out, HepG2 is neither in the reference nor in the mean.
    spec = TrackSpec.choose(toy_with_starts, FeatureConfig(), ("HepG2",))
    assert spec.mean_cells == ("GM12878",)
    assert TrackSpec.from_json(features["tracks"]) == spec
    assert model.tracks is not None
    assert model.tracks.spec == spec
    assert (model.module.shape.num_features, model.module.shape.fusion) == (10, CONFIG.fusion)


def test_what_was_learned_beside_is_not_kept(folder: Path, model: LoadedModel) -> None:
    manifest = manifest_of(folder)
    assert (manifest["tfs"], manifest["data"]["also"]) == (["MAX"], ["CTCF"])
    assert set(manifest["calibration"]) == {"MAX"}
    assert set(manifest["validation"]) == {"MAX/GM12878"}
    assert load_weights(folder / "weights.safetensors")["head.out.weight"].shape == (1, 16)
    assert manifest["num_parameters"] == sum(parameter.numel() for parameter in model.module.parameters())
    evaluations = [e for e in read_journal(folder / "journal.jsonl") if e["event"] == "evaluate"]
    assert all(set(event["by_pair"]) == {"MAX/GM12878"} for event in evaluations)


@pytest.mark.parametrize(
    ("features", "motifs", "channels", "width"),
    [
        (FeatureConfig(accessibility=False), True, ("tss",), 5),
        (FeatureConfig(tss=False, composition=False), True, ACCESSIBILITY_CHANNELS, 7),
        (FeatureConfig(accessibility=False, tss=False), False, (), 2),
        (FeatureConfig(accessibility=False, tss=False, composition=False), False, (), 0),
    ],
)
def test_each_feature_can_be_left_out(
    trained: Trained, features: FeatureConfig, motifs: bool, channels: tuple[str, ...], width: int
) -> None:
    config = CONFIG.model_copy(update={"features": features, "steps": 1, "evaluate_every": 1})
    loaded = load_model(trained("m", config, None if motifs else []), trained.dataset, trained.device)
    assert (loaded.tracks.spec.channels if loaded.tracks else ()) == channels
    assert loaded.module.shape.num_features == width
    (found,) = predicted(loaded, trained.dataset, trained.device, "HepG2")
    assert np.isfinite(found).any()


def test_motifs_are_kept_as_they_were_read(folder: Path, toy_motifs: list[Motif]) -> None:
    """Both strands of each, about the kernel's middle, and the weights of none of them learned."""
    kernels = load_weights(folder / "weights.safetensors")["motifs.kernels"].numpy()
    for number, motif in enumerate(toy_motifs):
        log_odds = motif.log_odds()
        for strand, expected in enumerate((log_odds.T, log_odds[::-1, ::-1].T)):
            kernel = kernels[2 * number + strand]
            filled = np.flatnonzero(kernel.any(axis=0))
            assert np.array_equal(kernel[:, filled], expected)


def test_the_background_of_motifs_is_the_training_part(
    toy_with_starts: Dataset, located: Callable[..., list[tuple[int, bool]]]
) -> None:
    """Not what is held out, and also where the longest stretches do not fit."""
    long = background_bases(choose_data(toy_with_starts, CHOICE))
    assert long.shape == (50, 4_000)
    starts = np.array([start for start, reverse in located(long[:, :1_000]) if not reverse])
    assert len(starts) == 50
    # The validation part begins at 20,000 bp of chr2.
    assert (starts + 4_000 <= 80_000).all()
    assert not ((starts < 23_010 - 100) & (starts + 4_000 > 20_000 + 100)).any(), "an N-run"
    short = replace(choose_data(toy_with_starts, CHOICE), train=(Region("chr1", 1_000, 3_000),))
    assert background_bases(short).shape == (50, 1_000)
    with pytest.raises(EbertError, match="nothing but N-runs and excluded regions"):
        background_bases(replace(short, train=(Region("chr1", 20_000, 23_000),)))


# --- prediction


def predicted(
    model: LoadedModel,
    dataset: Dataset,
    device: Device,
    cell: str,
    both_strands: bool = True,
    regions: tuple[Region, ...] = (VALID,),
) -> list[np.ndarray]:
    """Probabilities (N,) of MAX per chromosome; states are HepG2's whatever the cell type."""
    request = Request(
        ("MAX",), CellStates(cell, dataset.flat_states("HepG2"), "dataset"), regions, both_strands=both_strands
    )
    return [found.probabilities[:, 0] for found in predict_chroms(dataset, model, request, device)]


def validated(
    model: LoadedModel, dataset: Dataset, device: Device, cell: str, *, both_strands: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """(logits, bound) of MAX, as training looks at its validation part."""
    data = choose_data(dataset, FinetuneChoice(("MAX",), valid=(VALID,), valid_cells=(cell,)))
    assert model.tracks is not None
    objective = BindingObjective(data, CONFIG, model.module, device, model.tracks.spec)
    return objective.validate(data.valid, both_strands=both_strands)["MAX", cell]


def labelled_bins(dataset: Dataset, cell: str) -> np.ndarray:
    labels = dataset.labels("MAX", cell, VALID.chrom)
    starts = np.arange(len(labels)) * 50
    inside = (starts >= VALID.start) & (starts + 200 <= VALID.end)
    return np.flatnonzero(inside & np.isin(labels, (BOUND, UNBOUND)))


@pytest.mark.parametrize("both_strands", [True, False])
def test_a_prediction_is_what_validation_saw(
    model: LoadedModel, toy_with_starts: Dataset, device: Device, both_strands: bool
) -> None:
    """The same bins, tracks, states and strands; HepG2 was held out of training."""
    logits, _ = validated(model, toy_with_starts, device, "HepG2", both_strands=both_strands)
    (found,) = predicted(model, toy_with_starts, device, "HepG2", both_strands)
    bins = labelled_bins(toy_with_starts, "HepG2")
    assert len(bins) == len(logits) > 200
    np.testing.assert_allclose(found[bins], model.calibration("MAX").probabilities(logits), rtol=1e-4)
    assert found[bins].std() > 1e-4


def test_saved_and_loaded_it_validates_as_it_did(
    folder: Path, model: LoadedModel, toy_with_starts: Dataset, device: Device
) -> None:
    """Measures in the manifest are of the module in memory, before it was written."""
    logits, bound = validated(model, toy_with_starts, device, "GM12878")
    noted = manifest_of(folder)["validation"]["MAX/GM12878"]
    for name, value in json.loads(json.dumps(vars(measure(logits, bound)), default=float)).items():
        assert noted[name] == pytest.approx(value, rel=1e-5), name


def test_every_feature_matters(model: LoadedModel, toy_with_starts: Dataset, device: Device) -> None:
    """Logits move with accessibility, with transcript starts and with the motifs of the sequence."""
    rng = np.random.default_rng(0)
    bases, states = torch.from_numpy(rng.integers(0, 4, (1, 1_000))), torch.ones(1, 5, dtype=torch.int64)
    tracks = torch.zeros(1, 20, 6)
    with torch.inference_mode():
        plain = model.module(bases, states, tracks)
        for channel in range(6):
            changed = tracks.clone()
            changed[..., channel] = 1.0
            assert not torch.allclose(model.module(bases, states, changed), plain, atol=1e-5), channel


def test_a_cell_type_without_accessibility_is_shown_as_unknown(
    model: LoadedModel, toy_with_starts: Dataset, device: Device
) -> None:
    """It has states only: the same as a cell type that nobody knows, and not the same as one without signal."""
    read = tracks_of(toy_with_starts, model, "MyCell", "chr2")
    assert read is not None
    shown = read(np.array([20_000, 30_000]))
    assert (shown[..., [0, 2, 3]] == 0).all()
    assert (shown[..., 4] == 1).all()
    assert (shown[..., 1] > 0).any()
    (own,), (mine,), (nobody) = (
        predicted(model, toy_with_starts, device, cell) for cell in ("HepG2", "MyCell", "Nobody")
    )
    assert np.array_equal(mine, nobody[0], equal_nan=True)
    assert not np.allclose(mine, own, equal_nan=True, atol=1e-4)


def test_a_dataset_without_any_accessibility_is_enough(
    folder: Path, copied_starts: Dataset, model: LoadedModel, toy_with_starts: Dataset, device: Device
) -> None:
    """Then the others' mean is unknown too, which the reader says."""
    copied_starts.manifest["accessibility"] = {}
    loaded = load_model(folder, copied_starts, device)
    assert loaded.tracks is not None
    assert loaded.tracks.missing == ["the mean accessibility is of 0 cell types, without GM12878"]
    read = tracks_of(copied_starts, loaded, "HepG2", "chr2")
    assert read is not None
    assert (read(np.array([20_000]))[..., :5] == 0).all()
    (found,) = predicted(loaded, copied_starts, device, "HepG2")
    (own,) = predicted(model, toy_with_starts, device, "HepG2")
    assert np.array_equal(np.isnan(found), np.isnan(own))


def test_a_dataset_without_transcript_starts_is_refused(folder: Path, toy_dataset: Dataset, device: Device) -> None:
    with pytest.raises(EbertError, match="reads distances to transcript starts") as caught:
        load_model(folder, toy_dataset, device)
    assert "ebert prepare --tss" in caught.value.hint


def test_a_chromosomes_neighbour_does_not_shine_into_it(
    folder: Path, toy_with_starts: Dataset, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the flat axis chr2 follows chr1: with chr2's tracks turned round, the end of chr1 stays as it was."""
    ends = (Region("chr1", 58_000, 60_000), Region("chr2", 0, 2_000))
    before = predicted(load_model(folder, toy_with_starts, device), toy_with_starts, device, "HepG2", regions=ends)
    flat_accessibility = Dataset.flat_accessibility

    def turned(self: Dataset, cell: str) -> np.ndarray:
        track = np.array(flat_accessibility(self, cell))
        track[1_200:2_020] = track[1_200:2_020][::-1]
        return track

    monkeypatch.setattr(Dataset, "flat_accessibility", turned)
    after = predicted(load_model(folder, toy_with_starts, device), toy_with_starts, device, "HepG2", regions=ends)
    assert (~np.isnan(before[0])).sum() > 30
    assert np.array_equal(before[0], after[0], equal_nan=True)
    assert not np.array_equal(before[1], after[1], equal_nan=True)


# --- first the head, then the encoder


@pytest.mark.parametrize(
    ("motifs", "head_share", "moves"),
    [(True, 1.0, False), (True, 0.5, True), (True, 0.0, True), (False, 1.0, True)],
)
def test_the_encoder_learns_after_the_heads_share_of_the_steps(
    trained: Trained, motifs: bool, head_share: float, moves: bool
) -> None:
    """Without motifs there is little that the head could learn alone."""
    config = CONFIG.model_copy(update={"head_share": head_share, "steps": 4, "evaluate_every": 4})
    fresh, _ = starting_encoder(None, TINY, trained.dataset.require_state_model(), config.seed)
    weights = load_weights(trained("m", config, None if motifs else []) / "weights.safetensors")
    same = [torch.equal(weights[f"encoder.{name}"], tensor) for name, tensor in fresh.state_dict().items()]
    assert all(same) != moves
    assert bool(weights["head.from_tokens.weight"].any()) == moves


# --- resume


def outcome(folder: Path) -> tuple[bytes, list[dict[str, Any]], dict[str, Any]]:
    timed = {"seconds", "speed"}
    events = [{k: v for k, v in event.items() if k not in timed} for event in read_journal(folder / "journal.jsonl")]
    manifest = manifest_of(folder)
    for key in ("created_utc", "command"):
        del manifest[key]
    return (folder / "weights.safetensors").read_bytes(), events, manifest


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("stop", [(2, 2), (4, 0)])
def test_stopped_and_resumed_equals_unbroken(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, stop: tuple[int, int], early: bool
) -> None:
    """To the last bit, with every feature, what is learned beside, and importance weights."""
    fusion = CONFIG.fusion.model_copy(update={"early": early})
    config = CONFIG.model_copy(update={"fusion": fusion})
    stop_at(monkeypatch, stop, lambda: trained("broken", config))
    assert outcome(trained("broken", config, resume=True)) == outcome(trained("whole", config))


def test_a_run_is_not_resumed_with_other_features(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, toy_motifs: list[Motif]
) -> None:
    stop_at(monkeypatch, (4, 0), lambda: trained("broken"))
    features = FeatureConfig(accessibility=False)
    for config, motifs in ((CONFIG, toy_motifs[:1]), (CONFIG.model_copy(update={"features": features}), None)):
        with pytest.raises(EbertError, match="other settings"):
            trained("broken", config, motifs, resume=True)


def stop_at(patches: pytest.MonkeyPatch, stop: tuple[int, int], run: Callable[[], object]) -> None:
    draw = BindingObjective.draw

    def stopping(self: BindingObjective, step: int, first: int, count: int) -> Any:
        if (step, first) == stop:
            raise KeyboardInterrupt
        return draw(self, step, first, count)

    with patches.context() as patch:
        patch.setattr(BindingObjective, "draw", stopping)
        with pytest.raises(KeyboardInterrupt):
            run()
