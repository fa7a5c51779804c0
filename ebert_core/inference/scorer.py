"""The values of a piece, from the scan of its chromosome."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from ebert_core.data.dataset import Dataset
from ebert_core.genome.regions import Region
from ebert_core.inference.models import LoadedModel
from ebert_core.inference.pieces import Piece, Scored, Values
from ebert_core.inference.predictor import Request, predict_chroms
from ebert_core.model.device import Device
from ebert_core.reporting import Advance, Reporter
from ebert_core.vocabulary import BIN_BP, STRIDE_BP


class _Forwards(Reporter):
    """Hands the progress of a piece to the task of the whole run."""

    def __init__(self, advance: Advance) -> None:
        self._advance = advance

    @contextlib.contextmanager
    def task(self, description: str, total: float, unit: str) -> Iterator[Advance]:
        yield self._advance


def piece_values(dataset: Dataset, model: LoadedModel, request: Request, device: Device) -> Values:
    """How a model scores the pieces of a request; the request's own regions are not looked at."""

    def values(piece: Piece, advance: Advance) -> Scored:
        # A region of whole strides that begins at a bin's centre wants the bins from that one on.
        edges = piece.wanted * STRIDE_BP + BIN_BP // 2
        regions = tuple(Region(piece.chrom, start, end) for start, end in edges.tolist())
        (found,) = predict_chroms(dataset, model, replace(request, regions=regions), device, _Forwards(advance))
        bins = piece.bins
        spread = getattr(found, "spread", None)
        return Scored(piece, found.probabilities[bins], None if spread is None else spread[bins])

    return values
