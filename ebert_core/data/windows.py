"""Windows: which stretches of the flat axis may be read, and how a batch of them is gathered.

A window begins at a multiple of 200 bp, so that it holds whole state bins and whole strides on either strand. Gathering
is one indexing operation per array and cell type; nothing here runs per example.

Legend: B windows, W = window_bp, N flat positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ebert_core.data.dataset import Dataset
from ebert_core.errors import EbertError
from ebert_core.genome.intervals import Positions, any_overlap
from ebert_core.genome.regions import Region
from ebert_core.vocabulary import BASE_N, STATE_BIN_BP, STATE_UNKNOWN, reverse_complement

# A 200-bp bin with more N than this is an N-run: nothing can be learned from it.
_MAX_N_PER_BIN = STATE_BIN_BP // 2


@dataclass(frozen=True)
class Batch:
    """A batch of windows.

    Attributes:
        bases: base codes, uint8 (B, W).
        states: state codes, uint8 (B, W / 200).
        tracks: task features of the strides (`data.task_features`), float32 (B, W / 50, F); None where there are none.
    """

    bases: NDArray[np.uint8]
    states: NDArray[np.uint8]
    tracks: NDArray[np.float32] | None = None

    def flipped(self, reverse: NDArray[np.bool_]) -> Batch:
        """The same windows with those marked in `reverse` (B,) read on the other strand."""
        tracks = self.tracks
        return Batch(
            np.where(reverse[:, None], reverse_complement(self.bases), self.bases),
            np.where(reverse[:, None], self.states[:, ::-1], self.states),
            None if tracks is None else np.where(reverse[:, None, None], tracks[:, ::-1], tracks),
        )


def eligible_starts(dataset: Dataset, regions: Sequence[Region], window_bp: int) -> Positions:
    """Flat starts (multiples of 200) of every window that lies in one region, without N-runs or excluded bins.

    Returns:
        int64 of shape (number of windows,), sorted within each region.
    """
    assembly = dataset.assembly
    excluded = dataset.flat_excluded
    bins_per_window = window_bp // STATE_BIN_BP
    starts = []
    for region in regions:
        first = -(-(assembly.offset(region.chrom) + region.start) // STATE_BIN_BP)
        last = (assembly.offset(region.chrom) + region.end) // STATE_BIN_BP
        if last - first < bins_per_window:
            continue
        codes = dataset.flat_sequence[first * STATE_BIN_BP : last * STATE_BIN_BP].reshape(-1, STATE_BIN_BP)
        edges = np.arange(first, last, dtype=np.int64) * STATE_BIN_BP
        bad = np.count_nonzero(codes == BASE_N, axis=1) > _MAX_N_PER_BIN
        bad |= any_overlap(excluded[:, 0], excluded[:, 1], edges, edges + STATE_BIN_BP)
        count = np.concatenate([[0], np.cumsum(bad)])
        clean = count[bins_per_window:] == count[:-bins_per_window]
        starts.append((first + np.flatnonzero(clean)) * STATE_BIN_BP)
    return np.concatenate(starts) if starts else np.empty(0, dtype=np.int64)


def require_window_fits(flat_bp: int, window_bp: int) -> None:
    """Refuse a window that is longer than the flat axis."""
    if window_bp > flat_bp:
        raise EbertError(
            f"windows of {window_bp:,} bp are longer than the dataset's sequence ({flat_bp:,} bp)",
            "choose shorter ones with --set window_bp=2000",
        )


class WindowReader:
    """Gathers batches from a dataset's memory maps.

    Args:
        dataset: an open dataset.
        cells: cell types whose states may be asked for, by index; None stands for "no states".
        window_bp: length of a window; a multiple of 200.

    Raises:
        EbertError: the window is longer than the flat axis.
    """

    def __init__(self, dataset: Dataset, cells: Sequence[str | None], window_bp: int) -> None:
        require_window_fits(dataset.assembly.flat_bp, window_bp)
        self.window_bp = window_bp
        self._bases = sliding_window_view(dataset.flat_sequence, window_bp)
        self._states = [
            None if cell is None else sliding_window_view(dataset.flat_states(cell), window_bp // STATE_BIN_BP)
            for cell in cells
        ]

    def read(self, starts: Positions, cells: NDArray[np.integer]) -> Batch:
        """Windows at flat `starts` (B,), with the states of the cell types at index `cells` (B,)."""
        states = np.full((len(starts), self.window_bp // STATE_BIN_BP), STATE_UNKNOWN, dtype=np.uint8)
        for cell in np.unique(cells):
            track = self._states[cell]
            if track is not None:
                here = cells == cell
                states[here] = track[starts[here] // STATE_BIN_BP]
        return Batch(self._bases[starts], states)


def step_generator(seed: int, stream: int, step: int) -> np.random.Generator:
    """The random numbers of one step: a pure function of (seed, stream, step), so a resumed run repeats them."""
    return np.random.Generator(np.random.Philox(key=[seed, stream], counter=[0, 0, 0, step]))
