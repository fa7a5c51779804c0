"""Fine-tuning with boosted trees: what is learned from, what is kept, and that a scan answers as the model does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from threadpoolctl import threadpool_info, threadpool_limits

from ebert_core.config import FinetuneConfig
from ebert_core.errors import EbertError
from ebert_core.genome.labels import AMBIGUOUS, BOUND, UNBOUND
from ebert_core.genome.regions import Region
from ebert_core.inference.models import load_model
from ebert_core.inference.predictor import CellStates, Request
from ebert_core.model.checkpoint import load_weights
from ebert_core.model.trees import Trees
from ebert_core.training import boosting, finetune
from tests.training.tuned import CONFIG, Trained, manifest_of

WITH_TREES = CONFIG.model_copy(update={"trees": 12, "window_bp": 3_200, "context_bp": 1_000})


@pytest.fixture
def small_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(boosting._SETTINGS, "min_samples_leaf", 5)
    monkeypatch.setattr(boosting, "UNBOUND_BINS", 400)


@pytest.mark.usefixtures("small_leaves")
def test_a_model_with_trees_answers_with_both(
    trained: Trained, predict_whole: Callable[..., dict[str, np.ndarray]]
) -> None:
    folder = trained("m", WITH_TREES)
    assert manifest_of(folder)["features"]["num_trees"] == 12
    loaded = load_model(folder, trained.dataset, trained.device)
    trees = loaded.module.head.trees
    assert trees is not None
    assert trees.value.shape == (1, 12, 8), "of the TF that is kept"
    assert (trees.value != 0).any()
    cell = CellStates("HepG2", trained.dataset.flat_states("HepG2"), "dataset")
    request = Request(("MAX",), cell, (Region("chr2", 20_000, 41_337),))
    both = predict_whole(trained.dataset, loaded, request, trained.device)["chr2"]
    loaded.module.head.trees = None
    alone = predict_whole(trained.dataset, loaded, request, trained.device)["chr2"]
    known = np.isfinite(both)
    assert known.any()
    assert not np.allclose(both[known], alone[known], atol=1e-3)
    # The network is that of a run without trees.
    network = load_model(trained("n", WITH_TREES.model_copy(update={"trees": 0})), trained.dataset, trained.device)
    for name, tensor in network.module.state_dict().items():
        assert torch.equal(tensor, loaded.module.state_dict()[name]), name


def test_bins_are_drawn_with_the_weight_of_those_they_stand_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boosting, "UNBOUND_BINS", 300)
    rng = np.random.default_rng(0)
    labels = rng.choice([UNBOUND, AMBIGUOUS, BOUND], (4_000, 2), p=[0.9, 0.05, 0.05]).astype(np.uint8)
    bindable = rng.random(4_000) < 0.1
    region = Region("chr1", 10_000, 150_000)
    weights = boosting._drawn(labels, bindable, region, 3, rng)
    inside = (np.arange(4_000) >= 200) & (np.arange(4_000) <= 2_996)
    bound = (labels == BOUND).any(axis=1)
    assert (weights[~inside] == 0).all()
    assert (weights[inside & bound] == 1).all()
    for stratum in (bindable, ~bindable):
        unbound = inside & ~bound & (labels == UNBOUND).any(axis=1) & stratum
        assert (weights[unbound] > 0).sum() == 100
        assert weights[unbound].sum() == pytest.approx(unbound.sum())
    monkeypatch.setattr(boosting, "BOUND_BINS", 60)
    weights = boosting._drawn(labels, bindable, region, 3, rng)
    assert (weights[inside & bound] > 0).sum() == 20
    assert weights[inside & bound].sum() == pytest.approx((inside & bound).sum())


@pytest.mark.usefixtures("small_leaves")
def test_a_run_that_is_stopped_while_trees_are_fitted_goes_on(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = load_weights(trained("unbroken", WITH_TREES) / "weights.safetensors")
    fit = finetune.fit_trees

    def stopped(*arguments: Any) -> Trees:
        fit(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(finetune, "fit_trees", stopped)
    with pytest.raises(KeyboardInterrupt):
        trained("m", WITH_TREES)
    assert (trained.folder / "m.partial").is_dir()
    monkeypatch.setattr(finetune, "fit_trees", fit)
    resumed = load_weights(trained("m", WITH_TREES, resume=True) / "weights.safetensors")
    assert resumed.keys() == unbroken.keys()
    assert all(torch.equal(tensor, unbroken[name]) for name, tensor in resumed.items())


@pytest.mark.usefixtures("small_leaves")
def test_a_tf_with_nothing_to_tell_apart_has_silent_trees(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = boosting._drawn

    def bound_only(labels: np.ndarray, *rest: Any) -> np.ndarray:
        return np.where((labels == BOUND).any(axis=1), drawn(labels, *rest), 0.0)

    monkeypatch.setattr(boosting, "_drawn", bound_only)
    weights = load_weights(trained("m", WITH_TREES) / "weights.safetensors")
    assert (weights["head.trees.value"] == 0).all()


def test_scikit_learn_keeps_to_the_threads_of_the_run() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        boosting.require_boosting()
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp"} == {1}
    finally:
        torch.set_num_threads(before)
        threadpool_limits(before, user_api="openmp")


def test_trees_need_room_around_a_bin() -> None:
    with pytest.raises(ValidationError, match="trees look 1000 bp around a bin, context_bp is 200"):
        FinetuneConfig(trees=5)


def test_without_scikit_learn_there_is_one_error(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(EbertError, match="scikit-learn is not installed") as caught:
        trained("m", WITH_TREES)
    assert "ebert[trees]" in caught.value.hint
    assert not (trained.folder / "m.partial").exists()
