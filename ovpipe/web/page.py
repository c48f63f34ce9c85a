"""The whole page, put together from what the supervisor tells it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from ovpipe.graph import Graph
from ovpipe.loader.http import is_loopback
from ovpipe.web.app import App
from ovpipe.web.guard import Guard
from ovpipe.web.live import Live, Peek
from ovpipe.web.watch import Watch


def page(told: Mapping[str, Any], peek: Peek) -> tuple[Watch, ASGIApp]:
    """The reader of the run, to be kept running, and the application.

    told: graph, folder, listen (host and port), token, hosts, as supervisor/page.py has them.
    """
    watch = Watch(Graph.from_json(told["graph"]), Path(told["folder"]))
    local = is_loopback(told["listen"][0])
    hosts = [*told["hosts"], told["listen"][0].lower()]
    if not local:
        hosts.append(socket.gethostname().lower())
    routes = App(watch, Live(peek)).routes()
    return watch, Guard(routes, local=local, hosts=hosts, token=told["token"])
