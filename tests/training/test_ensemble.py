"""An ensemble is its members: each the run of its own seed, their logits averaged, their spread told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ebert_core.errors import EbertError, InputError
from ebert_core.genome.regions import Region
from ebert_core.inference.ensemble import mean_score
from ebert_core.inference.models import LoadedModel, load_model
from ebert_core.inference.pieces import make_plan, score_pieces
from ebert_core.inference.predictor import CellStates, Request
from ebert_core.inference.scan import gather
from ebert_core.inference.scorer import piece_values
from ebert_core.training import ensemble
from ebert_core.training.finetune import BindingObjective
from ebert_core.training.journal import read_journal
from tests.training.tuned import CONFIG, Trained, manifest_of

MEMBERS = CONFIG.model_copy(update={"members": 2, "seed": 5})


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


@pytest.fixture
def opened(trained: Trained) -> Callable[[Path], LoadedModel]:
    return lambda folder: load_model(folder, trained.dataset, trained.device)


def test_members_are_the_runs_of_their_seeds(trained: Trained) -> None:
    folder = trained("both", MEMBERS)
    for name, seed in (("weights.safetensors", 5), ("weights-2.safetensors", 6)):
        alone = trained(f"alone{seed}", CONFIG.model_copy(update={"seed": seed}))
        assert weights(folder)[name] == weights(alone)["weights.safetensors"]
    assert not folder.with_name("both.partial").exists()
    manifest = manifest_of(folder)
    assert (manifest["config"]["members"], manifest["config"]["seed"]) == (2, 5)
    assert set(manifest["files"]) == set(weights(folder))
    assert len(manifest["best_step"]) == len(manifest["validation_of_members"]) == 2
    events = read_journal(folder / "journal.jsonl")
    assert {event["member"] for event in events} == {1, 2}
    assert sum(event["event"] == "evaluate" for event in events) == 4


def test_its_answer_is_the_mean_and_its_spread_the_deviation(
    trained: Trained, opened: Callable[[Path], LoadedModel]
) -> None:
    """Probabilities by hand from each member's own logits, with the ensemble's calibration."""
    loaded = opened(trained("both", MEMBERS.model_copy(update={"seed": 4})))
    cell = CellStates("HepG2", trained.dataset.flat_states("HepG2"), "dataset")
    regions = (Region("chr1", 20_000, 26_000), Region("chr2", 20_000, 30_000))
    found = []
    for members in (loaded.members, *((member,) for member in loaded.members)):
        model = LoadedModel(loaded.path, members, loaded.manifest, loaded.tracks)
        plan = make_plan(trained.dataset, regions, model.geometry().core_bins, 20)
        values = piece_values(trained.dataset, model, Request(("MAX",), cell, regions), trained.device)
        found.append(list(score_pieces(plan.pieces, values, lambda amount, note="": None)))
    assert any(not len(piece.wanted) for piece in plan.pieces), "chr1 has an N-run there"
    both, *alone = found
    assert all(each.spread is None for scored in alone for each in scored)
    assert all(each.spread is not None for each in both)

    def joined(scored: list[Any], name: str) -> np.ndarray:
        return np.concatenate([getattr(each, name) for each in scored]).astype(np.float64)

    own = np.stack([joined(scored, "probabilities") for scored in alone])
    np.testing.assert_allclose(joined(both, "spread"), own.std(axis=0), rtol=1e-3, atol=1e-6)
    odds = np.log(own / (1 - own)).mean(axis=0)
    np.testing.assert_allclose(joined(both, "probabilities"), 1 / (1 + np.exp(-odds)), rtol=1e-3)
    assert own.std(axis=0).max() > 1e-3


def test_scores_for_sites_and_variants_are_means(trained: Trained, opened: Callable[[Path], LoadedModel]) -> None:
    loaded = opened(trained("both", MEMBERS))
    batch = gather(trained.dataset.sequence("chr2"), None, np.array([20_000, 31_000]), 1_000)
    assert loaded.tracks is not None
    batch = type(batch)(batch.bases, batch.states, loaded.tracks.read("HepG2", np.array([80_000, 91_000]), 1_000))
    alone = [mean_score((member,), trained.device, both_strands=True)(batch) for member in loaded.members]
    together = mean_score(loaded.members, trained.device, both_strands=True)(batch)
    assert together.shape == alone[0].shape
    np.testing.assert_allclose(together, np.mean(alone, axis=0), rtol=1e-5)


@pytest.mark.parametrize("member", [1, 2])
def test_stopped_and_resumed_equals_unbroken(trained: Trained, monkeypatch: pytest.MonkeyPatch, member: int) -> None:
    draw, seen = BindingObjective.draw, []

    def stopping(self: BindingObjective, step: int, first: int, count: int) -> Any:
        seen.append(step == 0 and first == 0)
        if sum(seen) == member and step == 4:
            raise KeyboardInterrupt
        return draw(self, step, first, count)

    with monkeypatch.context() as patch:
        patch.setattr(BindingObjective, "draw", stopping)
        with pytest.raises(KeyboardInterrupt):
            trained("broken", MEMBERS)
    with pytest.raises(EbertError, match="holds an unfinished run") as caught:
        trained("broken", MEMBERS)
    assert "--resume" in caught.value.hint
    with pytest.raises(EbertError, match="other settings"):
        trained("broken", MEMBERS.model_copy(update={"seed": 6}), resume=True)
    broken, whole = trained("broken", MEMBERS, resume=True), trained("whole", MEMBERS)
    assert weights(broken) == weights(whole)
    for key in ("calibration", "validation", "best_step", "files"):
        assert manifest_of(broken)[key] == manifest_of(whole)[key]


@pytest.mark.parametrize("first_members", [1, 2])
def test_a_run_of_the_other_kind_costs_nothing_that_was_made(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, first_members: int
) -> None:
    """A single run does not take an ensemble's members for rubbish, nor an ensemble a single run's resume points."""
    first = MEMBERS.model_copy(update={"members": first_members})
    other = MEMBERS.model_copy(update={"members": 3 - first_members})
    draw = BindingObjective.draw

    def stopping(self: BindingObjective, step: int, first: int, count: int) -> Any:
        if step == 4:
            raise KeyboardInterrupt
        return draw(self, step, first, count)

    with monkeypatch.context() as patch:
        patch.setattr(BindingObjective, "draw", stopping)
        with pytest.raises(KeyboardInterrupt):
            trained("m", first)
    for resume, problem in ((False, "holds an unfinished run$"), (True, "other settings")):
        with pytest.raises(EbertError, match=problem):
            trained("m", other, resume=resume)
    assert weights(trained("m", first, resume=True)) == weights(trained("whole", first))


@pytest.mark.parametrize(("place", "error"), [("finish_run", KeyboardInterrupt()), ("save", OSError(28, "full disk"))])
def test_stopped_before_its_output_it_trains_nothing_again(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, place: str, error: BaseException
) -> None:
    def stopping(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(ensemble, place, stopping)
        with pytest.raises((KeyboardInterrupt, OSError, EbertError)):
            trained("m", MEMBERS)
    assert not (trained.folder / "m").exists()
    with monkeypatch.context() as patch:
        patch.setattr(BindingObjective, "draw", lambda *_: pytest.fail("trained again"))
        resumed = trained("m", MEMBERS, resume=True)
    whole = trained("whole", MEMBERS)
    assert weights(resumed) == weights(whole)
    assert manifest_of(resumed)["calibration"] == manifest_of(whole)["calibration"]


def test_a_member_of_an_older_format_is_told_before_others_are_trained(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ensemble, "_publish", lambda *_: None)
        trained("m", MEMBERS)
    manifest = trained.folder / "m.partial" / "member-1" / "ebert.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format_version": 1}))
    shutil.rmtree(trained.folder / "m.partial" / "member-2")
    with pytest.raises(EbertError, match="format version 1"):
        trained("m", MEMBERS, resume=True)
    assert not (trained.folder / "m.partial" / "member-2").exists()


def test_started_anew_it_leaves_nothing_of_the_old_run(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    first = trained("m", MEMBERS)
    again = trained("m", MEMBERS.model_copy(update={"members": 3, "seed": 9}), overwrite=True)
    assert first == again
    assert len(weights(again)) == 3


def test_a_missing_member_is_told(trained: Trained, opened: Callable[[Path], LoadedModel]) -> None:
    folder = trained("both", MEMBERS)
    (folder / "weights-2.safetensors").unlink()
    with pytest.raises(InputError, match=r"weights-2\.safetensors: is missing"):
        opened(folder)
    manifest = json.loads((folder / "ebert.json").read_text())
    manifest["files"]["other"] = manifest["files"].pop("weights-2.safetensors")
    (folder / "ebert.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"lists no weights-2\.safetensors"):
        opened(folder)
