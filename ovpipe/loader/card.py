"""What people and editors are told of a kind: its options with types, bounds and defaults.

A card is plain values, since those of a user's own kinds come from a child process (kinds.py).
"""

from __future__ import annotations

import inspect
from typing import Any

from ovpipe.loader.options import PATTERNS, defaults, missing, model_of
from ovpipe.stages.base import Stage

VARIABLE = {"type": "string", "pattern": r"\$"}
"""Any scalar may be a `${VAR}`."""


def card(cls: type[Stage]) -> dict[str, Any]:
    """The card of a class.

    `options`: each as {name, type, required, default, description}; `needs`: what it imports, as
    {module, extra}; `missing`: what of that is not installed; `schema`: JSON schema of its options.
    """
    model = model_of(cls)
    whole = _whole(cls)
    given = defaults(cls)
    doc = inspect.cleandoc(cls.__doc__ or "")
    return {
        "summary": doc.partition("\n")[0],
        "doc": doc,
        "role": cls.role,
        "one_process": cls.one_process,
        "needs": [{"module": m, "extra": e} for m, e in cls.requires.items()],
        "missing": missing(cls),
        "options": [
            {
                "name": name,
                "type": type_text(whole["properties"][name]),
                "required": field.is_required(),
                "default": given.get(name),
                "description": field.description or "",
            }
            for name, field in model.model_fields.items()
        ],
        "schema": _options_schema(cls),
    }


def type_text(schema: dict[str, Any]) -> str:
    """A JSON schema in a few words: `integer from 1`, `'bgr' or 'rgb'`, `list of text`."""
    if "anyOf" in schema:
        pattern = next((b["pattern"] for b in schema["anyOf"] if "pattern" in b), "")
        if pattern in PATTERNS:
            return PATTERNS[pattern]
        return " or ".join(dict.fromkeys(map(type_text, schema["anyOf"])))
    if "enum" in schema or "const" in schema:
        return " or ".join(map(repr, schema.get("enum") or [schema["const"]]))
    kind = schema.get("type")
    if kind == "array":
        text = "list" + (f" of {type_text(schema['items'])}" if schema.get("items") else "")
        return text + _bounds(schema, "minItems", "maxItems", "")
    if kind == "object":
        keys, inner = schema.get("properties"), schema.get("additionalProperties")
        if keys:
            return f"mapping of {', '.join(keys)}"
        return f"mapping of {type_text(inner)}" if isinstance(inner, dict) else "mapping"
    words = {"string": "text", "boolean": "true or false", "null": "nothing", None: "any"}
    text = words.get(kind, str(kind))
    if kind == "string":
        return text + _bounds(schema, "minLength", "maxLength", "letters ")
    return text + _bounds(schema, "minimum", "maximum", "")


def _bounds(schema: dict[str, Any], low: str, high: str, what: str) -> str:
    text = ""
    if low in schema:
        text += f" from {schema[low]:g}"
    if "exclusiveMinimum" in schema:
        text += f" above {schema['exclusiveMinimum']:g}"
    if high in schema:
        text += f" to {schema[high]:g}"
    if "exclusiveMaximum" in schema:
        text += f" below {schema['exclusiveMaximum']:g}"
    return f", {what}{text.strip()}" if text and what else text


def _whole(cls: type[Stage]) -> dict[str, Any]:
    whole = _ordered(model_of(cls).model_json_schema())
    inlined: dict[str, Any] = _inlined(whole, whole.pop("$defs", {}))
    return inlined


def _options_schema(cls: type[Stage]) -> dict[str, Any]:
    """The options of a class, none of them required: a for_each spreads them over places."""
    whole = _whole(cls)
    return {
        "type": "object",
        "description": (cls.__doc__ or "").strip().partition("\n")[0],
        "properties": {name: loose(s) for name, s in whole.get("properties", {}).items()},
        "additionalProperties": False,
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


def loose(schema: dict[str, Any]) -> dict[str, Any]:
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
            k: loose(v) if k == "additionalProperties" and isinstance(v, dict) else v
            for k, v in schema.items()
        }
        if "properties" in inside:
            inside["properties"] = {k: loose(v) for k, v in inside["properties"].items()}
        return inside
    if schema.get("type") == "array":
        items = schema.get("items")
        return {**schema, "items": loose(items)} if isinstance(items, dict) else schema
    if not schema or schema in ({"type": "string"}, {"type": "null"}):
        return schema
    return {"anyOf": [schema, VARIABLE]}
