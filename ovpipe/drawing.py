"""Pictures of a graph: text for a terminal, Mermaid for a page, SVG for everywhere. Pure."""

from __future__ import annotations

import re
from html import escape

from ovpipe.graph import Edge, Graph, Stage

_COLOUR = {"producer": "#2e7d32", "transform": "#1565c0", "consumer": "#8e24aa"}
_INFER = "#c2410c"
_BOX_W, _BOX_H, _GAP_X, _GAP_Y, _PAD = 150, 54, 130, 34, 24


def label(edge: Edge) -> str:
    """What an edge does when it is full, how many frames may wait, and for how long."""
    policy = "block" if edge.when_full == "block" else "newest"
    age = "" if edge.max_age_s is None else f", {edge.max_age_s * 1000:g} ms"
    return f"{policy} {edge.depth}{age}"


def as_text(graph: Graph) -> str:
    """One line per stage, in the order of the frames, and its edges below it."""
    lines = [f"{graph.name}: {len(graph.stages)} stages, {len(graph.edges)} edges"]
    width = max(len(s.name) for s in graph.stages)
    for stage in graph.stages:
        several = f", {len(stage.workers)} streams" if len(stage.workers) > 1 else ""
        lines.append(f"  {stage.name.ljust(width)}  {stage.kind} ({stage.role}{several})")
        leaving = [e for e in graph.edges if e.source == stage.name]
        for edge in leaving:
            corner = "└" if edge is leaving[-1] else "├"
            lines.append(f"  {' ' * width}  {corner}─▶ {edge.target}  [{label(edge)}]")
    return "\n".join(lines) + "\n"


def as_mermaid(graph: Graph) -> str:
    """A Mermaid flowchart."""
    number = {stage.name: f"s{i}" for i, stage in enumerate(graph.stages)}
    lines = ["flowchart LR"]
    for stage in graph.stages:
        text = f"{_mermaid(stage.name)}<br/><small>{_mermaid(stage.kind)}</small>"
        left, right = {"producer": ("([", "])"), "consumer": ("[/", "/]")}.get(
            stage.role, ("[", "]")
        )
        lines.append(f'  {number[stage.name]}{left}"{text}"{right}')
    for edge in graph.edges:
        lines.append(f'  {number[edge.source]} -->|"{label(edge)}"| {number[edge.target]}')
    return "\n".join(lines) + "\n"


def _mermaid(text: str) -> str:
    """Everything but the plainest characters as a number: nothing in a name is markup."""
    return re.sub(r"[^A-Za-z0-9_./: -]", lambda m: f"#{ord(m[0])};", text)


def _places(graph: Graph) -> dict[str, tuple[int, int]]:
    """Column and row of each stage: columns by the longest way from a producer."""
    column: dict[str, int] = {}
    rows: dict[int, list[str]] = {}
    for stage in graph.stages:
        sources = [e.source for e in graph.edges if e.target == stage.name]
        column[stage.name] = max((column[s] + 1 for s in sources), default=0)
        rows.setdefault(column[stage.name], []).append(stage.name)
    place: dict[str, tuple[int, int]] = {}
    for c in sorted(rows):

        def height(name: str) -> float:
            above = [place[e.source][1] for e in graph.edges if e.target == name]
            return sum(above) / len(above) if above else 0.0

        for r, name in enumerate(sorted(rows[c], key=height) if c else rows[c]):
            place[name] = (c, r)
    return place


def as_svg(graph: Graph) -> str:
    """A picture that needs nothing else, readable on light and on dark."""
    place = _places(graph)
    columns = max(c for c, _ in place.values()) + 1
    tallest = max(r for _, r in place.values()) + 1
    used = {c: max(r for cc, r in place.values() if cc == c) + 1 for c in range(columns)}

    def corner(name: str) -> tuple[float, float]:
        c, r = place[name]
        shift = (tallest - used[c]) * (_BOX_H + _GAP_Y) / 2
        return _PAD + c * (_BOX_W + _GAP_X), _PAD + shift + r * (_BOX_H + _GAP_Y)

    width = 2 * _PAD + columns * _BOX_W + (columns - 1) * _GAP_X
    height = 2 * _PAD + tallest * _BOX_H + (tallest - 1) * _GAP_Y
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="system-ui, sans-serif" role="img">',
        f"<title>{escape(graph.name)}</title>",
        f'<rect width="{width}" height="{height}" rx="12" fill="#fafafa"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0 0 8 4 0 8z" fill="#78909c"/></marker></defs>',
    ]
    for edge in graph.edges:
        parts.extend(_edge(edge, corner(edge.source), corner(edge.target)))
    for stage in graph.stages:
        parts.extend(_box(stage, *corner(stage.name)))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _edge(edge: Edge, source: tuple[float, float], target: tuple[float, float]) -> list[str]:
    x1, y1 = source[0] + _BOX_W, source[1] + _BOX_H / 2
    x2, y2 = target[0] - 2, target[1] + _BOX_H / 2
    bend = max(40.0, (x2 - x1) / 2)
    line = f"M{x1:g} {y1:g} C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2:g} {y2:g}"
    dash = "" if edge.when_full == "block" else ' stroke-dasharray="6 4"'
    # At the end of the curve, where those that leave one stage have parted.
    at = f'x="{x2 - 62:g}" y="{y2 - 8:g}" font-size="11" text-anchor="middle"'
    text = escape(label(edge))
    return [
        f'<path d="{line}" fill="none" stroke="#78909c" stroke-width="2"{dash} '
        f'marker-end="url(#tip)"/>',
        # Twice: a wide outline in the colour of the ground, so that no curve crosses the words.
        f'<text {at} stroke="#fafafa" stroke-width="4">{text}</text>',
        f'<text {at} fill="#455a64">{text}</text>',
    ]


def _box(stage: Stage, x: float, y: float) -> list[str]:
    colour = _INFER if stage.kind == "infer" else _COLOUR[stage.role]
    several = f" ({len(stage.workers)})" if len(stage.workers) > 1 else ""
    middle = x + _BOX_W / 2
    return [
        f'<rect x="{x:g}" y="{y:g}" width="{_BOX_W}" height="{_BOX_H}" rx="9" fill="{colour}"/>',
        f'<text x="{middle:g}" y="{y + 23:g}" font-size="14" font-weight="600" fill="#fff" '
        f'text-anchor="middle">{escape(_short(stage.name) + several)}</text>',
        f'<text x="{middle:g}" y="{y + 41:g}" font-size="11" fill="#fff" fill-opacity=".85" '
        f'text-anchor="middle">{escape(_short(stage.kind, 24))}</text>',
    ]


def _short(text: str, most: int = 18) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
