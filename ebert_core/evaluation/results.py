"""What an evaluation found: plain values, for the report and the terminal to show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ebert_core.evaluation.baselines import Unavailable
from ebert_core.evaluation.held_out import HeldOut
from ebert_core.evaluation.measures import Curve, Measures, Reliability

Kind = Literal["prediction", "comparison", "baseline"]


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

    def total(self, label: str) -> int:
        """Bins with a label ('bound', 'unbound' or 'ambiguous') over all chromosomes."""
        return sum(counts[label] for counts in self.counts.values())
