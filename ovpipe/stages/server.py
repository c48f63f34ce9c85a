"""Server: what the `url` of a broker means.

Law: name and password are kept apart from the rest; `shown`, which alone goes into logs and
errors, is scheme, host and port: path and query may hold a token.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from ovpipe.errors import PreflightError


@dataclass(frozen=True)
class Server:
    """`path` as it stands in the url, without the query."""

    scheme: str
    host: str
    port: int
    path: str
    shown: str
    username: str = ""
    password: str = field(default="", repr=False)
    target: str = field(default="", repr=False)
    """Path and query, as HTTP asks for them."""


def server(
    url: str, ports: Mapping[str, int], username: str = "", password: str = "", path: bool = False
) -> Server:
    """The server that `url` names. `ports`: the schemes there are, and their usual ports.

    `path`: whether the url may have one. Raises PreflightError where it names none.
    """
    known = ", ".join(f"{scheme}://" for scheme in ports)
    scheme, separator, _ = url.partition("://")
    scheme = scheme.lower()
    if not separator:
        raise PreflightError(f"url names no kind of server; begin it with one of {known}")
    if scheme not in ports:
        raise PreflightError(f"'{scheme}://...': no such kind of server; there are {known}")
    if any(character <= " " or character == "\x7f" for character in url):
        raise PreflightError(f"'{scheme}://...': a space or control character is in the url")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # whose text may hold a part of the password
        raise PreflightError(
            f"'{scheme}://...': no valid address; what is special in a name or password is "
            "percent-encoded"
        ) from None
    if not host:
        raise PreflightError(f"'{scheme}://...': names no host")
    host_shown = f"[{host}]" if ":" in host else host
    shown = f"{scheme}://{host_shown}{f':{port}' if port else ''}"
    if not path and (parts.path.strip("/") or parts.query):
        raise PreflightError(f"{shown}: a url of this kind ends behind host and port")
    if parts.username is not None or parts.password is not None:
        if username or password:
            raise PreflightError(
                f"{shown}: name and password stand in the url and in keys of their own; "
                "leave those in the url out"
            )
        username, password = unquote(parts.username or ""), unquote(parts.password or "")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Server(
        scheme, host, port or ports[scheme], parts.path, shown, username, password, target
    )


def tls_context(ca_file: str) -> ssl.SSLContext:
    """Certificates are checked: against those of the system, or those in the file."""
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise PreflightError(f"ca_file '{ca_file}' cannot be used: {error}") from None
