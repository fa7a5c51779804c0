"""The values of pieces are those of the scan, and the same bits whoever computes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ebert_core.data.dataset import Dataset
from ebert_core.genome.regions import Region, whole
from ebert_core.inference.models import LoadedModel
from ebert_core.inference.pieces import Scored, make_plan, score_pieces
from ebert_core.inference.predictor import CellStates, Request
from ebert_core.inference.scorer import piece_values
from ebert_core.model.device import Device

SOME = (Region("chr2", 3_125, 3_150), Region("chr1", 39_000, 42_500), Region("chr2", 8_000, 30_030))


@pytest.fixture
def request_(toy_dataset: Dataset) -> Request:
    cell = CellStates("HepG2", toy_dataset.flat_states("HepG2"), "dataset")
    return Request(("MAX", "CTCF"), cell, tuple(whole(toy_dataset.assembly)))


def scored(dataset: Dataset, model: LoadedModel, request: Request, device: Device, bins_at_once: int) -> list[Scored]:
    plan = make_plan(dataset, request.regions, model.geometry().core_bins, bins_at_once)
    values = piece_values(dataset, model, request, device)
    return list(score_pieces(plan.pieces, values, len(request.tfs), lambda amount, note="": None))


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
        (alone,) = score_pieces([each.piece], values, 2, lambda amount, note="": None)
        np.testing.assert_array_equal(alone.probabilities, each.probabilities)


def test_progress_reaches_every_bin(
    toy_dataset: Dataset, model: LoadedModel, request_: Request, device: Device
) -> None:
    plan = make_plan(toy_dataset, request_.regions, model.geometry().core_bins, 400)
    told: list[float] = []
    values = piece_values(toy_dataset, model, request_, device)
    list(score_pieces(plan.pieces, values, 2, lambda amount, note="": told.append(amount)))
    assert sum(told) == plan.coverage.scored
    assert len(told) > len(plan.pieces)
