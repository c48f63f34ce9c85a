"""`${VAR}` in scalars, with Compose's grammar.

    $VAR  ${VAR}        the value; an error where it is unset
    ${VAR:-default}     default where unset or empty;   ${VAR-default}  where unset
    ${VAR:?message}     an error where unset or empty;  ${VAR?message}  where unset
    ${VAR:+other}       other where set and not empty;  ${VAR+other}    where set
    $$                  a dollar sign

Defaults, messages and others may hold variables themselves. Law: pure; an error names the
variable and never a value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")
_MAX_DEPTH = 8


class InterpolationError(ValueError):
    """What is wrong with the text; says no value."""


def interpolate(text: str, environ: Mapping[str, str]) -> str:
    """`text` with its variables replaced. Raises InterpolationError."""
    value, end = _expand(text, 0, environ, 0, "")
    assert end == len(text)
    return value


def _expand(
    text: str, at: int, environ: Mapping[str, str], depth: int, until: str
) -> tuple[str, int]:
    """Replace from `at` to the closing `until` (or the end); the result, and where it ended."""
    if depth > _MAX_DEPTH:
        raise InterpolationError(f"variables nested deeper than {_MAX_DEPTH} levels")
    out: list[str] = []
    while at < len(text) and (not until or text[at] != until):
        if text[at] != "$":
            out.append(text[at])
            at += 1
        elif text.startswith("$$", at):
            out.append("$")
            at += 2
        elif text.startswith("${", at):
            value, at = _braced(text, at, environ, depth)
            out.append(value)
        else:
            match = _NAME.match(text, at + 1)
            if match is None:
                raise InterpolationError("a lone '$'; write '$$' for a dollar sign")
            out.append(_value(match[0], environ))
            at = match.end()
    return "".join(out), at


def _braced(text: str, at: int, environ: Mapping[str, str], depth: int) -> tuple[str, int]:
    match = _NAME.match(text, at + 2)
    if match is None:
        raise InterpolationError("'${' without the name of a variable")
    name, at = match[0], match.end()
    if text.startswith("}", at):
        return _value(name, environ), at + 1
    operator = next((o for o in _OPERATORS if text.startswith(o, at)), None)
    if operator is None:
        raise InterpolationError(f"'${{{name}' is not closed with '}}', or has a wrong operator")
    word, end = _expand_lazily(text, at + len(operator), environ, depth)
    if not text.startswith("}", end):
        raise InterpolationError(f"'${{{name}{operator}' is not closed with '}}'")
    present = name in environ and (":" not in operator or environ[name] != "")
    match operator[-1]:
        case "-":
            return (environ[name] if present else word(), end + 1)
        case "+":
            return (word() if present else "", end + 1)
    if present:
        return environ[name], end + 1
    raise InterpolationError(f"the variable {name} is not set: {word()}".removesuffix(": "))


class _Lazy:
    """A default that is only looked at where it is needed: it may name unset variables."""

    def __init__(self, text: str, environ: Mapping[str, str], depth: int) -> None:
        self._text, self._environ, self._depth = text, environ, depth

    def __call__(self) -> str:
        return _expand(self._text, 0, self._environ, self._depth + 1, "")[0]


def _expand_lazily(text: str, at: int, environ: Mapping[str, str], depth: int) -> tuple[_Lazy, int]:
    level, start = 1, at
    while at < len(text):
        if text.startswith("$$", at):
            at += 2
            continue
        if text.startswith("${", at):
            level += 1
            at += 2
            continue
        if text[at] == "}":
            level -= 1
            if level == 0:
                break
        at += 1
    return _Lazy(text[start:at], environ, depth), at


def _value(name: str, environ: Mapping[str, str]) -> str:
    try:
        return environ[name]
    except KeyError:
        raise InterpolationError(
            f"the variable {name} is not set; set it, or give a default: ${{{name}:-...}}"
        ) from None
