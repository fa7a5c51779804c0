"""The boosting rival: gradient-boosted classifiers per TF on the features of `rivals_features`, like Anchor.

Bound bins are all used; unbound ones are drawn, most of those that look bindable and a share of the rest, and weighted
by what was left out. Trees are added as long as the log-likelihood of the validation part rises. A few classifiers that
saw other unbound bins and other features at each split are averaged, as Anchor averages its own, and so are bins with
their neighbours, as `ebert` does with its trees. Trees are small and see few features at a split, which carried over
from one training cell type to another at least as well as large ones.
"""

from __future__ import annotations

import functools
import gc
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rivals_features import (
    MotifHits,
    accessibility_features,
    family_features,
    family_motifs,
    normalised_accessibility,
    own_motif_features,
    own_motifs,
    sequence_features,
    state_features,
)
from rivals_setting import TSS_FILE, Scores, Task, bin_strides, labels_at, neighbours_averaged

from ebert_core.data.dataset import Dataset
from ebert_core.genome.labels import BOUND, UNBOUND
from ebert_core.io.motifs import Motif, read_motifs
from ebert_core.training.boosting import classes_of

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier as Classifier

PIECE = 100_000
SETTINGS: dict[str, Any] = {
    "learning_rate": 0.05,
    "max_leaf_nodes": 8,
    "min_samples_leaf": 100,
    "l2_regularization": 10.0,
    "max_features": 0.1,
    "n_iter_no_change": 20,
}


class Budget(NamedTuple):
    """Classifiers to average; unbound bins drawn for each and for validation, over all cells; trees at most; classes
    of a feature; neighbours to either side with whose scores a bin's is averaged."""

    models: int = 3
    train_rows: int = 60_000
    valid_rows: int = 60_000
    trees: int = 200
    classes: int = 255
    neighbours: int = 2


Columns = list[tuple[str, NDArray[np.float16]]]
# Features (rows, features), bound and weight (rows,).
Rows = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]]


class Classed(NamedTuple):
    """A classifier of features that were put into classes beforehand, each with as many rows as the others.

    scikit-learn's own classes are of equal weight. The rows that stand for thousands of bins where nothing happens
    weigh most, which leaves few thresholds where bound and unbound bins differ; and finding those classes takes ten
    times as long as the boosting.
    """

    edges: list[NDArray[np.float32]]
    model: Classifier

    def decision_function(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Log-odds (rows,)."""
        found: NDArray[np.float64] = self.model.decision_function(classes_of(features, self.edges))
        return found


def class_edges(features: NDArray[np.float32], classes: int) -> list[NDArray[np.float32]]:
    """Of each feature: the highest value of every class but the last."""
    levels = np.arange(1, classes) / classes
    return [np.unique(np.quantile(values, levels, method="lower")) for values in features.T]


class FeatureStore:
    """Columns of features by chromosome, cell type and TF; the last few stay in memory.

    Args:
        shown: of accessibility, `all`, `none`, or that of `others`, as for a cell type without any.
    """

    def __init__(self, task: Task, shown: str) -> None:
        self._dataset: Dataset = task.dataset
        self._shown = shown
        self._tested = task.turn.cell
        self._tss = task.data / TSS_FILE
        self._motifs = read_motifs(task.motifs_path)
        self._hits = MotifHits(task.dataset, self._motifs, task.work / "features")
        self._shared = functools.lru_cache(maxsize=1)(self._shared_columns)
        self._cell = functools.lru_cache(maxsize=2)(self._cell_columns)

    def columns(self, tf: str, cell: str, chrom: str) -> Columns:
        """(name, float16 of shape (S,)) of every feature."""
        own = own_motif_features(self._hits, own_motifs(self._motifs, tf), chrom)
        return _halved(own) + self._shared(chrom) + self._cell(cell, chrom)

    def _shared_columns(self, chrom: str) -> Columns:
        families = family_features(self._hits, family_motifs(self._motifs), chrom)
        return _halved(families) + _halved(sequence_features(self._dataset, chrom, self._tss))

    def _cell_columns(self, cell: str, chrom: str) -> Columns:
        columns = _halved(state_features(self._dataset, cell, chrom))
        if self._shown != "none":
            tracks = normalised_accessibility(self._dataset, chrom)
            if self._shown == "others":
                # Nobody is shown what stands in for the tested cell type's own.
                tracks.pop(self._tested, None)
            columns += _halved(accessibility_features(tracks, cell, others=self._shown == "others"))
        return columns


def _halved(features: Any) -> Columns:
    """As float16: trees look at 255 classes of a feature at most, and all chromosomes must fit in memory."""
    return [(name, values.astype(np.float16)) for name, values in features]


def rows(columns: Columns, strides: NDArray[np.int64]) -> NDArray[np.float32]:
    """Features of bins, float32 of shape (bins, features)."""
    out = np.empty((len(strides), len(columns)), np.float32)
    for place, (_, values) in enumerate(columns):
        out[:, place] = values[strides]
    return out


def bindable(columns: Columns, motifs: Sequence[Motif], strides: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Unbound bins worth learning from: open near by, a good hit of the TF, or a promoter's or enhancer's state near.

    Args:
        columns: of the chromosome; strides: the bins asked about, shape (N,).
    """
    by_name = dict(columns)
    keep = np.zeros(len(strides), bool)
    for name, values in by_name.items():
        if name == "open max 500" or (name.endswith(" 1000") and name.startswith(("Tss", "Enh"))):
            keep |= values[strides] > 0
    for motif in motifs:
        best = by_name[motif.name]
        keep |= best[strides] > np.quantile(best[::7].astype(np.float32), 0.99)
    return keep


def draw_rows(
    labels: NDArray[np.uint8], interesting: NDArray[np.bool_], budget: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(places, weights) of the bins to learn from: all bound, and up to `budget` unbound, two thirds interesting ones.

    A drawn bin stands for as many as its weight says, so that the weighted share of bound bins is the true one.
    """
    bound = np.flatnonzero(labels == BOUND)
    places, weights = [bound], [np.ones(len(bound))]
    for kind, most in ((interesting, budget * 2 // 3), (~interesting, budget // 3)):
        unbound = np.flatnonzero((labels == UNBOUND) & kind)
        taken = rng.choice(unbound, min(most, len(unbound)), replace=False)
        places.append(taken)
        weights.append(np.full(len(taken), len(unbound) / max(len(taken), 1)))
    return np.concatenate(places), np.concatenate(weights)


def train(task: Task, tf: str, store: FeatureStore, seed: int, budget: Budget) -> list[Classed]:
    """Several classifiers of a TF, each with its own drawn bins of the training cells and chromosome."""
    rng = np.random.default_rng([seed, zlib.crc32(tf.encode())])
    cells, chrom = task.train_cells(tf), task.turn.train_chrom
    motifs = own_motifs(read_motifs(task.motifs_path), tf)
    fit, valid = task.parts()
    parts: list[list[Rows]] = [[] for _ in range(budget.models)]
    held: list[Rows] = []
    for cell in cells:
        columns = store.columns(tf, cell, chrom)
        for strides, into, most in ((fit, parts, budget.train_rows), (valid, [held], budget.valid_rows)):
            labels = labels_at(task.dataset, tf, cell, chrom, strides)
            interesting = bindable(columns, motifs, strides)
            for part in into:
                chosen, weights = draw_rows(labels, interesting, most // len(cells), rng)
                part.append((rows(columns, strides[chosen]), labels[chosen] == BOUND, weights))
    valid_rows = _together(held)
    seeds = rng.integers(2**31, size=budget.models)
    return [_fit(_together(part), valid_rows, int(each), budget) for part, each in zip(parts, seeds, strict=True)]


def _together(parts: list[Rows]) -> Rows:
    features, bound, weights = zip(*parts, strict=True)
    return np.concatenate(features), np.concatenate(bound), np.concatenate(weights)


def _fit(fit: Rows, valid: Rows, seed: int, budget: Budget) -> Classed:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(random_state=seed, max_iter=budget.trees, early_stopping=True, **SETTINGS)
    (features, bound, weights), (valid_features, valid_bound, valid_weights) = fit, valid
    edges = class_edges(features, budget.classes)
    model.fit(
        classes_of(features, edges),
        bound,
        sample_weight=weights,
        X_val=classes_of(valid_features, edges),
        y_val=valid_bound,
        sample_weight_val=valid_weights,
    )
    return Classed(edges, model)


def log_odds(models: list[Classed], columns: Columns, strides: NDArray[np.int64]) -> Scores:
    """The mean of the classifiers' log-odds for bins of the columns' cell type and chromosome, float32 (N,)."""
    out = np.empty(len(strides), np.float32)
    for first in range(0, len(strides), PIECE):
        features = rows(columns, strides[first : first + PIECE])
        out[first : first + PIECE] = np.mean([model.decision_function(features) for model in models], axis=0)
    return out


def boosting(task: Task, seed: int, budget: Budget, shown: str = "all") -> dict[str, Scores]:
    """Log-odds of every TF for the benchmark bins of the turn's cell type and chromosome, shape (N,) each."""
    store = FeatureStore(task, shown)
    models = {tf: train(task, tf, store, seed, budget) for tf in task.tfs}
    gc.collect()
    strides = bin_strides(task.dataset, task.turn.chrom)
    place = task.turn.cell, task.turn.chrom
    found = {tf: log_odds(models[tf], store.columns(tf, *place), strides) for tf in task.tfs}
    return {tf: neighbours_averaged(scores, strides, budget.neighbours) for tf, scores in found.items()}
