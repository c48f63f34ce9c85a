"""Overrides: `stages.cam.url=clip.mp4` from the command line, put into a tree before it is checked.

Law: the tree that comes in is not changed, since anchors share its parts. A value is read as YAML,
so that `5`, `[a, b]` and `640x480` mean what they mean in a file; where it stands is `--set`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ovpipe.errors import ConfigError, Problem
from ovpipe.loader import tree
from ovpipe.loader.tree import Node

FILE = "--set"


def override(root: Node, assignments: Sequence[str]) -> Node:
    """`root` with all that is assigned, in order. Raises ConfigError with each that is wrong."""
    problems = []
    for text in assignments:
        path, equals, value = text.partition("=")
        keys = path.split(".")
        if not equals or not all(keys):
            hint = "write --set stages.cam.url=clip.mp4"
            what = f"'{tree.shown(text)}' assigns nothing"
            problems.append(Problem(what, "", FILE, 1, 1, hint=hint))
            continue
        try:
            new = tree.parse(value, FILE) if value.strip() else tree.parse("''", FILE)
            root = _with(root, keys, new, path)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return root


def _with(node: Node, keys: list[str], new: Node, path: str) -> Node:
    if not keys:
        return new
    key, *rest = keys
    value = node.value
    if isinstance(value, dict):
        child = value.get(key) or Node({}, new.place, keys={})
        places = {**(node.keys or {}), key: new.place}
        return replace(node, value={**value, key: _with(child, rest, new, path)}, keys=places)
    if isinstance(value, list) and key.isdecimal() and int(key) < len(value):
        items = list(value)
        items[int(key)] = _with(items[int(key)], rest, new, path)
        return replace(node, value=items)
    what = f"a list of {len(value)}, from 0" if isinstance(value, list) else "a single value"
    message = f"'{key}' of '{tree.shown(path)}' is not there: {what}"
    raise ConfigError([Problem(message, "", FILE, 1, 1)])
