"""A supervisor for an application: it gets a graph, obeys, and tells how the run ended.

Law: it ends when the application closes its end of the channel, whatever happens to either.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Mapping

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
    received = control.receive(host)
    if received is None:
        return 1
    message, _ = received
    try:
        supervisor = Supervisor(
            Graph.from_json(message["graph"]),
            drain_timeout_s=message["drain_timeout_s"],
            externals=externals,
            on_log=lambda worker, line: print(f"[{worker}] {line}", file=sys.stderr),
            home=home,
        )
        on_made(supervisor)
        threading.Thread(target=_obey, args=(host, supervisor), daemon=True).start()
        outcome = supervisor.run()
        error: OvpipeError | None = outcome.error
        accounts = [vars(account) for account in outcome.reading.accounts]
    except OvpipeError as early:
        error, accounts = early, []
    failure = error and to_json(error)
    control.send(host, {"t": "ended", "error": failure, "accounts": accounts})
    return 0


def _obey(host: socket.socket, supervisor: Supervisor) -> None:
    try:
        while (received := control.receive(host)) is not None:
            asked = received[0].get("t")
            if asked == "drain":
                supervisor.drain()
            elif asked == "kill":
                supervisor.kill()
    except (OSError, WireError):
        pass
    supervisor.kill()
