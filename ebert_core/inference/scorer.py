"""The values of a piece: its windows through the model, its logits to probabilities.

Legend: n bins of a piece, T TFs.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ebert_core.data.dataset import Dataset
from ebert_core.errors import EbertError
from ebert_core.inference.models import LoadedModel
from ebert_core.inference.pieces import Piece, Scored, Values
from ebert_core.inference.predictor import Request, tracks_of
from ebert_core.inference.scan import model_score, scan
from ebert_core.model.device import Device
from ebert_core.reporting import Advance
from ebert_core.vocabulary import STATE_BIN_BP

_BATCH_WINDOWS: Final = 8


def piece_values(dataset: Dataset, model: LoadedModel, request: Request, device: Device) -> Values:
    """How a model scores the pieces of a request; the request's own regions are not looked at.

    No batch of windows is shared between pieces, and no more than a piece is held.

    Raises (when a piece is scored):
        EbertError: the model's answer for a bin is not a number.
    """
    columns = [model.index(tf) for tf in request.tfs]
    calibrations = [model.calibration(model.tfs[column]) for column in columns]
    score = model_score(model.module, device, both_strands=request.both_strands)

    def values(piece: Piece, advance: Advance) -> Scored:
        numbers, chrom = piece.bins, piece.chrom
        wanted = np.zeros(int(numbers[-1]) + 1, dtype=bool)
        wanted[numbers] = True
        first = dataset.assembly.offset(chrom) // STATE_BIN_BP
        length = -(-dataset.assembly.length(chrom) // STATE_BIN_BP)
        states = None if request.cell.flat is None else request.cell.flat[first : first + length]
        found = np.empty((len(numbers), len(columns)), dtype=np.float32)
        done = 0
        tracks = tracks_of(dataset, model, request.cell.name, chrom)
        for bins, logits in scan(
            score, dataset.sequence(chrom), states, wanted, model.geometry(), _BATCH_WINDOWS, tracks
        ):
            if not np.isfinite(logits).all():
                raise EbertError(
                    f"model {model.path} gives no number for some bins of {chrom}",
                    "try --precision fp32; if it stays, fine-tune again with a lower learning rate",
                )
            for place, (column, calibration) in enumerate(zip(columns, calibrations, strict=True)):
                found[done : done + len(bins), place] = calibration.probabilities(logits[:, column])
            done += len(bins)
            advance(len(bins), chrom)
        return Scored(piece, found, None)

    return values
