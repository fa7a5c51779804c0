"""From a track of probabilities to called sites: runs of bins over a threshold become narrowPeak rows.

The threshold comes from a model's threshold table by a rule such as `precision=0.8`. The table says what precision and
recall each threshold had on the model's validation bins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TextIO, get_args

import numpy as np
from numpy.typing import NDArray

from ebert_core.errors import EbertError, UnknownNameError
from ebert_core.vocabulary import BIN_BP, STRIDE_BP

Goal = Literal["precision", "recall", "fdr", "f1", "threshold"]
RULE_HINT: Final = "for example precision=0.8, recall=0.5, fdr=0.1, threshold=0.3 or f1"
# Precisions and recalls are quotients of whole numbers; 1 - 0.7 is a bit more than 0.3.
_ROUNDING: Final = 1e-9
# Bins that begin so many strides apart still overlap.
_MAX_GAP: Final = BIN_BP // STRIDE_BP - 1

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CallRule:
    """How a calling threshold is chosen: what is asked for, and how much of it (nothing for `f1`)."""

    goal: Goal
    value: float = 0.0

    def __str__(self) -> str:
        return self.goal if self.goal == "f1" else f"{self.goal}={self.value:g}"

    @classmethod
    def parse(cls, text: str) -> CallRule:
        """A rule as typed; `EbertError` where it is none."""
        name, equals, number = (part.strip() for part in text.partition("="))
        goal = next((known for known in get_args(Goal) if known == name.casefold()), None)
        if goal is None:
            error = UnknownNameError("calling rule", name, get_args(Goal))
            raise EbertError(error.message, f"{error.hint}; {RULE_HINT}".replace("?;", "?"))
        if goal == "f1":
            if equals:
                raise EbertError(f"calling rule {text!r}: f1 takes the best there is, no value", RULE_HINT)
            return cls(goal)
        try:
            value = float(number)
        except ValueError:
            value = np.nan
        if not 0 <= value <= 1:
            raise EbertError(f"calling rule {text!r}: expected {goal}= and a number from 0 to 1", RULE_HINT)
        return cls(goal, value)


@dataclass(frozen=True)
class Call:
    """A threshold, by which rule it was chosen, and what it gave on the validation bins.

    Attributes:
        rule: as typed.
        threshold: bins of at least this probability are called.
        precision, recall, f1: of the table's nearest threshold that is not lower; None where there is none.
        num_bound, num_unbound: validation bins that the table rests on.
    """

    rule: str
    threshold: float
    precision: float | None
    recall: float | None
    f1: float | None
    num_bound: int
    num_unbound: int

    def describe(self) -> str:
        """For people."""
        if self.precision is None or self.recall is None:
            return f"{self.rule}; no validation bin that is bound has so high a probability"
        return f"{self.rule}; on validation bins precision {self.precision:.3f}, recall {self.recall:.3f}"


@dataclass(frozen=True)
class ThresholdTable:
    """What calling bins at some thresholds gave on a model's validation bins; arrays float64 of shape (R,).

    Attributes:
        thresholds: probabilities, falling.
        precision: share of the called bins that are bound.
        recall: share of the bound bins that are called; rises to 1.
        num_bound, num_unbound: validation bins in all.
    """

    thresholds: Floats
    precision: Floats
    recall: Floats
    num_bound: int
    num_unbound: int

    @property
    def f1(self) -> Floats:
        """Harmonic mean of precision and recall."""
        return 2 * self.precision * self.recall / (self.precision + self.recall)

    def choose(self, rule: CallRule, tf: str) -> Call:
        """The threshold that a rule asks for.

        `precision=x` (and `fdr=x`, which is precision 1 - x) takes the lowest threshold whose precision is at least x,
        so the one of most recall; `recall=x` the highest whose recall is at least x; `f1` the best F1; `threshold=x` is
        taken as it is.

        Args:
            tf: for the error.

        Raises:
            EbertError: no threshold is as precise as asked for.
        """
        row = self._row(rule)
        if row is None and rule.goal != "threshold":
            raise self._unattainable(rule, tf)
        threshold = rule.value if row is None or rule.goal == "threshold" else float(self.thresholds[row])
        columns = (self.precision, self.recall, self.f1)
        precision, recall, f1 = (None if row is None else float(column[row]) for column in columns)
        return Call(str(rule), threshold, precision, recall, f1, self.num_bound, self.num_unbound)

    def _row(self, rule: CallRule) -> int | None:
        """The row that a rule chooses; None where no row is good enough."""
        if rule.goal == "f1":
            return int(np.argmax(self.f1))
        if rule.goal == "recall":
            return int(np.argmax(self.recall >= rule.value - _ROUNDING))
        if rule.goal == "threshold":
            good = self.thresholds >= rule.value
        else:
            good = self.precision >= (rule.value if rule.goal == "precision" else 1 - rule.value) - _ROUNDING
        return int(np.flatnonzero(good)[-1]) if good.any() else None

    def _unattainable(self, rule: CallRule, tf: str) -> EbertError:
        best = int(np.argmax(self.precision))
        precision, recall = float(self.precision[best]), float(self.recall[best])
        if rule.goal == "precision":
            reached, hint = f"the best precision is {precision:.3f}", f"precision={np.floor(100 * precision) / 100:g}"
        else:
            reached, hint = f"the lowest FDR is {1 - precision:.3f}", f"fdr={np.ceil(100 * (1 - precision)) / 100:g}"
        return EbertError(
            f"{tf}: no threshold reaches {rule} on the model's {self.num_bound:,} bound validation bins; {reached}, "
            f"at recall {recall:.3f}",
            f"ask for less, for example --call-at {hint}",
        )

    def to_json(self) -> dict[str, Any]:
        """For a model's manifest: one list per column, and the numbers of bins."""
        return {
            "num_bound": self.num_bound,
            "num_unbound": self.num_unbound,
            "threshold": self.thresholds.tolist(),
            "precision": self.precision.tolist(),
            "recall": self.recall.tolist(),
            "f1": self.f1.tolist(),
            "fdr": (1 - self.precision).tolist(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ThresholdTable:
        """From a manifest; KeyError, TypeError or ValueError where it is not such a table."""
        columns = [np.asarray(value[name], np.float64) for name in ("threshold", "precision", "recall", "f1", "fdr")]
        table = cls(columns[0], columns[1], columns[2], int(value["num_bound"]), int(value["num_unbound"]))
        if len({column.shape for column in columns}) > 1 or columns[0].ndim != 1 or len(columns[0]) == 0:
            raise ValueError("the columns of a threshold table differ in length")
        if not all(((column >= 0) & (column <= 1)).all() for column in columns):
            raise ValueError("a threshold table holds a number that is not from 0 to 1")
        falling, rising = np.diff(table.thresholds) < 0, np.diff(table.recall) > 0
        if not (falling.all() and rising.all() and table.recall[-1] == 1):
            raise ValueError("a threshold table is not in order")
        if not np.allclose([table.f1, 1 - table.precision], columns[3:], rtol=0, atol=_ROUNDING):
            raise ValueError("the columns of a threshold table contradict each other")
        return table


@dataclass(frozen=True)
class Site:
    """A called site.

    Attributes:
        chrom, start, end: union of the 200-bp bins of the run, clipped so that neighbouring sites do not overlap.
        probability: of the run's best bin.
        summit: offset of the best bin's centre from `start`, bp.
    """

    chrom: str
    start: int
    end: int
    probability: float
    summit: int


@dataclass(frozen=True)
class _Run:
    """Bins over the threshold, near enough to be one site: numbers of the first, last and best bin, best value."""

    chrom: str
    first: int
    last: int
    best: int
    probability: float

    def before(self, other: _Run) -> _Run | None:
        """Both as one run, where `other` begins soon enough; of equal bins the earlier one is the best."""
        if self.chrom != other.chrom or other.first - self.last > _MAX_GAP:
            return None
        better = self if self.probability >= other.probability else other
        return _Run(self.chrom, self.first, other.last, better.best, better.probability)

    def site(self) -> Site:
        start, end = self.first * STRIDE_BP, self.last * STRIDE_BP + BIN_BP
        return Site(self.chrom, start, end, self.probability, self.best * STRIDE_BP + BIN_BP // 2 - start)


class SiteCaller:
    """Merges neighbouring bins over a threshold into non-overlapping sites, a stretch of a chromosome at a time.

    Bins that begin less than 200 bp apart overlap, so a run goes on over gaps of up to three bins; and from one stretch
    into the next.

    Args:
        threshold: a bin counts when its probability is at least this.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._open: _Run | None = None

    def add(self, chrom: str, bins: NDArray[np.int64], probabilities: NDArray[np.float32]) -> list[Site]:
        """The sites that are known to have ended.

        Args:
            bins: numbers of scored bins (start / 50), rising, beyond those of earlier calls for the chromosome; (n,).
            probabilities: theirs, shape (n,).
        """
        over = np.flatnonzero(probabilities >= self._threshold)
        if len(over) == 0:
            return []
        breaks = np.flatnonzero(np.diff(bins[over]) > _MAX_GAP) + 1
        sites = []
        for run in np.split(over, breaks):
            best = run[np.argmax(probabilities[run])]
            found = _Run(chrom, int(bins[run[0]]), int(bins[run[-1]]), int(bins[best]), float(probabilities[best]))
            longer = self._open.before(found) if self._open else None
            if self._open and longer is None:
                sites.append(self._open.site())
            self._open = longer or found
        return sites

    def finish(self) -> list[Site]:
        """The last site, where one is open."""
        sites = [self._open.site()] if self._open else []
        self._open = None
        return sites


def call_sites(chrom: str, probabilities: NDArray[np.float32], threshold: float) -> list[Site]:
    """The sites of a whole chromosome; see `SiteCaller`.

    Args:
        probabilities: of the bins at strides 0, 1, ... of the chromosome, shape (N,); NaN where not scored.
    """
    scored = np.flatnonzero(~np.isnan(probabilities))
    caller = SiteCaller(threshold)
    return [*caller.add(chrom, scored, probabilities[scored]), *caller.finish()]


def write_narrow_peak(sites: Iterable[Site], handle: TextIO) -> int:
    """Ten columns: name `.`, score 0-1000, signalValue = probability, no p or q value (-1), summit offset.

    Returns:
        how many sites there were.
    """
    num_sites = 0
    for site in sites:
        score = min(1000, round(1000 * site.probability))
        handle.write(
            f"{site.chrom}\t{site.start}\t{site.end}\t.\t{score}\t.\t{site.probability:.6g}\t-1\t-1\t{site.summit}\n"
        )
        num_sites += 1
    return num_sites
