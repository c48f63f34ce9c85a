"""Spec -> YAML: what `load` reads back as the same graph.

Stages that came from YAML are written as they stood there, comments and anchors aside: a variable
by its name, never by its value. Those added in Python are written with the values they have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from ovpipe.errors import ConfigError, Problem
from ovpipe.loader import tree
from ovpipe.loader.tree import Node
from ovpipe.loader.validate import NAME, PIPELINE_NAME
from ovpipe.spec import InputSpec, Place, RunSpec, StageSpec


def write(name: str, root: Node | None, added: Sequence[StageSpec]) -> str:
    """The YAML of a pipeline: a tree that was read, if there is one, and stages added to it.

    Raises ConfigError where a name cannot stand in YAML.
    """
    if not PIPELINE_NAME.fullmatch(name):
        message = f"the pipeline's name is '{tree.shown(name)}'"
        hint = "in YAML it is 1 to 64 letters, digits, '_', '.' or '-'"
        raise ConfigError([Problem(message, "name", hint=hint)])
    top = dict(root.value) if root is not None else {"version": _node(1)}
    stages = dict(top.pop("stages").value) if root is not None else {}
    for stage in added:
        if not NAME.fullmatch(stage.name):
            raise ConfigError(f"stage '{tree.shown(stage.name)}' has a name that YAML cannot hold")
        stages[stage.name] = _node(_stage(stage))
    top.setdefault("name", _node(name))
    return tree.write(Node({**top, "stages": Node(stages, Place())}, Place()))


def _stage(stage: StageSpec) -> dict[str, Any]:
    values: dict[str, Any] = {"kind": stage.kind}
    if stage.description:
        values["description"] = stage.description
    if stage.inputs is not None:
        inputs = [_input(entry) for entry in stage.inputs]
        values["inputs"] = inputs[0] if len(inputs) == 1 else inputs
    values.update(stage.options)
    if stage.for_each is not None:
        values["for_each"] = {key: dict(options) for key, options in stage.for_each.items()}
    default = RunSpec()
    run = {
        field.name.removesuffix("_s"): getattr(stage.run, field.name)
        for field in fields(RunSpec)
        if getattr(stage.run, field.name) != getattr(default, field.name)
    }
    return {**values, "run": run} if run else values


def _input(entry: InputSpec) -> str | dict[str, Any]:
    """The name alone where nothing else is said."""
    max_age = "none" if entry.max_age_s == float("inf") else entry.max_age_s
    said = {"depth": entry.depth, "when_full": entry.when_full, "max_age": max_age}
    said = {key: value for key, value in said.items() if value is not None}
    return {"from": entry.source, **said} if said else entry.source


def _node(value: Any) -> Node:
    if isinstance(value, Mapping):
        return Node({str(k): _node(v) for k, v in value.items()}, Place())
    if isinstance(value, list | tuple):
        return Node([_node(v) for v in value], Place())
    if isinstance(value, str):  # `$` is an ordinary character in Python's
        return Node(value, Place(), text=value.replace("$", "$$"))
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    if isinstance(value, float) and text.strip("-") in ("inf", "nan"):
        text = text.replace("inf", ".inf").replace("nan", ".nan")
    return Node(value, Place(), plain=True, text=text)
