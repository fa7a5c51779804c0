"""Loci: the choice against a full sort in plain Python, the cuts against painting every base."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebert_core.evaluation.loci import choose_loci, cut_labels, cut_states, cut_track, stretch_around
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.labels import AMBIGUOUS, BOUND, UNBOUND

WIDTH = 1_000


@st.composite
def rankings(draw):
    """Two chromosomes of bins with gaps, few distinct scores (many ties), and a few bound bins."""
    lengths = {"chr2": draw(st.integers(700, 6_000)), "chr1": draw(st.integers(200, 5_000))}
    starts, bound, scores = {}, [], []
    for chrom, length in lengths.items():
        every = range(0, length - 199, 50)
        gap = draw(st.integers(0, length))
        holes = draw(st.sampled_from([9, 200]))
        kept = [start for start in every if draw(st.integers(0, holes)) and not gap < start < gap + 1_100]
        starts[chrom] = np.array(kept, np.int64)
        rare = draw(st.sampled_from([5, 40]))
        bound += [draw(st.integers(0, rare)) == 0 for _ in kept]
        scores += [draw(st.integers(-2, 4)) / 4 for _ in kept]
    assembly = Assembly.from_sizes(lengths.items())
    return starts, np.array(bound, bool), np.array(scores, np.float32), assembly


def plain_choice(starts, bound, scores, lengths, each):
    """Every bin in a list, sorted whole; then one after another, unless one of the kind is too near."""
    bins = [(chrom, int(start)) for chrom in starts for start in starts[chrom]]
    labels = dict(zip(bins, bound.tolist(), strict=True))
    spans = {chrom: (int(starts[chrom][0]), int(starts[chrom][-1])) for chrom in starts if len(starts[chrom])}
    sites, alarms, previous = [], [], None
    for (chrom, start), is_bound, score in zip(bins, bound.tolist(), scores.tolist(), strict=True):
        if not is_bound:
            around = range(max(start - 1_000, spans[chrom][0]), min(start + 1_000, spans[chrom][1]) + 1, 50)
            if all(labels.get((chrom, other), True) is False for other in around):
                alarms.append((score, chrom, start))
            previous = None
            continue
        if previous and previous[0] == chrom and start - previous[1] <= 1_000:
            sites[-1].append((score, chrom, start))
        else:
            sites.append([(score, chrom, start)])
        previous = (chrom, start)
    best = [(*max(site, key=lambda each: each[0]), len(site)) for site in sites]  # max and sorted keep the first
    found = []
    for kind, ranked in (
        ("best hit", sorted(best, key=lambda each: (-each[0], -each[3]))),
        ("worst miss", sorted(best, key=lambda each: (each[0], -each[3]))),
        ("worst false alarm", sorted(alarms, key=lambda each: -each[0])),
    ):
        taken = []
        for score, chrom, start, *_ in ranked:
            length = lengths[chrom]
            at = start + 100 - WIDTH // 2
            at = length - WIDTH if at + WIDTH > length else at
            at = max(at, 0)
            covered = set(range(at, min(at + WIDTH, length)))
            if len(taken) < each and all(chrom != other or not covered & bases for other, bases in taken):
                taken.append((chrom, covered))
                found.append((kind, chrom, min(covered), max(covered) + 1, start, score))
    return found


@given(rankings(), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_the_choice_is_that_of_a_full_sort(ranking, each):
    starts, bound, scores, assembly = ranking
    chosen = choose_loci(starts, bound, scores, assembly, each=each, width_bp=WIDTH)
    expected = plain_choice(starts, bound, scores, dict(zip(assembly.chroms, assembly.lengths, strict=True)), each)
    assert [(c.kind, c.chrom, c.start, c.end, c.bin_start, c.score) for c in chosen] == expected
    assert all(c.label == (UNBOUND if c.kind == "worst false alarm" else BOUND) for c in chosen)


def test_the_flank_of_a_found_site_is_no_miss():
    starts = {"chr1": np.arange(600, 90_000, 50)}
    bound, scores = np.zeros(len(starts["chr1"]), bool), np.full(len(starts["chr1"]), 0.25, np.float32)
    bound[100:106], scores[100:106] = True, [0.0, 0.5, 0.9, 0.9, 0.5, 0.0]
    bound[900:903], scores[900:903] = True, [0.1, 0.3, 0.2]
    assembly = Assembly.from_sizes([("chr1", 100_000)])
    hit, miss, alarm = choose_loci(starts, bound, scores, assembly, each=1)
    assert (hit.bin_start, hit.score) == (600 + 102 * 50, np.float32(0.9))
    assert (miss.bin_start, miss.score) == (600 + 901 * 50, np.float32(0.3))
    assert (alarm.bin_start, alarm.start, alarm.end) == (600, 0, 10_000)


def test_peaks_that_touch_are_one_site():
    starts = {"chr1": np.delete(np.arange(600, 90_000, 50), [102, 103])}  # ambiguous bins lie between
    bound, scores = np.zeros(len(starts["chr1"]), bool), np.zeros(len(starts["chr1"]), np.float32)
    bound[100:104], scores[100:104] = True, [0.9, 0.8, 0.1, 0.2]
    chosen = choose_loci(starts, bound, scores, Assembly.from_sizes([("chr1", 100_000)]), each=2)
    assert [(each.kind, each.bin_start) for each in chosen[:2]] == [("best hit", 5_600), ("worst miss", 5_600)]


def test_constant_scores_are_taken_in_order():
    starts = {"chr1": np.arange(0, 4_000_000, 50), "chr2": np.arange(0, 50_000, 50)}
    size = sum(len(each) for each in starts.values())
    bound = np.zeros(size, bool)
    bound[::1000] = True
    chosen = choose_loci(starts, bound, np.zeros(size, np.float32), Assembly(("chr1", "chr2"), (4_000_150, 50_150)))
    # Alarms are over 1 kb from bound bins; stretches of 10 kb that do not overlap lie 10 kb apart.
    assert [c.bin_start for c in chosen] == [0, 50_000, 100_000] * 2 + [1_050, 14_900, 24_900]


def test_of_equal_sites_the_broader_comes_first():
    starts = {"chr1": np.arange(600, 90_000, 50)}
    bound = np.zeros(len(starts["chr1"]), bool)
    bound[100:102] = bound[900:904] = bound[1400:1403] = True
    chosen = choose_loci(starts, bound, np.zeros(len(bound), np.float32), Assembly(("chr1",), (100_000,)))
    assert [c.bin_start for c in chosen[:3]] == [600 + 900 * 50, 600 + 1400 * 50, 600 + 100 * 50]


def test_the_flank_of_a_site_is_no_false_alarm():
    starts = {"chr1": np.delete(np.arange(600, 90_000, 50), slice(500, 506))}  # left out: ambiguous or excluded
    bound, scores = np.zeros(len(starts["chr1"]), bool), np.zeros(len(starts["chr1"]), np.float32)
    bound[100], scores[[99, 101, 120, 499, 500]] = True, 0.9
    scores[[121, 478]] = 0.5, 0.6
    chosen = choose_loci(starts, bound, scores, Assembly.from_sizes([("chr1", 100_000)]), each=2)
    assert [(c.bin_start, round(c.score, 1)) for c in chosen if c.kind == "worst false alarm"] == [
        (600 + 478 * 50, 0.6), (600 + 121 * 50, 0.5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("bin_start", "length", "expected"),
    [(50_000, 100_000, (45_100, 55_100)), (0, 100_000, (0, 10_000)), (99_800, 100_000, (90_000, 100_000)),
     (1_000, 4_321, (0, 4_321))],
)  # fmt: skip
def test_stretches_lie_on_the_chromosome(bin_start, length, expected):
    assert stretch_around(bin_start, length, 10_000) == expected


@given(st.lists(st.sampled_from([0, 3, 7]), min_size=20, max_size=20), st.integers(0, 3_900), st.integers(1, 2_000))
@settings(max_examples=60, deadline=None)
def test_states_cover_the_stretch_in_runs(codes, start, width):
    end = min(start + width, 4_000)
    runs = cut_states(np.array(codes, np.uint8), start, end)
    painted = [code for first, last, code in runs for _ in range(first, last)]
    assert painted == [codes[base // 200] for base in range(start, end)]
    assert runs[0][0] == start
    assert all(a[1] == b[0] and a[2] != b[2] for a, b in itertools.pairwise(runs))


@given(
    st.dictionaries(st.integers(0, 60).map(lambda n: 50 * n), st.sampled_from([UNBOUND, AMBIGUOUS, BOUND])),
    st.integers(0, 3_000),
    st.integers(0, 2_000),
)
@settings(max_examples=100, deadline=None)
def test_labels_and_tracks_paint_the_central_50_bp(labels, start, width):
    end = start + width
    starts = np.array(sorted(labels), np.int64)
    codes = np.array([labels[each] for each in sorted(labels)], np.uint8)
    expected = {
        base: code
        for at, code in labels.items()
        if at + 75 >= start and at + 125 <= end
        for base in range(at + 75, at + 125)
    }
    runs = cut_labels(starts, codes, start, end)
    assert {base: code for first, last, code in runs for base in range(first, last)} == expected
    assert all(b[0] > a[1] or b[2] != a[2] for a, b in itertools.pairwise(runs))
    shown, scores = cut_track(starts, codes.astype(np.float32), start, end)
    assert {base: score for at, score in zip(shown, scores, strict=True) for base in range(at + 75, at + 125)} == (
        expected
    )
    assert (shown.dtype, scores.dtype) == (np.int64, np.float32)
