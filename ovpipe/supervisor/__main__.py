"""The supervisor as a child of an application that embeds a pipeline.

`python -P -m ovpipe.supervisor HOST NAME=FD ...`: descriptor HOST is a control channel to the
application, each NAME=FD one for a stage that lives in it. A process of its own, since only a
main thread that never ends may start workers: they die with the thread that made them.

The application says: graph (once, first), drain, kill, reading (number). It is told: running,
reading (the same number), ended.

Law: it ends when the application does, whatever happens to either.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from ovpipe.errors import OvpipeError, WireError, to_json
from ovpipe.graph import Graph
from ovpipe.supervisor.core import Supervisor
from ovpipe.supervisor.outcome import Outcome
from ovpipe.transport import control

_saying = threading.Lock()
"""Two threads speak to the application: what is told in parts must not be mixed up."""


def main(argv: list[str]) -> int:
    """Run the graph that the application sends, tell it how that ended."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the terminal speaks to the application
    host = socket.socket(fileno=int(argv[0]))
    externals = {}
    for argument in argv[1:]:
        name, _, fd = argument.rpartition("=")
        externals[name] = socket.socket(fileno=int(fd))
    for channel in (host, *externals.values()):
        channel.set_inheritable(False)
    message = control.hear(host)
    if message is None:
        return 1
    outcome: Outcome | None = None
    errors: list[OvpipeError] = []
    try:
        supervisor = Supervisor(
            Graph.from_json(message["graph"]),
            drain_timeout_s=message["drain_timeout_s"],
            externals=externals,
            on_running=lambda: _tell(host, {"t": "running"}),
            on_log=lambda worker, line: print(f"[{worker}] {line}", file=sys.stderr),
        )
        signal.signal(signal.SIGTERM, lambda *_: _terminated(supervisor))
        threading.Thread(target=_obey, args=(host, supervisor), daemon=True).start()
        outcome = supervisor.run()
        errors = [*filter(None, (outcome.error,)), *outcome.others]
    except OvpipeError as early:
        errors = [early]
    reading = asdict(outcome.reading) if outcome is not None else None
    ended = {"t": "ended", "errors": [to_json(error) for error in errors], "reading": reading}
    _tell(host, ended)
    return 0


def _tell(host: socket.socket, message: dict[str, Any]) -> None:
    with _saying, suppress(OSError):
        control.tell(host, message)


def _terminated(supervisor: Supervisor) -> None:
    """`ovpipe stop`: the first drains, a second ends at once."""
    signal.signal(signal.SIGTERM, lambda *_: supervisor.kill())
    supervisor.drain()


def _obey(host: socket.socket, supervisor: Supervisor) -> None:
    try:
        while (message := control.hear(host)) is not None:
            asked = message.get("t")
            if asked == "drain":
                supervisor.drain()
            elif asked == "kill":
                supervisor.kill()
            elif asked == "reading":
                said = {"phase": supervisor.phase, "reading": _reading(supervisor)}
                _tell(host, {"t": "reading", "number": message["number"], **said})
    except (OSError, WireError):
        pass
    supervisor.kill()


def _reading(supervisor: Supervisor) -> dict[str, Any] | None:
    """How the run is; None before there is anything to tell, or after."""
    try:
        return asdict(supervisor.reading())
    except (AttributeError, ValueError, OvpipeError):  # not begun; or the memory is unmapped
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
