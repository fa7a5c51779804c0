"""Where an entry would have come in the final round of the ENCODE-DREAM challenge, per pair and overall.

Built in are the four measures of every other entry on each of the ten subsamples (`final_round.tsv.gz`, from the score
tables that the challenge published). Source of every rule: the challenge's scoring and ranking code.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ebert_core.epigenome.cell_types import canonical_cell, fold
from ebert_core.errors import EbertError
from ebert_core.evaluation.measures import Floats, Thresholds, measures_at, thresholds
from ebert_core.evaluation.results import ChallengeRanks, OverallRank, PairRank
from ebert_core.io.text import read_sheet

Pair = tuple[str, str]
View = Literal["teams", "entries"]
Subsamples = NDArray[np.float64]

FINAL_PAIRS: Final[tuple[Pair, ...]] = (
    ("CTCF", "PC-3"),
    ("CTCF", "induced_pluripotent_stem_cell"),
    ("E2F1", "K562"),
    ("EGR1", "liver"),
    ("FOXA1", "liver"),
    ("FOXA2", "liver"),
    ("GABPA", "liver"),
    ("HNF4A", "liver"),
    ("JUND", "liver"),
    ("MAX", "liver"),
    ("NANOG", "induced_pluripotent_stem_cell"),
    ("REST", "liver"),
    ("TAF1", "liver"),
)
"""(TF, cell type) of the pairs that counted, in the challenge's spelling."""
RANKED_CHROMS: Final = ("chr1", "chr8", "chr21")
"""The held-out chromosomes. Rows are ordered by name as text: chr1, chr21, chr8, which is sorted(RANKED_CHROMS)."""
SUBSAMPLE_MEASURES: Final = ("auroc", "auprc", "recall_at_50_fdr", "recall_at_10_fdr")
"""Columns of a subsample table, as `Measures.as_dict` calls them."""
NUM_SUBSAMPLES: Final = 10

_SCORES: Final = Path(__file__).with_name("final_round.tsv.gz")
_VIEWS: Final[dict[View, str]] = {
    "teams": "one row per team, its last entry",
    "entries": "conference and final rounds apart",
}
_CELL_ALIASES: Final = {"iPSC": "induced_pluripotent_stem_cell"}
# What a missing pair costs, and the most that any pair can cost.
_WORST: Final = Fraction(1, 2)
# Under what the own entry stands among the others' names, none of which is empty.
_OWN: Final = ""
# Entry -> its ten ranks in one pair, float64 of shape (10,).
_Standing = dict[str, NDArray[np.float64]]


def final_pair(tf: str, cell: str) -> Pair | None:
    """The final pair that is meant, whatever the case and punctuation of the names; None where it is none of the 13."""
    for pair in FINAL_PAIRS:
        if fold(pair[0]) == fold(tf) and _folded_cell(pair[1]) == _folded_cell(cell):
            return pair
    return None


def _folded_cell(name: str) -> str:
    return fold(canonical_cell(name, _CELL_ALIASES))


def left_out(bound: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The number of the subsample that leaves each bin out.

    The tenths of bound and of unbound bins are contiguous in row order; the first n % 10 tenths of n bins have one
    more (the unshuffled, stratified 10-fold split of scikit-learn 0.17, which the challenge used).

    Args:
        bound: shape (N,); bound and unbound bins of the three chromosomes, ordered by `sorted(RANKED_CHROMS)`, then
            start. Ambiguous bins are a class of their own, so leaving them out first changes nothing.

    Returns:
        uint8 of shape (N,), 0 to 9.
    """
    out = np.empty(len(bound), np.uint8)
    for members in (bound, ~bound):
        each, more = divmod(int(np.count_nonzero(members)), NUM_SUBSAMPLES)
        sizes = np.full(NUM_SUBSAMPLES, each)
        sizes[:more] += 1
        out[members] = np.repeat(np.arange(NUM_SUBSAMPLES, dtype=np.uint8), sizes)
    return out


def subsample_measures(scores: Floats, bound: NDArray[np.bool_]) -> Subsamples:
    """The challenge's four measures on each of its ten subsamples, of 90 % of the bins each.

    All bins are sorted once, and each tenth once more: a subsample's counts are those of all bins less its tenth's.

    Args:
        scores: float32 or float64 of shape (N,); higher means more likely bound.
        bound: shape (N,), rows as `left_out` wants them.

    Returns:
        float64 of shape (10, 4): subsample, `SUBSAMPLE_MEASURES`.

    Raises:
        EbertError: a score is not a number, or fewer than two bins are bound, or fewer than two unbound.
    """
    total = thresholds(scores, bound)
    if min(total.num_bound, total.num_unbound) < 2:
        which = "bound" if total.num_bound < 2 else "unbound"
        raise EbertError(
            f"only one of the {len(scores):,} bins is {which}, so a subsample has none",
            "rank predictions on the challenge's chromosomes: " + ", ".join(RANKED_CHROMS),
        )
    tenth = left_out(bound)
    table = np.empty((NUM_SUBSAMPLES, len(SUBSAMPLE_MEASURES)))
    for number in range(NUM_SUBSAMPLES):
        out = tenth == number
        measured = measures_at(_without(total, scores[out], scores[out & bound])).as_dict()
        table[number] = [measured[name] for name in SUBSAMPLE_MEASURES]
    return table


def _without(total: Thresholds, scores: Floats, positives: Floats) -> Thresholds:
    """The counts with some bins taken out: all of their scores, and those of the bound ones among them."""
    every, bound = np.sort(scores), np.sort(positives)
    bound_at_least = len(bound) - np.searchsorted(bound, total.scores, side="left")
    bound_above = len(bound) - np.searchsorted(bound, total.scores, side="right")
    any_at_least = len(every) - np.searchsorted(every, total.scores, side="left")
    any_above = len(every) - np.searchsorted(every, total.scores, side="right")
    left = total.bound - bound_at_least
    kept = np.diff(left, prepend=0) > 0  # thresholds at which a bound bin is left
    return Thresholds(
        scores=total.scores[kept],
        bound=left[kept],
        unbound_above=(total.unbound_above - (any_above - bound_above))[kept],
        unbound=(total.unbound - (any_at_least - bound_at_least))[kept],
        num_bound=total.num_bound - len(bound),
        num_unbound=total.num_unbound - (len(every) - len(bound)),
    )


@dataclass(frozen=True)
class FinalRound:
    """The entries that were there.

    Attributes:
        pairs: each of `FINAL_PAIRS` -> entry -> float64 (10, 4), as `subsample_measures` gives it. Not every entry has
            every pair.
        source: where the figures come from, in words.
    """

    pairs: Mapping[Pair, Mapping[str, Subsamples]]
    source: str

    @property
    def names(self) -> tuple[str, ...]:
        """Every entry with at least one pair."""
        return tuple(sorted({name for entries in self.pairs.values() for name in entries}))


@functools.cache
def load_final_round(view: View = "teams") -> FinalRound:
    """The published scores.

    Args:
        view: 'teams': one entry per team, in each pair that of the final round where there is one, else that of the
            conference round. 'entries': both apart, named `TEAM (final)` and `TEAM (conference)`, as the organisers
            ranked them.
    """
    tables: dict[tuple[Pair, str, str], Subsamples] = {}
    columns = ("tf", "cell_type", "team", "round", "subsample", *SUBSAMPLE_MEASURES)
    for _, row in read_sheet(_SCORES, columns):
        key = ((row["tf"], row["cell_type"]), row["team"], row["round"])
        table = tables.setdefault(key, np.full((NUM_SUBSAMPLES, len(SUBSAMPLE_MEASURES)), np.nan))
        table[int(row["subsample"])] = [float(row[name]) for name in SUBSAMPLE_MEASURES]
    pairs: dict[Pair, dict[str, Subsamples]] = {pair: {} for pair in FINAL_PAIRS}
    # 'conference' comes before 'final', so that a team's final entry replaces the other.
    for pair, team, when in sorted(tables):
        if pair in pairs:  # ATF2 in HepG2 was scored and does not count
            pairs[pair][team if view == "teams" else f"{team} ({when})"] = tables[pair, team, when]
    return FinalRound(pairs, f"the challenge's published score tables of the final round, {_VIEWS[view]}")


def average_ranks(measures: Subsamples) -> NDArray[np.float64]:
    """The rank of every entry of a pair on every subsample.

    r is an entry's rank on one measure, 1 the highest value, ties averaged. Entries are ranked by the sum of
    ln(r / (N + 1)) over the measures, lowest first, ties averaged.

    The logarithms are added as floats in the order of `SUBSAMPLE_MEASURES`, so ranks such as (1, 2, 3, 3) and
    (3, 3, 2, 1), tied in exact arithmetic, may be told apart by the last bit. The challenge's code adds floats too, in
    the opposite order.

    Args:
        measures: shape (N, 10, 4), N entries; higher is better.

    Returns:
        float64 of shape (N, 10), 1 the best.
    """
    num_entries = len(measures)
    # numpy's logarithm differs in the last bit between processors; that of the C library is the same on most.
    logs = np.array([math.log(half / (2 * (num_entries + 1))) for half in range(1, 2 * num_entries + 1)])
    score = np.zeros(measures.shape[:2])
    for number in range(measures.shape[2]):
        score += logs[np.rint(2 * _ranks(-measures[:, :, number])).astype(np.int64) - 1]
    return _ranks(score)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks along the first axis of a two-dimensional array, the lowest value 1, ties averaged."""
    lower = (values[None] < values[:, None]).sum(axis=1)
    equal = (values[None] == values[:, None]).sum(axis=1)
    return lower + (equal + 1) / 2


def _reported(ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rank that counts: the second smallest of the ten, over the last axis."""
    return np.sort(ranks, axis=-1)[..., 1]


def overall_ranks(others: FinalRound) -> tuple[OverallRank, ...]:
    """The final round as it was, best first; see `rank_entry`."""
    return _overall([_standing(others.pairs[pair]) for pair in FINAL_PAIRS], others.names)


def rank_entry(name: str, own: Mapping[Pair, Subsamples], others: FinalRound | None = None) -> ChallengeRanks:
    """Where one more entry would have come.

    On each subsample an entry's score is the sum over the 13 pairs of min(0.5, rank / (N + 1)), with 0.5 for a pair
    that it lacks; entries are ranked by it, ties averaged. The reported rank is the second smallest of the ten, the
    reported score the mean over the subsamples of score / 13.

    Args:
        name: what the entry is called; another entry may be called the same.
        own: pair of `FINAL_PAIRS` -> what `subsample_measures` gave; pairs may be missing.
        others: by default one row per team.

    Raises:
        EbertError: a pair that is not one of the 13, or a measure that is not a number.
    """
    others = others or load_final_round()
    for pair, table in own.items():
        _check(pair, table)
    standings = [_standing(others.pairs[pair], own.get(pair)) for pair in FINAL_PAIRS]
    pairs = {
        pair: _pair_rank(pair, standing, own[pair], others.pairs[pair])
        for pair, standing in zip(FINAL_PAIRS, standings, strict=True)
        if pair in own
    }
    return ChallengeRanks(
        name=name,
        pairs=tuple(rank for rank, _ in pairs.values()),
        missing=tuple(pair for pair in FINAL_PAIRS if pair not in own),
        overall=_overall(standings, others.names, name),
        wins=sum(won for _, won in pairs.values()),
        source=others.source,
    )


def _check(pair: Pair, table: Subsamples) -> None:
    name = "/".join(pair)
    if pair not in FINAL_PAIRS:
        known = ", ".join("/".join(each) for each in FINAL_PAIRS)
        raise EbertError(f"{name} is not one of the challenge's final pairs", f"they are {known}")
    if table.shape != (NUM_SUBSAMPLES, len(SUBSAMPLE_MEASURES)):
        raise ValueError(f"the measures of {name} have shape {table.shape}")
    if not np.isfinite(table).all():
        raise EbertError(f"a measure of {name} is not a number", "evaluate the pair anew")


def _standing(entries: Mapping[str, Subsamples], own: Subsamples | None = None) -> _Standing:
    everybody = {**entries} if own is None else {**entries, _OWN: own}
    return dict(zip(everybody, average_ranks(np.stack(list(everybody.values()))), strict=True))


def _pair_rank(
    pair: Pair, standing: _Standing, own: Subsamples, entries: Mapping[str, Subsamples]
) -> tuple[PairRank, bool]:
    """The own entry's place in a pair, and whether it ranks before every other."""
    rank = {entry: float(_reported(ranks)) for entry, ranks in standing.items()}
    column = SUBSAMPLE_MEASURES.index("auprc")
    auprc = {entry: float(table[:, column].mean()) for entry, table in entries.items()}
    best = min(entries, key=lambda entry: (rank[entry], -auprc[entry], entry))
    found = PairRank(
        tf=pair[0],
        cell=pair[1],
        rank=rank[_OWN],
        num_entries=len(standing),
        best_team=best,
        auprc=float(own[:, column].mean()),
        best_auprc=max(auprc.values()),
    )
    return found, rank[_OWN] < rank[best]


def _overall(
    standings: Sequence[_Standing], names: Sequence[str], own_name: str | None = None
) -> tuple[OverallRank, ...]:
    everybody = [*names] if own_name is None else [*names, _OWN]
    # Exact fractions: sums that are equal stay tied, in whatever order pairs and entries come.
    total = [[sum(costs, Fraction(0)) for costs in _costs(standings, entry)] for entry in everybody]
    distinct = sorted({cost for costs in total for cost in costs})
    order = np.array([[bisect_left(distinct, cost) for cost in costs] for costs in total], float)
    rank = _reported(_ranks(order))
    score = [float(sum(costs) / (NUM_SUBSAMPLES * len(standings))) for costs in total]
    lines = [
        OverallRank(own_name or "" if entry == _OWN else entry, score[i], float(rank[i]), entry == _OWN)
        for i, entry in enumerate(everybody)
    ]
    return tuple(sorted(lines, key=lambda line: (line.rank, line.score, line.own, line.name)))


def _costs(standings: Sequence[_Standing], entry: str) -> list[tuple[Fraction, ...]]:
    """What each pair costs an entry, per subsample."""
    missing = [_WORST] * NUM_SUBSAMPLES
    per_pair = [
        [min(_WORST, Fraction(rank) / (len(standing) + 1)) for rank in standing[entry].tolist()]
        if entry in standing
        else missing
        for standing in standings
    ]
    return list(zip(*per_pair, strict=True))
