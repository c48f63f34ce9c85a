"""The supervisor as a child of an application that embeds a pipeline.

`python -P -m ovpipe.supervisor HOST NAME=FD ...`: descriptor HOST is a control channel to the
application, each NAME=FD one for a stage that lives in it. A process of its own, since only a
main thread that never ends may start workers: they die with the thread that made them.

Law: it ends when the application does, whatever happens to either.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading

from ovpipe.errors import OvpipeError, WireError, to_json
from ovpipe.graph import Graph
from ovpipe.supervisor.core import Supervisor
from ovpipe.transport import control


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
        )
        signal.signal(signal.SIGTERM, lambda *_: _terminated(supervisor))
        threading.Thread(target=_obey, args=(host, supervisor), daemon=True).start()
        outcome = supervisor.run()
        error: OvpipeError | None = outcome.error
        accounts = [vars(account) for account in outcome.reading.accounts]
    except OvpipeError as early:
        error, accounts = early, []
    failure = error and to_json(error)
    control.send(host, {"t": "ended", "error": failure, "accounts": accounts})
    return 0


def _terminated(supervisor: Supervisor) -> None:
    """`ovpipe stop`: the first drains, a second ends at once."""
    signal.signal(signal.SIGTERM, lambda *_: supervisor.kill())
    supervisor.drain()


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
