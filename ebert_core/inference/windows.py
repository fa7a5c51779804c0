"""What a model reads of one chromosome in one cell type, window by window, as it is or with something changed in it.

Legend: B windows, W window_bp, K alternatives, N bins, T TFs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ebert_core.data.dataset import Dataset
from ebert_core.data.task_features import OWN_HIDDEN, SHOWN
from ebert_core.data.windows import Batch
from ebert_core.genome.bins import scorable
from ebert_core.genome.intervals import Positions
from ebert_core.inference.models import LoadedModel
from ebert_core.inference.predictor import CellStates
from ebert_core.inference.scan import ScanGeometry, gather
from ebert_core.vocabulary import BIN_BP, STATE_BIN_BP, STRIDE_BP

Floats = NDArray[np.float32]


class ChromReader:
    """Windows of a chromosome.

    Args:
        dataset: an open dataset.
        model: whose task features are read; opened with the same dataset.
        cell: cell type and its states.
        chrom: as the dataset spells it.

    Attributes:
        length: of the chromosome, bp.
        bases: base codes, shape (length,).
        num_bins: bins of the chromosome, N.
    """

    def __init__(self, dataset: Dataset, model: LoadedModel, cell: CellStates, chrom: str) -> None:
        self.chrom, self.length = chrom, dataset.assembly.length(chrom)
        self.bases = dataset.sequence(chrom)
        self.num_bins = max(0, (self.length - BIN_BP) // STRIDE_BP + 1)
        self._offset = dataset.assembly.offset(chrom)
        first = self._offset // STATE_BIN_BP
        self._states = None if cell.flat is None else cell.flat[first : first - (-self.length // STATE_BIN_BP)]
        self._excluded = dataset.excluded(chrom)
        self._tracks, self._cell = model.tracks, cell.name

    @property
    def shows_accessibility(self) -> bool:
        """Whether the model is shown the cell type's own accessibility."""
        return self._tracks is not None and self._tracks.has_accessibility(self._cell)

    def windows(self, starts: Positions, window_bp: int, *, hide_own: bool = False) -> Batch:
        """Windows at `starts`, multiples of 200 that may lie partly outside the chromosome, (B,).

        Args:
            hide_own: show the cell type's own accessibility as unknown.
        """
        batch = gather(self.bases, self._states, starts, window_bp)
        if self._tracks is None:
            return batch
        span = (self._offset, self._offset + self.length)
        hidden = np.full(len(starts), OWN_HIDDEN if hide_own else SHOWN, dtype=np.uint8)
        return replace(batch, tracks=self._tracks.read(self._cell, starts + span[0], window_bp, hidden, span))

    def states_of(self, first: int, last: int) -> NDArray[np.uint8] | None:
        """State codes of the 200-bp bins first .. last - 1 of the chromosome; None where they are not known."""
        return None if self._states is None else np.asarray(self._states[first:last])

    def scorable(self, bins: Positions) -> NDArray[np.bool_]:
        """Which of neighbouring bins, rising, `ebert predict` gives a value; shape as `bins`."""
        if not len(bins):
            return np.zeros(0, dtype=bool)
        origin = int(bins[0]) * STRIDE_BP
        codes = self.bases[origin : int(bins[-1]) * STRIDE_BP + BIN_BP]
        starts, ends = self._excluded
        return scorable(codes, bins * STRIDE_BP - origin, (starts - origin, ends - origin))

    def why_unscored(self, bins: Positions) -> str:
        """Why no bin of these has a value."""
        codes = self.bases[int(bins[0]) * STRIDE_BP : int(bins[-1]) * STRIDE_BP + BIN_BP]
        return "the genome has only N here" if (codes > 3).all() else "on the exclusion list"


def bins_over(start: int, end: int, num_bins: int) -> Positions:
    """The bins of a chromosome of `num_bins` that hold a base of [start, end), rising."""
    first, last = (start - BIN_BP) // STRIDE_BP + 1, (end - 1) // STRIDE_BP
    return np.arange(max(first, 0), min(last, num_bins - 1) + 1, dtype=np.int64)


@dataclass(frozen=True)
class Layout:
    """Where the windows lie that answer some bins as `ebert predict` does.

    Attributes:
        geometry: of the windows.
        free: whether they may begin at any multiple of `geometry.grid_bp`; else on the grid of the scan.
    """

    geometry: ScanGeometry
    free: bool = False

    @classmethod
    def of(cls, model: LoadedModel) -> Layout:
        """The shortest windows of a model.

        Where a scan may choose between several, the encoder reads blocks that are fixed to the chromosome, and a window
        may begin at any of them.
        """
        choices = model.scan_geometries()
        return cls(choices[-1], len(choices) > 1)

    def windows(self, bins: Positions) -> Iterator[tuple[int, Positions]]:
        """Start of each window that answers some of the bins, rising, and the bins that it answers."""
        geometry = self.geometry
        while self.free and len(bins):
            start = int(bins[0]) * STRIDE_BP // geometry.grid_bp * geometry.grid_bp - geometry.context_bp
            answered = bins * STRIDE_BP + BIN_BP + geometry.context_bp <= start + geometry.window_bp
            yield start, bins[answered]
            bins = bins[~answered]
        number = bins // geometry.core_bins
        for each in np.unique(number).tolist():
            yield each * geometry.core_bp - geometry.context_bp, bins[number == each]
