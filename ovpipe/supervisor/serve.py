"""A supervisor for an application: it gets a graph, obeys, and tells how the run goes and ended.

    application -> supervisor   graph (once, first), drain, kill, reading (number)
    supervisor -> application   running, reading (the same number), ended

Law: it ends when the application closes its end of the channel, whatever happens to either.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from ovpipe.errors import OvpipeError, WireError, to_json
from ovpipe.graph import Graph
from ovpipe.supervisor.core import Supervisor
from ovpipe.supervisor.crew import Home
from ovpipe.supervisor.process import WorkerProcess
from ovpipe.transport import control


def serve(
    host: socket.socket,
    externals: Mapping[str, socket.socket],
    *,
    home: Home = WorkerProcess,
    on_made: Callable[[Supervisor], None] = lambda supervisor: None,
) -> int:
    """Run the graph that the application sends, tell it how that ended; an exit code.

    `externals`: the channels of stages that live in it, by name. `on_made`: called before the run.
    """
    message = control.hear(host)
    if message is None:
        return 1
    told = _Host(host)
    errors: list[OvpipeError] = []
    reading: dict[str, Any] | None = None
    try:
        supervisor = Supervisor(
            Graph.from_json(message["graph"]),
            drain_timeout_s=message["drain_timeout_s"],
            externals=externals,
            on_running=lambda: told.tell({"t": "running"}),
            on_log=lambda worker, line: print(f"[{worker}] {line}", file=sys.stderr),
            home=home,
        )
        on_made(supervisor)
        threading.Thread(target=_obey, args=(told, supervisor), daemon=True).start()
        outcome = supervisor.run()
        errors = [*filter(None, (outcome.error,)), *outcome.others]
        reading = asdict(outcome.reading)
    except OvpipeError as early:
        errors = [early]
    told.tell({"t": "ended", "errors": [to_json(e) for e in errors], "reading": reading})
    return 0


class _Host:
    """The application. Two threads speak to it: what is told in parts must not be mixed up."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self._saying = threading.Lock()

    def tell(self, message: dict[str, Any]) -> None:
        """Say something; a dead application does not hear it."""
        with self._saying, suppress(OSError):
            control.tell(self.channel, message)


def _obey(host: _Host, supervisor: Supervisor) -> None:
    try:
        while (message := control.hear(host.channel)) is not None:
            asked = message.get("t")
            if asked == "drain":
                supervisor.drain()
            elif asked == "kill":
                supervisor.kill()
            elif asked == "reading":
                said = {"phase": supervisor.phase, "reading": _reading(supervisor)}
                host.tell({"t": "reading", "number": message["number"], **said})
    except (OSError, WireError):
        pass
    supervisor.kill()


def _reading(supervisor: Supervisor) -> dict[str, Any] | None:
    """How the run is; None before there is anything to tell, or after."""
    try:
        return asdict(supervisor.reading())
    except (AttributeError, ValueError, OvpipeError):  # not begun; or the memory is unmapped
        return None
