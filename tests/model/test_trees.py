"""Trees against scikit-learn's own answers, and what they are asked about against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier

from ebert_core.config import EncoderConfig, FusionConfig
from ebert_core.model.encoder import Encoder
from ebert_core.model.fusion import BindingModel, BindingShape
from ebert_core.model.trees import NEIGHBOURS, REACH, Trees, averaged, bin_numbers
from ebert_core.training.boosting import class_edges, classes_of, take


@pytest.mark.parametrize("samples_leaf", [5, 400], ids=["whole trees", "stumps and less"])
def test_they_answer_as_the_boosting_that_they_are_from(samples_leaf: int) -> None:
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(1_000, 6)).astype(np.float32)
    numbers[:, :4] = numbers[:, :4].round(1)  # many ties with thresholds
    numbers[:, 4] = 7
    edges = class_edges(numbers, rng)
    classes = classes_of(numbers, edges)
    trees = Trees(2, 20)
    expected = []
    for place in range(2):
        bound = numbers[:, place] + numbers[:, 2] * numbers[:, 3] + rng.normal(size=1_000) > 1
        answers = 0
        for numbers_of in np.array_split(np.arange(20), 3):
            model = HistGradientBoostingClassifier(
                max_iter=len(numbers_of), max_depth=3, max_leaf_nodes=8, min_samples_leaf=samples_leaf,
                early_stopping=False,
            ).fit(classes, bound)  # fmt: skip
            take(trees, place, numbers_of, model, edges, share=1 / 3)
            answers = answers + model.decision_function(classes) / 3
        expected.append(answers)
    found = trees(torch.from_numpy(numbers).unflatten(0, (4, 250)))
    assert (found.shape, found.dtype) == ((4, 250, 2), torch.float32)
    np.testing.assert_allclose(found.flatten(0, 1), np.stack(expected, axis=1), atol=1e-5)
    # As on a GPU; and of some TFs, in their order.
    on_gpu = trees._by_torch(torch.from_numpy(numbers), [1, 0])
    np.testing.assert_allclose(on_gpu, np.stack(expected[::-1], axis=1), atol=1e-5)
    torch.testing.assert_close(trees(torch.from_numpy(numbers), [1]), found.flatten(0, 1)[:, 1:])


def test_classes_hold_about_as_many_rows_each() -> None:
    rng = np.random.default_rng(0)
    numbers = np.stack([np.exp(3 * rng.normal(size=100_000)), rng.integers(0, 3, 100_000)], axis=1).astype(np.float32)
    edges = class_edges(numbers, rng)
    classes = classes_of(numbers, edges)
    sizes = np.bincount(classes[:, 0], minlength=255)
    assert len(sizes) == 255
    assert sizes.min() > 250
    assert sizes.max() < 600, "392 each"
    for value in range(3):  # few values: each is a class of its own
        assert len(set(classes[numbers[:, 1] == value, 1])) == 1
    assert len(set(classes[:, 1])) == 3
    # Of no rows there are no classes, and that is no error.
    nothing = np.empty((0, 2), np.float32)
    assert classes_of(nothing, class_edges(nothing, rng)).shape == (0, 2)


def test_what_is_asked_about_a_bin() -> None:
    rng = np.random.default_rng(1)
    features = torch.from_numpy(rng.normal(size=(2, 60, 3)).astype(np.float32)) + 2
    states = torch.from_numpy(rng.integers(0, 3, (2, 15)))
    found = bin_numbers(features, states, 2)
    assert found.shape == (2, 57, 3 * (3 + 2))
    by_stride = states.repeat_interleave(4, dim=1)
    shown = torch.stack([by_stride == 1, by_stride == 2], dim=-1).float()
    channels = torch.cat([features, shown], dim=-1).numpy()
    reach = REACH - NEIGHBOURS
    padded = np.pad(channels, ((0, 0), (reach, reach), (0, 0)))
    for stride in range(57):
        around = padded[:, stride : stride + 4 + 2 * reach]
        near = around[:, reach - 4 : reach + 8]
        here = around[:, reach : reach + 4]
        expected = np.concatenate([here.max(axis=1), near.max(axis=1), around.mean(axis=1)], axis=-1)
        np.testing.assert_allclose(found[:, stride], expected, atol=1e-5)


def test_both_strands_are_asked_the_same() -> None:
    rng = np.random.default_rng(2)
    features, states = torch.from_numpy(rng.normal(size=(1, 40, 2)).astype(np.float32)), torch.randint(0, 4, (1, 10))
    turned = bin_numbers(features.flip(1), states.flip(1), 3).flip(1)
    torch.testing.assert_close(turned, bin_numbers(features, states, 3))


@pytest.mark.parametrize("num", [1, 2, 40])
def test_answers_are_averaged_with_informed_neighbours(num: int) -> None:
    rng = np.random.default_rng(4)
    told, informed = rng.normal(size=(2, num, 3)).astype(np.float32), rng.random((2, num, 1)) < 0.6
    expected = np.zeros_like(told)
    for row, place in np.ndindex(2, num):
        near = [at for at in range(place - 2, place + 3) if 0 <= at < num and informed[row, at, 0]]
        weights = [3 - abs(at - place) for at in near]
        if near:
            expected[row, place] = np.average(told[row, near], axis=0, weights=weights)
    found = averaged(torch.from_numpy(told), torch.from_numpy(informed))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_bins_that_are_asked_for_are_those_of_the_whole_window() -> None:
    torch.manual_seed(6)
    encoder = Encoder(EncoderConfig(width=16, num_layers=1, num_heads=2, stem_channels=8), 3)
    module = BindingModel(encoder, 2, BindingShape(FusionConfig(width=16, num_layers=1), num_tracks=4)).eval()
    features, states = torch.rand(3, 60, 4), torch.randint(0, 2, (3, 15))
    trees = Trees(2, 5)
    trees.asked.random_(0, 12)
    trees.threshold.uniform_(0, 1)
    trees.value.normal_()
    trees.needs[:] = torch.tensor([-1, 1])
    trees.share[:] = torch.tensor([0.25, 1.0])
    module.grow(trees)
    network = torch.randn(3, 57, 2)
    whole = module.head.with_trees(network, features, states)
    answers, informed = module.head.tree_answers(features, states)
    instead = torch.where(informed, answers, network)
    torch.testing.assert_close(whole, 0.75 * network * torch.tensor([1, 0]) + torch.tensor([0.25, 1]) * instead)
    assert not torch.equal(instead, network)
    # Of some TFs, in their order.
    turned = module.head.with_trees(network[..., [1, 0]], features, states, tfs=[1, 0])
    torch.testing.assert_close(turned, whole[..., [1, 0]])
    torch.testing.assert_close(module.head.with_trees(network[..., 1:], features, states, tfs=[1]), whole[..., 1:])
    # Out of order, one twice; at the window's beginning and end; one alone.
    bins = torch.tensor([[22, 20, 22, 29], [0, 1, 2, 0], [56, 56, 56, 56]])
    rows = torch.arange(3)[:, None]
    some = module.head.with_trees(network[rows, bins], features, states, bins=bins)
    torch.testing.assert_close(some, whole[rows, bins])


def test_they_have_no_say_where_they_see_too_little() -> None:
    torch.manual_seed(5)
    encoder = Encoder(EncoderConfig(width=16, num_layers=1, num_heads=2, stem_channels=8), 3)
    module = BindingModel(encoder, 2, BindingShape(FusionConfig(width=16, num_layers=1), num_tracks=4)).eval()
    bases, tracks = torch.randint(0, 4, (3, 2_000)), torch.rand(3, 40, 4)
    states = torch.randint(1, 4, (3, 10))
    tracks[1, :, 3] = 0  # the channel that says whether the rest is known
    states[2, 4] = 0  # strides 16 to 19
    network = module(bases, states, tracks)
    trees = Trees(2, 5)
    trees.value[:] = 1.0
    module.grow(trees)
    both = (network + 5) / 2
    torch.testing.assert_close(module(bases, states, tracks), both)
    trees.needs[:] = torch.tensor([3, 1])
    expected = both.clone()
    expected[1] = network[1]
    expected[2, 16] = network[2, 16]  # the one bin of which no stride has a known state
    torch.testing.assert_close(module(bases, states, tracks), expected)
