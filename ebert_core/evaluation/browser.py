"""Geometry of the browser view: each locus as places on a drawing that is as wide as the page lets it.

Along the genome a place is percent of the drawing's width, so that one SVG serves a desk and a phone and its letters
keep their size; down the drawing it is px. The bars of a track are a path in units of 25 bp and px, stretched to the
width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.evaluation.loci import CENTRE_BP
from ebert_core.evaluation.results import Evaluation, Locus, Row
from ebert_core.evaluation.tables import LABEL_WORDS, state_names
from ebert_core.genome.intervals import Positions
from ebert_core.genome.labels import AMBIGUOUS, BOUND
from ebert_core.vocabulary import BIN_BP, STRIDE_BP

MINUS: Final = "\u2212"
UNIT_BP: Final = 25  # bins begin at multiples of 50 bp and their centres 75 bp later
# px, from the top: what stands where in a drawing; the template knows the same names.
RULER_Y: Final = 31
STATES_Y: Final = 65
STATES_HEIGHT: Final = 14
LABELS_GAP: Final = 21  # from one strip's lower edge to the next one's upper edge; its name stands between
LABELS_HEIGHT: Final = 10
LANE_HEIGHT: Final = 28
LANE_GAP: Final = 25
NAME_ABOVE: Final = 3
_UNKNOWN_COLOUR: Final = "#b0b0b0"
# Letters of a name that fit above a track on a phone, beside its scale.
_MAX_NAME: Final = 34
_MAX_TICKS: Final = 4
_TICK_MARGIN: Final = 10.5  # percent; half of 249,122,500 on a phone
KINDS: Final = {
    "best hit": ("Best hits", "Bound sites whose best bin scores highest."),
    "worst miss": ("Worst misses", "Bound sites whose best bin scores lowest."),
    "worst false alarm": (
        "Worst false alarms",
        "Unbound bins that score highest, over 1 kb from any bin that is bound or left out.",
    ),
}


@dataclass(frozen=True)
class Tick:
    """A mark on the ruler: place in percent, whether it is a long one, and its coordinate ('' where none fits)."""

    x: float
    long: bool
    text: str


@dataclass(frozen=True)
class Block:
    """A stretch of one state or label: place and width in percent, colour or class, and words."""

    x: float
    width: float
    look: str
    text: str


@dataclass(frozen=True)
class Lane:
    """The scores of one row: its name whole and shortened, colour class, path, scale in words, and upper edge in px."""

    name: str
    short: str
    colour: str
    path: str
    scale: str
    y: float


@dataclass(frozen=True)
class View:
    """One locus, drawn; `marker` is the bin it was chosen for, `units` the width of a track's path."""

    title: str
    where: str
    chosen: str
    description: str
    chrom: str
    width: str
    height: float
    units: float
    ticks: tuple[Tick, ...]
    marker: Block
    states: tuple[Block, ...] | None
    labels: tuple[Block, ...]
    labels_y: float
    lanes: tuple[Lane, ...]


@dataclass(frozen=True)
class Browser:
    """All loci of one evaluation: (heading, explanation, views) of each kind; (name, colour) of the states shown."""

    chosen_by: str
    groups: tuple[tuple[str, str, tuple[View, ...]], ...]
    states: tuple[tuple[str, str], ...]
    unscored: bool


def browser(evaluation: Evaluation, colours: Mapping[str, tuple[str, str]]) -> Browser | None:
    """The browser view of an evaluation: all files and the best baseline; None where there is no locus.

    Args:
        colours: row name -> (colour class, dash), as `figures.colours` gives them.
    """
    if not evaluation.loci:
        return None
    rows = _rows_shown(evaluation)
    scales = {row.name: _scale(evaluation.loci, row.name) for row in rows}
    names, paint = state_names(evaluation), {state.code: state.color for state in evaluation.states}
    palette = {code: (name, paint.get(code, _UNKNOWN_COLOUR)) for code, name in names.items()}
    groups = []
    for kind, (heading, words) in KINDS.items():
        loci = [locus for locus in evaluation.loci if locus.kind == kind]
        views = tuple(_view(locus, rows, scales, palette, colours) for locus in loci)
        groups += [(heading, words, views)] if views else []
    shown = sorted({code for locus in evaluation.loci for _, _, code in locus.states or ()})
    files = [row.name for row in evaluation.rows if row.kind != "baseline"]
    return Browser(
        chosen_by=files[0] if files else evaluation.rows[0].name,
        groups=tuple(groups),
        states=tuple(palette[code] for code in shown),
        unscored=any(_has_unscored(locus, rows) for locus in evaluation.loci),
    )


def _rows_shown(evaluation: Evaluation) -> list[Row]:
    files = [row for row in evaluation.rows if row.kind != "baseline"]
    baselines = [row for row in evaluation.rows if row.kind == "baseline"]
    best = sorted(baselines, key=lambda row: -row.measures.auprc)[:1]
    return [row for row in files + best if any(row.name in locus.tracks for locus in evaluation.loci)]


def _scale(loci: Sequence[Locus], name: str) -> tuple[float, float]:
    """Lowest and highest score of a row in any locus, so that heights can be compared; 0 is in it."""
    scores = np.concatenate([locus.tracks[name][1] for locus in loci if name in locus.tracks])
    scores = scores[np.isfinite(scores)]
    if len(scores) == 0:
        return 0.0, 1.0
    lower, upper = min(0.0, float(scores.min())), max(0.0, float(scores.max()))
    return (lower, upper) if upper > lower else (0.0, 1.0)


def _has_unscored(locus: Locus, rows: Sequence[Row]) -> bool:
    """Whether an ambiguous bin has no bar."""
    ambiguous = np.concatenate(
        [np.empty(0, np.int64)]
        + [np.arange(start, end, STRIDE_BP) - CENTRE_BP for start, end, label in locus.labels if label == AMBIGUOUS]
    )
    return any(not np.isin(ambiguous, locus.tracks[row.name][0]).all() for row in rows if row.name in locus.tracks)


def _view(
    locus: Locus,
    rows: Sequence[Row],
    scales: Mapping[str, tuple[float, float]],
    palette: Mapping[int, tuple[str, str]],
    colours: Mapping[str, tuple[str, str]],
) -> View:
    place = _Place(locus.start, locus.end)
    states = None
    if locus.states is not None:
        states = tuple(place.block(start, end, palette[code][1], palette[code][0]) for start, end, code in locus.states)
    labels_y = STATES_Y if states is None else STATES_Y + STATES_HEIGHT + LABELS_GAP
    lanes, y = [], labels_y + LABELS_HEIGHT + LANE_GAP
    for row in rows:
        if row.name in locus.tracks:
            starts, scores = locus.tracks[row.name]
            path = _bars(starts - locus.start, scores, scales[row.name])
            lanes.append(
                Lane(row.name, shorten(row.name), colours[row.name][0], path, _scale_words(scales[row.name]), y)
            )
            y += LANE_HEIGHT + LANE_GAP
    chosen = f"{locus.chrom}:{locus.bin_start:,}-{locus.bin_start + BIN_BP:,}"
    label = LABEL_WORDS[locus.label]
    return View(
        title=f"{locus.kind.capitalize()}: {locus.chrom}:{locus.start:,}-{locus.end:,}",
        where=f"{locus.chrom}:{locus.start:,}-{locus.end:,}",
        chosen=f"{chosen}: score {_number(locus.score)}, {label}",
        description=_describe(locus, f"The {label} bin {chosen} scores {_number(locus.score)}.", palette, lanes),
        chrom=locus.chrom,
        width=f"{locus.end - locus.start:,} bp",
        height=y - LANE_GAP + 1,
        units=(locus.end - locus.start) / UNIT_BP,
        ticks=_ticks(place),
        marker=place.block(locus.bin_start, locus.bin_start + BIN_BP, "", chosen),
        states=states,
        labels=tuple(
            place.block(start, end, LABEL_WORDS[label], f"{LABEL_WORDS[label]}, {start:,}-{end:,}")
            for start, end, label in locus.labels
        ),
        labels_y=labels_y,
        lanes=tuple(lanes),
    )


@dataclass(frozen=True)
class _Place:
    """A stretch, and where positions lie on a drawing of it."""

    start: int
    end: int

    def percent(self, position: float) -> float:
        return round(100 * (position - self.start) / (self.end - self.start), 3)

    def block(self, start: int, end: int, look: str, text: str) -> Block:
        start, end = max(start, self.start), min(end, self.end)
        return Block(self.percent(start), round(self.percent(end) - self.percent(start), 3), look, text)


def _ticks(place: _Place) -> tuple[Tick, ...]:
    """Long marks at multiples of a round number, with their coordinate unless an edge is near; small ones between."""
    step = _round_step(place.end - place.start)
    small = max(step // 5, 1)
    ticks = []
    for position in range(-(-place.start // small) * small, place.end + 1, small):
        x, is_long = place.percent(position), position % step == 0
        fits = is_long and _TICK_MARGIN <= x <= 100 - _TICK_MARGIN
        ticks.append(Tick(x, is_long, f"{position:,}" if fits else ""))
    return tuple(ticks)


def _round_step(span: int) -> int:
    """The smallest of 1, 2, 2.5, 5 x 10^k bp of which at most four, or by chance five, lie in a span."""
    raw = max(span / _MAX_TICKS, 10.0)
    power = 10 ** math.floor(math.log10(raw))
    return next(int(power * factor) for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw)


def _bars(offsets: Positions, scores: NDArray[np.float32], scale: tuple[float, float]) -> str:
    """The path of the bars of bins: one outline per run of neighbouring bins that have a score.

    Args:
        offsets: bin starts, counted from the stretch's start, bp.
    """
    lower, upper = scale
    known = np.isfinite(scores)
    left = (offsets[known] + CENTRE_BP) / UNIT_BP
    share = (scores[known].astype(np.float64) - lower) / (upper - lower)
    top = np.round(LANE_HEIGHT * (1 - share), 1)
    width, parts, previous = STRIDE_BP / UNIT_BP, [], None
    for x, y in zip(left.tolist(), top.tolist(), strict=True):
        if previous is None or x != previous[0]:
            parts.append(f"{'' if previous is None else f'V{LANE_HEIGHT}Z'}M{x:g} {LANE_HEIGHT}V{y:g}H{x + width:g}")
        elif y == previous[1]:
            parts[-1] = f"{parts[-1][: parts[-1].rindex('H')]}H{x + width:g}"
        else:
            parts.append(f"V{y:g}H{x + width:g}")
        previous = x + width, y
    return "".join(parts) + (f"V{LANE_HEIGHT}Z" if parts else "")


def _scale_words(scale: tuple[float, float]) -> str:
    lower, upper = (f"{end:,.0f}" if abs(end) >= 10 else f"{end:.2g}" for end in scale)
    return f"{lower} to {upper}".replace("-", MINUS)


def shorten(name: str, most: int = _MAX_NAME) -> str:
    """A name with its middle left out where it is longer than `most` letters."""
    head = (most - 1) // 2
    return name if len(name) <= most else f"{name[:head]}…{name[head + 1 - most :]}"


def _number(score: float) -> str:
    return f"{score:.3f}" if 0.001 <= abs(score) < 10 else f"{score:.4g}"


def _describe(locus: Locus, first: str, palette: Mapping[int, tuple[str, str]], lanes: Iterable[Lane]) -> str:
    """The drawing in words."""
    words = [first]
    if locus.states:
        words.append("Chromatin states from left to right: " + ", ".join(palette[s[2]][0] for s in locus.states) + ".")
    bound = [f"{start:,}-{end:,}" for start, end, label in locus.labels if label == BOUND]
    words.append(f"Bound: {', '.join(bound) or 'nowhere'}.")
    for lane in lanes:
        starts, scores = locus.tracks[lane.name]
        if np.isfinite(scores).any():
            at = int(np.nanargmax(scores))
            top = _number(float(scores[at]))
            flat = scores[at] == np.nanmin(scores)
            words.append(
                f"{lane.name} is {top} throughout."
                if flat
                else f"{lane.name} scores highest at {int(starts[at]):,}: {top}."
            )
    return " ".join(words)
