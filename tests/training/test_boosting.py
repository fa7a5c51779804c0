"""Fine-tuning with boosted trees: what is learned from, what is kept, and that a scan answers as the model does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_info

from ebert_core.config import FinetuneConfig
from ebert_core.genome.labels import AMBIGUOUS, BOUND, UNBOUND
from ebert_core.genome.regions import Region
from ebert_core.inference.models import load_model
from ebert_core.inference.predictor import CellStates, Request
from ebert_core.inference.scan import ScanGeometry
from ebert_core.model.checkpoint import load_weights
from ebert_core.model.trees import Trees
from ebert_core.training import boosting, finetune
from tests.training.tuned import CONFIG, Trained, manifest_of

WITH_TREES = CONFIG.model_copy(update={"trees": 12, "window_bp": 3_200, "context_bp": 1_200})


@pytest.fixture
def small_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(boosting._SETTINGS, "min_samples_leaf", 5)
    monkeypatch.setattr(boosting, "POOL", (400, 400, 400))


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
    monkeypatch.setattr(boosting, "POOL", (60, 300, 150))
    monkeypatch.setattr(boosting, "UNBOUND_BINS", (10, 70, 30))
    rng = np.random.default_rng(0)
    labels = rng.choice([UNBOUND, AMBIGUOUS, BOUND], (4_000, 2), p=[0.9, 0.05, 0.05]).astype(np.uint8)
    bindable = rng.random(4_000) < 0.1
    strata, weights = boosting._drawn(labels, bindable, Region("chr1", 10_000, 150_000), 3, rng)
    inside = (np.arange(4_000) >= 200) & (np.arange(4_000) <= 2_996)
    bound, unbound = (labels == BOUND).any(axis=1), (labels == UNBOUND).any(axis=1)
    kinds = bound, ~bound & unbound & bindable, ~bound & unbound & ~bindable
    assert (weights[~inside] == 0).all()
    for stratum, (kind, count) in enumerate(zip(kinds, (20, 100, 50), strict=True)):
        assert (strata[kind] == stratum).all()
        assert (weights[inside & kind] > 0).sum() == count
        assert weights[inside & kind].sum() == pytest.approx((inside & kind).sum())
    # What one TF learns from, of the drawn ones.
    drawn = np.flatnonzero(weights)
    rows = boosting.Rows(np.zeros((len(drawn), 1), np.float32), labels[drawn], strata[drawn], weights[drawn])
    for place in range(2):
        learned, mine = boosting._chosen(rows, place, rng), rows.labels[:, place]
        np.testing.assert_array_equal(learned[mine == BOUND], rows.weights[mine == BOUND])
        assert (learned[mine == AMBIGUOUS] == 0).all()
        for stratum, most in enumerate((10, 70, 30)):
            kind = (mine == UNBOUND) & (rows.strata == stratum)
            assert (learned[kind] > 0).sum() == min(most, kind.sum())
            assert learned[kind].sum() == pytest.approx(rows.weights[kind].sum())


@pytest.mark.usefixtures("small_leaves")
def test_few_bins_of_a_long_chromosome_are_read_one_by_one(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in a short window of its own, with the same numbers."""
    rows = boosting._Source.rows
    geometry = boosting._Source._geometry
    seen = set()

    def both_ways(source: boosting._Source, cell: str, region: Region, places: int, rng: Any) -> boosting.Rows | None:
        found = []
        for window_bp in (source.config.window_bp, 2_800):
            with monkeypatch.context() as patch:
                patch.setattr(boosting._Source, "_geometry", lambda self, bins: ScanGeometry(window_bp, 1_200))  # noqa: B023
                found.append(rows(source, cell, region, places, np.random.default_rng(7)))
        seen.update(geometry(source, np.arange(first, 2_000)).window_bp for first in (0, 1_999))
        np.testing.assert_allclose(found[0].numbers, found[1].numbers, atol=1e-5)
        return found[0]

    monkeypatch.setattr(boosting._Source, "rows", both_ways)
    trained("m", WITH_TREES)
    assert seen == {3_200, 2_800}


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

    def bound_only(labels: np.ndarray, *rest: Any) -> tuple[np.ndarray, np.ndarray]:
        strata, weights = drawn(labels, *rest)
        return strata, np.where((labels == BOUND).any(axis=1), weights, 0.0)

    monkeypatch.setattr(boosting, "_drawn", bound_only)
    weights = load_weights(trained("m", WITH_TREES) / "weights.safetensors")
    assert (weights["head.trees.value"] == 0).all()


@pytest.mark.usefixtures("small_leaves")
def test_scikit_learn_keeps_to_the_threads_of_the_run(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    fit = HistGradientBoostingClassifier.fit

    def watched(self: HistGradientBoostingClassifier, *arguments: Any, **more: Any) -> HistGradientBoostingClassifier:
        seen.update(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp")
        return fit(self, *arguments, **more)

    monkeypatch.setattr(HistGradientBoostingClassifier, "fit", watched)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        trained("m", WITH_TREES)
    finally:
        torch.set_num_threads(before)
    assert seen == {1}


def test_trees_need_room_around_a_bin() -> None:
    with pytest.raises(
        ValidationError, match="trees take 1200 bp around a bin, context_bp is 200: widen it, or set trees=0"
    ):
        FinetuneConfig(trees=5)
