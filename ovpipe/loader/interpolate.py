"""`${VAR}` in scalars, with Compose's grammar.

    $VAR  ${VAR}        the value; an error where it is unset
    ${VAR:-default}     default where unset or empty;   ${VAR-default}  where unset
    ${VAR:?message}     an error where unset or empty;  ${VAR?message}  where unset
    ${VAR:+other}       other where set and not empty;  ${VAR+other}    where set
    $$                  a dollar sign

Defaults and others may hold variables themselves; a message is shown as it is written.
Law: pure and bounded; an error names the variable and never a value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""Of a variable."""
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")
_MAX_DEPTH = 8
_MAX_LENGTH = 1 << 20


class InterpolationError(ValueError):
    """What is wrong with the text; says no value."""


def interpolate(text: str, environ: Mapping[str, str]) -> str:
    """`text` with its variables replaced. Raises InterpolationError."""
    return _expand(text, environ, 0)


def _expand(text: str, environ: Mapping[str, str], depth: int) -> str:
    if depth > _MAX_DEPTH:
        raise InterpolationError(f"variables nested deeper than {_MAX_DEPTH} levels")
    out: list[str] = []
    at = length = 0
    while (dollar := text.find("$", at)) >= 0:
        out.append(text[at:dollar])
        if text.startswith("$$", dollar):
            part, at = "$", dollar + 2
        elif text.startswith("${", dollar):
            part, at = _braced(text, dollar + 2, environ, depth)
        else:
            match = NAME.match(text, dollar + 1)
            if match is None:
                raise InterpolationError("a lone '$'; write '$$' for a dollar sign")
            part, at = _value(match[0], environ), match.end()
        out.append(part)
        length += len(part)
        if length > _MAX_LENGTH:
            raise InterpolationError(f"longer than {_MAX_LENGTH >> 20} MiB with its variables")
    out.append(text[at:])
    return "".join(out)


def _braced(text: str, at: int, environ: Mapping[str, str], depth: int) -> tuple[str, int]:
    """The value of `${...}` whose inside begins at `at`, and where the text goes on."""
    match = NAME.match(text, at)
    if match is None:
        raise InterpolationError("'${' without the name of a variable")
    name, at = match[0], match.end()
    if text.startswith("}", at):
        return _value(name, environ), at + 1
    operator = next((o for o in _OPERATORS if text.startswith(o, at)), None)
    if operator is None:
        raise InterpolationError(f"'${{{name}' is not closed with '}}', or has a wrong operator")
    at += len(operator)
    end = _closing(text, at)
    if end < 0:
        raise InterpolationError(f"'${{{name}{operator}' is not closed with '}}'")
    word = text[at:end]
    present = name in environ and (":" not in operator or environ[name] != "")
    # A word is only expanded where it is used: it may name variables that are not set.
    if operator[-1] == "+":
        return (_expand(word, environ, depth + 1) if present else ""), end + 1
    if present:
        return environ[name], end + 1
    if operator[-1] == "-":
        return _expand(word, environ, depth + 1), end + 1
    message = word.replace("$$", "$")
    raise InterpolationError(f"the variable {name} is not set: {message}".removesuffix(": "))


def _closing(text: str, at: int) -> int:
    """Where the brace closes that is open at `at`; -1 where none does."""
    level = 1
    while at < len(text):
        if text.startswith("$$", at):
            at += 2
        elif text.startswith("${", at):
            level += 1
            at += 2
        else:
            level -= text[at] == "}"
            if level == 0:
                return at
            at += 1
    return -1


def _value(name: str, environ: Mapping[str, str]) -> str:
    try:
        return environ[name]
    except KeyError:
        raise InterpolationError(
            f"the variable {name} is not set; set it, or give a default: ${{{name}:-...}}"
        ) from None
