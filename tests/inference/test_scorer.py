"""The values of pieces are those of the scan, and the same bits whoever computes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from ebert_core.config import FeatureConfig, FusionConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.task_features import TrackReader, TrackSpec
from ebert_core.genome.regions import Region, whole
from ebert_core.inference.models import LoadedModel
from ebert_core.inference.pieces import Scored, give_back, make_plan, score_pieces
from ebert_core.inference.predictor import CellStates, Request
from ebert_core.inference.scorer import piece_values
from ebert_core.model.device import Device
from ebert_core.model.encoder import Encoder
from ebert_core.model.fusion import BindingModel, BindingShape
from ebert_core.model.trees import NUMBERS_OF_A_CHANNEL, Trees

SOME = (Region("chr2", 3_125, 3_150), Region("chr1", 39_000, 42_500), Region("chr2", 8_000, 30_030))


@pytest.fixture
def request_(toy_dataset: Dataset) -> Request:
    cell = CellStates("HepG2", toy_dataset.flat_states("HepG2"), "dataset")
    return Request(("MAX", "CTCF"), cell, tuple(whole(toy_dataset.assembly)))


def scored(dataset: Dataset, model: LoadedModel, request: Request, device: Device, bins_at_once: int) -> list[Scored]:
    plan = make_plan(dataset, request.regions, model.geometry().core_bins, bins_at_once)
    values = piece_values(dataset, model, request, device)
    return list(score_pieces(plan.pieces, values, lambda amount, note="": None))


def table(pieces: list[Scored]) -> dict[tuple[str, int], np.ndarray]:
    return {
        (each.piece.chrom, number): values
        for each in pieces
        for number, values in zip(each.piece.bins.tolist(), each.probabilities, strict=True)
    }


@pytest.mark.parametrize("bins_at_once", [1, 100, 100_000])
@pytest.mark.parametrize("some", [False, True])
def test_pieces_hold_what_the_scan_of_all_gives(
    toy_dataset: Dataset,
    model: LoadedModel,
    request_: Request,
    device: Device,
    predict_whole: Callable[..., dict[str, np.ndarray]],
    bins_at_once: int,
    some: bool,
) -> None:
    request = replace(request_, regions=SOME) if some else request_
    if not some and bins_at_once == 1:
        request = replace(request_, regions=(Region("chr2", 0, 9_000),))
    found = table(scored(toy_dataset, model, request, device, bins_at_once))
    expected = predict_whole(toy_dataset, model, request_, device)
    plan = make_plan(toy_dataset, request.regions, 1, 1)
    assert list(found) == [(piece.chrom, number) for piece in plan.pieces for number in piece.bins.tolist()]
    assert len(found) > 100
    # Another number of windows per product may change the last bit.
    np.testing.assert_allclose(list(found.values()), [expected[chrom][number] for chrom, number in found], rtol=1e-4)


def test_any_piece_alone_has_the_bits_that_it_has_among_all(
    toy_dataset: Dataset, model: LoadedModel, request_: Request, device: Device
) -> None:
    """So shards and resumed runs equal unbroken ones."""
    every = scored(toy_dataset, model, request_, device, 200)
    values = piece_values(toy_dataset, model, request_, device)
    assert len(every) > 8
    for each in every[::-1]:
        (alone,) = score_pieces([each.piece], values, lambda amount, note="": None)
        np.testing.assert_array_equal(alone.probabilities, each.probabilities)


def test_progress_reaches_every_bin(
    toy_dataset: Dataset, model: LoadedModel, request_: Request, device: Device
) -> None:
    plan = make_plan(toy_dataset, request_.regions, model.geometry().core_bins, 1_000)
    told: list[float] = []
    values = piece_values(toy_dataset, model, request_, device)
    list(score_pieces(plan.pieces, values, lambda amount, note="": told.append(amount)))
    assert sum(told) == plan.coverage.scored
    assert len(told) > len(plan.pieces)


@pytest.fixture(params=[0, 20], ids=["the network alone", "with trees"])
def in_blocks(request: pytest.FixtureRequest, model: LoadedModel, toy_dataset: Dataset) -> LoadedModel:
    """A model of CTCF and MAX whose encoder reads blocks of 400 bp, with task features of the dataset."""
    fusion = FusionConfig(width=16, num_layers=3, encoder_bp=400)
    spec = TrackSpec.choose(toy_dataset, FeatureConfig())
    torch.manual_seed(2)
    shape = BindingShape(fusion, True, (0, 1), len(spec.channels))
    module = BindingModel(Encoder(model.module.encoder.config, 18), 2, shape).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.4)
    if request.param:
        trees = Trees(2, request.param)
        trees.asked.random_(0, NUMBERS_OF_A_CHANNEL * (shape.num_features + 18))
        trees.threshold.normal_(0.2, 0.3)
        trees.value.normal_()
        trees.share[:] = torch.tensor([0.6, 0.9])
        module.grow(trees)
    config = {**model.manifest["config"], "fusion": fusion.model_dump(), "window_bp": 3_200, "context_bp": 400}
    return LoadedModel(model.path, (module,), {**model.manifest, "config": config}, TrackReader(toy_dataset, spec))


@pytest.mark.parametrize(("bins_at_once", "regions"), [(50, None), (333, None), (100_000, SOME), (10, SOME)])
def test_long_and_short_windows_of_blocks_give_one_answer(
    toy_dataset: Dataset,
    in_blocks: LoadedModel,
    request_: Request,
    device: Device,
    bins_at_once: int,
    regions: tuple[Region, ...] | None,
) -> None:
    """Pieces of any length, whole chromosomes or regions, shards or one run: the same to rounding."""
    every = table(scored(toy_dataset, in_blocks, request_, device, 100_000))
    request = request_ if regions is None else replace(request_, regions=regions)
    found = table(scored(toy_dataset, in_blocks, request, device, bins_at_once))
    assert len(found) > 100
    np.testing.assert_allclose(list(found.values()), [every[key] for key in found], rtol=1e-4, atol=1e-6)
    assert np.std(list(found.values()), axis=0).min() > 0.01


def test_pages_are_given_back_and_what_they_say_stays(toy_dataset: Dataset) -> None:
    before = toy_dataset.sequence("chr1").copy()
    give_back(toy_dataset.sequence("chr1"), np.arange(5), np.empty(0))
    assert np.array_equal(toy_dataset.sequence("chr1"), before)
