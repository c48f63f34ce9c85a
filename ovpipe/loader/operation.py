"""The reserved words of a stage that say how frames reach it and how it is run."""

from __future__ import annotations

from math import inf
from typing import Any, cast, get_args

from ovpipe.hint import near
from ovpipe.loader.options import duration
from ovpipe.loader.reading import Reading
from ovpipe.loader.tree import Node
from ovpipe.spec import InputSpec, Placement, RunSpec, WhenFull, WhenRestart

INPUT_KEYS = ("from", "depth", "when_full", "max_age")
RUN_KEYS = (
    "placement", "replicas", "restart", "max_restarts", "within", "start_timeout", "stall_timeout",
)  # fmt: skip
MAX_RESTARTS = 1_000_000
MAX_DEPTH_OF_EDGE = 64
MAX_REPLICAS = 32


def inputs(reading: Reading, node: Node, path: str) -> tuple[InputSpec, ...]:
    """`inputs:` - the name of a stage, `{from: name, ...}`, or a list of those."""
    items = node.value if isinstance(node.value, list) else [node]
    found = []
    for i, item in enumerate(items):
        where = f"{path}[{i}]" if isinstance(node.value, list) else path
        if isinstance(item.value, dict):
            found.append(_input(reading, item, where))
            continue
        source = reading.plain(item, where)
        if isinstance(source, str):
            found.append(InputSpec(source, place=item.place))
        else:
            reading.tell(item, where, "must be the name of a stage, or {from: name, ...}")
    return tuple(entry for entry in found if entry is not None)


def _input(reading: Reading, node: Node, path: str) -> InputSpec | None:
    reading.keys(node, path, INPUT_KEYS)
    entries = node.value
    values: dict[str, Any] = {
        k: reading.plain(entries[k], f"{path}.{k}")
        for k in ("from", "depth", "when_full")
        if k in entries
    }
    if "from" not in values:
        reading.tell(node, f"{path}.from", "is required: the name of a stage")
        return None
    source, place = values["from"], entries["from"].place
    if not isinstance(source, str):
        reading.tell(place, f"{path}.from", "must be the name of a stage")
        return None
    if "depth" in values:
        depth = values["depth"]
        if type(depth) is not int or not 1 <= depth <= MAX_DEPTH_OF_EDGE:  # True is an int
            message = f"must be a whole number from 1 to {MAX_DEPTH_OF_EDGE}"
            reading.tell(entries["depth"], f"{path}.depth", message)
    policies, policy = get_args(WhenFull), values.get("when_full")
    if "when_full" in values and policy not in policies:
        where = entries["when_full"]
        hint = "" if reading.private(where) else near(str(policy), policies, "")
        reading.tell(where, f"{path}.when_full", f"must be one of {', '.join(policies)}", hint)
    max_age_s = None
    if "max_age" in entries:
        max_age_s = _max_age_s(reading, entries["max_age"], f"{path}.max_age")
    return InputSpec(source, values.get("depth"), cast(WhenFull | None, policy), max_age_s, place)


def _max_age_s(reading: Reading, node: Node, path: str) -> float | None:
    """A duration, or infinity for `none`."""
    return inf if reading.plain(node, path) == "none" else seconds(reading, node, path)


def run(reading: Reading, node: Node, path: str) -> RunSpec:
    """`run:` - how the stage's worker is run."""
    entries = reading.mapping(node, path, ", ".join(RUN_KEYS))
    reading.keys(node, path, RUN_KEYS)
    values: dict[str, Any] = {}
    for key in ("within", "start_timeout", "stall_timeout"):
        if key in entries:
            given = seconds(reading, entries[key], f"{path}.{key}")
            if given is not None:
                values[f"{key}_s"] = given
    if "replicas" in entries:
        where = entries["replicas"]
        count = values["replicas"] = reading.plain(where, f"{path}.replicas")
        if type(count) is not int or not 1 <= count <= MAX_REPLICAS:
            message = f"must be a whole number from 1 to {MAX_REPLICAS}"
            reading.tell(where, f"{path}.replicas", message)
            values["replicas"] = 1
    for key, choices in (("restart", get_args(WhenRestart)), ("placement", get_args(Placement))):
        if key not in entries:
            continue
        where = entries[key]
        values[key] = reading.plain(where, f"{path}.{key}")
        if values[key] not in choices:
            hint = "" if reading.private(where) else near(str(values[key]), choices, "")
            reading.tell(where, f"{path}.{key}", f"must be one of {', '.join(choices)}", hint)
    if "max_restarts" in entries:
        where = entries["max_restarts"]
        limit = values["max_restarts"] = reading.plain(where, f"{path}.max_restarts")
        if type(limit) is not int or not 0 <= limit <= MAX_RESTARTS:  # True is an int
            reading.tell(where, f"{path}.max_restarts", "must be a whole number from 0")
    return RunSpec(**values)


def seconds(reading: Reading, node: Node, path: str) -> float | None:
    """A duration greater than 0, in seconds; None and a problem where it is none."""
    given = reading.plain(node, path)
    try:
        value = duration(given)
    except ValueError as error:
        shown = "the value" if reading.private(node) else repr(given)
        reading.tell(node, path, f"{shown} {error}")
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        reading.tell(node, path, "must be a duration greater than 0, as 500ms or 5s")
        return None
    return float(value)
