"""The JSON schema of a configuration, for editors: completion, types, descriptions.

Generated from the same classes that check a configuration; `configs/schema.json` is its output
(`ovpipe schema > configs/schema.json`), and a test compares the two. Any scalar may be a
`${VAR}`, so each value that is no string is also allowed to be one.
"""

from __future__ import annotations

from typing import Any, get_args

from ovpipe.loader.options import model_of
from ovpipe.loader.validate import MAX_DEPTH_OF_EDGE, NAME, PIPELINE_NAME
from ovpipe.spec import WhenFull
from ovpipe.stages.registry import BUILT_IN, stage_class

_VARIABLE = {"type": "string", "pattern": r"\$"}
_DURATION = {"type": ["number", "string"], "description": "seconds, or 500ms, 5s, 2m, 1h"}


def schema() -> dict[str, Any]:
    """The whole schema, as plain values."""
    kinds = {kind: _options(kind) for kind in BUILT_IN}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ovpipe pipeline",
        "type": "object",
        "required": ["version", "stages"],
        "properties": {
            "version": {"const": 1},
            "name": {"type": "string", "pattern": f"^{PIPELINE_NAME.pattern}$"},
            "stages": {
                "type": "object",
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
                "properties": {
                    "kind": {
                        "anyOf": [
                            {"enum": list(kinds)},
                            {"type": "string", "pattern": ":", "description": "module:Name"},
                        ]
                    },
                    **_reserved(),
                },
                "allOf": [
                    {
                        "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
                        "then": {
                            "description": options["description"],
                            "properties": {
                                "kind": True,
                                **dict.fromkeys(_reserved(), True),
                                **options["properties"],
                            },
                            "additionalProperties": False,
                        },
                    }
                    for kind, options in kinds.items()
                ],
            },
            "input": {
                "anyOf": [
                    {"type": "string"},
                    {
                        "type": "object",
                        "required": ["from"],
                        "properties": {
                            "from": {"type": "string", "description": "the stage to read"},
                            "depth": _or_variable(
                                {
                                    "type": "integer",
                                    "minimum": 1,
                                    "maximum": MAX_DEPTH_OF_EDGE,
                                    "description": "frames that may wait",
                                }
                            ),
                            "when_full": _or_variable({"enum": list(get_args(WhenFull))}),
                            "max_age": _DURATION,
                        },
                        "additionalProperties": False,
                    },
                ]
            },
            **{name: d for options in kinds.values() for name, d in options["$defs"].items()},
        },
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
            "additionalProperties": {"type": ["object", "null"]},
        },
        "run": {
            "type": "object",
            "properties": {"start_timeout": _DURATION},
            "additionalProperties": False,
        },
        "enabled": _or_variable({"type": "boolean"}),
        "description": {"type": "string"},
    }


def _options(kind: str) -> dict[str, Any]:
    cls = stage_class(kind)
    whole = _ordered(model_of(cls).model_json_schema(ref_template="#/$defs/{model}"))
    return {
        "description": (cls.__doc__ or "").strip().partition("\n")[0],
        "properties": {name: _or_variable(s) for name, s in whole.get("properties", {}).items()},
        "$defs": whole.get("$defs", {}),
    }


def _ordered(value: Any) -> Any:
    """Choices in one order: that of a Literal depends on which equal one was made first."""
    if isinstance(value, dict):
        return {k: sorted(v) if k == "enum" else _ordered(v) for k, v in value.items()}
    return [_ordered(v) for v in value] if isinstance(value, list) else value


def _or_variable(schema: dict[str, Any]) -> dict[str, Any]:
    schema = {k: v for k, v in schema.items() if k != "title"}
    if schema.get("type") == "string" and "enum" not in schema and "const" not in schema:
        return schema
    outer: dict[str, Any] = {k: schema.pop(k) for k in ("description", "default") if k in schema}
    return {**outer, "anyOf": [schema, _VARIABLE]}
