"""What a prediction has to beat: scores that need no training of a network and take seconds per chromosome.

Each baseline is a name, a sentence that says what it is, and a function of bins. One that cannot be had says why. What
is learned from labels is learned in other cell types and on other chromosomes than the evaluated ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.data.dataset import Dataset
from ebert_core.errors import UnknownNameError
from ebert_core.evaluation.motif_hits import best_hits
from ebert_core.evaluation.organisers import OPEN_SHARE, NothingToLearn, OpenBins, learn
from ebert_core.genome.intervals import Positions
from ebert_core.genome.labels import AMBIGUOUS, BOUND, UNBOUND, UNLABELLED
from ebert_core.io.motifs import Motif, find_motif, read_motifs
from ebert_core.vocabulary import BIN_BP, STRIDE_BP, STRIDES_PER_BIN

# Bound bins are rare and lie where accessibility is high, so the classes crowd at the top.
_QUANTILES: Final = (0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998)
# Bins of the coarser table that each cell of a finer one is mixed with: a cell of few bins says little.
_PRIOR_BINS: Final = 20.0
_LABEL_VALUES: Final = np.array([np.nan, 0.0, 0.5, 1.0], np.float32)  # unlabelled, unbound, ambiguous, bound

Scores = NDArray[np.float32]
Scorer = Callable[[str, Positions], Scores]


@dataclass(frozen=True)
class Baseline:
    """A baseline that can be had; `scores(chrom, starts)` gives float32 of shape (N,)."""

    name: str
    note: str
    scores: Scorer


@dataclass(frozen=True)
class Unavailable:
    """A baseline that cannot be had, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Setting:
    """What the baselines of one evaluation may look at.

    Attributes:
        tf, cell, chroms: what is evaluated.
        prevalence: fraction of bound bins among those evaluated.
        dataset: sequence, states, accessibility and labels of other cell types, or None.
        motifs_path: MEME file, or None.
        training_cells: cell types to learn from; by default every other one that has labels of the TF.
    """

    tf: str
    cell: str
    chroms: tuple[str, ...]
    prevalence: float
    dataset: Dataset | None = None
    motifs_path: Path | None = None
    training_cells: tuple[str, ...] | None = None

    def labelled_cells(self) -> tuple[str, ...]:
        """Cell types other than the evaluated one with labels of the TF, among the training cells."""
        if self.dataset is None:
            return ()
        cells = [cell for tf, cell in self.dataset.label_pairs if tf == self.tf and cell != self.cell]
        return tuple(cell for cell in cells if self.training_cells is None or cell in self.training_cells)

    def training_chroms(self, cell: str) -> tuple[str, ...]:
        """Chromosomes with labels in a cell type that are not evaluated."""
        assert self.dataset is not None
        return tuple(chrom for chrom in self.dataset.assayed_chroms(self.tf, cell) if chrom not in self.chroms)


class _NotToBeHad(Exception):
    """Why a baseline is unavailable."""


def baselines(setting: Setting) -> list[Baseline | Unavailable]:
    """Every baseline, in the order of the table; those that cannot be had as `Unavailable`."""
    found: list[Baseline | Unavailable] = []
    for name, build in _BUILDERS.items():
        try:
            note, scorer = build(setting)
        except _NotToBeHad as reason:
            found.append(Unavailable(name, str(reason)))
        else:
            found.append(Baseline(name, note, scorer))
    return found


def _prevalence(setting: Setting) -> tuple[str, Scorer]:
    def scores(chrom: str, starts: Positions) -> Scores:
        return np.full(len(starts), setting.prevalence, np.float32)

    return "the same score everywhere", scores


def _motif(setting: Setting) -> tuple[str, Scorer]:
    dataset = _dataset(setting)
    motif = _motif_of(setting)
    log_odds = motif.log_odds()

    def scores(chrom: str, starts: Positions) -> Scores:
        return best_hits(dataset.sequence(chrom), starts, log_odds)

    return f"highest log-odds of {motif.label} within the bin, both strands", scores


def _accessibility(setting: Setting) -> tuple[str, Scorer]:
    dataset = _dataset(setting)
    _require_accessibility(dataset, setting.cell)

    def scores(chrom: str, starts: Positions) -> Scores:
        return _highest_stride(dataset.accessibility(setting.cell, chrom), starts)

    return f"highest of the bin's four 50-bp values in {setting.cell}", scores


def _state_frequency(setting: Setting) -> tuple[str, Scorer]:
    dataset = _dataset(setting)
    _require_states(dataset, setting.cell)
    cells = _learning_cells(setting, dataset.state_cells, "states")
    num_states = len(dataset.require_state_model().states) + 1
    bound, unbound = np.zeros(num_states), np.zeros(num_states)
    for cell in cells:
        for chrom in setting.training_chroms(cell):
            starts, labels = _labelled(dataset, setting.tf, cell, chrom)
            state = _central_state(dataset.states(cell, chrom), starts)
            bound += np.bincount(state[labels == BOUND], minlength=num_states)
            unbound += np.bincount(state[labels == UNBOUND], minlength=num_states)
    frequency = _mixed(bound, unbound, 1.0, _ratio(bound.sum(), unbound.sum())).astype(np.float32)

    def scores(chrom: str, starts: Positions) -> Scores:
        return frequency[_central_state(dataset.states(setting.cell, chrom), starts)]

    return f"P(bound | state at the bin's centre), learned in {_listed(setting, cells)}", scores


def _accessibility_by_state(setting: Setting) -> tuple[str, Scorer]:
    dataset = _dataset(setting)
    _require_states(dataset, setting.cell)
    _require_accessibility(dataset, setting.cell)
    both = set(dataset.state_cells) & set(dataset.accessibility_cells)
    cells = _learning_cells(setting, tuple(both), "states and accessibility")
    shape = (len(_QUANTILES) + 1, len(dataset.require_state_model().states) + 1)
    bound, unbound = np.zeros(shape), np.zeros(shape)
    for cell in cells:
        edges = _edges(dataset, cell)
        for chrom in setting.training_chroms(cell):
            starts, labels = _labelled(dataset, setting.tf, cell, chrom)
            place = _cell_of_table(dataset, cell, chrom, starts, edges)
            bound += np.bincount(place[labels == BOUND], minlength=bound.size).reshape(shape)
            unbound += np.bincount(place[labels == UNBOUND], minlength=bound.size).reshape(shape)
    overall = _ratio(bound.sum(), unbound.sum())
    by_class = _mixed(bound.sum(axis=1), unbound.sum(axis=1), 1.0, overall)
    table = _mixed(bound, unbound, _PRIOR_BINS, by_class[:, None]).astype(np.float32).ravel()
    own_edges = _edges(dataset, setting.cell)

    def scores(chrom: str, starts: Positions) -> Scores:
        return table[_cell_of_table(dataset, setting.cell, chrom, starts, own_edges)]

    return f"P(bound | accessibility class, state), learned in {_listed(setting, cells)}", scores


def _mean_of_training_cells(setting: Setting) -> tuple[str, Scorer]:
    dataset = _dataset(setting)
    cells = setting.labelled_cells()
    if not cells:
        raise _NotToBeHad(f"no other cell type has {setting.tf} labels")
    for chrom in setting.chroms:
        if not any(chrom in dataset.assayed_chroms(setting.tf, cell) for cell in cells):
            raise _NotToBeHad(f"{chrom} has no {setting.tf} labels in another cell type")

    def scores(chrom: str, starts: Positions) -> Scores:
        total, count = np.zeros(len(starts), np.float32), np.zeros(len(starts), np.float32)
        for cell in cells:
            if chrom in dataset.assayed_chroms(setting.tf, cell):
                labels = dataset.labels(setting.tf, cell, chrom)[starts // STRIDE_BP]
                total += np.nan_to_num(_LABEL_VALUES[labels])
                count += labels != UNLABELLED
        return (total / np.maximum(count, 1)).astype(np.float32)

    return f"mean label at the same place in {', '.join(cells)} (ambiguous counts 0.5)", scores


def _organisers_logistic(setting: Setting) -> tuple[str, Scorer]:
    dataset = _dataset(setting)
    motif = _motif_of(setting)
    _require_accessibility(dataset, setting.cell)
    cells = _learning_cells(setting, dataset.accessibility_cells, "accessibility")
    try:
        model = learn(dataset, setting.tf, {cell: setting.training_chroms(cell) for cell in cells}, motif.log_odds())
    except NothingToLearn as reason:
        raise _NotToBeHad(str(reason)) from None
    own = OpenBins.of(dataset.flat_accessibility(setting.cell))

    def scores(chrom: str, starts: Positions) -> Scores:
        return model.scores(dataset, setting.cell, chrom, starts, own)

    closed = f"the most accessible {OPEN_SHARE:.0%} of strides" if own.is_signal else "accessibility peaks"
    note = f"logistic in the hits of {motif.label} and mean accessibility, 0 outside {closed}"
    return f"{note}, learned in {_listed(setting, cells)}", scores


_BUILDERS: Final[dict[str, Callable[[Setting], tuple[str, Scorer]]]] = {
    "prevalence": _prevalence,
    "best motif hit": _motif,
    "accessibility": _accessibility,
    "state frequency": _state_frequency,
    "accessibility x state": _accessibility_by_state,
    "mean of training cells": _mean_of_training_cells,
    "organisers' logistic": _organisers_logistic,
}
BASELINE_NAMES: Final = tuple(_BUILDERS)


def _dataset(setting: Setting) -> Dataset:
    if setting.dataset is None:
        raise _NotToBeHad("no dataset; name one with --dataset")
    return setting.dataset


def _motif_of(setting: Setting) -> Motif:
    if not _dataset(setting).has_sequence:
        raise _NotToBeHad("the dataset was made from chromosome sizes and holds no sequence")
    if setting.motifs_path is None:
        raise _NotToBeHad("no motif file; give one with --motifs")
    try:
        motif = find_motif(read_motifs(setting.motifs_path), setting.tf)
    except UnknownNameError:
        raise _NotToBeHad(f"{setting.motifs_path.name} has no motif of {setting.tf}") from None
    if len(motif) > BIN_BP:
        raise _NotToBeHad(f"the motif {motif.label} is longer than a bin")
    return motif


def _require_states(dataset: Dataset, cell: str) -> None:
    if dataset.state_model is None or cell not in dataset.state_cells:
        raise _NotToBeHad(f"the dataset has no states of {cell}")


def _require_accessibility(dataset: Dataset, cell: str) -> None:
    if cell not in dataset.accessibility_cells:
        raise _NotToBeHad(f"the dataset has no accessibility of {cell}")


def _learning_cells(setting: Setting, having: Sequence[str], what: str) -> tuple[str, ...]:
    """Cell types to learn a table from; at least one, and at least one chromosome."""
    labelled = setting.labelled_cells()
    if not labelled:
        raise _NotToBeHad(f"no other cell type has {setting.tf} labels to learn from")
    cells = tuple(cell for cell in labelled if cell in having)
    if not cells:
        raise _NotToBeHad(f"none of {', '.join(labelled)} has {what} to learn from")
    if not any(setting.training_chroms(cell) for cell in cells):
        raise _NotToBeHad("every labelled chromosome is evaluated, so none is left to learn from")
    return cells


def _listed(setting: Setting, cells: Sequence[str]) -> str:
    chroms = sorted({chrom for cell in cells for chrom in setting.training_chroms(cell)})
    where = ", ".join(chroms) if len(chroms) <= 3 else f"{len(chroms)} other chromosomes"
    return f"{', '.join(cells)} on {where}"


def _labelled(dataset: Dataset, tf: str, cell: str, chrom: str) -> tuple[Positions, NDArray[np.uint8]]:
    """Starts and labels of the bound and unbound bins of a chromosome."""
    labels = dataset.labels(tf, cell, chrom)
    stride = np.flatnonzero((labels != UNLABELLED) & (labels != AMBIGUOUS))
    return stride * STRIDE_BP, labels[stride]


def _central_state(states: NDArray[np.uint8], starts: Positions) -> NDArray[np.uint8]:
    return states[(starts + BIN_BP // 2) // BIN_BP]


def _highest_stride(accessibility: NDArray[np.float16], starts: Positions) -> Scores:
    values = np.asarray(accessibility, np.float32)  # comparisons of float16 are an order slower
    stride = starts // STRIDE_BP
    out = values[stride]
    for step in range(1, STRIDES_PER_BIN):
        out = np.maximum(out, values[stride + step])
    return out


def _edges(dataset: Dataset, cell: str) -> NDArray[np.float32]:
    """Quantiles of a cell type's accessibility over the genome, so that depth and kind of assay cancel."""
    # Every 7th stride: 8.7 M of the 61 M in a human genome; quantiles of a sample of that size are as good.
    values = np.asarray(dataset.flat_accessibility(cell)[::7], np.float32)
    return np.quantile(values, _QUANTILES).astype(np.float32)


def _cell_of_table(
    dataset: Dataset, cell: str, chrom: str, starts: Positions, edges: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Flat index into the table of accessibility class x state."""
    level = np.searchsorted(edges, _highest_stride(dataset.accessibility(cell, chrom), starts), side="left")
    state = _central_state(dataset.states(cell, chrom), starts)
    return level * (len(dataset.require_state_model().states) + 1) + state


def _ratio(bound: float, unbound: float) -> float:
    return float(bound / max(bound + unbound, 1))


def _mixed(
    bound: NDArray[np.float64], unbound: NDArray[np.float64], weight: float, prior: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fraction bound, with `weight` bins of the prior fraction added."""
    return (bound + weight * prior) / (bound + unbound + weight)
