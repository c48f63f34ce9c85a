"""Pictures of a graph: text for a terminal, Mermaid for a page, SVG for everywhere. Pure.

The SVG is laid out in columns, frames going right. Law: no box covers another, no edge runs
behind a box that it does not join, each edge has a place of its own at both ends and so its
words have too; nothing in a name is markup.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from ovpipe.graph import Edge, Graph, Stage

_COLOUR = {"producer": "#2e7d32", "transform": "#1565c0", "consumer": "#8e24aa"}
_INFER = "#c2410c"
_BOX_H, _GAP_X, _GAP_Y, _PAD = 54.0, 150.0, 30.0, 24.0
_PORT, _LANE_H = 20.0, 20.0  # between two edges at one box; of an edge that passes a column
_STRAIGHT = 56.0  # at the end of an edge, below its words
_CHAR_W, _LONGEST = 8.6, 26  # of a name, in pixels and in letters


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
        inline = ", inline" if stage.run.placement == "inline" else ""
        lines.append(f"  {stage.name.ljust(width)}  {stage.kind} ({stage.role}{several}{inline})")
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


def as_svg(graph: Graph) -> str:
    """A picture that needs nothing else, readable on light and on dark."""
    layout = Layout(graph)
    width, height = layout.width, layout.height
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" font-family="system-ui, sans-serif" role="img">',
        f"<title>{escape(graph.name)}</title>",
        f'<rect width="{width:g}" height="{height:g}" rx="12" fill="#fafafa"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="10" '
        'markerHeight="10" markerUnits="userSpaceOnUse" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#78909c"/></marker></defs>',
    ]
    for edge in graph.edges:
        parts.append(_curve(edge, layout.way(edge)))
    for edge in graph.edges:
        parts.extend(_words(edge, layout.way(edge)[-1]))
    for stage in graph.stages:
        parts.extend(_box(stage, layout.cell(stage.name)))
    return "\n".join([*parts, "</svg>"]) + "\n"


@dataclass
class Cell:
    """A box, or the lane of an edge that passes a column."""

    column: int
    width: float
    height: float
    x: float = 0.0
    y: float = 0.0

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


class Layout:
    """Where everything is: columns by the longest way from a producer, rows near neighbours.

    `box`: the least width and height of a stage's box, in pixels.
    """

    def __init__(self, graph: Graph, box: tuple[float, float] = (120.0, _BOX_H)) -> None:
        self._box = box
        self._cells: dict[str, Cell] = {}
        self._leaving: dict[str, list[int]] = {s.name: [] for s in graph.stages}
        self._entering: dict[str, list[int]] = {s.name: [] for s in graph.stages}
        self._ways: dict[int, list[str]] = {}  # edge -> its stages and the lanes between
        for edge in graph.edges:
            self._leaving[edge.source].append(edge.index)
            self._entering[edge.target].append(edge.index)
        self._make_cells(graph)
        columns = max(c.column for c in self._cells.values()) + 1
        self._columns = [
            [n for n, c in self._cells.items() if c.column == i] for i in range(columns)
        ]
        self._near: dict[str, list[str]] = {name: [] for name in self._cells}
        for way in self._ways.values():
            for one, other in pairwise(way):
                self._near[one].append(other)
                self._near[other].append(one)
        self._place_columns()
        self._place_rows()
        for name in self._leaving:  # edges stand at a box in the order of where they lead
            self._leaving[name].sort(key=lambda i: self._cells[self._ways[i][1]].middle)
            self._entering[name].sort(key=lambda i: self._cells[self._ways[i][-2]].middle)

    def cell(self, stage: str) -> Cell:
        """The box of a stage."""
        return self._cells[stage]

    def way(self, edge: Edge) -> list[tuple[float, float]]:
        """The points that an edge goes through, from its source's box to its target's."""
        source, target = self._cells[edge.source], self._cells[edge.target]
        leaving, entering = self._leaving[edge.source], self._entering[edge.target]
        points = [(source.x + source.width, source.middle + _offset(leaving, edge.index))]
        for lane in self._ways[edge.index][1:-1]:
            cell = self._cells[lane]
            points += [(cell.x, cell.middle), (cell.x + cell.width, cell.middle)]
        return [*points, (target.x - 2, target.middle + _offset(entering, edge.index))]

    def _make_cells(self, graph: Graph) -> None:
        for stage in graph.stages:
            sources = [e.source for e in graph.edges if e.target == stage.name]
            column = max((self._cells[s].column + 1 for s in sources), default=0)
            letters = max(len(_title(stage)), len(_short(stage.kind)) * 0.8)
            ports = max(len(self._leaving[stage.name]), len(self._entering[stage.name]))
            width = max(self._box[0], round(letters * _CHAR_W) + 28.0)
            self._cells[stage.name] = Cell(column, width, max(self._box[1], ports * _PORT + 14))
        for edge in graph.edges:
            first, last = self._cells[edge.source].column, self._cells[edge.target].column
            lanes = [f"\0{edge.index} {c}" for c in range(first + 1, last)]  # no stage's name
            for lane, column in zip(lanes, range(first + 1, last), strict=True):
                self._cells[lane] = Cell(column, 0.0, _LANE_H)
            self._ways[edge.index] = [edge.source, *lanes, edge.target]

    def _place_columns(self) -> None:
        x = _PAD
        for names in self._columns:
            width = max(self._cells[name].width for name in names)
            for name in names:
                cell = self._cells[name]
                cell.x, cell.width = x, width
            x += width + _GAP_X
        self.width = x - _GAP_X + _PAD

    def _place_rows(self) -> None:
        for names in self._columns:
            self._stack(names, [0.0] * len(names))
        forth = list(range(len(self._columns)))
        for _ in range(12):  # rows settle; the last pass is in the direction of the frames
            for i in forth[::-1] + forth:
                names = self._columns[i]
                wanted = {n: self._wanted(n) for n in names}
                names.sort(key=wanted.__getitem__)
                self._stack(names, [wanted[n] for n in names])
        first = self._columns[0]  # and the sources stand level with what reads them
        self._stack(first, [self._wanted(n) for n in first])
        top = min(c.y for c in self._cells.values())
        for cell in self._cells.values():
            cell.y += _PAD - top
        self.height = max(c.y + c.height for c in self._cells.values()) + _PAD

    def _wanted(self, name: str) -> float:
        near = [self._cells[other].middle for other in self._near[name]]
        return sum(near) / len(near) if near else self._cells[name].middle

    def _stack(self, names: list[str], wanted: list[float]) -> None:
        """Put cells below one another, as near to the wanted middles as they fit."""
        bottom = float("-inf")
        for name, middle in zip(names, wanted, strict=True):
            cell = self._cells[name]
            cell.y = max(middle - cell.height / 2, bottom)
            bottom = cell.y + cell.height + _GAP_Y
        off = [self._cells[n].middle - m for n, m in zip(names, wanted, strict=True)]
        for name in names:
            self._cells[name].y -= sum(off) / len(off)


def _offset(edges: list[int], index: int) -> float:
    return (edges.index(index) - (len(edges) - 1) / 2) * _PORT


def line(way: list[tuple[float, float]]) -> str:
    """The points of an edge as the path of an SVG."""
    (x, y), last = way[-1], len(way) - 2
    path = f"M{way[0][0]:g} {way[0][1]:g}"
    for i, ((x1, y1), (x2, y2)) in enumerate(pairwise(way)):
        if i % 2:  # every other part is a lane
            path += f" L{x2:g} {y2:g}"
            continue
        x2 -= _STRAIGHT if i == last else 0.0
        bend = (x2 - x1) / 2
        path += f" C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2:g} {y2:g}"
    return path + f" L{x:g} {y:g}"


def _curve(edge: Edge, way: list[tuple[float, float]]) -> str:
    dash = "" if edge.when_full == "block" else ' stroke-dasharray="6 4"'
    return (
        f'<path d="{line(way)}" fill="none" stroke="#78909c" stroke-width="1.8"{dash} '
        f'marker-end="url(#tip)"/>'
    )


def _words(edge: Edge, end: tuple[float, float]) -> list[str]:
    """The label, before the target's box, where those that leave one stage have parted."""
    at = f'x="{end[0] - 14:g}" y="{end[1] - 5:g}" font-size="11" text-anchor="end"'
    text = escape(label(edge))
    return [
        # Twice: a wide outline in the colour of the ground, so that no curve crosses the words.
        f'<text {at} stroke="#fafafa" stroke-width="4" stroke-linejoin="round">{text}</text>',
        f'<text {at} fill="#455a64">{text}</text>',
    ]


def _box(stage: Stage, cell: Cell) -> list[str]:
    colour = _INFER if stage.kind == "infer" else _COLOUR[stage.role]
    middle = cell.x + cell.width / 2
    about = f"{stage.name}: {stage.kind}" + (f" - {stage.description}" * bool(stage.description))
    return [
        f"<g><title>{escape(about)}</title>"
        f'<rect x="{cell.x:g}" y="{cell.y:g}" width="{cell.width:g}" height="{cell.height:g}" '
        f'rx="9" fill="{colour}"/>',
        f'<text x="{middle:g}" y="{cell.middle - 4:g}" font-size="14" font-weight="600" '
        f'fill="#fff" text-anchor="middle">{escape(_title(stage))}</text>',
        f'<text x="{middle:g}" y="{cell.middle + 14:g}" font-size="11" fill="#fff" '
        f'fill-opacity=".85" text-anchor="middle">{escape(_short(stage.kind))}</text></g>',
    ]


def _title(stage: Stage) -> str:
    several = f" ({len(stage.workers)})" if len(stage.workers) > 1 else ""
    return _short(stage.name) + several


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
