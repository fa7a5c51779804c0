"""Ranks of the challenge: its check values, scipy's ranks, scikit-learn's folds, and entries whose place is plain."""

from __future__ import annotations

import gzip
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, StratifiedKFold

from ebert_core.errors import EbertError
from ebert_core.evaluation.measures import measure
from ebert_core.evaluation.ranking import (
    FINAL_PAIRS,
    RANKED_CHROMS,
    SUBSAMPLE_MEASURES,
    FinalRound,
    average_ranks,
    final_pair,
    left_out,
    load_final_round,
    overall_ranks,
    rank_entry,
    subsample_measures,
)

PERFECT = np.ones((10, 4))


def slow_left_out(labels):
    """The split of scikit-learn 0.17: every class cut by its own unshuffled 10-fold split, then trimmed."""
    folds = np.zeros(len(labels), int)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        for number, (_, test) in enumerate(KFold(10).split(np.zeros(max(len(rows), 10)))):
            folds[rows[test[test < len(rows)]]] = number
    return folds


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from("UUUAB"), min_size=1, max_size=120))
def test_left_out_as_scikit_learn_had_it(letters):
    labels = np.array(letters)
    clear = labels != "A"
    found = left_out(labels[clear] == "B")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, slow_left_out(labels)[clear])


@pytest.mark.parametrize(("bound", "unbound"), [(10, 40), (40, 200), (30, 1000), (23, 209), (19, 101), (15, 15)])
def test_left_out_against_todays_scikit_learn(bound, unbound):
    labels = np.random.default_rng(bound).permutation(np.repeat([True, False], [bound, unbound]))
    found = left_out(labels)
    theirs = np.empty(len(labels), int)
    for number, (_, test) in enumerate(StratifiedKFold(10).split(np.zeros(len(labels)), labels)):
        theirs[test] = number
    if bound % 10 == unbound % 10 == 0:
        np.testing.assert_array_equal(found, theirs)
    for kind in (labels, ~labels):
        assert (np.diff(found[kind].astype(int)) >= 0).all()  # contiguous, in row order
        ours = np.bincount(found[kind], minlength=10)
        assert ours.tolist() == sorted(ours.tolist(), reverse=True)  # the first tenths have one more
        assert np.abs(ours - np.bincount(theirs[kind], minlength=10)).max() <= 1


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(2, 40), st.integers(2, 300), st.sampled_from([2, 5, 1000]))
def test_subsample_measures_against_measuring_each(seed, num_bound, num_unbound, levels):
    rng = np.random.default_rng(seed)
    bound = rng.permutation(np.repeat([True, False], [num_bound, num_unbound]))
    scores = (rng.integers(0, levels, len(bound)) + 0.3 * levels * bound).astype(np.float32)
    found = subsample_measures(scores, bound)
    assert found.shape == (10, 4)
    folds = slow_left_out(bound)
    for number in range(10):
        kept = folds != number
        whole = measure(scores[kept], bound[kept])
        assert found[number].tolist() == [whole.as_dict()[name] for name in SUBSAMPLE_MEASURES]
        assert found[number, 0] == pytest.approx(roc_auc_score(bound[kept], scores[kept]))


def test_subsample_measures_are_lean():
    rng = np.random.default_rng(0)
    bound = rng.random(1_000_000) < 0.01
    scores = rng.random(len(bound), dtype=np.float32)
    tracemalloc.start()
    subsample_measures(scores, bound)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * scores.nbytes


@pytest.mark.parametrize(
    ("scores", "bound", "message"),
    [
        ([0.5, np.nan, 1, 0], [True, True, False, False], "1 scores are not numbers"),
        ([0.5, 0, 1, 0], [True, False, False, False], "only one of the 4 bins is bound"),
        ([0.5, 0, 1, 0], [True, True, False, True], "only one of the 4 bins is unbound"),
        ([0.5, 0, 1, 0], [False] * 4, "none of the 4 bins is bound"),
    ],
)
def test_no_ranking_of_such_scores(scores, bound, message):
    with pytest.raises(EbertError, match=message):
        subsample_measures(np.array(scores, np.float32), np.array(bound))


@pytest.mark.parametrize(
    ("tf", "cell", "pair"),
    [
        ("CTCF", "PC-3", ("CTCF", "PC-3")),
        ("ctcf", "pc3", ("CTCF", "PC-3")),
        ("CTCF", "iPSC", ("CTCF", "induced_pluripotent_stem_cell")),
        ("Nanog", "IPSC", ("NANOG", "induced_pluripotent_stem_cell")),
        ("NANOG", "induced pluripotent stem cell", ("NANOG", "induced_pluripotent_stem_cell")),
        ("MAX", "Liver", ("MAX", "liver")),
        ("MAX", "E066", ("MAX", "liver")),
        ("E2F1", "E123", ("E2F1", "K562")),
        ("ATF2", "HepG2", None),
        ("CTCF", "K562", None),
        ("MAX", "iPSC", None),
        ("", "", None),
    ],
)
def test_names_of_the_final_pairs(tf, cell, pair):
    assert final_pair(tf, cell) == pair


def test_every_final_pair_names_itself():
    assert [final_pair(*pair) for pair in FINAL_PAIRS] == list(FINAL_PAIRS)
    assert len(set(FINAL_PAIRS)) == 13
    assert sorted(RANKED_CHROMS) == ["chr1", "chr21", "chr8"]


def test_what_is_built_in():
    teams, entries = load_final_round(), load_final_round("entries")
    assert len(teams.names) == 42
    assert len(entries.names) == 52
    for found in (teams, entries):
        assert tuple(found.pairs) == FINAL_PAIRS
        tables = np.stack([table for pair in found.pairs.values() for table in pair.values()])
        assert tables.shape[1:] == (10, 4)
        assert ((tables >= 0) & (tables <= 1)).all()
    best = {pair: max(table[:, 1].max() for table in tables.values()) for pair, tables in teams.pairs.items()}
    assert round(best["CTCF", "induced_pluripotent_stem_cell"], 2) == 0.86
    assert round(best["HNF4A", "liver"], 2) == 0.62
    # A team without a final entry for a pair stands with its conference entry.
    lacking = [pair for pair in FINAL_PAIRS if "autosome.ru (final)" not in entries.pairs[pair]]
    assert len(lacking) == 1
    np.testing.assert_array_equal(
        teams.pairs[lacking[0]]["autosome.ru"], entries.pairs[lacking[0]]["autosome.ru (conference)"]
    )


@pytest.mark.real
def test_every_built_in_figure_is_the_published_one(real_data):
    with gzip.open(real_data / "dream" / "final_round_scores.tsv.gz", "rt") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines]
    assert rows[0][5:] == list(SUBSAMPLE_MEASURES)
    entries = load_final_round("entries")
    counted = [row for row in rows[1:] if row[0] != "ATF2"]
    for tf, cell, team, when, number, *figures in counted:
        assert entries.pairs[tf, cell][f"{team} ({when})"][int(number)].tolist() == [float(each) for each in figures]
    assert len(counted) == 10 * sum(map(len, entries.pairs.values()))


CHECK_VALUES = {
    "teams": [
        ("yuanfang.guan", 1, 0.0648), ("J-Team", 2, 0.0775), ("dxquang", 3, 0.1297), ("autosome.ru", 4, 0.1371),
        ("adbc", 4, 0.1400), ("HINT", 6, 0.1964),
    ],
    "entries": [
        ("yuanfang.guan (final)", 1, 0.0613), ("J-Team (final)", 2, 0.0704), ("dxquang (final)", 3, 0.1225),
        ("adbc (final)", 4, 0.1456), ("autosome.ru (conference)", 4, 0.1466), ("autosome.ru (final)", 6, 0.1551),
    ],
}  # fmt: skip


@pytest.mark.parametrize("view", CHECK_VALUES)
def test_check_values_of_the_final_round(view):
    overall = overall_ranks(load_final_round(view))
    assert [(line.name, line.rank, round(line.score, 4)) for line in overall[:6]] == CHECK_VALUES[view]
    assert not any(line.own for line in overall)


def slow_average_ranks(tables):
    """Entry -> ten ranks, one subsample and measure at a time."""
    names = list(tables)
    out = {name: [] for name in names}
    for number in range(10):
        total = [0.0] * len(names)
        for column in range(4):
            ranks = rankdata([-tables[name][number, column] for name in names], "average")
            total = [each + math.log(rank / (len(names) + 1)) for each, rank in zip(total, ranks, strict=True)]
        for name, rank in zip(names, rankdata(total, "average"), strict=True):
            out[name].append(rank)
    return out


def slow_overall(pairs, names):
    """(name, score, rank) of every entry; pairs: one dict of tables per pair."""
    ranks = [slow_average_ranks(tables) for tables in pairs]
    by_subsample = []
    for number in range(10):
        by_subsample.append(
            [
                sum(min(0.5, pair[name][number] / (len(pair) + 1)) if name in pair else 0.5 for pair in ranks)
                for name in names
            ]
        )
    # Rounded, because equal sums that were added in another order are ties.
    places = np.array([rankdata(np.round(scores, 9), "average") for scores in by_subsample])
    means = np.mean(by_subsample, axis=0) / len(pairs)
    return [(name, means[i], sorted(places[:, i])[1]) for i, name in enumerate(names)]


@pytest.mark.parametrize("view", CHECK_VALUES)
def test_the_whole_final_round_against_a_slow_ranking(view):
    found = load_final_round(view)
    for tables in found.pairs.values():
        slow = slow_average_ranks(tables)
        ranks = average_ranks(np.stack(list(tables.values())))
        assert dict(zip(tables, ranks.tolist(), strict=True)) == slow
    expected = {name: (score, rank) for name, score, rank in slow_overall(list(found.pairs.values()), found.names)}
    for line in overall_ranks(found):
        assert (line.score, line.rank) == pytest.approx(expected[line.name], abs=1e-12)


def made_up(seed, num_entries, levels=20):
    """A final round with ties and missing entries."""
    rng = np.random.default_rng(seed)
    pairs = {}
    for pair in FINAL_PAIRS:
        there = [number for number in range(num_entries) if number == 0 or rng.random() < 0.8]
        pairs[pair] = {f"T{number}": rng.integers(0, levels, (10, 4)) / levels for number in there}
    return FinalRound(pairs, "made up")


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32), st.integers(1, 6), st.sampled_from([2, 4, 1000]), st.integers(0, 13))
@example(4, 4, 4, 4)
def test_an_entry_against_a_slow_ranking(seed, num_entries, levels, num_own):
    others = made_up(seed, num_entries, levels)
    rng = np.random.default_rng(seed + 1)
    chosen = rng.permutation(13)[:num_own].tolist()
    own = {FINAL_PAIRS[i]: rng.integers(0, levels, (10, 4)) / levels for i in chosen}
    found = rank_entry("mine", own, others)
    with_own = [{**others.pairs[pair], **({"mine": own[pair]} if pair in own else {})} for pair in FINAL_PAIRS]
    expected = {name: rest for name, *rest in slow_overall(with_own, [*others.names, "mine"])}
    assert {line.name for line in found.overall} == set(expected)
    for line in found.overall:
        assert [line.score, line.rank] == pytest.approx(expected[line.name], abs=1e-12)
        assert line.own == (line.name == "mine")
    assert [(line.rank, line.score) for line in found.overall] == sorted(
        (line.rank, line.score) for line in found.overall
    )
    assert found.missing == tuple(pair for pair in FINAL_PAIRS if pair not in own)
    assert [(each.tf, each.cell) for each in found.pairs] == [pair for pair in FINAL_PAIRS if pair in own]
    wins = 0
    for each in found.pairs:
        pair = (each.tf, each.cell)
        reported = {
            name: sorted(ranks)[1] for name, ranks in slow_average_ranks(with_own[FINAL_PAIRS.index(pair)]).items()
        }
        best = min(rank for name, rank in reported.items() if name != "mine")
        assert each.rank == reported["mine"]
        assert reported[each.best_team] == best
        assert each.num_entries == len(reported)
        assert each.auprc == pytest.approx(own[pair][:, 1].mean())
        assert each.best_auprc == pytest.approx(max(table[:, 1].mean() for table in others.pairs[pair].values()))
        wins += each.rank < best
    assert found.wins == wins


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32), st.permutations(range(6)), st.permutations(range(13)))
def test_the_order_of_entries_and_pairs_does_not_matter(seed, order, pair_order):
    others = made_up(seed, 6)
    own = {pair: np.random.default_rng(seed).random((10, 4)) for pair in FINAL_PAIRS[:9]}
    pairs = {
        FINAL_PAIRS[i]: {
            f"T{number}": table
            for number in order
            if (table := others.pairs[FINAL_PAIRS[i]].get(f"T{number}")) is not None
        }
        for i in pair_order
    }
    shuffled = rank_entry("mine", dict(reversed(own.items())), FinalRound(pairs, "made up"))
    assert shuffled == rank_entry("mine", own, others)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32))
def test_only_the_order_of_measures_matters(seed):
    others = made_up(seed, 5)
    own = {pair: np.random.default_rng(seed).integers(0, 20, (10, 4)) / 20 for pair in FINAL_PAIRS}

    def bent(table):
        return table**3 / 7

    also = FinalRound(
        {pair: {name: bent(table) for name, table in tables.items()} for pair, tables in others.pairs.items()}, ""
    )
    straight, changed = rank_entry("x", own, others), rank_entry("x", {pair: bent(own[pair]) for pair in own}, also)
    assert straight.overall == changed.overall
    assert [each.rank for each in straight.pairs] == [each.rank for each in changed.pairs]


def test_a_perfect_entry_wins_everything():
    found = rank_entry("perfect", dict.fromkeys(FINAL_PAIRS, PERFECT))
    assert found.wins == 13
    assert found.missing == ()
    assert {each.rank for each in found.pairs} == {1.0}
    assert all(each.best_auprc < each.auprc == 1 for each in found.pairs)
    assert [(line.name, line.rank, line.own) for line in found.overall[:2]] == [
        ("perfect", 1, True), ("yuanfang.guan", 2, False)
    ]  # fmt: skip
    costs = [1 / (each.num_entries + 1) for each in found.pairs]
    assert found.overall[0].score == pytest.approx(np.mean(costs))
    assert "one row per team" in found.source


def test_an_entry_that_equals_the_best_team_shares_its_ranks():
    teams = load_final_round()
    own = {pair: tables["yuanfang.guan"] for pair, tables in teams.pairs.items()}
    found = rank_entry("yuanfang.guan", own)  # a name may come twice
    first, second = found.overall[:2]
    assert (first.name, first.rank, first.score) == (second.name, second.rank, second.score)
    assert first.rank == 1.5
    assert {first.own, second.own} == {True, False}
    assert found.wins == 0
    for each in found.pairs:
        if each.best_team == "yuanfang.guan":
            assert each.rank >= 1.5


def test_an_entry_without_a_pair():
    found = rank_entry("nothing", {})
    assert found.pairs == ()
    assert found.missing == FINAL_PAIRS
    assert found.wins == 0
    own = next(line for line in found.overall if line.own)
    assert own.score == 0.5
    # The others stand as they stood without it; who scored nothing either shares its rank.
    before = {line.name: line for line in overall_ranks(load_final_round())}
    for line in found.overall:
        if not line.own:
            assert line.score == before[line.name].score
            assert line.rank == (own.rank if line.score == 0.5 else before[line.name].rank)


def test_a_worse_entry_costs_no_more_than_a_missing_pair():
    worst = rank_entry("worst", dict.fromkeys(FINAL_PAIRS, np.zeros((10, 4))))
    assert next(line.score for line in worst.overall if line.own) == 0.5
    assert all(each.rank > each.num_entries - 4 for each in worst.pairs)


def test_what_cannot_be_ranked():
    with pytest.raises(EbertError, match="ATF2/HepG2 is not one of") as caught:
        rank_entry("x", {("ATF2", "HepG2"): PERFECT})
    assert "E2F1/K562" in caught.value.hint
    with pytest.raises(EbertError, match="a measure of MAX/liver is not a number"):
        rank_entry("x", {("MAX", "liver"): np.full((10, 4), np.nan)})
    with pytest.raises(ValueError, match="MAX/liver have shape"):
        rank_entry("x", {("MAX", "liver"): PERFECT[:9]})
