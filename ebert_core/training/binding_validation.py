"""What fine-tuning is judged by: logits over its validation part, their auPRC, and calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.config import FinetuneConfig
from ebert_core.data.task_features import TrackReader, TrackSpec
from ebert_core.evaluation.measures import measure
from ebert_core.genome.labels import BOUND, UNBOUND
from ebert_core.genome.regions import Region
from ebert_core.inference.predictor import chrom_tracks
from ebert_core.inference.scan import ScanGeometry, Score, scan
from ebert_core.training.calibration import fit_calibration, threshold_table
from ebert_core.training.finetune_data import FinetuneData
from ebert_core.vocabulary import BIN_BP, STATE_BIN_BP, STRIDE_BP

_SCAN_WINDOWS: Final = 8
_PIECE_BP: Final = 100_000
# Some 25 sites: a bin starts every 50 bp, so a site has several.
FEWEST_BOUND: Final = 100
"""Bound bins below which a pair of TF and cell type says little."""

PairLogits = dict[tuple[str, str], tuple[NDArray[np.float32], NDArray[np.bool_]]]
"""(TF, cell type) -> (logits, bound) of labelled bins, shape (n,) each, or (n, 2) and (n,) of two opinions."""


class BindingValidation:
    """Scores the validation part of a run.

    Args:
        data: what was chosen.
        config: windows, and how much of the part is read while training.
        tracks: the task features of tracks that the model reads.
    """

    def __init__(self, data: FinetuneData, config: FinetuneConfig, tracks: TrackSpec | None = None) -> None:
        self._data, self._config = data, config
        self._tracks = TrackReader(data.dataset, tracks) if tracks is not None and tracks.channels else None
        self._regions = _thinned(data.valid, config.valid_bp // max(1, len(data.valid_cells)))

    def evaluate(self, score: Score) -> dict[str, Any]:
        """AuPRC of TFs and validation cell types on the regions read while training, and the mean of them.

        A pair with a handful of bound bins jumps from one evaluation to the next and would choose the weights by
        itself: its auPRC is told, and counts towards the mean only where all pairs are such.
        """
        by_pair, counted = {}, []
        for (tf, cell), (logits, bound) in self.logits(score, self._regions).items():
            if bound.any() and not bound.all():
                by_pair[f"{tf}/{cell}"] = measure(logits, bound).auprc
                if bound.sum() >= FEWEST_BOUND:
                    counted.append(by_pair[f"{tf}/{cell}"])
        mean = float(np.mean(counted or list(by_pair.values()))) if by_pair else 0.0
        return {"score": mean, "valid_auprc": mean, "by_pair": by_pair}

    def logits(self, score: Score, regions: Sequence[Region]) -> PairLogits:
        """Logits of the labelled bins of the regions; ambiguous bins left out."""
        dataset = self._data.dataset
        geometry = ScanGeometry(self._config.window_bp, self._config.context_bp)
        pieces: dict[tuple[str, str], list[tuple[NDArray[np.float32], NDArray[np.bool_]]]] = {}
        for cell in self._data.valid_cells:
            tfs = [(t, tf) for t, tf in enumerate(self._data.tfs) if cell in dataset.cells_of(tf)]
            for region in regions:
                with_states = self._config.use_states and cell in dataset.state_cells
                states = dataset.states(cell, region.chrom) if with_states else None
                labels = {tf: dataset.labels(tf, cell, region.chrom) for _, tf in tfs}
                starts = np.arange(next(iter(labels.values())).size, dtype=np.int64) * STRIDE_BP
                inside = (starts >= region.start) & (starts + BIN_BP <= region.end)
                wanted = inside & np.any([(codes == BOUND) | (codes == UNBOUND) for codes in labels.values()], axis=0)
                offset = dataset.assembly.offset(region.chrom)
                span = (offset, offset + dataset.assembly.length(region.chrom))
                reader = self._tracks
                tracks = None if reader is None else chrom_tracks(reader, cell, span, geometry.window_bp)
                for bins, logits in scan(
                    score, dataset.sequence(region.chrom), states, wanted, geometry, _SCAN_WINDOWS, tracks
                ):
                    for t, tf in tfs:
                        known = (labels[tf][bins] == BOUND) | (labels[tf][bins] == UNBOUND)
                        pieces.setdefault((tf, cell), []).append((logits[known, t], labels[tf][bins][known] == BOUND))
        found = {}
        for pair in list(pieces):  # used up, so as not to hold both
            logits_of, bound_of = zip(*pieces.pop(pair), strict=True)
            found[pair] = np.concatenate(logits_of), np.concatenate(bound_of)
        return found

    def whole(self, score: Score) -> PairLogits:
        """Logits on the whole validation part."""
        return self.logits(score, self._data.valid)

    def calibrate(self, found: PairLogits) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
        """Per TF slope, intercept and threshold table, per pair the measures.

        Args:
            found: on the whole part, of both strands, as of `ebert predict`, so that its probabilities are those of the
                table.
        """
        calibrations: dict[str, dict[str, Any]] = {}
        measures = {}
        for tf in self._data.tfs:
            own = {cell: values for (name, cell), values in found.items() if name == tf}
            logits = np.concatenate([values[0] for values in own.values()])
            bound = np.concatenate([values[1] for values in own.values()])
            calibration = fit_calibration(logits, bound)
            table = threshold_table(calibration.probabilities(logits), bound)
            calibrations[tf] = {**vars(calibration), "thresholds": table.to_json()}
            for cell, (cell_logits, cell_bound) in own.items():
                if cell_bound.any():
                    measures[f"{tf}/{cell}"] = vars(measure(cell_logits, cell_bound))
        return calibrations, measures


def _thinned(regions: Sequence[Region], most_bp: int, piece_bp: int = _PIECE_BP) -> list[Region]:
    """Pieces of the regions, evenly spread, `most_bp` together."""
    pieces = [
        Region(region.chrom, max(start, region.start), min(start + piece_bp, region.end))
        for region in regions
        for start in range(region.start // STATE_BIN_BP * STATE_BIN_BP, region.end, piece_bp)
    ]
    keep = max(1, most_bp // piece_bp)
    if len(pieces) <= keep:
        return list(regions)
    return [pieces[i] for i in np.linspace(0, len(pieces) - 1, keep).round().astype(int)]
