"""One run, as the application that started it holds it: its supervisor's process, and a channel.

Law: the supervisor lives as long as this end of the channel is open, whoever holds it: it goes
with the application, and `abandon` closes it. A process that is forked from the application does
not hold it open. The supervisor is reaped as soon as it has ended.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Literal

from ovpipe.errors import OvpipeError, PipelineClosed, StageError, WireError, from_json
from ovpipe.graph import Graph
from ovpipe.spec import Placement
from ovpipe.supervisor.threads import SupervisorThread
from ovpipe.transport import control

_ANSWER_S = 10.0
_END_MARGIN_S = 10.0


_Supervisor = subprocess.Popen[bytes] | SupervisorThread


class Run:
    """`errors`, `reading` (the last): what is known once it has `ended`."""

    def __init__(self, drain_timeout_s: float) -> None:
        self.ended = threading.Event()
        self._begun = threading.Event()
        self._ran = False
        self.errors: list[OvpipeError] = []
        self.reading: dict[str, Any] | None = None
        self._drain_timeout_s = drain_timeout_s
        self._channel: socket.socket | None = None
        self._process: _Supervisor | None = None
        self._saying = threading.Lock()
        self._news = threading.Condition()
        self._asked = 0
        self._answers: dict[int, dict[str, Any]] = {}

    def start(
        self, graph: Graph, members: Iterable[str], placement: Placement
    ) -> dict[str, socket.socket]:
        """Start the supervisor; returns our ends of the channels of its external members."""
        ours, theirs = control.pair()
        pairs = {name: control.pair() for name in members}
        self._channel = ours
        _runs.add(self)
        ends = {name: end for name, (_, end) in pairs.items()}
        try:
            if placement == "inline":
                self._process = SupervisorThread(theirs, ends)
            else:
                self._process = _supervisor(theirs, ends)
        except OSError:
            self._let_go()
            for end, _ in pairs.values():
                end.close()
            self.ended.set()
            raise
        threading.Thread(
            target=self._listen, args=(ours, self._process), name="ovpipe-host", daemon=True
        ).start()
        timeout_s = self._drain_timeout_s
        self._say({"t": "graph", "graph": graph.to_json(), "drain_timeout_s": timeout_s})
        return {name: end for name, (end, _) in pairs.items()}

    def _listen(self, channel: socket.socket, process: _Supervisor) -> None:
        ended = None
        with suppress(OSError, WireError):
            while (message := control.hear(channel)) is not None:
                if message.get("t") == "reading":
                    with self._news:
                        self._answers[message["number"]] = message
                        self._news.notify_all()
                elif message.get("t") == "running":
                    self._ran = True
                    self._begun.set()
                elif message.get("t") == "ended":
                    ended = message
        process.wait()
        if ended is None:
            self.errors = [StageError("supervisor", "the supervisor process died")]
        else:
            self.errors = [from_json(error) for error in ended["errors"]]
            self.reading = ended["reading"]
        self.ended.set()
        self._begun.set()
        with self._news:
            self._news.notify_all()

    def wait_for_start(self) -> None:
        """Return when all stages are open. Raises PipelineClosed where they never will be."""
        self._begun.wait()
        if not self._ran:
            raise PipelineClosed("the pipeline ended before it started")

    def _say(self, message: dict[str, Any]) -> None:
        channel = self._channel
        if channel is not None:
            with self._saying, suppress(OSError):
                control.tell(channel, message)

    def ask(self, what: Literal["drain", "kill"]) -> None:
        """Ask for the end; nothing happens where it has come."""
        self._say({"t": what})

    def look(self) -> tuple[str, dict[str, Any] | None]:
        """(phase, reading) of now; the last reading once it has ended."""
        with self._news:
            self._asked += 1
            number = self._asked
        self._say({"t": "reading", "number": number})
        with self._news:
            self._news.wait_for(lambda: number in self._answers or self.ended.is_set(), _ANSWER_S)
            answer = self._answers.pop(number, None)
        if answer is None or answer["reading"] is None:
            return ("ended" if self.ended.is_set() else "starting"), self.reading
        return answer["phase"], answer["reading"]

    def close(self) -> None:
        """Drain, wait for the end, give everything back. Idempotent."""
        self.ask("drain")
        if not self.ended.wait(self._drain_timeout_s + _END_MARGIN_S):
            self.ask("kill")
            if not self.ended.wait(_END_MARGIN_S) and self._process is not None:
                self._process.kill()
                self.ended.wait(_END_MARGIN_S)
        self._let_go()

    def abandon(self) -> None:
        """Nobody waits for this run any longer: it ends at once, by itself."""
        if self._channel is not None and not self.ended.is_set():
            with suppress(OSError):  # the listening thread hears it, and reaps the supervisor
                self._channel.shutdown(socket.SHUT_RDWR)
        self._let_go()

    def _let_go(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def forked(self) -> None:
        """In a forked child: the parent's run is not this one's."""
        self._let_go()
        self.errors = [StageError("supervisor", "the pipeline belongs to the process that forked")]
        self.ended = threading.Event()  # the old one's lock may be held by a thread of the parent
        self.ended.set()


def _supervisor(host: socket.socket, externals: dict[str, socket.socket]) -> _Supervisor:
    fds = {name: end.fileno() for name, end in externals.items()}
    try:
        return subprocess.Popen(
            [
                sys.executable, "-P", "-m", "ovpipe.supervisor", str(host.fileno()),
                *(f"{name}={fd}" for name, fd in fds.items()),
            ],
            stdin=subprocess.DEVNULL,
            pass_fds=(host.fileno(), *fds.values()),
            process_group=0,
        )  # fmt: skip
    finally:
        for end in (host, *externals.values()):
            end.close()


_runs: weakref.WeakSet[Run] = weakref.WeakSet()


def _forked() -> None:
    for run in list(_runs):
        run.forked()


os.register_at_fork(after_in_child=_forked)
