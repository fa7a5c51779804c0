"""The picture of a site: score and states around it, the sequence logo of its bases' importance, what states would do.

Legend: L bases of the stretch, S states.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.epigenome.state_models import State
from ebert_core.genome.intervals import Positions
from ebert_core.inference.drawing import INK, PALE, Canvas, Scale, position_axis, ticks, value_axis
from ebert_core.inference.motif_match import MotifMatch
from ebert_core.inference.mutagenesis import SiteEffects, StateEffects
from ebert_core.inference.windows import Floats
from ebert_core.model.calibration import Calibration
from ebert_core.vocabulary import BASES, BIN_BP, STATE_BIN_BP, STRIDE_BP

_WIDTH, _LEFT, _RIGHT = 1_200.0, 76.0, 1_180.0
_MARK: Final = "#fff3c4"
_LINE: Final = "#30507a"
_UNKNOWN: Final = State(0, "unknown", "#f2f2f2")
# Where the panels begin and how high they are, px.
_PROFILE, _STATES, _LOGO, _HEAT, _BARS = (66.0, 110.0), (184.0, 20.0), (284.0, 170.0), (462.0, 52.0), (590.0, 150.0)
_HEIGHT, _HEIGHT_WITHOUT_BARS = 819.0, 560.0


@dataclass(frozen=True)
class Subject:
    """What a picture is of.

    Attributes:
        tf, cell: names.
        states: alphabet of the model, in order.
        calibration: of the TF.
    """

    tf: str
    cell: str
    states: tuple[State, ...]
    calibration: Calibration

    def state(self, code: int) -> State:
        """Of a code in arrays."""
        return self.states[code - 1] if code else _UNKNOWN


@dataclass(frozen=True)
class Surroundings:
    """What lies around a site.

    Attributes:
        bins: those that have a value, rising.
        logits: theirs.
        length: of the chromosome, bp.
        states_of: first and last + 1 of 200-bp bins -> their states; None where they are not known.
    """

    bins: Positions
    logits: Floats
    length: int
    states_of: Callable[[int, int], NDArray[np.uint8] | None]


def draw_site(effects: SiteEffects, subject: Subject, around: Surroundings, match: MotifMatch | None) -> str:
    """The picture, as SVG.

    Args:
        around: what lies around the site.
        match: the motif's best hit, where motifs were given; it is marked.
    """
    site = effects.site
    title = f"{subject.tf} in {subject.cell} at {site.chrom}:{site.start:,}-{site.end:,}"
    canvas = Canvas(_WIDTH, _HEIGHT if effects.states else _HEIGHT_WITHOUT_BARS, title)
    probability = float(subject.calibration.probabilities(np.array([effects.logit], dtype=np.float32))[0])
    canvas.text(_LEFT, 28, title, font_size=17, font_weight="bold")
    which = "highest of its bins" if len(effects.bins) > 1 else f"bin at {int(effects.bins[0]) * STRIDE_BP:,}"
    canvas.text(_LEFT, 47, f"probability {probability:.3g}, logit {effects.logit:.3g} ({which})", fill=PALE)
    canvas.text(_RIGHT, 47, f"positions on {site.chrom} in bp, 0-based", "end", font_size=11, fill=PALE)
    across = _draw_surroundings(canvas, effects, subject, around)
    _draw_zoom(canvas, effects, across)
    along = Scale(effects.first, effects.first + len(effects.bases), _LEFT, _RIGHT)
    _draw_logo(canvas, effects, along, match)
    _draw_heat(canvas, effects, along)
    if effects.states:
        _draw_bars(canvas, effects.states, subject)
    return canvas.svg()


def _draw_surroundings(canvas: Canvas, effects: SiteEffects, subject: Subject, around: Surroundings) -> Scale:
    """Score profile and states of the window around the site; returns its scale of positions."""
    centres = around.bins * STRIDE_BP + BIN_BP / 2
    across = Scale(float(centres[0]) - STRIDE_BP / 2, float(centres[-1]) + STRIDE_BP / 2, _LEFT, _RIGHT)
    values = subject.calibration.probabilities(around.logits)
    top = max(float(values.max()), 1e-6)
    top = 1.0 if top > 0.5 else ticks(0, top * 1.25, 4)[-1]
    scale = Scale(0, top, _PROFILE[0] + _PROFILE[1], _PROFILE[0])
    low, high = _stretch(effects, across)
    canvas.rect(low, _PROFILE[0], high - low, _STATES[0] + _STATES[1] - _PROFILE[0], _MARK)
    value_axis(canvas, scale, _LEFT, _RIGHT, "probability")
    for run in np.split(np.arange(len(values)), np.flatnonzero(np.diff(around.bins) > 1) + 1):
        edges_of_run = ((at, centres[at] + side * STRIDE_BP / 2) for at in run.tolist() for side in (-1, 1))
        points = [(across(edge), scale(float(values[at]))) for at, edge in edges_of_run]
        floor = scale(0)
        canvas.polygon([(points[0][0], floor), *points, (points[-1][0], floor)], "#c9d6ea")
        canvas.line(points, _LINE, 1.5)
    first, last = int(across.low) // STATE_BIN_BP, -(-int(across.high) // STATE_BIN_BP)
    last = min(last, -(-around.length // STATE_BIN_BP))
    codes = around.states_of(first, last)
    codes = np.zeros(last - first, dtype=np.uint8) if codes is None else codes
    edges = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
    for begin, end in itertools.pairwise(edges):
        state = subject.state(int(codes[begin]))
        left = max(_LEFT, across((first + begin) * STATE_BIN_BP))
        right = min(_RIGHT, across((first + end) * STATE_BIN_BP))
        canvas.rect(left, _STATES[0], right - left, _STATES[1], state.color, "#555555")
        if right - left > 8 * len(state.name) + 8:
            ink = "#ffffff" if _is_dark(state.color) else INK
            canvas.text((left + right) / 2, _STATES[0] + 14, state.name, "middle", font_size=11, fill=ink)
    canvas.turned_text(_LEFT - 46, _STATES[0] + 10, "state", -90, "middle", font_size=11, fill=PALE)
    position_axis(canvas, across, _STATES[0] + _STATES[1] + 14)
    return across


def _stretch(effects: SiteEffects, across: Scale) -> tuple[float, float]:
    """The stretch among its surroundings, px; at a chromosome's end it goes on where no bin is centred."""
    low, high = across(effects.first), across(effects.first + len(effects.bases))
    return max(low, _LEFT), min(high, _RIGHT)


def _draw_zoom(canvas: Canvas, effects: SiteEffects, across: Scale) -> None:
    """From the stretch among its surroundings to the same stretch across the picture."""
    low, high = _stretch(effects, across)
    top, bottom = _STATES[0] + _STATES[1] + 18, _LOGO[0] - 42
    canvas.polygon([(low, top), (high, top), (_RIGHT, bottom), (_LEFT, bottom)], "#fbf4da")


def _draw_logo(canvas: Canvas, effects: SiteEffects, along: Scale, match: MotifMatch | None) -> None:
    importance = np.nan_to_num(effects.importance)
    top, low = float(max(importance.max(), 0)), float(min(importance.min(), 0))
    room = max(top - low, 1e-6) * 0.06
    scale = Scale(low - room, top + room, _LOGO[0] + _LOGO[1], _LOGO[0])
    if match:
        left, right = along(match.start), along(match.end)
        canvas.rect(left, _LOGO[0], right - left, _LOGO[1], "#eef6ee")
    value_axis(canvas, scale, _LEFT, _RIGHT, "importance (logit)")
    head = "importance of each base, + strand: what the logit loses on average when another stands in its place"
    canvas.text(_LEFT, _LOGO[0] - 28, head, font_weight="bold", font_size=12)
    if match:
        canvas.line([(left, _LOGO[0] - 3), (left, _LOGO[0] - 8), (right, _LOGO[0] - 8), (right, _LOGO[0] - 3)], PALE)
        text = f"motif ({match.strand}), r = {match.correlation:.2f}"
        canvas.text((left + right) / 2, _LOGO[0] - 12, text, "middle", font_size=11, fill=PALE)
    width = along(1) - along(0)
    for place, value in enumerate(importance.tolist()):
        code = int(effects.bases[place])
        if value and code < len(BASES):
            edge, zero = scale(value), scale(0)
            box = (along(effects.first + place), min(edge, zero), width * 0.96, abs(edge - zero))
            canvas.letter(BASES[code], box, 1.0 if value > 0 else 0.55)


def _draw_heat(canvas: Canvas, effects: SiteEffects, along: Scale) -> None:
    """A row per base: blue where the substitution lowers the score, red where it raises it, a dot for the genome's."""
    deltas, first = effects.deltas, effects.first
    most = float(np.nanmax(np.abs(deltas), initial=1e-6))
    high, width = _HEAT[1] / len(BASES), along(1) - along(0)
    for row, base in enumerate(BASES):
        y = _HEAT[0] + row * high
        canvas.text(_LEFT - 8, y + high - 2, base, "end", font_size=11, fill=PALE)
        for place in np.flatnonzero(np.abs(np.nan_to_num(deltas[:, row])) > most / 50).tolist():
            share = float(deltas[place, row]) / most
            canvas.rect(along(first + place), y, width, high, _shade(share))
        dot = min(3.0, width / 2)
        for place in np.flatnonzero(effects.bases == row).tolist():
            canvas.rect(along(first + place + 0.5) - dot / 2, y + (high - dot) / 2, dot, dot, PALE)
    canvas.rect(_LEFT, _HEAT[0], _RIGHT - _LEFT, _HEAT[1], "none", "#bbbbbb")
    canvas.turned_text(_LEFT - 46, _HEAT[0] + _HEAT[1] / 2, "replaced by", -90, "middle", font_size=11, fill=PALE)
    y = _HEAT[0] + _HEAT[1] + 15
    position_axis(canvas, along, y, 0.5)
    canvas.text(
        _LEFT, y + 22, "change of the logit by each substitution; dots: the genome's bases", font_size=11, fill=PALE
    )
    _draw_key(canvas, most, y + 13)


def _draw_key(canvas: Canvas, most: float, y: float) -> None:
    """What the colours of the substitutions mean, at the right."""
    number, width = 21, 8.0
    left = _RIGHT - number * width - 40
    for step in range(number):
        canvas.rect(left + step * width, y, width, 10, _shade(2 * step / (number - 1) - 1))
    canvas.rect(left, y, number * width, 10, "none", "#bbbbbb")
    canvas.text(left - 6, y + 9, f"{-most:.3g}", "end", font_size=11, fill=PALE)
    canvas.text(left + number * width + 6, y + 9, f"+{most:.3g}", font_size=11, fill=PALE)


def _draw_bars(canvas: Canvas, states: StateEffects, subject: Subject) -> None:
    """A group of bars per state: filled with accessibility shown as it is, hollow with it hidden."""
    deltas = states.deltas
    top, low = max(float(deltas.max()), 0.0), min(float(deltas.min()), 0.0)
    room = max(top - low, 1e-6) * 0.06
    scale = Scale(low - room, top + room, _BARS[0] + _BARS[1], _BARS[0])
    where = f"{states.first * STATE_BIN_BP:,}-{states.last * STATE_BIN_BP:,}"
    head = f"if {where} were in another state"
    if len(states.accessible) > 1:
        head += "; left bars: accessibility as it is, right bars (hollow): accessibility hidden"
    canvas.text(_LEFT, _BARS[0] - 12, head, font_weight="bold", font_size=12)
    value_axis(canvas, scale, _LEFT, _RIGHT, "change of logit")
    step = (_RIGHT - _LEFT) / deltas.shape[1]
    width = 0.7 * step / len(states.accessible)
    present = set(states.shown.tolist())
    for code in range(deltas.shape[1]):
        state, x = subject.state(code), _LEFT + (code + 0.15) * step
        for row, value in enumerate(deltas[:, code].tolist()):
            y, zero = scale(value), scale(0)
            fill = "#ffffff" if row else state.color
            canvas.rect(x + row * width, min(y, zero), width - 1, max(abs(y - zero), 0.5), fill, "#444444")
        weight = "bold" if code in present else "normal"
        canvas.turned_text(
            x + 0.35 * step, _BARS[0] + _BARS[1] + 14, state.name, -35, "end", font_size=11, font_weight=weight
        )
    canvas.text(_RIGHT, _BARS[0] - 12, "bold: the states that are there", "end", font_size=11, fill=PALE)


def _shade(share: float) -> str:
    """Blue for -1, white for 0, red for 1."""
    strong = (33, 84, 166) if share < 0 else (196, 38, 46)
    mixed = (round(255 + (each - 255) * abs(share) ** 0.7) for each in strong)
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def _is_dark(color: str) -> bool:
    """By the luma of ITU-R BT.601."""
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue < 128
