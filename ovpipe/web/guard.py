"""Who may ask what. A layer around the application that every request goes through.

    Host            a name of this machine, an address, or one of `hosts:`; else 421. A page of
                    somebody else's whose name was made to point here asks under its own name.
    Sec-Fetch-Site  what another site's page embeds or fetches is refused, 403
    method          GET and HEAD, else 405: nothing here changes anything
    token           where one is set: `Authorization: Bearer TOKEN`, or Basic with it as the
                    password, which browsers ask their users for; else 401

Law: without all four nothing is answered but the refusal. Every answer forbids scripts, styles,
frames and forms of other origins, guessing of types, referrers, and keeping what it says.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import re
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = ("GET", "HEAD")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+)(?::[0-9]{1,5})?")
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
]


class Guard:
    """`local`: the page listens for this machine alone. `hosts`: names it may be asked by."""

    def __init__(self, app: ASGIApp, *, local: bool, hosts: Sequence[str], token: str) -> None:
        self._app = app
        self._local = local
        self._hosts = {"localhost", *hosts}
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        answer = self._refusal(scope) or self._app
        await answer(scope, receive, sending)

    def _refusal(self, scope: MutableMapping[str, Any]) -> ASGIApp | None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if not self._knows(_values(headers, b"host")):
            return PlainTextResponse("not a name of this page; see `http: {hosts: ...}`\n", 421)
        sites, modes = _values(headers, b"sec-fetch-site"), _values(headers, b"sec-fetch-mode")
        if {b"cross-site", b"same-site"} & {*sites} and modes != [b"navigate"]:
            return PlainTextResponse("not for pages of other sites\n", 403)
        if scope["method"] not in METHODS:
            allow = {"Allow": ", ".join(METHODS)}
            return PlainTextResponse("nothing here can be changed\n", 405, allow)
        if self._token and not self._admits(_values(headers, b"authorization")):
            ask = {"WWW-Authenticate": 'Basic realm="ovpipe", charset="UTF-8"'}
            return PlainTextResponse("the token is needed, as the password\n", 401, ask)
        return None

    def _knows(self, values: list[bytes]) -> bool:
        found = _HOST.fullmatch(values[0].decode("latin-1")) if len(values) == 1 else None
        if found is None:
            return False
        name = found[1].strip("[]").lower().removesuffix(".")
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in self._hosts
        return address.is_loopback or not self._local

    def _admits(self, values: Iterable[bytes]) -> bool:
        return any(hmac.compare_digest(_secret(value), self._token) for value in values)


def _values(headers: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


def _secret(value: bytes) -> bytes:
    """The token that an Authorization header brings."""
    scheme, _, rest = value.strip().partition(b" ")
    if scheme.lower() == b"bearer":
        return rest.strip()
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
        except binascii.Error:
            pass
    return b""
