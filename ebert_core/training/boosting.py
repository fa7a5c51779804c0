"""Fitting the boosted trees of a model to the labels, once its network is trained; scikit-learn does the boosting.

All bound bins are learned from, and unbound ones are drawn, as many from near open chromatin as from elsewhere. Each
has the weight of those it stands for, so the trees' log-odds are those of the genome's own share of bound bins.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ebert_core.config import FinetuneConfig
from ebert_core.data.task_features import TrackReader, TrackSpec
from ebert_core.data.windows import Batch
from ebert_core.epigenome.accessibility import is_open
from ebert_core.errors import EbertError
from ebert_core.genome.labels import BOUND, UNBOUND
from ebert_core.genome.regions import Region
from ebert_core.inference.predictor import chrom_tracks
from ebert_core.inference.scan import ScanGeometry, scan
from ebert_core.model.device import Device
from ebert_core.model.fusion import BindingModel
from ebert_core.model.trees import DEPTH, LEAVES, NODES, Trees, bin_numbers
from ebert_core.training.finetune_data import FinetuneData
from ebert_core.vocabulary import BIN_BP, STATE_BIN_BP, STRIDE_BP, STRIDES_PER_BIN

# Over all cell types and chromosomes: unbound bins drawn per stratum, and bound bins at most. The numbers of that many
# bins take some 300 MB.
UNBOUND_BINS: Final = 60_000
BOUND_BINS: Final = 180_000
_NEAR_OPEN: Final = 8  # strides from a bin's beginning
_STREAM: Final = 5
_WINDOWS: Final = 8
# Small trees that see few numbers at a question carried over from one cell type to another as well as large ones
# (benchmarks/rivals_boosting.py has the same).
_SETTINGS: Final[dict[str, Any]] = {
    "learning_rate": 0.05,
    "max_depth": DEPTH,
    "max_leaf_nodes": LEAVES,
    "min_samples_leaf": 100,
    "l2_regularization": 10.0,
    "max_features": 0.1,
    "early_stopping": False,
}


class Rows(NamedTuple):
    """Bins to learn from: numbers (N, P), label codes (N, T), weights (N,)."""

    numbers: NDArray[np.float32]
    labels: NDArray[np.uint8]
    weights: NDArray[np.float64]


def fit_trees(
    data: FinetuneData, config: FinetuneConfig, module: BindingModel, device: Device, tracks: TrackSpec
) -> Trees:
    """`config.trees` trees for each of the model's TFs, from the training cell types and regions.

    Args:
        data: what was chosen.
        config: of the run; of it `trees`, `seed`, `use_states` and the lengths of windows.
        module: trained; its task features are what the trees are asked about. It is not changed.
        device: to compute those on.
        tracks: the task features of tracks that the model reads.

    Returns:
        Trees of the TFs in their order, on the device.

    Raises:
        EbertError: scikit-learn is not installed.
    """
    boosting = require_boosting()
    rng = np.random.default_rng([config.seed, _STREAM])
    source = _Source(data, config, module, device, TrackReader(data.dataset, tracks) if tracks.channels else None)
    places = list(itertools.product(data.cells, data.train))
    found = [source.rows(cell, region, len(places), rng) for cell, region in places]
    rows = Rows(*(np.concatenate(parts) for parts in zip(*(each for each in found if each is not None), strict=True)))
    trees = Trees(len(data.tfs), config.trees)
    for place in range(len(data.tfs)):
        known = np.isin(rows.labels[:, place], (BOUND, UNBOUND))
        bound = rows.labels[known, place] == BOUND
        model = boosting(max_iter=config.trees, random_state=int(rng.integers(2**31)), **_SETTINGS)
        if bound.any() and not bound.all():  # else there is nothing to tell apart: the trees stay silent
            model.fit(rows.numbers[known], bound, sample_weight=rows.weights[known])
            take(trees, place, model)
    return trees.to(device.device)


def require_boosting() -> Any:
    """scikit-learn's classifier, on as many threads as PyTorch has."""
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise EbertError("scikit-learn is not installed", "pip install 'ebert[trees]', or leave out trees") from None
    # Its OpenMP is another than PyTorch's, and knows nothing of --threads.
    threadpool_limits(torch.get_num_threads(), user_api="openmp")
    return HistGradientBoostingClassifier


@dataclass(frozen=True)
class _Source:
    """Where the bins to learn from come from; `reader` is None where the model reads no tracks."""

    data: FinetuneData
    config: FinetuneConfig
    module: BindingModel
    device: Device
    reader: TrackReader | None

    def rows(self, cell: str, region: Region, places: int, rng: np.random.Generator) -> Rows | None:
        """Bins of a cell type and region, one of so many places; None where there are none."""
        dataset, chrom = self.data.dataset, region.chrom
        labels = np.stack([self._labels(tf, cell, chrom) for tf in self.data.tfs], axis=1)
        weights = _drawn(labels, self._bindable(cell, chrom, len(labels)), region, places, rng)
        if not weights.any():
            return None
        offset = dataset.assembly.offset(chrom)
        span = (offset, offset + dataset.assembly.length(chrom))
        tracks = None if self.reader is None else chrom_tracks(self.reader, cell, span, self.config.window_bp)
        geometry = ScanGeometry(self.config.window_bp, self.config.context_bp)
        states = self._states(cell, chrom)
        parts = list(scan(self._numbers, dataset.sequence(chrom), states, weights > 0, geometry, _WINDOWS, tracks))
        bins, numbers = (np.concatenate(each) for each in zip(*parts, strict=True))
        return Rows(numbers, labels[bins], weights[bins])

    def _labels(self, tf: str, cell: str, chrom: str) -> NDArray[np.uint8]:
        """Label codes of a chromosome's bins; 0 where the TF was not assayed in the cell type."""
        dataset = self.data.dataset
        if cell in dataset.cells_of(tf):
            return dataset.labels(tf, cell, chrom)
        return np.zeros(-(-dataset.assembly.length(chrom) // STATE_BIN_BP) * STRIDES_PER_BIN, dtype=np.uint8)

    def _states(self, cell: str, chrom: str) -> NDArray[np.uint8] | None:
        dataset = self.data.dataset
        return dataset.states(cell, chrom) if self.config.use_states and cell in dataset.state_cells else None

    def _numbers(self, batch: Batch) -> NDArray[np.float32]:
        """A score of `scan`: what trees may ask about a window's bins."""
        bases, states = (torch.from_numpy(array).to(self.device.device) for array in (batch.bases, batch.states))
        tracks = None if batch.tracks is None else torch.from_numpy(batch.tracks).to(self.device.device)
        with torch.inference_mode(), self.device.autocast():
            features = self.module.features(bases, tracks)
            return bin_numbers(features, states, self.module.head.num_states).cpu().numpy()

    def _bindable(self, cell: str, chrom: str, num_strides: int) -> NDArray[np.bool_]:
        """Which strides are near open ones; where nothing says so, which are in another state than most."""
        dataset, found = self.data.dataset, np.zeros(num_strides, dtype=bool)
        if self.reader is not None and self.reader.has_accessibility(cell):
            opened = is_open(dataset.accessibility(cell, chrom))
            found[: len(opened)] = opened
        elif (states := self._states(cell, chrom)) is not None:
            by_stride = np.repeat(states, STRIDES_PER_BIN)[:num_strides]
            found[: len(by_stride)] = by_stride != np.bincount(by_stride).argmax()
        before = np.concatenate([[0], np.cumsum(found)])
        at = np.arange(num_strides)
        near: NDArray[np.bool_] = (
            before[np.minimum(at + _NEAR_OPEN, num_strides)] > before[np.maximum(at - _NEAR_OPEN, 0)]
        )
        return near


def _drawn(
    labels: NDArray[np.uint8], bindable: NDArray[np.bool_], region: Region, places: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """How many bins each bin stands for, (N,); 0 for those that are not learned from."""
    starts = np.arange(len(labels)) * STRIDE_BP
    inside = (starts >= region.start) & (starts + BIN_BP <= region.end)
    bound = inside & (labels == BOUND).any(axis=1)
    unbound = inside & ~bound & (labels == UNBOUND).any(axis=1)
    weights = np.zeros(len(labels))
    for stratum, most in (
        (bound, BOUND_BINS),
        (unbound & bindable, UNBOUND_BINS),
        (unbound & ~bindable, UNBOUND_BINS),
    ):
        bins = np.flatnonzero(stratum)
        chosen = rng.choice(bins, min(-(-most // places), len(bins)), replace=False)
        weights[chosen] = len(bins) / max(len(chosen), 1)
    return weights


def take(trees: Trees, place: int, model: Any) -> None:
    """Copy a fitted classifier's trees to those of TF number `place`."""
    trees.base[place] = float(np.ravel(model._baseline_prediction)[0])
    for number, (predictor,) in enumerate(model._predictors):
        nodes = predictor.nodes
        # (its row among the nodes, its place among the questions or leaves, its level)
        todo = [(0, 0, 0)]
        while todo:
            row, at, level = todo.pop()
            node = nodes[row]
            if level == DEPTH or node["is_leaf"]:
                # A branch that ends early gives its value whatever further questions would say.
                below = LEAVES >> level
                trees.value[place, number, at * below : (at + 1) * below] = float(node["value"])
                continue
            question = 2**level - 1 + at
            trees.asked[place, number, question] = int(node["feature_idx"])
            trees.threshold[place, number, question] = _rounded_down(float(node["num_threshold"]))
            todo += [(int(node["left"]), 2 * at, level + 1), (int(node["right"]), 2 * at + 1, level + 1)]
    assert trees.asked.shape[-1] == NODES


def _rounded_down(threshold: float) -> float:
    """The largest float32 that is not above: float32 numbers are above the one where they are above the other."""
    found = np.float32(threshold)
    return float(np.nextafter(found, np.float32(-np.inf)) if float(found) > threshold else found)
