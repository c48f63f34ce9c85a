"""The whole page, put together from what the supervisor tells it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from ovpipe.frame import Frame
from ovpipe.graph import Graph
from ovpipe.loader.http import is_loopback
from ovpipe.supervisor.contact import Contact
from ovpipe.web.app import App
from ovpipe.web.guard import Guard
from ovpipe.web.live import Live, Peek
from ovpipe.web.watch import Watch

_WAIT_S = 3.0


def page(told: Mapping[str, Any], peek: Peek | None = None) -> tuple[Watch, ASGIApp]:
    """The reader of the run, to be kept running, and the application.

    told: graph, folder, listen (host and port), token, hosts, as supervisor/page.py has them.
    peek: where frames come from; the run itself, where it is left out.
    """
    graph, folder = Graph.from_json(told["graph"]), Path(told["folder"])
    watch = Watch(graph, folder)
    local = is_loopback(told["listen"][0])
    hosts = [*told["hosts"], told["listen"][0].lower()]
    if not local:
        hosts.append(socket.gethostname().lower())
    routes = App(watch, Live(peek or _peek(graph, folder))).routes()
    return watch, Guard(routes, local=local, hosts=hosts, token=told["token"])


def _peek(graph: Graph, folder: Path) -> Peek:
    """Frames of the run, by the index of an edge."""
    contact = Contact(folder)

    def peek(edge: int, stream: str) -> Frame:
        named = graph.edges[edge]
        return contact.peek(f"{named.source} -> {named.target}", stream, timeout=_WAIT_S)

    return peek
