"""Measures against an example by hand, the definitions in exact fractions, numerical integration, and R.

PRROC's `auc.davis.goadrich` scored the ENCODE-DREAM challenge. Where it is not to be had, its definition is: between
neighbouring thresholds true positives rise one at a time and false positives linearly.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from fractions import Fraction
from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebert_core.evaluation.measures import FDR_PERCENTS, measure


def random_ranking(seed, num_bins, num_bound, decimals=None):
    rng = np.random.default_rng(seed)
    bound = np.zeros(num_bins, bool)
    bound[rng.choice(num_bins, num_bound, replace=False)] = True
    scores = 1 / (1 + np.exp(2 - rng.normal(0, 1, num_bins) - rng.normal(2, 1.5, num_bins) * bound))
    return (scores if decimals is None else np.round(scores, decimals)), bound


RANKINGS = {
    "all distinct": random_ranking(1, 800, 40),
    "ties": random_ranking(2, 800, 40, decimals=1),
    "half bound": random_ranking(3, 600, 300, decimals=2),
    "one bound": random_ranking(4, 300, 1),
    "one bound among ties": random_ranking(4, 300, 1, decimals=1),
    "one unbound": random_ranking(5, 300, 299),
    "all zero": (np.zeros(200), np.arange(200) % 10 == 0),
    "inverted": (-random_ranking(6, 400, 20)[0], random_ranking(6, 400, 20)[1]),
    "perfect": ((np.arange(100) < 7) * 0.5, np.arange(100) < 7),
    "unbound on top": (
        np.append(random_ranking(7, 300, 15)[0], [2, 2, 3]),
        np.append(np.arange(300) < 15, [0, 0, 0]) > 0,
    ),
}
every_ranking = pytest.mark.parametrize("name", RANKINGS)


def operating_points(scores, bound):
    """(true positives, false positives) at each threshold, from (0, 0) and the highest score down."""
    ranked = sorted(zip(scores.tolist(), bound.tolist(), strict=True), reverse=True)
    points = [(0, 0)]
    for _, group in groupby(ranked, key=lambda row: row[0]):
        labels = [label for _, label in group]
        points.append((points[-1][0] + sum(labels), points[-1][1] + len(labels) - sum(labels)))
    return points


def by_definition(scores, bound):
    """Every measure in exact fractions."""
    points = operating_points(scores, bound)
    total, negatives = points[-1]
    area = average = Fraction(0)
    pairs = Fraction(0)
    recalls = dict.fromkeys(FDR_PERCENTS, Fraction(0))
    for (true, false), (next_true, next_false) in pairwise(points):
        gained = next_true - true
        pairs += gained * (negatives - Fraction(false + next_false, 2))
        precision = Fraction(next_true, next_true + next_false)
        average += gained * precision
        for percent in FDR_PERCENTS:
            if precision >= 1 - Fraction(percent, 100):
                recalls[percent] = max(recalls[percent], Fraction(next_true, total))
        along = [
            (true + step, false + Fraction(next_false - false, gained) * step) for step in range(gained + 1) if gained
        ]
        # Without any bin called, precision is what it tends to along the line from (0, 0).
        heights = [one / (one + other) if one + other else precision for one, other in along]
        area += sum((heights[step] + heights[step + 1]) / 2 for step in range(gained))
    return {
        "auroc": pairs / (total * negatives),
        "auprc": area / total,
        "average_precision": average / total,
        **{f"recall_at_{percent}_fdr": recall for percent, recall in recalls.items()},
    }


def check(scores, bound):
    found = measure(scores, bound).as_dict()
    for key, exact in by_definition(scores, bound).items():
        assert found[key] == pytest.approx(float(exact), abs=2e-15), key


def test_an_example_worked_out_by_hand():
    # score    .9  .8  .7  .6 .6 .6 .6  .5  .4  .3  .2      5 bound (B), 6 unbound (U)
    # label     B   U   B   B  B  U  U   U   B   U   U
    # TP        1   1   2        4       4   5   5   5
    # FP        0   1   1        3       4   4   5   6
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.6, 0.6, 0.6, 0.5, 0.4, 0.3, 0.2])
    bound = np.array([letter == "B" for letter in "BUBBBUUUBUU"])
    found = measure(scores, bound)
    # Bound bins above each unbound one, ties 1/2: .8 has 1, each .6 has 2 + 2/2, .5 has 4, .3 and .2 have 5: 21 of 30.
    assert found.auroc == pytest.approx(21 / 30, abs=1e-15)
    # Precision where bound bins are gained: 1 of 1; 2 of 3; 4 of 7, twice; 5 of 9.
    assert found.average_precision == pytest.approx((1 + 2 / 3 + 2 * 4 / 7 + 5 / 9) / 5, abs=1e-15)
    # Precision at true positives 0 to 1: 1, 1. 1 to 2, after an unbound bin: 1/2, 2/3. 2 to 4, false positives 1, 2, 3:
    # 2/3, 3/5, 4/7. 4 to 5, after another unbound bin: 4/8, 5/9. Trapezia 1, 7/12, 19/30, 41/70, 19/36: 1049/315.
    assert found.auprc == pytest.approx(1049 / 315 / 5, abs=1e-15)
    # Precisions 1, 1/2, 2/3, 4/7, 1/2, 5/9, 1/2, 5/11: 75 % only at the first, 50 % last where all five are called.
    assert found.recall_at_fdr == {5: 0.2, 10: 0.2, 25: 0.2, 50: 1.0}


@every_ranking
def test_definitions_in_fractions(name):
    check(*RANKINGS[name])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), max_size=40), st.booleans())
def test_definitions_in_fractions_on_any_ranking(rows, top):
    rows = [(4 if top else -4, False), *rows, (0, True)]
    check(np.array([score for score, _ in rows], np.float32), np.array([label for _, label in rows]))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-9, 9), st.booleans()), max_size=40), st.randoms(use_true_random=False))
def test_only_the_order_counts(rows, random):
    rows = [*rows, (0, True), (0, False)]
    shuffled = random.sample(rows, len(rows))
    scores, bound = np.array([score for score, _ in rows], float), np.array([label for _, label in rows])
    moved = np.array([np.exp(score / 3) - 7 for score, _ in shuffled], np.float32)
    assert measure(moved, np.array([label for _, label in shuffled])) == measure(scores, bound)
    assert measure(-scores, bound).auroc == pytest.approx(1 - measure(scores, bound).auroc, abs=1e-15)
    assert measure(-scores, ~bound).auroc == pytest.approx(measure(scores, bound).auroc, abs=1e-15)


def area_by_steps(points, steps):
    """Trapezia under the interpolated curve, `steps` of them per true positive; and how far one may be from many.

    Between thresholds precision (s + x) / (c + d x) bends one way, so that a trapezium misses at most an eighth of the
    change of its slope.
    """
    total, area, most = points[-1][0], 0.0, 0.0
    for (true, false), (next_true, next_false) in pairwise(points):
        gained = next_true - true
        if gained:
            x = np.linspace(0, gained, gained * steps + 1)
            called, growth = true + false, 1 + (next_false - false) / gained
            heights = (true + x) / (called + growth * x) if called else np.full(len(x), 1 / growth)
            area += np.trapezoid(heights, x)
            slopes = [(called - growth * true) / (called + growth * at) ** 2 if called else 0 for at in (0, gained)]
            most += abs(slopes[1] - slopes[0]) / 8
    return area / total, most / total


@every_ranking
def test_numerical_integration_of_the_interpolated_curve(name):
    scores, bound = RANKINGS[name]
    points, found = operating_points(scores, bound), measure(scores, bound).auprc
    coarse, most = area_by_steps(points, 1)
    assert found == pytest.approx(coarse, abs=1e-14)
    fine, _ = area_by_steps(points, 1000)
    assert abs(found - fine) <= most + 1e-6
    assert most < 0.02 or bound.sum() == 1


R_PROGRAM = """
rows <- read.csv(commandArgs(TRUE)[1])
for (name in unique(rows$name)) {
  score <- rows$score[rows$name == name]
  bound <- rows$bound[rows$name == name] == 1
  positive <- as.numeric(sum(bound))
  pairs <- wilcox.test(score[bound], score[!bound], exact = FALSE)$statistic
  thresholds <- sort(unique(score), decreasing = TRUE)
  true <- c(0, sapply(thresholds, function(at) sum(score >= at & bound)))
  false <- c(0, sapply(thresholds, function(at) sum(score >= at & !bound)))
  area <- 0
  for (k in seq_along(thresholds)) {
    gained <- true[k + 1] - true[k]
    if (gained > 0) {
      t <- true[k] + 0:gained
      precision <- t / (t + approx(c(true[k], true[k + 1]), c(false[k], false[k + 1]), t)$y)
      if (is.nan(precision[1])) precision[1] <- precision[2]
      area <- area + sum(head(precision, -1) + tail(precision, -1)) / 2
    }
  }
  precision <- (true / (true + false))[-1]
  recall <- (true / positive)[-1]
  at <- sapply(c(5, 10, 25, 50), function(x) max(0, recall[precision >= 1 - x / 100 - 1e-12]))
  average <- sum(diff(c(0, recall)) * precision)
  figures <- c(pairs / (positive * sum(!bound)), area / positive, average, at)
  cat(name, format(unname(figures), digits = 17, trim = TRUE), sep = "\\t")
  cat("\\n")
}
"""


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="needs Rscript (Debian: r-base-core)")
def test_base_r_agrees(tmp_path):
    program, table = tmp_path / "measures.R", tmp_path / "rankings.csv"
    program.write_text(R_PROGRAM)
    with table.open("w", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(["name", "score", "bound"])
        for name, (scores, bound) in RANKINGS.items():
            rows.writerows((name, repr(score), int(label)) for score, label in zip(scores.tolist(), bound, strict=True))
    done = subprocess.run(
        ["Rscript", "--vanilla", program, table],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    found = {line.split("\t")[0]: [float(field) for field in line.split("\t")[1:]] for line in done.stdout.splitlines()}
    assert list(found) == list(RANKINGS)
    for name, (scores, bound) in RANKINGS.items():
        ours = measure(scores, bound)
        expected = [ours.auroc, ours.auprc, ours.average_precision, *ours.recall_at_fdr.values()]
        assert found[name] == pytest.approx(expected, abs=1e-12), name
