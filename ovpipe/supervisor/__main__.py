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

from ovpipe.descriptors import hold_standard
from ovpipe.supervisor.core import Supervisor
from ovpipe.supervisor.serve import serve


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
    return serve(host, externals, on_made=_stoppable)


def _stoppable(supervisor: Supervisor) -> None:
    signal.signal(signal.SIGTERM, lambda *_: _terminated(supervisor))


def _terminated(supervisor: Supervisor) -> None:
    """`ovpipe stop`: the first drains, a second ends at once."""
    signal.signal(signal.SIGTERM, lambda *_: supervisor.kill())
    supervisor.drain()


if __name__ == "__main__":
    hold_standard()
    sys.exit(main(sys.argv[1:]))
