"""What an evaluation found: plain values, for the report and the terminal to show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ebert_core.evaluation.baselines import Unavailable
from ebert_core.evaluation.held_out import HeldOut
from ebert_core.evaluation.loci import Choice, Run
from ebert_core.evaluation.measures import Curve, Measures, Reliability

Kind = Literal["prediction", "comparison", "baseline"]


@dataclass(frozen=True)
class Interval:
    """A percentile interval of the block bootstrap."""

    lower: float
    upper: float


@dataclass(frozen=True)
class Difference:
    """How much better one row is than another on one measure, on the same resampled blocks.

    Attributes:
        first, second: names of the rows; the difference is first minus second.
        measure: key of `Measures.as_dict`.
        value: difference over all evaluated bins.
        interval: of the difference.
        share_above: share of the resamples in which the first is above the second; ties count half.
    """

    first: str
    second: str
    measure: str
    value: float
    interval: Interval
    share_above: float

    @property
    def verdict(self) -> Literal["better", "worse", "undecided"]:
        """Whether the first is better: where the interval leaves out 0."""
        if self.interval.lower > 0:
            return "better"
        return "worse" if self.interval.upper < 0 else "undecided"


@dataclass(frozen=True)
class BootstrapSettings:
    """How intervals were made: `replicates` resamples of the `num_blocks` blocks of `block_bp`, with replacement."""

    replicates: int
    block_bp: int
    num_blocks: int
    seed: int
    level: float


@dataclass(frozen=True)
class StateBins:
    """The evaluated bins whose centre lies in one chromatin state.

    Attributes:
        code: state code; 0 is unknown.
        name, color: as the state model has them; color is `#rrggbb`.
        bound, unbound: numbers of bins.
    """

    code: int
    name: str
    color: str
    bound: int
    unbound: int


@dataclass(frozen=True)
class Locus(Choice):
    """A chosen stretch with what the report's browser view draws of it.

    Attributes:
        states: (start, end, state code) of each run of states, bp; None where the dataset has none.
        labels: (start, end, label code) of runs of labelled bins; a bin is drawn on its central 50 bp.
        tracks: row name -> (starts of the bins shown, shape (N,); their scores, shape (N,)).
    """

    states: tuple[Run, ...] | None
    labels: tuple[Run, ...]
    tracks: dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]]


@dataclass(frozen=True)
class Row:
    """The result for one prediction or baseline.

    Attributes:
        name: what the table calls it.
        kind: 'prediction', 'comparison' (somebody else's) or 'baseline'.
        measures: over all evaluated chromosomes.
        by_chrom: chromosome -> measures; None where it has no bound or no unbound bin.
        note: what the scores are, and what was done about bins without one.
        pr_curve, roc_curve: (recall, precision) and (false positive rate, recall).
        held_out: None for baselines.
        missing_bins, unknown_bins: bins without a score, and how many of those have no known base.
        reliability: None where scores are no probabilities, and for baselines.
        provenance: of a file: its path, bytes, sha256, format, and its sidecar's model; empty for baselines.
        intervals: key of `Measures.as_dict` -> interval; empty without bootstrap.
        by_state: state code -> measures, None where it has no bound or no unbound bin; empty without states.
        subsamples: float64 (10, 4), the challenge's measures on its ten subsamples; None unless asked for.
    """

    name: str
    kind: Kind
    measures: Measures
    by_chrom: dict[str, Measures | None]
    note: str
    pr_curve: Curve
    roc_curve: Curve
    held_out: HeldOut | None = None
    missing_bins: int = 0
    unknown_bins: int = 0
    reliability: Reliability | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    by_state: dict[int, Measures | None] = field(default_factory=dict)
    subsamples: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Evaluation:
    """All results for one TF in one cell type.

    Attributes:
        tf, cell, chroms: what was evaluated.
        assembly: its name and digest.
        counts: chromosome -> number of 'bound', 'unbound' and 'ambiguous' bins; ambiguous ones are dropped.
        rows: predictions and comparisons as they were given, then baselines.
        unavailable: baselines that could not be had.
        truth: where the labels come from, in words.
        placement, missing: the rules that applied: name and words.
        notes: what a user should know, a sentence each.
        provenance: 'truth' (files with bytes and sha256), 'dataset' (its folder or None).
        bootstrap: how intervals were made; None where there are none.
        differences: of the first file and each other row, on every measure; empty without bootstrap.
        states: the evaluated bins by chromatin state; empty where the dataset has no states of the cell type.
        loci: what the browser view shows.
    """

    tf: str
    cell: str
    chroms: tuple[str, ...]
    assembly: dict[str, str]
    counts: dict[str, dict[str, int]]
    rows: tuple[Row, ...]
    unavailable: tuple[Unavailable, ...]
    truth: str
    placement: tuple[str, str]
    missing: tuple[str, str]
    notes: tuple[str, ...]
    provenance: dict[str, Any]
    bootstrap: BootstrapSettings | None = None
    differences: tuple[Difference, ...] = ()
    states: tuple[StateBins, ...] = ()
    loci: tuple[Locus, ...] = ()

    @property
    def unavailable_by_reason(self) -> dict[str, list[str]]:
        """Reason -> names of the baselines that could not be had for it, as they come."""
        found: dict[str, list[str]] = {}
        for each in self.unavailable:
            found.setdefault(each.reason, []).append(each.name)
        return found

    def total(self, label: str) -> int:
        """Bins with a label ('bound', 'unbound' or 'ambiguous') over all chromosomes."""
        return sum(counts[label] for counts in self.counts.values())


@dataclass(frozen=True)
class PairRank:
    """Where an entry would have come in one pair of the challenge's final round.

    Attributes:
        tf, cell: the pair.
        rank: the challenge's rank: second smallest of the ten subsamples' average ranks (1 is best).
        num_entries: entries in the pair, this one included.
        best_team: who has the best rank among the others.
        auprc: mean over the ten subsamples.
        best_auprc: the best mean auPRC of any other entry.
    """

    tf: str
    cell: str
    rank: float
    num_entries: int
    best_team: str
    auprc: float
    best_auprc: float


@dataclass(frozen=True)
class OverallRank:
    """One line of the overall table: entry, mean score (lower is better), rank, and whether it is the user's."""

    name: str
    score: float
    rank: float
    own: bool


@dataclass(frozen=True)
class ChallengeRanks:
    """The final round with one more entry.

    Attributes:
        name: what the entry is called.
        pairs: per evaluated final pair.
        missing: final pairs without a prediction; each counts 0.5, as in the challenge.
        overall: every entry, best first.
        wins: pairs in which the entry ranks before every other.
        source: where the other entries' figures come from.
    """

    name: str
    pairs: tuple[PairRank, ...]
    missing: tuple[tuple[str, str], ...]
    overall: tuple[OverallRank, ...]
    wins: int
    source: str
