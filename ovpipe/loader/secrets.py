"""Which values are secrets, by their names and their looks, and how they are shown instead. Pure.

A secret is what an option, a mapping's key, a word of a command or a variable is called that way;
name and password in a URL; a parameter of its query that is called that way.

Law: what `shown` gives holds no such value. Where it came from a variable, the variable is named
instead, so that what is shown may be run where that is set; otherwise there are three stars.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ovpipe.loader.tree import Node

STARS = "***"
_WORDS = {
    "password", "passwd", "pass", "pwd", "passphrase", "pw", "secret", "secrets", "token", "tokens",
    "credential", "credentials", "auth", "authorization", "apikey", "cookie", "jwt", "signature",
    "sig", "sas", "pin",
}  # fmt: skip
_KEYS = {
    "api",
    "access",
    "private",
    "secret",
    "shared",
    "client",
    "account",
    "signing",
    "encryption",
}
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(:?[-?+])?([^{}]*)\})")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^/?#\s]*@)?([^?#\s]*)(\?[^#\s]*)?")
_LEAST = 4  # letters of a value that is looked for in others


def is_secret(name: str) -> bool:
    """Whether something of that name is one: `password`, `api_key`, `RTSP_TOKEN`, `authToken`."""
    parts = re.split(r"[^a-z0-9]+", re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower())
    joined = "".join(parts)
    if any(p in _WORDS for p in parts) or joined.endswith(
        ("password", "passwd", "secret", "token")
    ):
        return True
    return "key" in parts and (len(parts) > 1 and (name.isupper() or not _KEYS.isdisjoint(parts)))


class Masker:
    """Shows values of one configuration. `environ`: what its variables refer to."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        values = {environ[name] for name in environ if is_secret(name)}
        self._values = sorted((v for v in values if len(v) >= _LEAST), key=len, reverse=True)

    def shown(self, name: str, value: Any, node: Node | None = None) -> Any:
        """A value as it may be shown; `name`: of its option or key, `node`: as it was written."""
        if isinstance(value, Mapping):
            inner = node.value if node is not None and isinstance(node.value, dict) else {}
            return {k: self.shown(f"{name}.{k}", v, inner.get(str(k))) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return self._items(name, list(value), node)
        hidden = value is not None and value != "" and is_secret(name)
        masked = STARS if hidden else self._masked(value)
        if node is not None and isinstance(node.value, str) and "$" in node.text:
            named = [match[1] or match[2] for match in _VARIABLE.finditer(node.text)]
            if hidden or masked != value or any(map(is_secret, named)):
                return Expression.of(node.text)
        return masked

    def _items(self, name: str, values: list[Any], node: Node | None) -> list[Any]:
        nodes = node.value if node is not None and isinstance(node.value, list) else []
        result = []
        for i, value in enumerate(values):
            before = values[i - 1] if i else ""
            flag = isinstance(before, str) and before.startswith("-") and is_secret(before)
            called = before if flag and isinstance(before, str) else name
            result.append(self.shown(called, value, nodes[i] if i < len(nodes) else None))
        return result

    def _masked(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        text = _URL.sub(_without_secrets, value)
        text = re.sub(r"(?<=[\s-])([\w-]+)=(\S+)", _assigned, f" {text}")[1:]
        for secret in self._values:
            text = text.replace(secret, STARS)
        return text


class Expression(str):
    """A text with variables in it, to be written as it is: its dollar signs mean variables."""

    @classmethod
    def of(cls, written: str) -> Expression:
        """Of what was written, without the defaults of its variables and what stands around."""
        found = list(_VARIABLE.finditer(written))
        if "${" in _VARIABLE.sub("", written) or not found:  # one within another
            return cls(STARS)
        text = _VARIABLE.sub(lambda m: f"${{{m[1] or m[2]}}}", written)
        return cls(_URL.sub(_without_secrets, text))


def _assigned(match: re.Match[str]) -> str:
    return f"{match[1]}={STARS}" if is_secret(match[1]) else match[0]


def _without_secrets(match: re.Match[str]) -> str:
    scheme, user, place, query = match.groups(default="")
    name, colon, password = user.removesuffix("@").partition(":")
    if colon and not _VARIABLE.fullmatch(password):
        user = f"{name}:{STARS}@"
    parameters = []
    for parameter in query.removeprefix("?").split("&"):
        key, equals, value = parameter.partition("=")
        hide = (
            equals and (is_secret(key) or key.lower() == "key") and not _VARIABLE.fullmatch(value)
        )
        parameters.append(f"{key}={STARS}" if hide else parameter)
    return scheme + user + place + ("?" if query else "") + "&".join(parameters)
