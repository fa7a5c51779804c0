"""The windows of fine-tuning, drawn by what they hold: bound bins, open chromatin, or anything.

Binding is rare: drawn blindly, a window with a bound bin of a TF comes once in a hundred or less. How much more often a
window is drawn than it would be blindly is known exactly, so its loss can be weighted back (`importance`).

Legend: B windows, W window_bp, n bins of a window, T TFs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ebert_core.config import FinetuneConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.task_features import ALL_HIDDEN, OWN_HIDDEN, SHOWN, TrackReader, TrackSpec
from ebert_core.data.windows import Batch, WindowReader, eligible_starts, step_generator
from ebert_core.epigenome.accessibility import is_open
from ebert_core.errors import EbertError
from ebert_core.genome.intervals import Positions
from ebert_core.genome.labels import BOUND, UNBOUND, unpack_labels
from ebert_core.training.finetune_data import FinetuneData, strides_of
from ebert_core.vocabulary import BIN_BP, STATE_BIN_BP, STATE_UNKNOWN, STRIDE_BP

# 20 Mb: four strides have hits as rare as the rarest that are told apart.
_BACKGROUND_WINDOWS: Final = 5_000
_BACKGROUND_WINDOWS_BP: Final = (4_000, 1_000, 200)  # the longest that fits
_BACKGROUND_STREAM: Final = 3
# Of the windows around a bound bin, this share is around one of a TF that is learned beside, where there is any.
_ALSO_SHARE: Final = 0.25


@dataclass(frozen=True)
class LabelledBatch:
    """Windows with what is known of their bins.

    Attributes:
        windows: bases, states and task features.
        bound: bool (B, n, T).
        weights: float32 (B, n, T), of the bins' losses; 0 for bins that are ambiguous, not assayed or without context.
    """

    windows: Batch
    bound: NDArray[np.bool_]
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class _Around:
    """What is known of the windows drawn around some bins.

    Attributes:
        strides: at which the bins begin, flat, rising, shape (N,).
        times: sums of S / (N K) over the bins before each, see `BindingWindows._importance`; shape (N + 1,).
        lost: share of the bins that no eligible window holds.
    """

    strides: Positions
    times: NDArray[np.float64]
    lost: float


def background_bases(data: FinetuneData) -> NDArray[np.uint8]:
    """Base codes of random stretches of the training part, to learn how common motif hits are, (B, W).

    Raises:
        EbertError: the training part holds nothing but N-runs and excluded regions.
    """
    for window_bp in _BACKGROUND_WINDOWS_BP:
        starts = eligible_starts(data.dataset, data.train, window_bp)
        if len(starts):
            chosen = np.sort(step_generator(0, _BACKGROUND_STREAM, 0).choice(starts, _BACKGROUND_WINDOWS))
            return WindowReader(data.dataset, [None], window_bp).read(chosen, np.zeros_like(chosen)).bases
    raise EbertError("the training part holds nothing but N-runs and excluded regions", "choose other chromosomes")


class BindingWindows:
    """Draws training windows.

    Args:
        data: what was chosen.
        config: shares, dropouts and lengths.
        tracks: the task features of tracks that the model reads.

    Raises:
        EbertError: no window fits the training part.
    """

    def __init__(self, data: FinetuneData, config: FinetuneConfig, tracks: TrackSpec | None = None) -> None:
        self._config, self._cells = config, data.cells
        self._num_tfs, self._num_main = len(data.outputs), len(data.tfs)
        dataset = data.dataset
        with_states = dataset.state_cells if config.use_states else ()
        self._reader = WindowReader(
            dataset, [cell if cell in with_states else None for cell in data.cells], config.window_bp
        )
        self._tracks = TrackReader(dataset, tracks) if tracks is not None and tracks.channels else None
        # Sorted, because windows around a bin are looked up; regions may come in any order of chromosomes.
        self._starts = np.sort(eligible_starts(dataset, data.train, config.window_bp))
        if len(self._starts) == 0:
            raise EbertError(
                f"no window of {config.window_bp:,} bp without N-runs or excluded regions is in the training part",
                "choose other chromosomes, or shorter windows with --set window_bp=1000",
            )
        window_bins = config.window_bp // STATE_BIN_BP
        self._labels = {
            (t, c): sliding_window_view(dataset.flat_packed_labels(tf, cell), window_bins)
            for t, tf in enumerate(data.outputs)
            for c, cell in enumerate(data.cells)
            if cell in dataset.cells_of(tf)
        }
        bound = {
            (t, c): strides_of(BOUND, dataset, data.outputs[t], data.cells[c], data.train) for t, c in self._labels
        }
        self._bound = {pair: strides for pair, strides in bound.items() if len(strides)}
        self._main = [pair for pair in self._bound if pair[0] < self._num_main]
        self._also = [pair for pair in self._bound if pair[0] >= self._num_main]
        self._drawn_cells = np.array([cell for _, cell in self._main])
        self._open = {c: self._open_strides(dataset, data.cells[c]) for c in set(self._drawn_cells.tolist())}
        if config.importance:
            self._around_bound = {pair: self._drawn_around(strides) for pair, strides in self._bound.items()}
            self._around_open = {cell: self._drawn_around(strides) for cell, strides in self._open.items()}

    @property
    def num_starts(self) -> int:
        """Distinct windows per cell type."""
        return len(self._starts)

    def draw(self, rng: np.random.Generator, count: int) -> LabelledBatch:
        """`count` windows on random strands, some of them with their states or their accessibility hidden."""
        config = self._config
        starts = rng.choice(self._starts, count)
        cells = rng.choice(self._drawn_cells, count)
        kinds = rng.random(count)
        for row in np.flatnonzero(kinds < config.bound_share + config.open_share):
            if kinds[row] < config.bound_share:
                pairs = self._also if self._also and rng.random() < _ALSO_SHARE else self._main
                pair = pairs[rng.integers(len(pairs))]
                cell, strides = pair[1], self._bound[pair]
            else:
                cell, strides = int(cells[row]), self._open[int(cells[row])]
            start = self._around(rng, int(rng.choice(strides)) * STRIDE_BP) if len(strides) else None
            if start is not None:
                starts[row], cells[row] = start, cell
        labels = self._read_labels(starts, cells)
        bins = np.arange(labels.shape[1]) * STRIDE_BP
        inner = (bins >= config.context_bp) & (bins + BIN_BP <= config.window_bp - config.context_bp)
        weights = (((labels == BOUND) | (labels == UNBOUND)) & inner[:, None]).astype(np.float32)
        weights[..., self._num_main :] *= config.auxiliary_weight
        if config.importance:
            weights *= self._importance(starts, cells)[:, None, None]
        batch = self._read(rng, starts, cells)
        reverse = rng.random(count) < 0.5
        labels[reverse] = labels[reverse, ::-1]
        weights[reverse] = weights[reverse, ::-1]
        return LabelledBatch(batch.flipped(reverse), labels == BOUND, weights)

    def _read(self, rng: np.random.Generator, starts: Positions, cells: NDArray[np.int64]) -> Batch:
        """Windows as the model sees them, on the forward strand."""
        config = self._config
        batch = self._reader.read(starts, cells)
        # Of the windows without states, half do not show other cell types' either: a dataset may hold none.
        fate = rng.random(len(starts)) / max(config.state_dropout, 1e-9)
        dropped = fate < 1.0
        states = np.where(dropped[:, None], np.uint8(STATE_UNKNOWN), batch.states)
        if self._tracks is None:
            return Batch(batch.bases, states)
        # So it is with accessibility.
        chance = rng.random(len(starts)) / max(config.features.accessibility_dropout, 1e-9)
        hidden = np.select([chance < 0.5, chance < 1.0], [ALL_HIDDEN, OWN_HIDDEN], SHOWN).astype(np.uint8)
        tracks = np.zeros(
            (len(starts), config.window_bp // STRIDE_BP, len(self._tracks.spec.channels)), dtype=np.float32
        )
        for cell in np.unique(cells):
            here = cells == cell
            tracks[here] = self._tracks.read(
                self._cells[cell], starts[here], config.window_bp, hidden[here], hide_states=fate[here] < 0.5
            )
        return Batch(batch.bases, states, tracks)

    def _around(self, rng: np.random.Generator, bin_start: int) -> int | None:
        """Flat start of an eligible window whose scored part holds the bin, or None."""
        first, last = self._windows_around(np.int64(bin_start))
        return int(self._starts[rng.integers(first, last)]) if last > first else None

    def _windows_around(self, bin_starts: Positions | np.int64) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The eligible windows whose scored part holds each bin: first place among the starts, place after the last."""
        low = bin_starts + BIN_BP - self._config.window_bp + self._config.context_bp
        high = bin_starts - self._config.context_bp
        return np.searchsorted(self._starts, low), np.searchsorted(self._starts, high + 1)

    def _importance(self, starts: Positions, cells: NDArray[np.int64]) -> NDArray[np.float32]:
        """How much less often each window would be drawn blindly, to the power of `importance`, (B,).

        A bin is one of N of its pair, and the window one of the K that hold the bin, of S windows per cell type; so
        among the windows drawn for that pair, it is drawn S / (N K) times as often as blindly, summed over the bins
        that it holds. Where no window holds a bin, one is drawn blindly instead.
        """
        config = self._config
        also = _ALSO_SHARE if self._also else 0.0
        shares = {pair: (1 - also) / len(self._main) for pair in self._main}
        shares |= {pair: also / len(self._also) for pair in self._also}
        cell_share = np.bincount(self._drawn_cells, minlength=len(self._cells)) / len(self._drawn_cells)
        drawn = np.full(len(starts), 1 - config.bound_share - config.open_share)
        for pair, share in shares.items():
            here = cells == pair[1]
            drawn += config.bound_share * share * self._around_bound[pair].lost
            if cell_share[pair[1]]:
                times = self._times(self._around_bound[pair], starts[here])
                drawn[here] += config.bound_share * share / cell_share[pair[1]] * times
        for cell, around in self._around_open.items():
            here = cells == cell
            drawn[here] += config.open_share * (around.lost + self._times(around, starts[here]))
        return (np.maximum(drawn, 1e-3) ** -config.importance).astype(np.float32)

    def _drawn_around(self, strides: Positions) -> _Around:
        strides = np.sort(strides)
        first, last = self._windows_around(strides * STRIDE_BP)
        found = last > first
        times = np.where(found, len(self._starts) / (np.maximum(last - first, 1) * max(len(strides), 1)), 0.0)
        lost = 1 - found.mean() if len(strides) else 1.0
        return _Around(strides, np.concatenate([[0.0], np.cumsum(times)]), float(lost))

    def _times(self, around: _Around, starts: Positions) -> NDArray[np.float64]:
        """How many times as often as blindly windows at `starts` (B,) are drawn when they are drawn around the bins."""
        low, high = starts + self._config.context_bp, starts + self._config.window_bp - self._config.context_bp - BIN_BP
        first, last = np.searchsorted(around.strides, [low // STRIDE_BP, high // STRIDE_BP + 1])
        times: NDArray[np.float64] = around.times[last] - around.times[first]
        return times

    def _open_strides(self, dataset: Dataset, cell: str) -> Positions:
        """Flat strides of the training part that are open in the cell type; none where nothing says so."""
        if self._tracks is None or not self._tracks.has_accessibility(cell):
            return np.empty(0, dtype=np.int64)
        track = dataset.flat_accessibility(cell)
        found = np.flatnonzero(is_open(track))
        # Those that some eligible window begins shortly before.
        at = np.searchsorted(self._starts, found * STRIDE_BP)
        before = self._starts[np.maximum(at - 1, 0)]
        return found[(found * STRIDE_BP - before < self._config.window_bp) & (at > 0)]

    def _read_labels(self, starts: Positions, cells: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Label codes (B, n, T); 0 where a TF was not assayed in a window's cell type."""
        num_bins = (self._config.window_bp - BIN_BP) // STRIDE_BP + 1
        labels = np.zeros((len(starts), num_bins, self._num_tfs), dtype=np.uint8)
        for (tf, cell), packed in self._labels.items():
            here = np.flatnonzero(cells == cell)
            if len(here):
                labels[here, :, tf] = unpack_labels(packed[starts[here] // STATE_BIN_BP])[:, :num_bins]
        return labels
