"""Fitting the boosted trees of a model to the labels, once its network is trained; scikit-learn does the boosting.

Bins that a TF binds are learned from, all or as many as memory allows, and unbound ones are drawn: where another TF
binds, near open chromatin, and elsewhere. Each has the weight of those it stands for, so the trees' log-odds are those
of the genome's own share of bound bins.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ebert_core.config import FinetuneConfig
from ebert_core.data.task_features import ACCESSIBILITY_CHANNELS, TrackReader, TrackSpec
from ebert_core.data.windows import Batch
from ebert_core.epigenome.accessibility import is_open
from ebert_core.genome.labels import BOUND, UNBOUND
from ebert_core.genome.regions import Region
from ebert_core.inference.predictor import chrom_tracks
from ebert_core.inference.scan import ScanGeometry, scan
from ebert_core.model.device import Device
from ebert_core.model.fusion import BindingModel
from ebert_core.model.trees import DEPTH, LEAVES, NUMBERS_OF_A_CHANNEL, Trees, bin_numbers
from ebert_core.reporting import SILENT, Reporter
from ebert_core.training.finetune_data import FinetuneData
from ebert_core.vocabulary import BIN_BP, STATE_BIN_BP, STRIDE_BP, STRIDES_PER_BIN

# Bins whose numbers are computed, over all cell types and chromosomes: bound ones, shared out evenly among the TFs; and
# of those that no TF binds, near open chromatin and elsewhere. The numbers of all take some 400 MB.
BOUND_BINS: Final = 180_000
UNBOUND_POOL: Final = (60_000, 30_000)
# Of those, unbound bins that a set of a TF's trees learns from: bound by other TFs, near open chromatin, elsewhere.
UNBOUND_BINS: Final = (15_000, 30_000, 15_000)
# A TF's trees are boosted in so many sets, each from other unbound bins, whose log-odds are averaged.
_SETS: Final = 3
_CLASSES: Final = 255
_EDGE_ROWS: Final = 60_000
_NEAR_OPEN: Final = 8  # strides from a bin's beginning
_STREAM: Final = 5
_OWN_KNOWN: Final = ACCESSIBILITY_CHANNELS.index("own known")
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
    """Bins to learn from: numbers (N, P), label codes (N, T), strata (N,), weights (N,).

    Strata: 0 bound by some TF; by none, 1 near open chromatin, 2 elsewhere.
    """

    numbers: NDArray[np.float32]
    labels: NDArray[np.uint8]
    strata: NDArray[np.uint8]
    weights: NDArray[np.float64]


def fit_trees(
    data: FinetuneData,
    config: FinetuneConfig,
    module: BindingModel,
    device: Device,
    tracks: TrackSpec,
    reporter: Reporter = SILENT,
) -> Trees:
    """`config.trees` trees for each of the model's TFs, from the training cell types and regions.

    Args:
        data: what was chosen.
        config: of the run; of it `trees`, `seed`, `use_states` and the lengths of windows.
        module: trained; its task features are what the trees are asked about. It is not changed.
        device: to compute those on.
        tracks: the task features of tracks that the model reads.
        reporter: is told of the trees as they are fitted.

    Returns:
        Trees of the TFs in their order, on the device; those of a TF with nothing to tell apart are silent, all 0.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # takes a second
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng([config.seed, _STREAM])
    source = _Source(data, config, module, device, TrackReader(data.dataset, tracks) if tracks.channels else None)
    needs = source.needs()
    places = [source.place(cell, region) for cell in source.informed_cells(*needs) for region in data.train]
    rates = Rates.of([place.counts for place in places])
    rows = Rows(
        *(np.concatenate(parts) for parts in zip(*(source.rows(each, rates, rng) for each in places), strict=True))
    )
    edges = class_edges(rows.numbers, rng)
    rows, classes = rows._replace(numbers=rows.numbers[:0]), classes_of(rows.numbers, edges)
    trees = Trees(len(data.tfs), config.trees)
    trees.needs[:] = torch.tensor([_OWN_KNOWN if needs[0] else -1, needs[1]])
    sets = np.array_split(np.arange(config.trees), min(_SETS, config.trees))
    with reporter.task("boosting", len(data.tfs) * config.trees, "trees") as advance:
        for (place, tf), numbers in itertools.product(enumerate(data.tfs), sets):
            weights, seed = _chosen(rows, place, rng), int(rng.integers(2**31))
            chosen = np.flatnonzero(weights)
            bound = rows.labels[chosen, place] == BOUND
            if bound.any() and not bound.all():  # else there is nothing to tell apart: the trees stay silent
                model = HistGradientBoostingClassifier(max_iter=len(numbers), random_state=seed, **_SETTINGS)
                # Its OpenMP is another than PyTorch's, and knows nothing of --threads.
                with threadpool_limits(torch.get_num_threads(), user_api="openmp"):
                    model.fit(classes[chosen], bound, sample_weight=weights[chosen])
                take(trees, place, numbers, model, edges, share=1 / len(sets))
            advance(len(numbers), tf)
    return trees.to(device.device)


def _chosen(rows: Rows, place: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """How many bins of the genome each row stands for when TF number `place` learns, (N,); 0 for those left out."""
    labels = rows.labels[:, place]
    weights = np.where(labels == BOUND, rows.weights, 0.0)
    for stratum, most in enumerate(UNBOUND_BINS):
        found = np.flatnonzero((labels == UNBOUND) & (rows.strata == stratum))
        drawn = rng.choice(found, min(most, len(found)), replace=False)
        weights[drawn] = rows.weights[drawn] * (len(found) / max(len(drawn), 1))
    return weights


def class_edges(numbers: NDArray[np.float32], rng: np.random.Generator) -> list[NDArray[np.float32]]:
    """Of each number: the highest value of every class but the last; classes have about as many rows each.

    scikit-learn would make classes of equal weight, by which nearly all thresholds lie where nothing happens: a row
    from there stands for many bins. Making them takes it ten times as long as the boosting, too.

    Args:
        numbers: (N, P); where there are many rows, some are drawn.

    Returns:
        P arrays, rising, of 254 values at most.
    """
    if not len(numbers):
        return [np.empty(0, dtype=np.float32)] * numbers.shape[1]
    if len(numbers) > _EDGE_ROWS:
        numbers = numbers[np.sort(rng.choice(len(numbers), _EDGE_ROWS, replace=False))]
    at = (np.arange(1, _CLASSES) * len(numbers)) // _CLASSES
    return [np.unique(np.sort(values)[at]) for values in numbers.T]


def classes_of(numbers: NDArray[np.float32], edges: list[NDArray[np.float32]]) -> NDArray[np.uint8]:
    """The class of each number, (N, P): how many edges are below it."""
    found = np.empty(numbers.shape, dtype=np.uint8)
    for place, edge in enumerate(edges):
        found[:, place] = np.searchsorted(edge, numbers[:, place])
    return found


class Rates(NamedTuple):
    """Shares of bins that are drawn: of those that a TF binds, (T,); of those that none binds, (2,)."""

    bound: NDArray[np.float64]
    unbound: NDArray[np.float64]

    @classmethod
    def of(cls, counts: Sequence[NDArray[np.int64]]) -> Rates:
        """From the counts of all places, (T + 2,) each, as of `_Place`."""
        total = np.maximum(np.sum(counts, axis=0), 1)
        num_tfs = len(total) - 2
        return cls(np.minimum(BOUND_BINS / num_tfs / total[:-2], 1), np.minimum(UNBOUND_POOL / total[-2:], 1))


class _Place(NamedTuple):
    """A cell type and region to learn from.

    Attributes:
        counts: how many bins each TF binds, and how many none binds, near open chromatin and elsewhere; (T + 2,).
    """

    cell: str
    region: Region
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class _Source:
    """Where the bins to learn from come from; `reader` is None where the model reads no tracks."""

    data: FinetuneData
    config: FinetuneConfig
    module: BindingModel
    device: Device
    reader: TrackReader | None

    def needs(self) -> tuple[bool, bool]:
        """Whether trees need a cell type's own accessibility, and its states: if any that is trained on has them."""
        cells = self.data.cells
        return any(map(self._has_accessibility, cells)), any(map(self._has_states, cells))

    def informed_cells(self, accessibility: bool, states: bool) -> list[str]:
        """Cell types that are trained on and have what trees need; all, where none has both."""
        return [
            cell
            for cell in self.data.cells
            if self._has_accessibility(cell) >= accessibility and self._has_states(cell) >= states
        ] or list(self.data.cells)

    def place(self, cell: str, region: Region) -> _Place:
        """A place with its counts."""
        labels, strata, inside = self._labelled(cell, region)
        bound = (labels[inside] == BOUND).sum(axis=0)
        return _Place(cell, region, np.concatenate([bound, np.bincount(strata[inside], minlength=3)[1:]]))

    def rows(self, place: _Place, rates: Rates, rng: np.random.Generator) -> Rows:
        """What is drawn of a place."""
        dataset, cell, chrom = self.data.dataset, place.cell, place.region.chrom
        labels, strata, inside = self._labelled(cell, place.region)
        weights = drawn(labels, strata, inside, rates, rng)
        offset = dataset.assembly.offset(chrom)
        span = (offset, offset + dataset.assembly.length(chrom))
        geometry = self._geometry(np.flatnonzero(weights))
        tracks = None if self.reader is None else chrom_tracks(self.reader, cell, span, geometry.window_bp)
        at_once, states = geometry.windows_at_once(self.device), self._states(cell, chrom)
        none = np.zeros(0, dtype=np.int64), np.zeros((0, self._num_numbers), dtype=np.float32)
        parts = scan(self._numbers, dataset.sequence(chrom), states, weights > 0, geometry, at_once, tracks)
        bins, numbers = (np.concatenate(each) for each in zip(none, *parts, strict=True))
        return Rows(numbers, labels[bins], strata[bins], weights[bins])

    @property
    def _num_numbers(self) -> int:
        return NUMBERS_OF_A_CHANNEL * (self.module.shape.num_features + self.module.head.num_states)

    def _has_accessibility(self, cell: str) -> bool:
        return self.reader is not None and self.reader.has_accessibility(cell)

    def _has_states(self, cell: str) -> bool:
        return self.config.use_states and cell in self.data.dataset.state_cells

    def _labelled(self, cell: str, region: Region) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
        """Of a chromosome's bins: label codes (N, T), strata (N,) as of `Rows`, and which may be learned from (N,)."""
        labels = np.stack([self._labels(tf, cell, region.chrom) for tf in self.data.tfs], axis=1)
        starts = np.arange(len(labels)) * STRIDE_BP
        inside = (starts >= region.start) & (starts + BIN_BP <= region.end)
        bound = (labels == BOUND).any(axis=1)
        inside &= bound | (labels == UNBOUND).any(axis=1)
        bindable = self._bindable(cell, region.chrom, len(labels))
        return labels, np.where(bound, 0, np.where(bindable, 1, 2)).astype(np.uint8), inside

    def _geometry(self, bins: NDArray[np.int64]) -> ScanGeometry:
        """Windows of training, or, where few bins are drawn of a long chromosome, one for each stretch of 200 bp."""
        context_bp = self.config.context_bp
        sizes = self.config.window_bp, 2 * context_bp + 2 * STATE_BIN_BP
        return min((ScanGeometry(size, context_bp) for size in sizes), key=lambda each: each.read_bp(bins))

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


def drawn(
    labels: NDArray[np.uint8],
    strata: NDArray[np.uint8],
    inside: NDArray[np.bool_],
    rates: Rates,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """How many bins each bin stands for, (N,); 0 for those that are not drawn.

    A bin that several TFs bind is drawn as often as one of the rarest of them.
    """
    chance = np.concatenate([[0.0], rates.unbound])[strata]
    for place, rate in enumerate(rates.bound):
        bound = labels[:, place] == BOUND
        chance[bound] = np.maximum(chance[bound], rate)
    chosen = inside & (rng.random(len(labels)) < chance)
    return np.divide(1.0, chance, out=np.zeros_like(chance), where=chosen)


def take(
    trees: Trees,
    place: int,
    numbers: NDArray[np.int64],
    model: Any,
    edges: list[NDArray[np.float32]],
    share: float = 1.0,
) -> None:
    """Copy the trees of a classifier that was fitted to classes to trees `numbers` of TF number `place`.

    Args:
        share: of its log-odds in the TF's.
    """
    trees.base[place] += share * float(np.ravel(model._baseline_prediction)[0])
    for number, (predictor,) in zip(numbers, model._predictors, strict=True):
        nodes = predictor.nodes
        # (its row among the nodes, its place among the questions or leaves, its level)
        todo = [(0, 0, 0)]
        while todo:
            row, at, level = todo.pop()
            node = nodes[row]
            if level == DEPTH or node["is_leaf"]:
                # A branch that ends early gives its value whatever further questions would say.
                below = LEAVES >> level
                trees.value[place, number, at * below : (at + 1) * below] = share * float(node["value"])
                continue
            question = 2**level - 1 + at
            asked = int(node["feature_idx"])
            trees.asked[place, number, question] = asked
            # Of a higher class than the threshold's is what lies above the edge of that class.
            trees.threshold[place, number, question] = float(edges[asked][int(node["num_threshold"])])
            todo += [(int(node["left"]), 2 * at, level + 1), (int(node["right"]), 2 * at + 1, level + 1)]
