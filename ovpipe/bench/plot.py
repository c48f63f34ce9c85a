"""Pictures of measurements: SVG that needs nothing else, readable on light and on dark. Pure.

Law: nothing in a name is markup.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_COLOURS = ("#1565c0", "#c2410c", "#2e7d32", "#8e24aa", "#ad8b00", "#00838f", "#d81b60", "#546e7a")
_W, _PAD, _ROW = 760.0, 24.0, 34.0


@dataclass(frozen=True)
class Bar:
    """A row: its parts from left to right, each (name, value)."""

    name: str
    parts: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Line:
    """Points (x, y) that belong together; `marked`: those to be shown as good."""

    name: str
    points: tuple[tuple[float, float], ...]
    marked: tuple[bool, ...] = ()


def bars(title: str, rows: Sequence[Bar], unit: str) -> str:
    """Rows of stacked parts on one scale, with a legend."""
    names = list(dict.fromkeys(name for row in rows for name, _ in row.parts))
    colour = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
    left = 2 * _PAD + 8.2 * max((len(row.name) for row in rows), default=0)
    most = max((sum(max(0.0, v) for _, v in row.parts) for row in rows), default=0.0) or 1.0
    scale = (_W - left - _PAD - 90) / most
    top = 64.0
    height = top + len(rows) * _ROW + len(names) * 22 + _PAD
    parts = _head(title, height)
    for i, row in enumerate(rows):
        y, x = top + i * _ROW, left
        parts.append(_text(left - 10, y + 17, row.name, anchor="end"))
        for name, value in row.parts:
            width = max(0.0, value) * scale
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="24" '
                f'fill="{colour[name]}"><title>{escape(name)}: {value:.4g} {escape(unit)}'
                f"</title></rect>"
            )
            x += width
        whole = sum(max(0.0, v) for _, v in row.parts)
        parts.append(_text(x + 8, y + 17, f"{whole:.4g} {unit}"))
    for i, name in enumerate(names):
        y = top + len(rows) * _ROW + 14 + i * 22
        parts.append(_square(left, y, colour[name]))
        parts.append(_text(left + 22, y + 12, name))
    return "\n".join([*parts, "</svg>"]) + "\n"


def lines(
    title: str, series: Sequence[Line], x_name: str, y_name: str, limit: float | None = None
) -> str:
    """Curves with points; `limit`: a line across, what y must stay below."""
    height, left, bottom, top = 420.0, 84.0, 64.0, 64.0
    xs = [x for line in series for x, _ in line.points] or [0.0]
    ys = [y for line in series for _, y in line.points if math.isfinite(y)] or [0.0]
    x_ticks = _ticks(min(0.0, *xs), max(xs))
    y_ticks = _ticks(0.0, max([*ys, limit or 0.0]))
    wide, high = _W - left - _PAD, height - top - bottom

    def at(x: float, y: float) -> tuple[float, float]:
        y = min(y, y_ticks[-1])
        return (
            left + (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * wide,
            top + high - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * high,
        )

    parts = _head(title, height + 22 * (len(series) > 1) * len(series))
    for tick in y_ticks:
        _, y = at(x_ticks[0], tick)
        parts.append(_rule(left, y, _W - _PAD, y, "#e0e0e0"))
        parts.append(_text(left - 8, y + 4, f"{tick:g}", anchor="end"))
    for tick in x_ticks:
        x, y = at(tick, y_ticks[0])
        parts.append(_text(x, y + 18, f"{tick:g}", anchor="middle"))
    parts.append(_text(left + wide / 2, height - 18, x_name, anchor="middle"))
    parts.append(_text(_PAD, top - 12, y_name))
    if limit is not None:
        _, y = at(x_ticks[0], limit)
        parts.append(_rule(left, y, _W - _PAD, y, "#c62828", dash=True))
        parts.append(_text(_W - _PAD, y - 6, f"limit {limit:g}", anchor="end"))
    for i, line in enumerate(series):
        colour = _COLOURS[i % len(_COLOURS)]
        places = [at(x, y) for x, y in line.points if math.isfinite(y)]
        if len(places) > 1:
            way = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            parts.append(
                f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2"/>'
            )
        marks = [*line.marked, *[True] * (len(line.points) - len(line.marked))]
        finite = [(p, m) for p, m in zip(line.points, marks, strict=True) if math.isfinite(p[1])]
        for (x, y), ((px, py), good) in zip(places, finite, strict=True):
            fill = colour if good else "#fafafa"
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{fill}" stroke="{colour}" '
                f'stroke-width="2"><title>{px:g}: {py:.4g}</title></circle>'
            )
        if len(series) > 1:
            y = height + i * 22
            parts.append(_square(left, y, colour))
            parts.append(_text(left + 22, y + 12, line.name))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from at most `low` to at least `high`."""
    span = high - low or 1.0
    step = 10 ** math.floor(math.log10(span))
    step = next(s for s in (step / 5, step / 2, step, step * 2) if span / s <= 8)
    first = math.floor(low / step)
    last = max(first + 1, math.ceil(high / step - 1e-9))
    return [round(i * step, 10) for i in range(first, last + 1)]


def _head(title: str, height: float) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_W:g} {height:g}" width="{_W:g}" '
        f'height="{height:g}" font-family="system-ui, sans-serif" font-size="13" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_W:g}" height="{height:g}" rx="12" fill="#fafafa"/>',
        f'<text x="{_PAD:g}" y="32" font-size="16" font-weight="600" fill="#263238">'
        f"{escape(title)}</text>",
    ]


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="#37474f" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _rule(x1: float, y1: float, x2: float, y2: float, colour: str, dash: bool = False) -> str:
    more = ' stroke-dasharray="6 4"' if dash else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{more}/>'
    )


def _square(x: float, y: float, colour: str) -> str:
    """What a colour in the legend looks like."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="14" height="14" rx="3" fill="{colour}"/>'
