"""The JSON schema of a configuration, for editors: completion, types, descriptions.

Generated from the same classes that check a configuration; `configs/schema.json` is its output
(`ovpipe schema > configs/schema.json`), and a test compares the two. Any scalar may be a
`${VAR}`, so each value that is no string is also allowed to be one.
"""

from __future__ import annotations

from typing import Any, get_args

from ovpipe.loader.http import DEFAULT_LISTEN
from ovpipe.loader.operation import MAX_DEPTH_OF_EDGE, MAX_REPLICAS
from ovpipe.loader.options import model_of
from ovpipe.loader.validate import MAX_STAGES, NAME, PIPELINE_NAME
from ovpipe.spec import WhenFull, WhenRestart
from ovpipe.stages.base import Stage
from ovpipe.stages.registry import BUILT_IN, stage_class

_VARIABLE = {"type": "string", "pattern": r"\$"}
_DURATION = {"type": ["number", "string"], "description": "seconds, or 500ms, 5s, 2m, 1h"}


def schema() -> dict[str, Any]:
    """The whole schema, as plain values."""
    kinds = {kind: _options(stage_class(kind)) for kind in BUILT_IN}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ovpipe pipeline",
        "type": "object",
        "required": ["version", "stages"],
        "properties": {
            "version": {"const": 1},
            "name": _loose({"type": "string", "pattern": f"^{PIPELINE_NAME.pattern}$"}),
            "http": _http(),
            "stages": {
                "type": "object",
                "minProperties": 1,
                "maxProperties": MAX_STAGES,
                "propertyNames": {"pattern": f"^{NAME.pattern}$"},
                "additionalProperties": {"$ref": "#/$defs/stage"},
            },
        },
        "patternProperties": {"^x-": True},
        "additionalProperties": False,
        "$defs": {
            "stage": {
                "type": "object",
                "required": ["kind"],
                "properties": {"kind": _kind(), **_reserved()},
                "allOf": [
                    {
                        "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
                        "then": _stage(kind, options),
                    }
                    for kind, options in kinds.items()
                ],
            },
            "input": {"anyOf": [{"type": "string"}, _input()]},
            **{f"options.{kind}": options for kind, options in kinds.items()},
        },
    }


def _http() -> dict[str, Any]:
    must_know = "what visitors must know; needed beyond this machine"
    return {
        "type": "object",
        "description": "a page that shows the run",
        "properties": {
            "listen": {"type": "string", "description": "HOST:PORT", "default": DEFAULT_LISTEN},
            "token": {"type": "string", "description": must_know},
            "hosts": {
                "description": "other names under which visitors ask for it",
                "type": "array",
                "items": {"type": "string"},
            },
        },
        "additionalProperties": False,
    }


def _kind() -> dict[str, Any]:
    own = {"type": "string", "pattern": ":", "description": "module:Name"}
    return {"anyOf": [{"enum": list(BUILT_IN)}, own, _VARIABLE]}


def _input() -> dict[str, Any]:
    depth = {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_DEPTH_OF_EDGE,
        "description": "frames that may wait",
    }
    return {
        "type": "object",
        "required": ["from"],
        "properties": {
            "from": {"type": "string", "description": "the stage to read"},
            "depth": _loose(depth),
            "when_full": _loose({"enum": list(get_args(WhenFull))}),
            "max_age": _DURATION,
        },
        "additionalProperties": False,
    }


def _reserved() -> dict[str, Any]:
    return {
        "inputs": {
            "description": "what the stage reads; without any, each reads the one above it",
            "anyOf": [
                {"$ref": "#/$defs/input"},
                {"type": "array", "items": {"$ref": "#/$defs/input"}},
            ],
        },
        "for_each": {
            "type": "object",
            "description": "streams of a producer: a name each, and its own options",
            "minProperties": 1,
            "propertyNames": {"pattern": f"^{NAME.pattern}$"},
            "additionalProperties": {"type": ["object", "null"]},
        },
        "run": {
            "type": "object",
            "properties": {
                "replicas": _loose({"type": "integer", "minimum": 1, "maximum": MAX_REPLICAS}),
                "restart": {
                    "description": "whether a worker that dies gets a successor",
                    "enum": list(get_args(WhenRestart)),
                },
                "max_restarts": _loose({"type": "integer", "minimum": 0}),
                "within": _DURATION,
                "start_timeout": _DURATION,
                "stall_timeout": _DURATION,
            },
            "additionalProperties": False,
        },
        "enabled": _loose({"type": "boolean"}),
        "description": {"type": "string"},
    }


def _options(cls: type[Stage]) -> dict[str, Any]:
    """The options of a class, none of them required: a for_each spreads them over places."""
    whole = _ordered(model_of(cls).model_json_schema())
    whole = _inlined(whole, whole.pop("$defs", {}))
    return {
        "type": "object",
        "description": (cls.__doc__ or "").strip().partition("\n")[0],
        "properties": {name: _loose(s) for name, s in whole.get("properties", {}).items()},
        "additionalProperties": False,
    }


def _stage(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """What a stage of one kind may and must hold."""
    cls, ref = stage_class(kind), f"#/$defs/options.{kind}"
    reserved: dict[str, Any] = dict.fromkeys(_reserved(), True)
    required = [name for name, f in model_of(cls).model_fields.items() if f.is_required()]
    must: dict[str, Any] = {"required": required} if required else {}
    if cls.role == "producer":
        reserved["inputs"] = False
        reserved["for_each"] = {
            "additionalProperties": {"anyOf": [{"$ref": ref}, {"type": "null"}]}
        }
        if required:
            must = {"anyOf": [must, {"required": ["for_each"]}]}
    else:
        reserved["for_each"] = False
    return {
        "description": options["description"],
        "properties": {
            "kind": True,
            **reserved,
            **{name: {"$ref": f"{ref}/properties/{name}"} for name in options["properties"]},
        },
        "additionalProperties": False,
        **must,
    }


def _ordered(value: Any) -> Any:
    """Choices in one order: that of a Literal depends on which equal one was made first."""
    if isinstance(value, dict):
        return {k: sorted(v) if k == "enum" else _ordered(v) for k, v in value.items()}
    return [_ordered(v) for v in value] if isinstance(value, list) else value


def _inlined(value: Any, defs: dict[str, Any]) -> Any:
    """With what a typed dict holds in the place where it is named."""
    if isinstance(value, dict):
        named = defs.get(value.get("$ref", "").rpartition("/")[2])
        if named is not None:
            value = {**named, **{k: v for k, v in value.items() if k != "$ref"}}
        return {k: _inlined(v, defs) for k, v in value.items()}
    return [_inlined(v, defs) for v in value] if isinstance(value, list) else value


def _loose(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with a variable allowed for every scalar in it, however deep."""
    schema = {k: v for k, v in schema.items() if k != "title"}
    outer: dict[str, Any] = {k: schema.pop(k) for k in ("description", "default") if k in schema}
    return {**outer, **_with_variables(schema)}


def _with_variables(schema: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in schema:
        branches = [_with_variables(b) for b in schema["anyOf"]]
        flat = [inner for b in branches for inner in b.get("anyOf", [b])]
        return {**schema, "anyOf": [b for i, b in enumerate(flat) if b not in flat[:i]]}
    if schema.get("type") == "object":
        inside = {
            k: _loose(v) if k == "additionalProperties" and isinstance(v, dict) else v
            for k, v in schema.items()
        }
        if "properties" in inside:
            inside["properties"] = {k: _loose(v) for k, v in inside["properties"].items()}
        return inside
    if schema.get("type") == "array":
        items = schema.get("items")
        return {**schema, "items": _loose(items)} if isinstance(items, dict) else schema
    if not schema or schema in ({"type": "string"}, {"type": "null"}):
        return schema
    return {"anyOf": [schema, _VARIABLE]}
