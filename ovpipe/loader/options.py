"""The options of a stage's class: checked, described, made plain. The only user of pydantic.

A model is made from the annotations of the class; nothing is coerced that a reader would be
surprised by: "3" is no int, true is no number, 3 is a float where a float is wanted.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import re
from collections.abc import Mapping
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

import pydantic
from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from ovpipe.options import Mark
from ovpipe.stages.base import Producer, Stage

UNKNOWN_KEY = "unknown key"
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|h)?")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_SIZE = re.compile(r"(\d+)\s*[xX]\s*(\d+)")


def duration(value: object) -> object:
    """`500ms`, `5s`, `2m`, `1h` or a number of seconds -> seconds."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"'{value}' is no duration; write 500ms, 5s, 2m or 1h")
        return float(match[1]) * _UNIT_S[match[2]]
    return value


def size(value: object) -> object:
    """`640x480` or [640, 480] -> (640, 480)."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"'{value}' is no size; write 640x480")
        return int(match[1]), int(match[2])
    return tuple(value) if isinstance(value, list) else value


_SYNTAX: dict[str, tuple[Any, ...]] = {
    "duration": (
        BeforeValidator(duration),
        WithJsonSchema(
            {"anyOf": [{"type": "number"}, {"type": "string", "pattern": f"^{_DURATION.pattern}$"}]}
        ),
    ),
    "size": (
        BeforeValidator(size),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string", "pattern": f"^{_SIZE.pattern}$"},
                    {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
                ]
            }
        ),
    ),
}


def understood(hint: Any) -> Any:
    """A type hint with our marks turned into pydantic's."""
    if get_origin(hint) is Annotated:
        base, *marks = get_args(hint)
        new: list[Any] = []
        for mark in marks:
            new.extend(_SYNTAX[mark.syntax] if isinstance(mark, Mark) else (mark,))
        return Annotated[(understood(base), *new)]
    arguments = get_args(hint)
    if (
        arguments
        and get_origin(hint) is not None
        and any(understood(a) is not a for a in arguments)
    ):
        origin = get_origin(hint)
        parts = tuple(understood(a) for a in arguments)
        if isinstance(origin, type) and origin.__name__ == "UnionType":
            result = parts[0]
            for part in parts[1:]:
                result = result | part
            return result
        return origin[parts]
    return hint


def describe(hint: Any) -> str:
    """The one-line description in an Annotated hint."""
    if get_origin(hint) is Annotated:
        return next((m for m in get_args(hint)[1:] if isinstance(m, str)), "")
    return ""


def model_of(cls: type[Stage]) -> type[pydantic.BaseModel]:
    """The pydantic model of a class's options."""
    hints = get_type_hints(cls, include_extras=True)
    fields: dict[str, Any] = {}
    for option in dataclasses.fields(cast(Any, cls)):
        if not option.init:
            continue
        hint = hints[option.name]
        default: Any = ...
        if option.default is not dataclasses.MISSING:
            default = option.default
        info = Field(default, description=describe(hint) or None)
        if option.default_factory is not dataclasses.MISSING:
            info = Field(default_factory=option.default_factory, description=describe(hint) or None)
        fields[option.name] = (understood(hint), info)
    config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())
    return pydantic.create_model(cls.__name__, __config__=config, **fields)


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing wrong with the options: where in them, what, and what to do."""

    path: tuple[str | int, ...]
    message: str
    hint: str = ""


def check(cls: type[Stage], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """The options as plain values (those given), and what is wrong with them."""
    try:
        model = model_of(cls).model_validate(dict(given))
    except pydantic.ValidationError as error:
        names = [f.name for f in dataclasses.fields(cast(Any, cls)) if f.init]
        return {}, [_fault(e, names) for e in error.errors(include_url=False)]
    values = model.model_dump(mode="json", include=set(given))
    return values, []


def _fault(error: Any, names: list[str]) -> Fault:
    path = tuple(error["loc"])
    # pydantic adds the branch of a union to the path; ours ends where the value does.
    path = tuple(p for p in path if isinstance(p, int) or not re.search(r"[\[(-]", p))
    if error["type"] == "extra_forbidden":
        return Fault(path, UNKNOWN_KEY, near(str(path[-1]), names))
    if error["type"] == "missing":
        return Fault(path, "is required")
    if error["type"] == "literal_error":
        return Fault(
            path,
            f"must be {error['ctx']['expected']}, not {error['input']!r}",
            near(str(error["input"]), re.findall(r"'([^']*)'", error["ctx"]["expected"]), ""),
        )
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return Fault(path, f"{message}, not {error['input']!r}"[:300])


def near(word: str, words: list[str], otherwise: str | None = None) -> str:
    """'did you mean ...?' where something is near, else what there is."""
    found = difflib.get_close_matches(word, words, 1)
    if found:
        return f"did you mean '{found[0]}'?"
    return f"known are: {', '.join(words)}" if otherwise is None else otherwise


def facts(cls: type[Stage], options: Mapping[str, Any]) -> tuple[str, bool]:
    """(role, live) of a class with these valid options."""
    return cls.role, bool(cls(**options).live) if issubclass(cls, Producer) else False


def missing(cls: type[Stage]) -> list[str]:
    """What is to be installed before the stage can run."""
    return [
        f"needs the package '{module}': pip install 'ovpipe[{extra}]'"
        for module, extra in cls.requires.items()
        if importlib.util.find_spec(module) is None
    ]
