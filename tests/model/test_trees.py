"""Trees against scikit-learn's own answers, and what they are asked about against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier

from ebert_core.model.trees import REACH, Trees, bin_numbers
from ebert_core.training.boosting import _rounded_down, take


@pytest.mark.parametrize("samples_leaf", [5, 400], ids=["whole trees", "stumps and less"])
def test_they_answer_as_the_boosting_that_they_are_from(samples_leaf: int) -> None:
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(1_000, 6)).astype(np.float32).round(1)  # many ties with thresholds
    trees = Trees(2, 20)
    expected = []
    for place in range(2):
        bound = numbers[:, place] + numbers[:, 2] * numbers[:, 3] + rng.normal(size=1_000) > 1
        model = HistGradientBoostingClassifier(
            max_iter=20, max_depth=3, max_leaf_nodes=8, min_samples_leaf=samples_leaf, early_stopping=False
        ).fit(numbers, bound)
        take(trees, place, model)
        expected.append(model.decision_function(numbers))
    found = trees(torch.from_numpy(numbers).unflatten(0, (4, 250)))
    assert (found.shape, found.dtype) == ((4, 250, 2), torch.float32)
    np.testing.assert_allclose(found.flatten(0, 1), np.stack(expected, axis=1), atol=1e-5)


def test_a_threshold_between_two_numbers_stays_there() -> None:
    for threshold in (0.1, -0.1, 1e-30, 7.25, float(np.float32(0.3))):
        found = _rounded_down(threshold)
        assert found == np.float32(found)
        assert found <= threshold < float(np.nextafter(np.float32(found), np.float32(np.inf)))


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
