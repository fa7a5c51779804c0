"""The share of a TF's trees is what suits its validation part."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from ebert_core.data.dataset import Dataset
from ebert_core.data.task_features import TrackSpec
from ebert_core.evaluation.measures import Measures
from ebert_core.inference.packed import packed
from ebert_core.inference.scan import model_score
from ebert_core.model.checkpoint import load_weights, read_model
from ebert_core.model.device import Device
from ebert_core.model.fusion import mixed
from ebert_core.training import boosting, tree_shares
from ebert_core.training.binding_validation import BindingValidation
from ebert_core.training.finetune_data import FinetuneChoice, choose_data
from ebert_core.training.tree_shares import chosen_shares, judged
from ebert_core.vocabulary import STRIDE_BP
from tests.training.test_boosting import WITH_TREES
from tests.training.tuned import VALID, Trained, manifest_of

Opinion = Callable[..., tuple[np.ndarray, np.ndarray]]


@pytest.fixture
def opinion() -> Opinion:
    rng = np.random.default_rng(0)

    def make(network: float, trees: float, num_bound: int = 400, num: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
        """Logits of both, so many times as far from 0 as they err, and what is bound."""
        bound = np.arange(num) < num_bound
        rng.shuffle(bound)
        told = [bound * 3 * good + rng.normal(size=num) for good in (network, trees)]
        return np.stack(told, axis=1).astype(np.float32), bound

    return make


def test_who_knows_a_tf_has_the_say(opinion: Opinion) -> None:
    opinions = {
        ("network's", "A"): opinion(1, 0),
        ("trees'", "A"): opinion(0, 1),
        ("both's", "A"): opinion(1, 1),
        # What few bound bins say is not listened to, and another cell type is.
        ("rare", "A"): opinion(1, 0, num_bound=99),
        ("rare in one", "A"): opinion(1, 0, num_bound=99),
        ("rare in one", "B"): opinion(0, 1),
        ("not bound", "A"): opinion(1, 0, num_bound=0),
        ("bound everywhere", "A"): opinion(1, 0, num_bound=20_000),
        # No bin of the part is labelled.
        ("empty", "A"): opinion(1, 0, num_bound=0, num=0),
        # The first cell type counts as much as the last.
        ("in the first", "A"): opinion(0, 1),
        ("in the first", "B"): opinion(1, 1),
        ("in the last", "A"): opinion(1, 1),
        ("in the last", "B"): opinion(0, 1),
    }
    tfs = ["trees'", "both's", "network's", "rare", "not bound", "bound everywhere", "rare in one", "nowhere", "empty"]
    tfs += ["in the first", "in the last"]
    shares = chosen_shares(tfs, opinions)
    assert shares.dtype == np.float32
    assert shares[0] >= 0.9
    assert shares[1] == pytest.approx(0.5, abs=0.11)
    assert shares[2] == 0.5, "never less"
    assert shares[3:6].tolist() == [0.5] * 3
    assert shares[6] >= 0.9
    assert shares[7:9].tolist() == [0.5] * 2
    assert shares[9:].min() >= 0.6


def test_it_is_the_best_of_the_tenths(opinion: Opinion) -> None:
    pairs = {("TF", "A"): opinion(0.4, 1), ("TF", "B"): opinion(0.6, 0.9)}
    by_share = [
        np.mean([average_precision_score(bound, both @ [1 - share, share]) for both, bound in pairs.values()])
        for share in np.arange(5, 11) / 10
    ]
    assert 0 < np.argmax(by_share) < 5
    assert chosen_shares(["TF"], pairs)[0] == pytest.approx(0.5 + np.argmax(by_share) / 10, abs=0.11)
    # All shares are as good where both say the same.
    same = {pair: (np.repeat(both[:, :1], 2, axis=1), bound) for pair, (both, bound) in pairs.items()}
    assert chosen_shares(["TF"], same)[0] == 0.5


def test_of_a_long_part_some_bins_are_enough(opinion: Opinion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_shares, "_MOST_BINS", 3_000)
    monkeypatch.setattr(tree_shares, "_ENOUGH_BOUND", 150)
    read: list[int] = []
    measure = tree_shares.measure

    def counted(scores: np.ndarray, bound: np.ndarray) -> Measures:
        read.append(len(scores))
        return measure(scores, bound)

    monkeypatch.setattr(tree_shares, "measure", counted)
    pairs = {("A", "x"): opinion(0, 1, num_bound=2_000), ("B", "x"): opinion(1, 0), ("C", "x"): opinion(0, 1, 200)}
    shares = chosen_shares(["A", "B", "C"], pairs)
    assert shares[0] >= 0.8
    assert shares[1] == 0.5
    assert shares[2] >= 0.8
    # Every seventh; every second, of a TF with few bound bins; and all, of one with fewer.
    assert read[::6] == [-(-20_000 // 7), 10_000, 20_000]


def test_logits_are_mixed_as_the_model_mixes_them(opinion: Opinion) -> None:
    both, bound = opinion(1, 1)
    shares = np.array([0.3, 0.7], dtype=np.float32)
    opinions = {("A", "x"): (both, bound), ("B", "x"): (both, bound)}
    found = judged(["A", "B"], opinions, shares)
    assert not opinions, "used up"
    network, trees = torch.from_numpy(both).T
    for place, tf in enumerate("AB"):
        logits, kept = found[tf, "x"]
        assert kept is bound
        expected = mixed(network[:, None], trees[:, None], torch.from_numpy(shares[place : place + 1]))[:, 0]
        np.testing.assert_array_equal(logits, expected)
        np.testing.assert_allclose(logits, (1 - shares[place]) * both[:, 0] + shares[place] * both[:, 1], atol=1e-5)


def test_a_model_keeps_them_and_its_measures_are_with_them(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(boosting._SETTINGS, "min_samples_leaf", 5)
    found = {}
    for share in (0.0, 0.8):
        monkeypatch.setattr("ebert_core.training.finetune.chosen_shares", lambda tfs, _, s=share: np.full(len(tfs), s, np.float32))  # fmt: skip  # noqa: E501
        folder = trained(f"m{share}", WITH_TREES)
        manifest = manifest_of(folder)
        assert manifest["tree_shares"] == {"MAX": share}
        assert load_weights(folder / "weights.safetensors")["head.trees.share"].tolist() == [np.float32(share)]
        found[share] = manifest["validation"]
    alone: dict[str, Any] = manifest_of(trained("n", WITH_TREES.model_copy(update={"trees": 0})))
    assert "tree_shares" not in alone
    assert found[0.0] == alone["validation"]
    assert found[0.8] != alone["validation"]


def test_each_tf_has_its_own_and_is_calibrated_with_it(
    trained: Trained, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(boosting._SETTINGS, "min_samples_leaf", 5)
    monkeypatch.setattr("ebert_core.training.finetune.chosen_shares", lambda *_: np.array([0.5, 0.9], np.float32))
    choice = FinetuneChoice(("CTCF", "MAX"), held_out_cells=("HepG2",), valid=(VALID,))
    monkeypatch.setattr("tests.training.tuned.CHOICE", choice)
    folder = trained("m", WITH_TREES)
    manifest = manifest_of(folder)
    assert manifest["tree_shares"] == {"CTCF": 0.5, "MAX": 0.9}
    (module,), _, _ = read_model(folder)
    tracks = TrackSpec.from_json(manifest["features"]["tracks"])
    validation = BindingValidation(choose_data(trained.dataset, choice), WITH_TREES, tracks)
    score = model_score(packed(module, device), device, both_strands=True)
    calibrations, measures = validation.calibrate(validation.whole(score))
    assert json.loads(json.dumps([calibrations, measures])) == [manifest["calibration"], manifest["validation"]]


def test_a_validation_part_where_a_cell_type_has_no_labels_of_a_tf(
    trained: Trained, copied_dataset: Callable[[], Dataset], relabel: Callable[..., Dataset], monkeypatch: Any
) -> None:
    """CTCF was called on other chromosomes only; MAX on all."""
    monkeypatch.setitem(boosting._SETTINGS, "min_samples_leaf", 5)
    dataset = copied_dataset()

    def without_chr2(tf: str, cell: str, labels: np.ndarray) -> np.ndarray:
        offset = dataset.assembly.offset("chr2") // STRIDE_BP
        return np.where((tf == "CTCF") & (cell == "GM12878") & (np.arange(len(labels)) >= offset), 0, labels)

    choice = FinetuneChoice(("CTCF", "MAX"), cells=("GM12878", "HepG2"), valid=(VALID,))
    monkeypatch.setattr("tests.training.tuned.CHOICE", choice)
    monkeypatch.setattr(trained, "dataset", relabel(dataset, without_chr2))
    manifest = manifest_of(trained("m", WITH_TREES))
    assert set(manifest["validation"]) == {"CTCF/HepG2", "MAX/GM12878", "MAX/HepG2"}
    assert set(manifest["tree_shares"]) == {"CTCF", "MAX"}
