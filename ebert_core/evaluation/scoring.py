"""The sheet on which every row of an evaluation is measured alike: same bins, same resamples, same loci."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebert_core.data.dataset import Dataset
from ebert_core.evaluation import bootstrap, loci, measures
from ebert_core.evaluation.evaluated_bins import EvaluatedBins, count_by_state
from ebert_core.evaluation.ranking import subsample_measures
from ebert_core.evaluation.results import BootstrapSettings, Difference, Kind, Locus, Row, StateBins
from ebert_core.evaluation.truth import Truth
from ebert_core.genome.intervals import Positions

Scores = NDArray[np.float32]
Scorer = Callable[[str, Positions], Scores]
Track = tuple[Positions, Scores]


@dataclass(frozen=True)
class Resampling:
    """A block bootstrap: `replicates` resamples of blocks of `block_bp`, drawn with `seed`; intervals of `level`.

    Raises:
        EbertError: fewer than 100 resamples.
    """

    replicates: int = bootstrap.REPLICATES
    seed: int = 0
    level: float = bootstrap.LEVEL
    block_bp: int = bootstrap.BLOCK_BP

    def __post_init__(self) -> None:
        bootstrap.require_enough(self.replicates)


class ScoreSheet:
    """Rows on one set of bins, N of them.

    Attributes:
        bins: the evaluated bins.
        rows: in the order in which they were added.
        states: the bins by chromatin state; empty where the dataset has none of the cell type.
        bootstrap: how intervals are made; None where there are none.
        notes: what a user should know, a sentence each.
    """

    def __init__(
        self,
        bins: EvaluatedBins,
        truth: Truth,
        dataset: Dataset | None,
        resampling: Resampling | None,
        *,
        subsamples: bool = False,
    ) -> None:
        self.bins = bins
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self._truth = truth
        self._subsamples = subsamples
        self._dataset = dataset if dataset and dataset.state_model and truth.cell in dataset.state_cells else None
        self._codes = bins.states(self._dataset, truth.cell) if self._dataset else None
        self.states: tuple[StateBins, ...] = ()
        if self._dataset and self._codes is not None:
            self.states = count_by_state(self._dataset, truth.cell, self._codes, bins)
        self.bootstrap: BootstrapSettings | None = None
        self._replicates: list[bootstrap.Replicates] = []
        if resampling:
            self._draw(resampling)
        self._choices: list[loci.Choice] | None = None
        self._tracks: list[dict[str, Track]] = []
        self._held: tuple[str, Positions, NDArray[np.uint8]] | None = None

    def _draw(self, resampling: Resampling) -> None:
        blocks = bootstrap.blocks_of(self.bins.starts, resampling.block_bp)
        if reason := blocks.too_few(self.bins.bound):
            self.notes.append(reason)
            return
        self._blocks = blocks
        self._drawn = bootstrap.draw(len(blocks), resampling.replicates, resampling.seed)
        self.bootstrap = BootstrapSettings(
            resampling.replicates, resampling.block_bp, len(blocks), resampling.seed, resampling.level
        )

    def add(self, labels: tuple[str, Kind, str], scores: Scores, scorer: Scorer, **more: Any) -> None:
        """Measure one row.

        Args:
            labels: name, kind and note of the row.
            scores: of all bins, shape (N,), without NaN.
            scorer: gives the scores of any bins of a chromosome, also of ambiguous ones, for the browser view.
            more: further attributes of the row.
        """
        name, kind, note = labels
        counts = measures.thresholds(scores, self.bins.bound)
        overall = measures.measures_at(counts)
        intervals = {}
        if self.bootstrap:
            replicates = bootstrap.replicate_measures(scores, self.bins.bound, counts, self._blocks, self._drawn)
            self._replicates.append(replicates)
            if replicates.num_left_out and len(self._replicates) == 1:
                self.notes.append(
                    f"{replicates.num_left_out:,} of {self.bootstrap.replicates:,} resamples have no bound or no "
                    "unbound bin; the intervals are those of the others"
                )
            intervals = bootstrap.intervals(replicates, self.bootstrap.level)
        if self._choices is None and kind != "baseline":
            self._choices = loci.choose_loci(self.bins.starts, self.bins.bound, scores, self._truth.assembly)
            self._tracks = [{} for _ in self._choices]
        self._cut(name, scorer)
        row = Row(
            name=name,
            kind=kind,
            measures=overall,
            by_chrom=self._by_chrom(scores, overall),
            note=note,
            pr_curve=measures.precision_recall_curve(counts),
            roc_curve=measures.roc_curve(counts),
            intervals=intervals,
            by_state=self._by_state(scores),
            subsamples=subsample_measures(scores, self.bins.bound) if self._subsamples else None,
            **more,
        )
        self.rows.append(row)

    def differences(self) -> tuple[Difference, ...]:
        """The first row against every other, on all measures; empty without bootstrap or where it is a baseline."""
        if not self._replicates or self.rows[0].kind == "baseline":
            return ()
        assert self.bootstrap is not None
        named = [(row.name, replicates) for row, replicates in zip(self.rows, self._replicates, strict=True)]
        level = self.bootstrap.level
        return tuple(each for other in named[1:] for each in bootstrap.differences(named[0], other, level))

    def loci(self) -> tuple[Locus, ...]:
        """The stretches chosen by the first file, with the scores of the files and of the best baseline on them."""
        baselines = [row for row in self.rows if row.kind == "baseline"]
        best = max(baselines, key=lambda row: row.measures.auprc, default=None)
        shown = {row.name for row in self.rows if row.kind != "baseline" or row is best}
        found = []
        for choice, tracks in zip(self._choices or (), self._tracks, strict=True):
            states = None
            if self._dataset:
                codes = self._dataset.states(self._truth.cell, choice.chrom)
                states = loci.cut_states(codes, choice.start, choice.end)
            labels = loci.cut_labels(*self._labels(choice.chrom), choice.start, choice.end)
            kept = {name: track for name, track in tracks.items() if name in shown}
            found.append(Locus(**vars(choice), states=states, labels=labels, tracks=kept))
        return tuple(found)

    def _cut(self, name: str, scorer: Scorer) -> None:
        for choice, tracks in zip(self._choices or (), self._tracks, strict=True):
            starts, _ = self._labels(choice.chrom)
            shown = starts[loci.bins_within(starts, choice.start, choice.end)]
            scores = scorer(choice.chrom, shown)
            known = ~np.isnan(scores)
            tracks[name] = shown[known], scores[known]

    def _labels(self, chrom: str) -> tuple[Positions, NDArray[np.uint8]]:
        """The truth of a chromosome; the last one asked for is kept, since loci come by chromosome."""
        if self._held is None or self._held[0] != chrom:
            self._held = chrom, *self._truth.on(chrom)
        return self._held[1:]

    def _by_chrom(self, scores: Scores, overall: measures.Measures) -> dict[str, measures.Measures | None]:
        if len(self.bins.starts) == 1:
            return dict.fromkeys(self.bins.starts, overall)
        return {chrom: _measured(scores[here], self.bins.bound[here]) for chrom, here in self.bins.slices()}

    def _by_state(self, scores: Scores) -> dict[int, measures.Measures | None]:
        if self._codes is None:
            return {}
        found = {}
        for each in self.states:
            here = self._codes == each.code
            found[each.code] = _measured(scores[here], self.bins.bound[here])
        return found


def _measured(scores: Scores, bound: NDArray[np.bool_]) -> measures.Measures | None:
    """The measures of some bins; None where they are all bound or all unbound."""
    return measures.measure(scores, bound) if bound.any() and not bound.all() else None
