"""The page's process (`ovpipe.web`): started, watched, started again. It shows the run to browsers.

Law: the run does not feel it. It is given an open socket, the run's folder to read, and the graph
without any option of a stage; nobody waits for it, its death fails nothing, and another one is
started, on the same socket, so that visitors find the page again where it was. Its token stands
in memory of its own, never among its arguments or in its environment.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ovpipe.errors import PreflightError
from ovpipe.graph import Graph
from ovpipe.spec import HttpSpec, address
from ovpipe.supervisor.restart import FIRST_DELAY_S, LONGEST_DELAY_S

_BACKLOG = 64
_LIVED_S = 30.0  # one that lived so long died of something new
_READ_BYTES = 1 << 14
_MAX_LINES = 5


class Page:
    """The process behind `http:`, if the graph has one. `announce` is told what people should know.

    Entered to listen, left to end it. `look` is called by the thread that never ends, now and then:
    the process dies with it.
    """

    def __init__(self, graph: Graph, folder: Path, announce: Callable[[str], None]) -> None:
        self._graph = graph
        self._folder = folder
        self._announce = announce
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._delay_s = FIRST_DELAY_S
        self._due_s = 0.0
        self._began_s = 0.0

    def __enter__(self) -> Page:
        """Listen. Raises PreflightError where the address cannot be had."""
        if self._graph.http is not None:
            self._listen(self._graph.http)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self, http: HttpSpec) -> None:
        try:
            family, *_, found = socket.getaddrinfo(
                http.host, http.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self._socket = socket.create_server(
                (found[0], http.port), family=family, backlog=_BACKLOG
            )
        except OSError as error:
            self.close()
            raise PreflightError(
                f"the page cannot listen on {address(http.host, http.port)}: {error.strerror}; "
                "name another port with `http: {listen: HOST:PORT}` or --http (0 takes a free one)"
            ) from None
        self._announce(f"page: http://{address(http.host, self._socket.getsockname()[1])}/")

    def look(self, now_s: float) -> None:
        """See whether it lives, and start it where it does not and its time has come."""
        if self._socket is None or self._graph.http is None:
            return
        if self._process is not None:
            status = self._process.poll()
            self._pass_on()
            if status is None:
                return
            self._bury(status, now_s)
        if now_s >= self._due_s:
            self._start(self._socket, self._graph.http, now_s)

    def _start(self, listening: socket.socket, http: HttpSpec, now_s: float) -> None:
        told = json.dumps(
            {
                "graph": _bare(self._graph).to_json(),
                "folder": str(self._folder),
                "listen": [http.host, listening.getsockname()[1]],
                "token": http.token,
                "hosts": http.hosts,
            }
        )
        self._began_s = now_s
        try:
            fd = os.memfd_create("ovpipe-page", os.MFD_CLOEXEC)
            with open(fd, "w+b", buffering=0) as stdin:
                stdin.write(told.encode())
                stdin.seek(0)
                self._process = subprocess.Popen(
                    [
                        sys.executable, "-P", "-m", "ovpipe.web",
                        str(listening.fileno()), str(os.getpid()), self._graph.name,
                    ],
                    stdin=stdin,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    pass_fds=(listening.fileno(),),
                    process_group=0,
                )  # fmt: skip
        except OSError as error:
            self._put_off(f"cannot be started: {error.strerror}", now_s)
            return
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)

    def _pass_on(self) -> None:
        """Show what it wrote to stderr, of a flood only the end."""
        assert self._process is not None
        assert self._process.stderr is not None
        data = self._process.stderr.read(_READ_BYTES) or b""
        lines = data.decode("utf-8", "backslashreplace").splitlines()
        for line in lines[-_MAX_LINES:]:
            self._announce(f"page: {line}")

    def _bury(self, status: int, now_s: float) -> None:
        self._drop()
        if now_s - self._began_s > _LIVED_S:
            self._delay_s = FIRST_DELAY_S
        self._put_off(f"ended ({status}); the run goes on", now_s)

    def _put_off(self, why: str, now_s: float) -> None:
        self._due_s = now_s + self._delay_s
        self._announce(f"page: its process {why}; another one in {self._delay_s:.1f} s")
        self._delay_s = min(2 * self._delay_s, LONGEST_DELAY_S)

    def _drop(self) -> None:
        if self._process is not None:
            assert self._process.stderr is not None
            self._process.stderr.close()
            self._process = None

    def close(self) -> None:
        """End it at once, also where it is stopped; the address is free then. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._drop()
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _bare(graph: Graph) -> Graph:
    """The graph without options: they hold addresses and passwords, and the page needs none."""
    stages = tuple(
        replace(stage, workers=tuple(replace(w, options={}) for w in stage.workers))
        for stage in graph.stages
    )
    return replace(graph, stages=stages, http=None)
