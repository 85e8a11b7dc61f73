"""Line plots as SVG: a few lines over time, with axes that have units.

A plot is one element that stands alone in a file or inside a page. It has a title and a
description for those who don't see it; its colours follow the reader's light or dark scheme, and
its lines differ by their dashes too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 300
LEFT, RIGHT, TOP, BOTTOM = 68, 16, 58, 46
TICKS = 6
# How each line differs from the others, beside its colour.
DASHES = ("", "7 3", "2 3", "9 3 2 3", "1 4")

STYLE = """
.plot { font: 12px system-ui, sans-serif }
.plot .back { fill: #ffffff }
.plot text { fill: #1f2328 }
.plot .title { font-size: 14px; font-weight: 600 }
.plot .grid { stroke: #d0d7de; stroke-width: 1 }
.plot .axis { stroke: #57606a; stroke-width: 1 }
.plot .line { fill: none; stroke-width: 1.8; stroke-linejoin: round }
.plot .c0 { stroke: #0550ae }
.plot .c1 { stroke: #b35900 }
.plot .c2 { stroke: #1a7f37 }
.plot .c3 { stroke: #8250df }
.plot .c4 { stroke: #57606a }
@media (prefers-color-scheme: dark) {
  .plot .back { fill: #0d1117 }
  .plot text { fill: #e6edf3 }
  .plot .grid { stroke: #30363d }
  .plot .axis { stroke: #8b949e }
  .plot .c0 { stroke: #79c0ff }
  .plot .c1 { stroke: #ffa657 }
  .plot .c2 { stroke: #7ee787 }
  .plot .c3 { stroke: #d2a8ff }
  .plot .c4 { stroke: #8b949e }
}
"""


@dataclass(frozen=True)
class Line:
    """A line with its name; points are (x, y), x growing."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """What an axis shows: a name with its unit in brackets. `log` for powers of ten."""

    label: str
    log: bool = False


class _Scale:
    """Values of one axis as pixels."""

    def __init__(self, values: Sequence[float], log: bool, start: float, end: float,
                 zero: bool) -> None:
        self._log, self._start, self._end = log, start, end
        if log:
            positive = [value for value in values if value > 0] or [1.0]
            low = 10.0 ** math.floor(math.log10(min(positive)))
            high = 10.0 ** math.ceil(math.log10(max(positive)))
            self.low, self.high = low, max(high, low * 10)
            self.ticks = [self.low * 10 ** power for power in
                          range(round(math.log10(self.high / self.low)) + 1)]
            return
        low, high = min(values, default=0.0), max(values, default=1.0)
        low = min(low, 0.0) if zero else low
        step = tick_step(low, high)
        self.low = math.floor(low / step) * step
        self.high = max(math.ceil(high / step), math.floor(low / step) + 1) * step
        self.ticks = [self.low + step * index
                      for index in range(round((self.high - self.low) / step) + 1)]

    def at(self, value: float) -> float:
        """The pixel of a value."""
        if self._log:
            part = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self._start + part * (self._end - self._start)


def tick_step(low: float, high: float) -> float:
    """A step of 1, 2 or 5 times a power of ten that gives about so many ticks."""
    rough = max(high - low, abs(high) * 1e-3, 1e-9) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def _number(value: float) -> str:
    if abs(value) < 1e-12:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def line_plot(name: str, title: str, about: str, x: Axis, y: Axis, drawn: Sequence[Line], *,
              from_zero: bool = True) -> str:
    """One plot. `name` is used for ids and must be the only one of a page; `about` is what a
    reader who does not see it is told. Lines without points are left out of the picture only."""
    every = [point for line in drawn for point in line.points]
    across = _Scale([point[0] for point in every], x.log, LEFT, WIDTH - RIGHT, True)
    up = _Scale([point[1] for point in every], y.log, HEIGHT - BOTTOM, TOP, from_zero)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" aria-labelledby="{name}-title {name}-about">',
        f'<title id="{name}-title">{escape(title)}</title>',
        f'<desc id="{name}-about">{escape(about)}</desc>',
        f"<style>{STYLE}</style>",
        f'<rect class="back" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="title" x="{LEFT}" y="20">{escape(title)}</text>',
        *_legend(drawn), *_axes(x, y, across, up), *_lines(drawn, across, up), "</svg>"]
    return "\n".join(parts) + "\n"


def _legend(drawn: Sequence[Line]) -> list[str]:
    parts, at = [], float(LEFT)
    for index, line in enumerate(drawn):
        parts += [f'<line class="line c{index % 5}" stroke-dasharray="{DASHES[index % 5]}" '
                  f'x1="{at:.0f}" y1="38" x2="{at + 26:.0f}" y2="38"/>',
                  f'<text x="{at + 32:.0f}" y="42">{escape(line.name)}</text>']
        at += 50 + 6.6 * len(line.name)
    return parts


def _axes(x: Axis, y: Axis, across: _Scale, up: _Scale) -> list[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for tick in up.ticks:
        at = up.at(tick)
        parts += [f'<line class="grid" x1="{LEFT}" y1="{at:.1f}" x2="{right}" y2="{at:.1f}"/>',
                  f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{_number(tick)}</text>']
    for tick in across.ticks:
        at = across.at(tick)
        parts += [f'<line class="axis" x1="{at:.1f}" y1="{bottom}" x2="{at:.1f}" '
                  f'y2="{bottom + 4}"/>',
                  f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{_number(tick)}'
                  "</text>"]
    middle = (TOP + bottom) / 2
    return [*parts,
            f'<path class="axis" fill="none" d="M{LEFT} {TOP}V{bottom}H{right}"/>',
            f'<text x="{(LEFT + right) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">'
            f"{escape(x.label)}</text>",
            f'<text x="14" y="{middle:.0f}" text-anchor="middle" '
            f'transform="rotate(-90 14 {middle:.0f})">{escape(y.label)}</text>']


def _lines(drawn: Sequence[Line], across: _Scale, up: _Scale) -> list[str]:
    parts = []
    for index, line in enumerate(drawn):
        if line.points:
            path = " ".join(f"{across.at(one):.1f},{up.at(other):.1f}"
                            for one, other in line.points)
            parts.append(f'<polyline class="line c{index % 5}" '
                         f'stroke-dasharray="{DASHES[index % 5]}" points="{path}"/>')
    return parts
