"""The options of a stage's class: checked, described, made plain. The only user of pydantic.

A model is made from the annotations of the class; nothing is coerced that a reader would be
surprised by: "3" is no int, true is no number, 3 is a float where a float is wanted. Options
are checked as JSON, which is how a worker gets them: a list is what a tuple or a set is
written as, a text what a path is.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import inspect
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

import pydantic
from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, with_config
from typing_extensions import TypedDict, is_typeddict

from ovpipe.hint import near
from ovpipe.options import Mark
from ovpipe.stages.base import Producer, Stage

UNKNOWN_KEY = "unknown key"
_MAX_FAULTS = 200
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|h|d)?")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}
_BYTES = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(?:([kKMGT])(i?))?B?")
_SIZE = re.compile(r"(\d+)\s*[xX]\s*(\d+)")


def duration(value: object) -> object:
    """`500ms`, `5s`, `2m`, `1h`, `7d` or a number of seconds -> seconds."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise ValueError("is no duration; write 500ms, 5s, 2m, 1h or 7d")
        return float(match[1]) * _UNIT_S[match[2]]
    return value


def size(value: object) -> object:
    """`640x480` or [640, 480] -> (640, 480)."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise ValueError("is no size; write 640x480")
        return int(match[1]), int(match[2])
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError("is no size; write 640x480")
    return tuple(value)


def number_of_bytes(value: object) -> object:
    """`500MB`, `50GB`, `4GiB` or a number of bytes -> bytes."""
    if isinstance(value, str):
        match = _BYTES.fullmatch(value.strip())
        if match is None:
            raise ValueError("is no amount of data; write 500MB, 50GB or 4GiB")
        power = "kMGT".index(match[2].replace("K", "k")) + 1 if match[2] else 0
        return round(float(match[1]) * (1024 if match[3] else 1000) ** power)
    return value


_SYNTAX: dict[str, tuple[Any, ...]] = {
    "duration": (
        BeforeValidator(duration),
        WithJsonSchema(
            {"anyOf": [{"type": "number"}, {"type": "string", "pattern": f"^{_DURATION.pattern}$"}]}
        ),
    ),
    "bytes": (
        BeforeValidator(number_of_bytes),
        WithJsonSchema(
            {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": f"^{_BYTES.pattern}$"}]}
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


PATTERNS = {f"^{_DURATION.pattern}$": "duration", f"^{_SIZE.pattern}$": "size"}
"""What a text of this pattern is, in the JSON schema of an option."""


def understood(hint: Any) -> Any:
    """A type hint with our marks turned into pydantic's."""
    if get_origin(hint) is Annotated:
        base, *marks = get_args(hint)
        new: list[Any] = []
        for mark in marks:
            new.extend(_SYNTAX[mark.syntax] if isinstance(mark, Mark) else (mark,))
        return Annotated[(understood(base), *new)]
    if is_typeddict(hint):
        return _typed_dict(hint)
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


def _typed_dict(hint: Any) -> Any:
    """The same keys, with our marks turned into pydantic's, and no others."""
    keys = {k: understood(v) for k, v in get_type_hints(hint, include_extras=True).items()}
    made = cast(Any, TypedDict)(hint.__name__, keys, total=hint.__total__)
    return with_config(ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))(made)


def describe(hint: Any) -> str:
    """The one-line description in an Annotated hint."""
    if get_origin(hint) is Annotated:
        return next((m for m in get_args(hint)[1:] if isinstance(m, str)), "")
    return ""


@functools.cache
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
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())
    return pydantic.create_model(cls.__name__, __config__=config, **fields)


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing wrong with the options: where in them, what, and what to do.

    `discreet` says it without the value, for one that came from a variable: "" where the
    message holds none.
    """

    path: tuple[str | int, ...]
    message: str
    hint: str = ""
    discreet: str = ""


def check(cls: type[Stage], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """The options as plain values (those given), and what is wrong with them."""
    try:
        model = model_of(cls).model_validate_json(json.dumps(given))
    except pydantic.ValidationError as error:
        names = list(model_of(cls).model_fields)
        details = error.errors(include_url=False, include_context=True)[:_MAX_FAULTS]
        return {}, _settled([_fault(e, given, names) for e in details])
    values = model.model_dump(mode="json", include=set(given))
    return values, []


def _fault(error: Any, given: Any, names: list[str]) -> Fault:
    kind, path = error["type"], _path(error["loc"], given)
    if kind == "extra_forbidden":
        return Fault(path, UNKNOWN_KEY, near(str(path[-1]), names) if len(path) == 1 else "")
    if kind == "missing":
        return Fault((*path, error["loc"][-1]), "is required")
    value = _quoted(error["input"])
    if kind == "literal_error":
        message = f"must be {error['ctx']['expected']}"
        words = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        if error["loc"][-1] == "[key]":
            return Fault(path, UNKNOWN_KEY, near(str(error["input"]), words))
        return Fault(path, f"{message}, not {value}", near(str(error["input"]), words, ""), message)
    if kind in ("value_error", "assertion_error"):  # a validator's own words: a predicate
        message = error["msg"].partition(", ")[2]
        return Fault(path, f"{value} {message}", "", f"the value {message}")
    message = error["msg"][:1].lower() + error["msg"][1:]
    message = message.replace("valid array", "list").replace("valid object", "mapping")
    hint = (
        "put it into quotes"
        if kind == "string_type" and not isinstance(error["input"], list | dict | None)
        else ""
    )
    return Fault(path, f"{message}, not {value}", hint, message)


def _path(loc: tuple[str | int, ...], given: Any) -> tuple[str | int, ...]:
    """Where in the given values an error is: without pydantic's names of a union's branches."""
    path: list[str | int] = []
    for part in loc:
        if (isinstance(given, dict) and part in given) or (
            isinstance(given, list) and isinstance(part, int) and part < len(given)
        ):
            path.append(part)
            given = cast(Any, given)[part]
    return tuple(path)


def _quoted(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return {None: "nothing", True: "true", False: "false"}.get(value) or repr(value)


def _settled(faults: list[Fault]) -> list[Fault]:
    """One fault per place. A union that nothing fits says so once per branch, and where a
    branch fits but for something inside, what is inside is the news."""
    inner = {f.path[:n] for f in faults for n in range(len(f.path))}
    result: dict[tuple[str | int, ...], Fault] = {}
    for fault in faults:
        first = result.get(fault.path)
        if fault.path and fault.path in inner:
            continue
        if first is None:
            result[fault.path] = fault
        elif first.discreet and fault.discreet and fault.discreet not in first.discreet:
            either = f"{first.discreet}, or {fault.discreet.removeprefix('input should be ')}"
            value = fault.message.removeprefix(fault.discreet)
            result[fault.path] = Fault(fault.path, either + value, first.hint, either)
    return list(result.values())


def defaults(cls: type[Stage]) -> dict[str, Any]:
    """The options that need not be given, with what they are then, as plain values."""
    try:
        return model_of(cls).model_construct().model_dump(mode="json", warnings=False)
    except (ValueError, TypeError):  # one of them is no plain value
        return {}


def facts(cls: type[Stage], options: Mapping[str, Any]) -> tuple[str, bool]:
    """(role, live) of a class with these valid options."""
    return cls.role, bool(cls(**options).live) if issubclass(cls, Producer) else False


def unusable(cls: type[Stage], reserved: tuple[str, ...]) -> str:
    """What keeps the class itself from being a stage, or ""."""
    if inspect.isabstract(cls):
        return f"does not define {', '.join(sorted(cls.__abstractmethods__))}()"
    clash = [name for name in model_of(cls).model_fields if name in reserved]
    if clash:
        return f"has an option '{clash[0]}', which is a word that every stage has: rename it"
    return ""


def missing(cls: type[Stage]) -> list[str]:
    """What is to be installed before the stage can run."""
    return not_installed(cls.requires)


def not_installed(modules: Mapping[str, str]) -> list[str]:
    """What is to be installed: by module, the extra that brings it."""
    return [
        f"needs the package '{module}': pip install 'ovpipe[{extra}]'"
        for module, extra in modules.items()
        if not _installed(module)
    ]


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is not there
        return False
