"""Fine-tuning with boosted trees: what is learned from, what is kept, and that a scan answers as the model does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_info, threadpool_limits

from ebert_core.config import FinetuneConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.task_features import TrackSpec
from ebert_core.genome.labels import AMBIGUOUS, BOUND, UNBOUND
from ebert_core.genome.regions import Region
from ebert_core.inference.models import load_model
from ebert_core.inference.predictor import CellStates, Request
from ebert_core.inference.scan import ScanGeometry
from ebert_core.model.checkpoint import load_weights
from ebert_core.model.device import Device
from ebert_core.model.encoder import Encoder
from ebert_core.model.fusion import BindingModel, BindingShape
from ebert_core.model.trees import Trees
from ebert_core.training import boosting, finetune
from ebert_core.training.finetune_data import FinetuneChoice, choose_data
from tests.training.tuned import CONFIG, TINY, VALID, Trained, manifest_of

WITH_TREES = CONFIG.model_copy(update={"trees": 12, "window_bp": 3_200, "context_bp": 1_200})


@pytest.fixture
def small_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(boosting._SETTINGS, "min_samples_leaf", 5)
    monkeypatch.setattr(boosting, "BOUND_BINS", 600)
    monkeypatch.setattr(boosting, "UNBOUND_POOL", (800, 800))


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
    monkeypatch.setattr(boosting, "BOUND_BINS", 3_000)
    monkeypatch.setattr(boosting, "UNBOUND_POOL", (3_000, 1_500))
    monkeypatch.setattr(boosting, "UNBOUND_BINS", (300, 700, 300))
    rng = np.random.default_rng(0)
    # A TF that binds everywhere, one that binds rarely, one that was not assayed in the first of two cell types.
    shares = [(0.3, 0.3), (0.01, 0.02), (0.0, 0.1)]
    labels = np.stack([[rng.random(20_000) < share for share in each] for each in shares], axis=-1)
    labels = np.where(labels, BOUND, np.where(rng.random(labels.shape) < 0.05, AMBIGUOUS, UNBOUND)).astype(np.uint8)
    labels[0, :, 2] = 0
    strata = np.where((labels == BOUND).any(axis=-1), 0, 1 + (rng.random(labels.shape[:2]) < 0.8)).astype(np.uint8)
    inside = rng.random(strata.shape) < 0.9
    total = [
        np.concatenate(
            [
                (labels[cell][inside[cell]] == BOUND).sum(axis=0),
                np.bincount(strata[cell][inside[cell]], minlength=3)[1:],
            ]
        )
        for cell in range(2)
    ]
    rates = boosting.Rates.of(total)
    assert rates.bound[1] == 1, "fewer than its share: all are drawn"
    assert 0 < rates.bound[0] < 0.2
    weights = np.stack([boosting.drawn(*each, rates, rng) for each in zip(labels, strata, inside, strict=True)])
    assert (weights[~inside] == 0).all()
    assert (weights[inside & (labels[..., 1] == BOUND)] == 1).all()
    for place in range(3):
        bound = inside & (labels[..., place] == BOUND)
        assert weights[bound].sum() == pytest.approx(bound.sum(), rel=0.15)
    for stratum in (1, 2):
        unbound = inside & (strata == stratum)
        assert weights[unbound].sum() == pytest.approx(unbound.sum(), rel=0.05)
        assert (weights[unbound] > 0).sum() == pytest.approx((3_000, 1_500)[stratum - 1], rel=0.1)
    # What one TF learns from, of the drawn ones.
    at = np.nonzero(weights)
    rows = boosting.Rows(np.zeros((len(at[0]), 1), np.float32), labels[at], strata[at], weights[at])
    for place in range(3):
        learned, mine = boosting._chosen(rows, place, rng), rows.labels[:, place]
        np.testing.assert_array_equal(learned[mine == BOUND], rows.weights[mine == BOUND])
        assert (learned[(mine == AMBIGUOUS) | (mine == 0)] == 0).all()
        for stratum, most in enumerate((300, 700, 300)):
            kind = (mine == UNBOUND) & (rows.strata == stratum)
            assert (learned[kind] > 0).sum() == min(most, kind.sum())
            assert learned[kind].sum() == pytest.approx(rows.weights[kind].sum(), rel=0.2)


@pytest.mark.usefixtures("small_leaves")
def test_each_tf_has_its_own_trees_and_each_bin_its_own_numbers(
    copied_dataset: Callable[[], Dataset],
    relabel: Callable[..., Dataset],
    device: Device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two TFs that bind where a state is, one of them assayed in one cell type only."""
    dataset = copied_dataset()
    often = np.bincount(np.concatenate([dataset.states("GM12878", chrom) for chrom in dataset.assembly.chroms]))
    often[0] = 0
    state_of = {"CTCF": int(np.argsort(often)[-2]), "MAX": int(np.argsort(often)[-3])}

    def by_state(tf: str, cell: str, labels: np.ndarray) -> np.ndarray | None:
        if (tf, cell) == ("CTCF", "HepG2"):
            return None
        found = []
        for chrom in dataset.assembly.chroms:
            here = np.repeat(dataset.states(cell, chrom), 4) == state_of[tf]
            found.append(np.convolve(here, np.ones(4))[3:] > 0)  # some stride of the bin
            found[-1] = np.where(found[-1], BOUND, UNBOUND)
        known = np.isin(labels, (BOUND, UNBOUND, AMBIGUOUS))
        return np.where(known, np.concatenate(found), labels)

    relabelled = relabel(dataset, by_state)
    data = choose_data(relabelled, FinetuneChoice(("CTCF", "MAX"), cells=("GM12878", "HepG2"), valid=(VALID,)))
    config = CONFIG.model_copy(update={"window_bp": 3_200, "context_bp": 1_200, "trees": 30})
    tracks = TrackSpec.choose(relabelled, config.features)
    shape = BindingShape(config.fusion, True, (0, 1), len(tracks.channels))
    module = BindingModel(Encoder(TINY, 18), 2, shape).eval()
    seen: list[boosting.Rows] = []
    rows = boosting._Source.rows
    monkeypatch.setattr(boosting._Source, "rows", lambda *given: seen.append(rows(*given)) or seen[-1])
    trees = boosting.fit_trees(data, config, module, device, tracks)
    numbers, labels = (np.concatenate(each) for each in (zip(*[(r.numbers, r.labels) for r in seen], strict=True)))
    assert trees.needs.tolist() == [3, 1], "a channel says whether accessibility is known"
    answers = trees(torch.from_numpy(numbers)).numpy()
    for place, (tf, state) in enumerate(state_of.items()):
        known = np.isin(labels[:, place], (BOUND, UNBOUND))
        bound = labels[known, place] == BOUND
        assert 20 < bound.sum() < known.sum() - 20, tf
        np.testing.assert_array_equal(numbers[known, shape.num_features + state - 1] == 1, bound)
        assert roc_auc_score(bound, answers[known, place]) > 0.95
        assert roc_auc_score(bound, answers[known, 1 - place]) < 0.9
    assert (labels[:, 0] == 0).any(), "bins of the cell type without CTCF are there for MAX"


@pytest.mark.usefixtures("small_leaves")
def test_few_bins_of_a_long_chromosome_are_read_one_by_one(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in a short window of its own, with the same numbers."""
    rows = boosting._Source.rows
    geometry = boosting._Source._geometry
    seen = set()

    def both_ways(source: boosting._Source, place: boosting._Place, rates: boosting.Rates, rng: Any) -> boosting.Rows:
        found = []
        for window_bp in (source.config.window_bp, 2_800):
            with monkeypatch.context() as patch:
                patch.setattr(boosting._Source, "_geometry", lambda self, bins: ScanGeometry(window_bp, 1_200))  # noqa: B023
                found.append(rows(source, place, rates, np.random.default_rng(7)))
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
def test_where_no_bin_is_drawn_the_trees_are_silent(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boosting, "drawn", lambda labels, *_: np.zeros(len(labels)))
    weights = load_weights(trained("m", WITH_TREES) / "weights.safetensors")
    assert (weights["head.trees.value"] == 0).all()
    assert weights["head.trees.share"].tolist() == [0]


@pytest.mark.usefixtures("small_leaves")
def test_a_tf_with_nothing_to_tell_apart_has_silent_trees(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = boosting.drawn

    def bound_only(labels: np.ndarray, *rest: Any) -> np.ndarray:
        return np.where((labels == BOUND).any(axis=1), drawn(labels, *rest), 0.0)

    monkeypatch.setattr(boosting, "drawn", bound_only)
    weights = load_weights(trained("m", WITH_TREES) / "weights.safetensors")
    assert (weights["head.trees.value"] == 0).all()
    assert weights["head.trees.share"].tolist() == [0]


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
        with threadpool_limits(2, user_api="openmp"):
            torch.set_num_threads(1)
            trained("m", WITH_TREES)
    finally:
        torch.set_num_threads(before)
    assert seen == {1}


def test_trees_need_room_around_a_bin() -> None:
    with pytest.raises(
        ValidationError, match="trees, a default of --motifs, take 1200 bp around a bin, and context_bp is 200"
    ):
        FinetuneConfig(trees=5)
