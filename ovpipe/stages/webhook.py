"""Webhook: what was found, posted to a server of yours over HTTP.

One message is posted as a JSON object, with `batch` over 1 as a list of up to so many.

    2xx                      confirmed
    408 425 429 5xx          not now: tried again, not before `Retry-After`
    401 403 407, 3xx         denied: wrong password, or address; kept, and tried again every minute
    any other                the message is refused: counted, told, and not sent again; the messages
                             of a list are each sent alone before

Law: a request goes to the host of the url and nowhere else; redirections are not followed, no
proxy is asked. Certificates are checked. What is sent again has the same `Idempotency-Key`.
With `secret`, `X-Ovpipe-Signature: sha256=<hex>` is the HMAC-SHA256 of the body.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import re
from collections.abc import Sequence
from dataclasses import field
from email.utils import parsedate_to_datetime
from typing import Annotated, Any
from urllib.parse import quote

from annotated_types import Ge, Le

import ovpipe
from ovpipe.errors import PreflightError
from ovpipe.stages.messenger import Messenger
from ovpipe.stages.outbox import Away, Client, Denied, Settled
from ovpipe.stages.server import Server, server, tls_context
from ovpipe.stages.spool import Message

_PORTS = {"https": 443, "http": 80}
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = ("content-length", "transfer-encoding", "host", "connection", "idempotency-key",
         "x-ovpipe-signature")  # fmt: skip
_NOT_NOW = (408, 425, 429)
_DENIED = (401, 403, 407)
_MAX_REPLY_BYTES = 64 * 1024


class Webhook(Messenger):
    """Posts what was found to a server over HTTP."""

    url: Annotated[str, "where to: https://host/path, or http://"]
    batch: Annotated[int, Ge(1), Le(1000), "messages of a request at most; over 1 it is a list"] = 1
    headers: Annotated[dict[str, str], "further ones; what is secret best a variable: ${TOKEN}"] = (
        field(default_factory=dict)
    )
    secret: Annotated[str, "key of the signature; none: no signature"] = ""
    ca_file: Annotated[str, "certificates to trust instead of the system's (https)"] = ""

    _server: Any = None

    def client(self) -> tuple[Client, str]:
        """PreflightError for a url or header that cannot be."""
        self._server = place = server(self.url, _PORTS, path=True)
        if not place.target.isascii():
            raise PreflightError(f"{place.shown}: percent-encode what is not ASCII")
        if self.ca_file and place.scheme != "https":
            raise PreflightError("ca_file is for https:// only")
        for name, value in self.headers.items():
            if not _NAME.fullmatch(name):
                raise PreflightError(f"headers: {name!r} is no name of a header")
            if name.lower() in _OURS:
                raise PreflightError(f"headers: '{name}' is set by the stage; leave it out")
            if any(ord(c) < 32 or ord(c) > 126 for c in value):
                raise PreflightError(f"headers: '{name}' has a value that is not printable ASCII")
        tls = tls_context(self.ca_file) if place.scheme == "https" else None
        return _Client(self, place, tls), place.shown

    def secrets(self) -> list[str]:
        """The headers' values, the signature's key, and the url behind its host."""
        long = [self._server.target, *self.headers.values()]
        return [self.secret, self._server.password, *(text for text in long if len(text) > 5)]


class _Client:
    """One connection, kept as long as the server keeps it."""

    def __init__(self, options: Webhook, place: Server, tls: Any) -> None:
        self.batch = options.batch
        self._many = options.batch > 1
        self._place = place
        self._tls = tls
        self._secret = options.secret.encode()
        self._headers = {
            "Content-Type": "application/json",
            "User-Agent": f"ovpipe/{ovpipe.__version__}",
            **options.headers,
        }
        if place.username or place.password:
            pair = f"{place.username}:{place.password}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        self._connection: Any = None
        self._used = False

    def connect(self, timeout_s: float) -> None:
        self.close()
        place = self._place
        if self._tls is not None:
            self._connection = http.client.HTTPSConnection(
                place.host, place.port, timeout=timeout_s, context=self._tls
            )
        else:
            self._connection = http.client.HTTPConnection(place.host, place.port, timeout=timeout_s)
        self._used = False
        try:
            self._connection.connect()
        except OSError as error:
            raise Away(error.strerror or str(error)) from None

    def send(self, messages: Sequence[Message], settled: Settled, timeout_s: float) -> None:
        body = messages[0].body
        key = quote(messages[0].id, safe="/")
        if self._many:
            body = b"[" + b",".join(message.body for message in messages) + b"]"
            key += ".." + quote(messages[-1].id, safe="/")
        headers = {**self._headers, "Idempotency-Key": key}
        if self._secret:
            digest = hmac.new(self._secret, body, hashlib.sha256).hexdigest()
            headers["X-Ovpipe-Signature"] = f"sha256={digest}"
        status, reason, reply = self._post(body, headers, timeout_s)
        said = f"{status} {reason}"
        if 200 <= status < 300:
            refusal = ""
        elif status in _NOT_NOW or status >= 500:
            raise Away(f"it answered {said}", _retry_after_s(reply))
        elif status in _DENIED:
            raise Denied(f"it refused us: {said}")
        elif 300 <= status < 400:
            raise Denied(f"it answered {said}: redirections are not followed, change the url")
        elif len(messages) > 1:  # for the sake of one of them, perhaps
            for message in messages:
                self.send([message], settled, timeout_s)
            return
        else:
            refusal = f"it answered {said}"
        for _ in messages:
            settled(refusal)

    def fault(self) -> str:
        return ""  # a server that closes a connection nobody uses is not away

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _post(self, body: bytes, headers: dict[str, str], timeout_s: float) -> tuple[int, str, Any]:
        reused, self._used = self._used, True
        try:
            return self._once(body, headers, timeout_s)
        except (OSError, http.client.HTTPException) as error:
            if not reused or isinstance(error, TimeoutError):
                raise _away(error, timeout_s) from None
        # The server has closed a connection that was not used for a while, most likely.
        self.connect(timeout_s)
        self._used = True
        try:
            return self._once(body, headers, timeout_s)
        except (OSError, http.client.HTTPException) as error:
            raise _away(error, timeout_s) from None

    def _once(self, body: bytes, headers: dict[str, str], timeout_s: float) -> tuple[int, str, Any]:
        connection = self._connection
        if connection.sock is None:  # the answer before said that it closes
            connection.connect()
        connection.sock.settimeout(timeout_s)
        connection.request("POST", self._place.target, body, headers)
        reply = connection.getresponse()
        if len(reply.read(_MAX_REPLY_BYTES + 1)) > _MAX_REPLY_BYTES:
            connection.close()  # nobody reads the rest
        return reply.status, reply.reason, reply.headers


def _away(error: Exception, timeout_s: float) -> Away:
    if isinstance(error, TimeoutError):
        return Away(f"it did not answer within {timeout_s:.0f} s")
    text = getattr(error, "strerror", None) or str(error)
    return Away(text or type(error).__name__)


def _retry_after_s(reply: Any) -> float:
    """Seconds, or a date, by the server's own clock; 0 where it is neither."""
    text = str(reply.get("Retry-After", "")).strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        wait = parsedate_to_datetime(text) - parsedate_to_datetime(str(reply.get("Date", "")))
    except (ValueError, TypeError):
        return 0.0
    return max(0.0, wait.total_seconds())
