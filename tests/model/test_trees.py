"""Trees against scikit-learn's own answers, and what they are asked about against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier

from ebert_core.config import EncoderConfig, FusionConfig
from ebert_core.model.encoder import Encoder
from ebert_core.model.fusion import BindingModel, BindingShape
from ebert_core.model.trees import REACH, Trees, bin_numbers
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
    padded = np.pad(channels, ((0, 0), (REACH, REACH), (0, 0)))
    for stride in range(57):
        around = padded[:, stride : stride + 4 + 2 * REACH]
        near = around[:, REACH - 4 : REACH + 8]
        here = around[:, REACH : REACH + 4]
        expected = np.concatenate([here.max(axis=1), near.max(axis=1), around.mean(axis=1)], axis=-1)
        np.testing.assert_allclose(found[:, stride], expected, atol=1e-5)


def test_both_strands_are_asked_the_same() -> None:
    rng = np.random.default_rng(2)
    features, states = torch.from_numpy(rng.normal(size=(1, 40, 2)).astype(np.float32)), torch.randint(0, 4, (1, 10))
    turned = bin_numbers(features.flip(1), states.flip(1), 3).flip(1)
    torch.testing.assert_close(turned, bin_numbers(features, states, 3))


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
