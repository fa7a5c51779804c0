"""The browser view's geometry: bars, blocks and ticks stand where the numbers say."""

from __future__ import annotations

import collections
import dataclasses
import re
from types import SimpleNamespace

import numpy as np
import pytest

from ebert_core.evaluation import browser, figures


def outline(path, height):
    """(x, height above the ground) of each flat stretch of a path of bars, by its middle."""
    found, x, y = {}, 0.0, 0.0
    for command, numbers in re.findall(r"([MVHZ])([-\d. ]*)", path):
        if command == "M":
            x, y = (float(number) for number in numbers.split())
        elif command == "V":
            y = float(numbers)
        elif command == "H":
            # A flat stretch may span several bins: two units each.
            for at in np.arange(x, float(numbers), 2):
                found[at] = height - y
            x = float(numbers)
    return found


def test_bars_stand_on_the_bins_as_high_as_their_scores(full_evaluation):
    evaluation = full_evaluation
    view = browser.browser(evaluation, figures.colours(evaluation))
    assert [heading for heading, _, _ in view.groups] == ["Best hits", "Worst misses", "Worst false alarms"]
    drawn = [each for _, _, views in view.groups for each in views]
    assert len(drawn) == len(evaluation.loci) == 9
    assert view.unscored
    for locus, each in zip(evaluation.loci, drawn, strict=True):
        # Both files, and the best baseline.
        assert [lane.name for lane in each.lanes] == [row.name for row in evaluation.rows[:2]] + ["accessibility"]
        for lane in each.lanes:
            shown = np.concatenate([other.tracks[lane.name][1] for other in evaluation.loci])
            lowest, highest = min(0, shown.min()), shown.max()
            starts, scores = locus.tracks[lane.name]
            expected = {
                (start + 75 - locus.start) / 25: browser.LANE_HEIGHT * (score - lowest) / (highest - lowest)
                for start, score in zip(starts.tolist(), scores.tolist(), strict=True)
            }
            found = outline(lane.path, browser.LANE_HEIGHT)
            assert found.keys() == expected.keys()
            assert all(abs(found[at] - expected[at]) <= 0.051 for at in found)


def test_a_drawing_has_real_coordinates(full_evaluation):
    view = browser.browser(full_evaluation, figures.colours(full_evaluation))
    for locus, each in zip(full_evaluation.loci, [v for group in view.groups for v in group[2]], strict=True):
        named = [tick for tick in each.ticks if tick.text]
        assert 2 <= len(named) <= 4
        for tick in named:
            position = locus.start + tick.x / 100 * (locus.end - locus.start)
            assert abs(position - int(tick.text.replace(",", ""))) < 0.1
        assert sum(block.width for block in each.states) == pytest.approx(100, abs=0.01)
        assert each.marker.x == pytest.approx(100 * (locus.bin_start - locus.start) / 10_000)
        assert f"score {locus.score:.3f}, " in each.chosen
        assert each.where in each.title


def test_missing_scores_are_gaps(full_evaluation):
    first = full_evaluation.loci[0]
    starts, scores = first.tracks["mine.bw"]
    holes = scores.copy()
    holes[[0, 5, 6, len(holes) - 1]] = np.nan
    empty = np.full(len(scores), np.nan, np.float32)
    locus = dataclasses.replace(first, tracks={"mine.bw": (starts, holes), "accessibility": (starts, empty)})
    evaluation = dataclasses.replace(full_evaluation, loci=(locus,))
    lanes = browser.browser(evaluation, figures.colours(evaluation)).groups[0][2][0].lanes
    assert len(outline(lanes[0].path, browser.LANE_HEIGHT)) == len(scores) - 4
    assert (lanes[1].path, lanes[1].scale) == ("", "0 to 1")


def test_a_track_of_one_value_has_no_peak(full_evaluation):
    first = full_evaluation.loci[0]
    starts, scores = first.tracks["mine.bw"]
    locus = dataclasses.replace(first, tracks={"mine.bw": (starts, np.zeros_like(scores))})
    words = browser._describe(
        locus, "x", collections.defaultdict(lambda: ("s", "#000000")), [SimpleNamespace(name="mine.bw")]
    )
    assert words.endswith("mine.bw is 0 throughout.")


@pytest.mark.parametrize(
    ("name", "short"),
    [("a.bw", "a.bw"), ("x" * 34, "x" * 34), ("head" + "x" * 60 + "tail", "headxxxxxxxxxxxx…" + "x" * 13 + "tail")],
)
def test_long_names_lose_their_middle(name, short):
    assert browser.shorten(name) == short
