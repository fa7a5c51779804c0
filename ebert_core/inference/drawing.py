"""A small SVG canvas: rectangles, lines, text, axes, and the letters of a sequence logo."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from ebert_core.vocabulary import BASES

INK: Final = "#222222"
PALE: Final = "#666666"
GRID: Final = "#e4e4e4"
# Colours of most logo programs: A green, C blue, G orange, T red.
BASE_COLORS: Final = {"A": "#1a8f3c", "C": "#2559a8", "G": "#e59b12", "T": "#cc2b36"}
# Width of a digit of 11 px, and what lies beyond the right end of the panels, px.
_DIGIT, _EDGE = 6.2, 18.0
# Outlines in a box of 1 x 1, y downwards.
_LETTERS: Final = {
    "A": "M0 1L.38 0L.62 0L1 1L.79 1L.71 .76L.29 .76L.21 1ZM.35 .58L.65 .58L.5 .15Z",
    "C": "M1 .34C.96 .12 .77 0 .53 0C.2 0 0 .2 0 .5C0 .8 .2 1 .53 1C.77 1 .96 .88 1 .66L.79 .61C.76 .76 .67 .83 .53 .83"
    "C.33 .83 .21 .71 .21 .5C.21 .29 .33 .17 .53 .17C.67 .17 .76 .24 .79 .39Z",
    "G": "M.97 .32C.92 .11 .75 0 .53 0C.2 0 0 .2 0 .5C0 .8 .2 1 .53 1C.73 1 .89 .94 1 .85L1 .46L.52 .46L.52 .62L.8 .62"
    "L.8 .76C.73 .81 .64 .83 .54 .83C.33 .83 .21 .71 .21 .5C.21 .29 .33 .17 .53 .17C.65 .17 .73 .24 .77 .37Z",
    "T": "M0 0L1 0L1 .18L.6 .18L.6 1L.4 1L.4 .18L0 .18Z",
}


class Canvas:
    """Collects the elements of a picture, in the order in which they are painted.

    Args:
        width, height: of the picture, px.
        title: for readers that do not see it.
    """

    def __init__(self, width: float, height: float, title: str) -> None:
        outlines = "".join(
            f'<path id="{base}" d="{_LETTERS[base]}" fill="{BASE_COLORS[base]}" fill-rule="evenodd"/>' for base in BASES
        )
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
            f'height="{height:g}" font-family="Helvetica, Arial, sans-serif" font-size="12" fill="{INK}">',
            f"<title>{escape(title)}</title><defs>{outlines}</defs>",
            f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>',
        ]

    def rect(self, x: float, y: float, width: float, height: float, fill: str, stroke: str = "") -> None:
        """A rectangle; `stroke` draws its edge inside the pixel grid."""
        edge = f' stroke="{stroke}" stroke-width="0.8"' if stroke else ""
        self._parts.append(
            f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{fill}"{edge}/>'
        )

    def polygon(self, points: Sequence[tuple[float, float]], fill: str) -> None:
        """A filled shape."""
        text = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
        self._parts.append(f'<polygon points="{text}" fill="{fill}"/>')

    def line(self, points: Sequence[tuple[float, float]], stroke: str = INK, width: float = 1.0) -> None:
        """A line through points."""
        text = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
        self._parts.append(f'<polyline points="{text}" fill="none" stroke="{stroke}" stroke-width="{width:g}"/>')

    def text(self, x: float, y: float, text: str, anchor: str = "start", **style: str | float) -> None:
        """A line of text on the baseline y; further attributes as `font_size=14`."""
        more = "".join(f" {name.replace('_', '-')}={quoteattr(str(value))}" for name, value in style.items())
        self._parts.append(f'<text x="{x:.2f}" y="{y:.2f}" text-anchor="{anchor}"{more}>{escape(text)}</text>')

    def turned_text(self, x: float, y: float, text: str, degrees: float, anchor: str, **style: str | float) -> None:
        """Text turned around its anchor."""
        self.text(x, y, text, anchor, transform=f"rotate({degrees:g} {x:.2f} {y:.2f})", **style)

    def letter(self, base: str, box: tuple[float, float, float, float], opacity: float = 1.0) -> None:
        """A letter that fills the box (x, y, width, height)."""
        x, y, width, height = box
        pale = f' opacity="{opacity:g}"' if opacity < 1 else ""
        self._parts.append(
            f'<use href="#{base}" transform="translate({x:.2f} {y:.2f}) scale({width:.3f} {height:.3f})"{pale}/>'
        )

    def svg(self) -> str:
        """The whole picture."""
        return "\n".join([*self._parts, "</svg>"]) + "\n"


class Scale:
    """Values to pixels, linearly; `low` and `high` may lie either way round."""

    def __init__(self, low: float, high: float, first: float, last: float) -> None:
        self.low, self.high = low, high
        self._first = first
        self._per_unit = (last - first) / ((high - low) or 1.0)

    def __call__(self, value: float) -> float:
        return self._first + (value - self.low) * self._per_unit


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from `low` to `high`, `most` + 1 at most: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def position_axis(canvas: Canvas, scale: Scale, y: float, shift: float = 0.0) -> None:
    """Positions along a horizontal scale, on the baseline y.

    Args:
        shift: from a position to its mark; 0.5 marks the middle of a base.
    """
    right = scale(scale.high)
    for tick in ticks(scale.low, scale.high - shift, 8):
        text, x = f"{tick:,.0f}", scale(tick + shift)
        # Half of a label must not go over the picture's edge.
        half = _DIGIT * len(text) / 2
        canvas.text(min(x, right + _EDGE - half), y, text, "middle", font_size=11, fill=PALE)


def value_axis(canvas: Canvas, scale: Scale, left: float, right: float, caption: str) -> None:
    """Ticks, numbers and grid lines of a vertical scale, and its caption at the left."""
    for tick in ticks(scale.low, scale.high, 4):
        y = scale(tick)
        canvas.line([(left, y), (right, y)], GRID if tick else PALE)
        canvas.text(left - 6, y + 4, f"{tick:.10g}", "end", font_size=11, fill=PALE)
    middle = (scale(scale.low) + scale(scale.high)) / 2
    canvas.turned_text(left - 46, middle, caption, -90, "middle", font_size=11, fill=PALE)
