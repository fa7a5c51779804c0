"""Curves as SVG paths; the report's template draws the axes around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.evaluation.measures import Reliability
from ebert_core.evaluation.results import Difference, Evaluation, Row

# The plotting square in user units of the SVG; the template knows the same numbers.
LEFT: Final = 52.0
TOP: Final = 14.0
SIDE: Final = 320.0
TICKS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
# Colours of files and of baselines; a further file repeats a colour with another dash.
NUM_COLOURS: Final = {"file": 6, "base": 8}
_DASHES: Final = ("", "7 3", "2 3", "10 3 2 3")
_RADII: Final = (2.5, 8.0)


@dataclass(frozen=True)
class Line:
    """One curve: the row it belongs to, its colour class, dash pattern and path."""

    name: str
    kind: str
    colour: str
    dash: str
    path: str


@dataclass(frozen=True)
class Dot:
    """One class of a reliability table: place, radius and words."""

    x: float
    y: float
    radius: float
    text: str


@dataclass(frozen=True)
class Dots:
    """The reliability of one row."""

    name: str
    colour: str
    path: str
    dots: tuple[Dot, ...]


def colours(evaluation: Evaluation) -> dict[str, tuple[str, str]]:
    """(colour class, dash pattern) of each row: `file0`, `file1`, ... solid, `base0`, ... dashed."""
    styles: dict[str, tuple[str, str]] = {}
    numbers = {"file": 0, "base": 0}
    for row in evaluation.rows:
        family = "base" if row.kind == "baseline" else "file"
        number = numbers[family]
        numbers[family] += 1
        dash = "4 3" if family == "base" else _DASHES[number // NUM_COLOURS[family] % len(_DASHES)]
        styles[row.name] = f"{family}{number % NUM_COLOURS[family]}", dash
    return styles


def curve_lines(evaluation: Evaluation, which: str) -> list[Line]:
    """The curves of all rows, baselines first so that files lie above; `which` is 'pr' or 'roc'."""
    styles = colours(evaluation)
    ordered = sorted(evaluation.rows, key=lambda row: row.kind != "baseline")
    return [
        Line(row.name, row.kind, *styles[row.name], svg_path(*(row.pr_curve if which == "pr" else row.roc_curve)))
        for row in ordered
    ]


def reliability_dots(evaluation: Evaluation) -> list[Dots]:
    """The reliability tables of the rows that have one."""
    styles = colours(evaluation)
    return [_dots(row, row.reliability, styles[row.name][0]) for row in evaluation.rows if row.reliability]


def _dots(row: Row, table: Reliability, colour: str) -> Dots:
    filled = table.counts > 0
    x, y, counts = table.mean_score[filled], table.bound_fraction[filled], table.counts[filled]
    low, high = _RADII
    # Area would be invisible: classes hold from a handful to millions of bins.
    size = low + (high - low) * np.log10(np.maximum(counts, 1)) / max(np.log10(counts.max()), 1.0)
    dots = tuple(
        Dot(*_place(a, b), round(float(radius), 1), f"{count:,} bins, mean score {a:.3f}, {b:.1%} bound")
        for a, b, count, radius in zip(x.tolist(), y.tolist(), counts.tolist(), size, strict=True)
    )
    return Dots(row.name, colour, svg_path(x, y), dots)


@dataclass(frozen=True)
class Whisker:
    """A difference on a scale that a table's rows share: interval ends, value and no difference, in percent."""

    lower: float
    value: float
    upper: float
    zero: float


def whiskers(differences: Sequence[Difference]) -> dict[str, Whisker]:
    """The differences of one measure by the other row's name, with 0 on their scale and a margin beside it."""
    ends = [0.0, *(end for each in differences for end in (each.interval.lower, each.value, each.interval.upper))]
    lowest, width = min(ends), (max(ends) - min(ends)) or 1.0

    def place(value: float) -> float:
        return round(4 + 92 * (value - lowest) / width, 2)

    return {
        each.second: Whisker(place(each.interval.lower), place(each.value), place(each.interval.upper), place(0.0))
        for each in differences
    }


def svg_path(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    """Values in [0, 1] -> the `d` of a path in the plotting square, a tenth of a unit fine; collinear runs are cut."""
    points = [_place(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    return "M" + "L".join(f"{a:g} {b:g}" for a, b in _without_middles(points))


def _place(x: float, y: float) -> tuple[float, float]:
    return round(LEFT + SIDE * x, 1), round(TOP + SIDE * (1 - y), 1)


def _without_middles(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Drop points that lie on the line between their neighbours; keeps a constant curve to two points."""
    kept: list[tuple[float, float]] = []
    for point in points:
        if kept and point == kept[-1]:
            continue
        if len(kept) > 1:
            (ax, ay), (bx, by) = kept[-2], kept[-1]
            if abs((bx - ax) * (point[1] - ay) - (by - ay) * (point[0] - ax)) < 1e-9:
                kept.pop()
        kept.append(point)
    return kept
