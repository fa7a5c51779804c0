"""The values of a piece: its windows through the model, its logits to probabilities.

Legend: n bins of a piece, T TFs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebert_core.data.dataset import Dataset
from ebert_core.errors import EbertError
from ebert_core.inference.ensemble import by_member, members_score
from ebert_core.inference.models import LoadedModel
from ebert_core.inference.packed import packed
from ebert_core.inference.pieces import Piece, Scored, Values, give_back
from ebert_core.inference.predictor import Request, chrom_tracks
from ebert_core.inference.scan import scan
from ebert_core.model.device import Device
from ebert_core.reporting import Advance
from ebert_core.vocabulary import STATE_BIN_BP


def piece_values(dataset: Dataset, model: LoadedModel, request: Request, device: Device) -> Values:
    """How a model scores the pieces of a request; the request's own regions are not looked at.

    No batch of windows is shared between pieces, and no more than a piece is held.

    Raises (when a piece is scored):
        EbertError: the model's answer for a bin is not a number.
    """
    columns = [model.index(tf) for tf in request.tfs]
    calibrations = [model.calibration(model.tfs[column]) for column in columns]
    members = [packed(member, device) for member in model.members]
    score = members_score(members, device, both_strands=request.both_strands, tfs=columns)
    choices = model.scan_geometries()
    mapped = _mapped(dataset, model, request)
    many = len(model.members) > 1

    def values(piece: Piece, advance: Advance) -> Scored:
        numbers, chrom = piece.bins, piece.chrom
        found = np.empty((len(numbers), len(columns)), dtype=np.float32)
        spread = np.empty_like(found) if many else None
        if not len(numbers):
            return Scored(piece, found, spread)
        wanted = np.zeros(int(numbers[-1]) + 1, dtype=bool)
        wanted[numbers] = True
        geometry = min(choices, key=lambda each: each.read_bp(numbers))
        offset, length = dataset.assembly.offset(chrom), dataset.assembly.length(chrom)
        first, last = offset // STATE_BIN_BP, -(-(offset + length) // STATE_BIN_BP)
        states = None if request.cell.flat is None else request.cell.flat[first:last]
        reader, span = model.tracks, (offset, offset + length)
        tracks = None if reader is None else chrom_tracks(reader, request.cell.name, span, geometry.window_bp)
        done, at_once = 0, geometry.windows_at_once(device)
        for bins, logits in scan(score, dataset.sequence(chrom), states, wanted, geometry, at_once, tracks):
            if not np.isfinite(logits).all():
                raise EbertError(
                    f"model {model.path} gives no number for some bins of {chrom}",
                    "try --precision fp32; if it stays, fine-tune again with a lower learning rate",
                )
            rows, by_model = slice(done, done + len(bins)), by_member(logits, len(model.members))
            for place, calibration in enumerate(calibrations):
                found[rows, place] = calibration.probabilities(by_model[..., place].mean(axis=1))
                if spread is not None:
                    spread[rows, place] = calibration.probabilities(by_model[..., place]).std(axis=1)
            done += len(bins)
            advance(len(bins), chrom)
        give_back(*mapped)
        return Scored(piece, found, spread)

    return values


def _mapped(dataset: Dataset, model: LoadedModel, request: Request) -> list[NDArray[Any]]:
    """The arrays on the flat axis that a scan reads."""
    found: list[NDArray[Any]] = [dataset.flat_sequence]
    if request.cell.flat is not None:
        found.append(request.cell.flat)
    if model.tracks is not None:
        spec = model.tracks.spec
        cells = {request.cell.name, *spec.mean_cells} if spec.reference is not None else set()
        found += [dataset.flat_accessibility(cell) for cell in sorted(cells & {*dataset.accessibility_cells})]
        found += [dataset.flat_states(cell) for cell in sorted({*spec.state_cells} & {*dataset.state_cells})]
        if spec.tss:
            found.append(dataset.flat_tss_distance)
    return found
