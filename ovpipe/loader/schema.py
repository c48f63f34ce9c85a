"""The JSON schema of a configuration, for editors: completion, types, descriptions.

Generated from the same classes that check a configuration; `configs/schema.json` is its output
(`ovpipe schema > configs/schema.json`), and a test compares the two. Any scalar may be a
`${VAR}`, so each value that is no string is also allowed to be one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from ovpipe.loader.card import VARIABLE, card, loose
from ovpipe.loader.http import DEFAULT_LISTEN
from ovpipe.loader.operation import MAX_DEPTH_OF_EDGE, MAX_REPLICAS
from ovpipe.loader.validate import MAX_STAGES, NAME, PIPELINE_NAME
from ovpipe.spec import (
    DEFAULT_DEPTH,
    INFER_STALL_TIMEOUT_S,
    INFER_START_TIMEOUT_S,
    LIVE_AGE_S,
    LIVE_SOURCE_AGE_S,
    STALL_TIMEOUT_S,
    START_TIMEOUT_S,
    Placement,
    RunSpec,
    WhenFull,
    WhenRestart,
)
from ovpipe.stages.registry import BUILT_IN, stage_class


def _duration(description: str) -> dict[str, Any]:
    examples = ["500ms", "5s", "2m", "1h"]
    return {"type": ["number", "string"], "description": description, "examples": examples}


def schema(more: Mapping[str, dict[str, Any]] | None = None) -> dict[str, Any]:
    """The whole schema, as plain values; `more`: cards of kinds that ovpipe has not itself."""
    cards = {kind: card(stage_class(kind)) for kind in BUILT_IN} | dict(more or {})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ovpipe pipeline",
        "type": "object",
        "required": ["version", "stages"],
        "properties": {
            "version": {"const": 1, "description": "of this format"},
            "name": loose(
                {
                    "type": "string",
                    "pattern": f"^{PIPELINE_NAME.pattern}$",
                    "description": "what `ps`, `top` and `stop` call it; else the file's name",
                }
            ),
            "http": _http(),
            "stages": {
                "type": "object",
                "description": "the graph, stage by stage",
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
                "properties": {"kind": _kind(list(cards)), **_reserved()},
                "allOf": [
                    {
                        "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
                        "then": _stage(kind, told),
                    }
                    for kind, told in cards.items()
                ],
            },
            "input": {"anyOf": [{"type": "string"}, _input()]},
            **{f"options.{kind}": told["schema"] for kind, told in cards.items()},
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


def _kind(kinds: list[str]) -> dict[str, Any]:
    own = {"type": "string", "pattern": ":", "description": "module:Name"}
    return {"description": "what the stage is", "anyOf": [{"enum": kinds}, own, VARIABLE]}


def _input() -> dict[str, Any]:
    depth = {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_DEPTH_OF_EDGE,
        "description": "frames that may wait, beside those that the stage works on",
        "default": DEFAULT_DEPTH,
    }
    return {
        "type": "object",
        "required": ["from"],
        "properties": {
            "from": {"type": "string", "description": "the stage to read"},
            "depth": loose(depth),
            "when_full": loose(
                {
                    "enum": list(get_args(WhenFull)),
                    "description": "wait, drop the oldest frame that waits, or refuse the new one; "
                    "else drop_oldest below a live source, block below files",
                }
            ),
            "max_age": _duration(
                "frames older than this are dropped, counted `stale`; none for no limit; "
                f"else {LIVE_SOURCE_AGE_S:g} s at a live source, {LIVE_AGE_S:g} s further down, "
                "none below files"
            ),
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
            "description": "streams of a producer: a name each, and its own options; or names "
            "and ranges as {01..40}, with {key} in the options",
            "anyOf": [
                {
                    "type": "object",
                    "minProperties": 1,
                    "propertyNames": {"pattern": f"^{NAME.pattern}$"},
                    "additionalProperties": {"type": ["object", "null"]},
                },
                {"type": ["string", "integer"]},
                {"type": "array", "minItems": 1, "items": {"type": ["string", "integer"]}},
            ],
        },
        "run": {
            "type": "object",
            "properties": {
                "replicas": loose(
                    {
                        "type": "integer",
                        "minimum": 1,
                        "maximum": MAX_REPLICAS,
                        "description": "processes that share the stage's frames",
                        "default": RunSpec.replicas,
                    }
                ),
                "placement": {
                    "description": "a process of its own, or that of the stage it reads",
                    "enum": list(get_args(Placement)),
                    "default": RunSpec.placement,
                },
                "restart": {
                    "description": "whether a worker that dies gets a successor",
                    "enum": list(get_args(WhenRestart)),
                    "default": RunSpec.restart,
                },
                "max_restarts": loose(
                    {
                        "type": "integer",
                        "minimum": 0,
                        "description": "more of them than this within `within` end the run",
                        "default": RunSpec.max_restarts,
                    }
                ),
                "within": {
                    **_duration("the time that `max_restarts` is about"),
                    "default": RunSpec.within_s,
                },
                "start_timeout": _duration(
                    f"how long opening the stage may take; else {START_TIMEOUT_S:g} s, "
                    f"infer {INFER_START_TIMEOUT_S:g} s"
                ),
                "stall_timeout": _duration(
                    f"how long it may work on one frame; else {STALL_TIMEOUT_S:g} s, "
                    f"infer {INFER_STALL_TIMEOUT_S:g} s"
                ),
            },
            "description": "how the stage's worker is run",
            "additionalProperties": False,
        },
        "enabled": loose(
            {"type": "boolean", "description": "false leaves the stage out", "default": True}
        ),
        "description": {"type": "string", "description": "a word for people"},
    }


def _stage(kind: str, told: dict[str, Any]) -> dict[str, Any]:
    """What a stage of one kind may and must hold."""
    ref = f"#/$defs/options.{kind}"
    reserved: dict[str, Any] = dict.fromkeys(_reserved(), True)
    required = [option["name"] for option in told["options"] if option["required"]]
    must: dict[str, Any] = {"required": required} if required else {}
    if told["role"] == "producer":
        reserved["inputs"] = False
        reserved["for_each"] = {
            "additionalProperties": {"anyOf": [{"$ref": ref}, {"type": "null"}]}
        }
        if required:
            must = {"anyOf": [must, {"required": ["for_each"]}]}
    else:
        reserved["for_each"] = False
    return {
        "description": told["summary"],
        "properties": {
            "kind": True,
            **reserved,
            **{name: {"$ref": f"{ref}/properties/{name}"} for name in told["schema"]["properties"]},
        },
        "additionalProperties": False,
        **must,
    }
