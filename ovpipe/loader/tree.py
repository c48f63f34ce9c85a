"""YAML text <-> a tree of values, each with its place. The only file that knows yaml.

The parser's events are composed here and not by the yaml package, since that builds objects
from tags, expands aliases without bound, and lets the last of two equal keys win.

Law: `parse` gives a Node or raises ConfigError with a place; no text makes it run code, recurse
deeper than MAX_DEPTH, or make more than MAX_NODES nodes or MAX_TEXT characters, aliases
expanded. Scalars are those of YAML 1.2's core schema: `no`, `on` and `yes` are strings.
`write` is the inverse, but for places: what `parse` makes of its text is the same tree.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from ovpipe.errors import ConfigError, Problem
from ovpipe.spec import Place

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"
MAX_NODES = 100_000
MAX_TEXT = 4 * MAX_BYTES

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


@dataclass(frozen=True)
class Node:
    """A value: a dict of str to Node, a list of Node, or a scalar.

    `plain`: a scalar written without quotes, whose type is read off its text. `keys`: where
    each key of a mapping stands.
    """

    value: Any
    place: Place
    plain: bool = False
    text: str = ""
    keys: dict[str, Place] | None = None


def read(path: str | Path) -> str:
    """The text of a file, or of stdin for `-`. Raises ConfigError."""
    name = str(path)
    try:
        if name == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            if Path(path).stat().st_size > MAX_BYTES:
                raise ConfigError(f"{name}: larger than {MAX_BYTES >> 20} MiB: not a configuration")
            with open(path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{name}: larger than {MAX_BYTES >> 20} MiB: not a configuration")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise ConfigError([Problem("not UTF-8", "", name, line, column)]) from None


def parse(text: str, file: str = "") -> Node:
    """The tree of the one document in `text`. Raises ConfigError."""
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{file}: larger than {MAX_BYTES >> 20} MiB: not a configuration")
    composer = _Composer(file)
    try:
        return composer.document(yaml.parse(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file, 1, 1)
        problem = error.problem or error.context or ""
        if "nesting depth" in problem:  # a bound of the parser's own, which looks ahead
            raise _wrong(_TOO_DEEP, place) from None
        raise _wrong(f"not YAML: {problem}", place, _yaml_hint(text, place)) from None
    except yaml.YAMLError as error:
        raise _wrong(f"not YAML: {str(error).splitlines()[0]}", Place(file, 1, 1)) from None
    except UnicodeEncodeError:  # a text from Python may hold halves of surrogate pairs
        raise _wrong("not YAML: not Unicode text", Place(file, 1, 1)) from None


def write(root: Node) -> str:
    """The text of a tree; a scalar stands there as it was written, `${VAR}` and all."""
    events = [
        yaml.StreamStartEvent(),
        yaml.DocumentStartEvent(explicit=False),
        *_events(root),
        yaml.DocumentEndEvent(explicit=False),
        yaml.StreamEndEvent(),
    ]
    return str(yaml.emit(events, allow_unicode=True, width=MAX_BYTES, Dumper=yaml.SafeDumper))


def _events(node: Node) -> Iterator[Any]:
    if isinstance(node.value, dict):
        yield yaml.MappingStartEvent(None, None, True, flow_style=not node.value)
        for key, value in node.value.items():
            yield _scalar(key, plain=key.isprintable())
            yield from _events(value)
        yield yaml.MappingEndEvent()
    elif isinstance(node.value, list):
        leaves = not any(isinstance(item.value, dict | list) for item in node.value)
        yield yaml.SequenceStartEvent(None, None, True, flow_style=leaves)
        for item in node.value:
            yield from _events(item)
        yield yaml.SequenceEndEvent()
    else:
        yield _scalar(node.text, node.plain or _is_text(node.text))


def _scalar(text: str, plain: bool) -> Any:
    """The emitter quotes what could not be read as plain text; `plain`: it may be, else."""
    return yaml.ScalarEvent(None, None, (True, True), text, style=None if plain else '"')


def _is_text(text: str) -> bool:
    """True where a plain scalar is that very text, whatever it may become with variables."""
    return "$" not in text and text.isprintable() and isinstance(scalar(text), str)


def scalar(text: str) -> Any:
    """The value of a plain scalar, by YAML 1.2's core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) <= 40:
        if _INT.fullmatch(text):
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
    return text


def _wrong(message: str, place: Place, hint: str = "") -> ConfigError:
    return ConfigError([Problem(shown(message), "", place.file, place.line, place.column, hint)])


def shown(text: str, most: int = 400) -> str:
    """`text` for one line of a message: nothing in it moves a cursor, and it ends."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut)


def _yaml_hint(text: str, place: Place) -> str:
    """What has most likely gone wrong in the line where the parser gave up."""
    line = next(islice(text.split("\n"), place.line - 1, None), "")
    if "\t" in line[: len(line) - len(line.lstrip(" \t"))]:
        return "indent with spaces, not with tabs"
    if "${" in line:
        return "inside of {...} and [...] a ${VAR} must be in quotes"
    return ""


class _Composer:
    def __init__(self, file: str) -> None:
        self._file = file
        self._anchors: dict[str, tuple[Node, int, int]] = {}
        self._nodes = 0
        self._text = 0

    def _place(self, event: Any) -> Place:
        return Place(self._file, event.start_mark.line + 1, event.start_mark.column + 1)

    def document(self, events: Iterator[Any]) -> Node:
        root: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise _wrong("a second document: one file is one pipeline", self._place(event))
                root = self._node(next(events), events, 0)
        if root is None:
            raise _wrong("the file is empty", Place(self._file, 1, 1))
        return root

    def _count(self, nodes: int, text: int, place: Place) -> None:
        self._nodes += nodes
        self._text += text
        if self._nodes > MAX_NODES:
            raise _wrong(f"more than {MAX_NODES} values, aliases expanded", place)
        if self._text > MAX_TEXT:
            raise _wrong(f"more than {MAX_TEXT >> 20} MiB of text, aliases expanded", place)

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        place = self._place(event)
        if depth > MAX_DEPTH:
            raise _wrong(_TOO_DEEP, place)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise _wrong(f"alias '*{event.anchor}' has no anchor before it", place)
            node, nodes, text = self._anchors[event.anchor]
            self._count(nodes, text, place)
            return node
        if event.tag is not None:
            raise _wrong(f"the tag '{event.tag}' is not allowed: values only", place)
        nodes, text, anchor = self._nodes, self._text, event.anchor
        self._count(1, len(event.value) if isinstance(event, yaml.ScalarEvent) else 0, place)
        if isinstance(event, yaml.MappingStartEvent):
            node = self._mapping(place, events, depth)
        elif isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(event := next(events), yaml.SequenceEndEvent):
                items.append(self._node(event, events, depth + 1))
            node = Node(items, place)
        else:
            plain = not event.style  # quoted and block scalars have one
            value = scalar(event.value) if plain else event.value
            node = Node(value, place, plain, event.value)
        if anchor is not None:
            self._anchors[anchor] = node, self._nodes - nodes, self._text - text
        return node

    def _mapping(self, place: Place, events: Iterator[Any], depth: int) -> Node:
        value: dict[str, Node] = {}
        keys: dict[str, Place] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            where = self._place(event)
            if not isinstance(event, yaml.ScalarEvent) or event.tag is not None:
                raise _wrong("a key must be plain text", where)
            if event.value in keys:
                first = keys[event.value].line
                raise _wrong(f"the key '{event.value}' stands twice (first in line {first})", where)
            self._count(0, len(event.value), where)
            keys[event.value] = where
            value[event.value] = self._node(next(events), events, depth + 1)
        return Node(value, place, keys=keys)
