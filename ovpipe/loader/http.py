"""The top-level key `http:`: where the page of a run listens, and who may see it.

Law: nobody listens beyond this machine without a token, and no message holds the token.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from ovpipe.loader.options import not_installed
from ovpipe.loader.reading import Reading
from ovpipe.loader.tree import Node
from ovpipe.spec import HttpSpec

HTTP_KEYS = ("listen", "token", "hosts")
DEFAULT_LISTEN = "127.0.0.1:8080"
MIN_TOKEN = 16
_LISTEN = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+)):([0-9]{1,5})")
_TOKEN = re.compile(r"[!-~]*")
_HOST = re.compile(r"[A-Za-z0-9_.-]{1,253}")
_NEEDS = dict.fromkeys(("starlette", "uvicorn", "simplejpeg", "cv2"), "web")


def http(reading: Reading, node: Node) -> HttpSpec | None:
    """The spec of a page, or None and problems."""
    entries = reading.mapping(node, "http", "listen, token, hosts")
    reading.keys(node, "http", HTTP_KEYS)
    if not isinstance(node.value, dict):
        return None
    for missing in not_installed(_NEEDS):
        reading.tell(node, "http", f"the page {missing}")
    listen: Any = DEFAULT_LISTEN
    if "listen" in entries:
        listen = reading.plain(entries["listen"], "http.listen")
    found = _LISTEN.fullmatch(listen) if isinstance(listen, str) else None
    if found is None or int(found[3]) > 65535:
        reading.tell(entries["listen"], "http.listen", f"must be HOST:PORT, as {DEFAULT_LISTEN}")
        return None
    host = found[1] or found[2]
    token = _token(reading, entries["token"]) if "token" in entries else ""
    hosts = _hosts(reading, entries["hosts"]) if "hosts" in entries else ()
    if "token" not in entries and not is_loopback(host):
        where = entries.get("listen", node)
        hint = f'write token: "${{TOKEN}}", {MIN_TOKEN} characters or more; or listen on 127.0.0.1'
        reading.tell(where, "http.listen", "reaches beyond this machine without a token", hint)
    return HttpSpec(host, int(found[3]), token, hosts)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _token(reading: Reading, node: Node) -> str:
    token = reading.plain(node, "http.token")
    if not isinstance(token, str) or len(token) < MIN_TOKEN or not _TOKEN.fullmatch(token):
        message = f"must be text of {MIN_TOKEN} or more visible ASCII characters"
        reading.tell(node, "http.token", message, "openssl rand -hex 16 makes one")
        return ""
    return token


def _hosts(reading: Reading, node: Node) -> tuple[str, ...]:
    given = reading.plain(node, "http.hosts")
    names = given if isinstance(given, list) else [given]
    if not all(isinstance(name, str) and _HOST.fullmatch(name) for name in names):
        reading.tell(node, "http.hosts", "must be a list of host names, without ports")
        return ()
    return tuple(name.lower() for name in names)
