"""Fine-tuning with task features, what a run keeps, and that it may be stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ebert_core.config import FeatureConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.task_features import ACCESSIBILITY_CHANNELS, TrackSpec
from ebert_core.errors import EbertError
from ebert_core.genome.regions import Region
from ebert_core.inference.models import LoadedModel, load_model
from ebert_core.inference.predictor import CellStates, Request
from ebert_core.io.motifs import Motif
from ebert_core.model.checkpoint import load_weights
from ebert_core.training.binding_windows import background_bases
from ebert_core.training.finetune import BindingObjective, starting_encoder
from ebert_core.training.finetune_data import choose_data
from ebert_core.training.journal import read_journal
from tests.training.tuned import CHOICE, CONFIG, TINY, VALID, Trained, manifest_of

OTHERS = tuple(f"others in state {code}" for code in range(1, 19))

# --- what is kept


def test_a_model_remembers_what_it_reads(tuned_folder: Path, tuned: LoadedModel, toy_with_starts: Dataset) -> None:
    features = manifest_of(tuned_folder)["features"]
    assert features["motifs"] == ["MAX (MA0001.10)", "SP1 (MA0001.7)"]
    assert (features["motif_width"], features["num_tracks"], features["composition"]) == (11, 24, True)
    # Held out, HepG2 is neither in the reference nor in the mean.
    spec = TrackSpec.choose(toy_with_starts, CONFIG.features, ("HepG2",))
    assert spec.mean_cells == ("GM12878",)
    assert TrackSpec.from_json(features["tracks"]) == spec
    assert tuned.tracks is not None
    assert tuned.tracks.spec == spec
    assert (tuned.module.shape.num_features, tuned.module.shape.fusion) == (28, CONFIG.fusion)


def test_what_was_learned_beside_is_not_kept(tuned_folder: Path, tuned: LoadedModel) -> None:
    manifest = manifest_of(tuned_folder)
    assert (manifest["tfs"], manifest["data"]["also"]) == (["MAX"], ["CTCF"])
    assert set(manifest["calibration"]) == {"MAX"}
    assert set(manifest["validation"]) == {"MAX/GM12878"}
    assert load_weights(tuned_folder / "weights.safetensors")["head.out.weight"].shape == (1, 16)
    assert manifest["num_parameters"] == sum(parameter.numel() for parameter in tuned.module.parameters())
    evaluations = [e for e in read_journal(tuned_folder / "journal.jsonl") if e["event"] == "evaluate"]
    assert all(set(event["by_pair"]) == {"MAX/GM12878"} for event in evaluations)


@pytest.mark.parametrize(
    ("features", "motifs", "channels", "width"),
    [
        (FeatureConfig(accessibility=False, other_states=False), True, ("tss",), 5),
        (FeatureConfig(tss=False, composition=False), True, ACCESSIBILITY_CHANNELS, 7),
        (FeatureConfig(accessibility=False, tss=False, composition=False), False, OTHERS, 18),
        (FeatureConfig(accessibility=False, tss=False, other_states=False), False, (), 2),
        (FeatureConfig(accessibility=False, tss=False, composition=False, other_states=False), False, (), 0),
    ],
)
def test_each_feature_can_be_left_out(
    trained: Trained,
    predict_whole: Callable[..., dict[str, np.ndarray]],
    features: FeatureConfig,
    motifs: bool,
    channels: tuple[str, ...],
    width: int,
) -> None:
    config = CONFIG.model_copy(update={"features": features, "steps": 1, "evaluate_every": 1})
    loaded = load_model(trained("m", config, None if motifs else []), trained.dataset, trained.device)
    assert (loaded.tracks.spec.channels if loaded.tracks else ()) == channels
    assert loaded.module.shape.num_features == width
    request = Request(("MAX",), CellStates("HepG2", None, "none"), (VALID,))
    assert np.isfinite(predict_whole(trained.dataset, loaded, request, trained.device)["chr2"]).any()


def test_motifs_are_kept_as_they_were_read(tuned_folder: Path, toy_motifs: list[Motif]) -> None:
    """Both strands of each, about the kernel's middle, and the weights of none of them learned."""
    kernels = load_weights(tuned_folder / "weights.safetensors")["motifs.kernels"].numpy()
    for number, motif in enumerate(toy_motifs):
        log_odds = motif.log_odds()
        for strand, expected in enumerate((log_odds.T, log_odds[::-1, ::-1].T)):
            kernel = kernels[2 * number + strand]
            filled = np.flatnonzero(kernel.any(axis=0))
            assert np.array_equal(kernel[:, filled], expected)


def test_the_background_of_motifs_is_the_training_part(
    small_background: None, toy_with_starts: Dataset, located: Callable[..., list[tuple[int, bool]]]
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
