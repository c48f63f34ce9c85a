"""Contact: what another process of the same user can ask a run for while it runs.

    run, = runs()
    frame = Contact(run.folder).peek("cam -> detect")

Law: the run never waits for whoever asks (supervisor/desk.py); whoever asks waits for a limited
time. What comes back is checked as if a stranger had sent it. Each call has a connection of its
own, so calls may be made from any thread, and nothing is kept between them.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ovpipe.errors import ConfigError, OvpipeError, PipelineClosed, WireError
from ovpipe.frame import Frame
from ovpipe.supervisor.bulletin import Run, read_run
from ovpipe.supervisor.desk import SOCKET
from ovpipe.supervisor.logbook import LogLine
from ovpipe.transport import control
from ovpipe.transport.look import rebuild

_TIMEOUT_S = 10.0
_AGAIN_S = 0.02


class Contact:
    """A run that can be asked, by its folder (`Run.folder`)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def status(self) -> Run:
        """How the run is doing: at most half a second ago. Raises PipelineClosed at its end."""
        run = read_run(self._folder)
        if run is None:
            raise PipelineClosed("the run has ended")
        return run

    def peek(self, edge: str, stream: str | None = None, *, timeout: float = 5.0) -> Frame:
        """The next frame that is sent along an edge: `cam -> detect`, or a stage's first.

        stream: of which stream; None: of any. timeout: the longest wait for it, in seconds.
        The frame is a copy: its arrays are read-only and stay valid.
        Raises ConfigError where there is no such edge or stream, TimeoutError where no frame comes,
        PipelineClosed where the run has ended.
        """
        request = {"ask": "peek", "edge": edge, "stream": stream, "timeout_s": timeout}
        with self._connected(timeout + _TIMEOUT_S) as channel:
            said, fds = _ask(channel, request)
        fd, rest = (fds[0], fds[1:]) if fds else (-1, [])
        for other in rest:
            os.close(other)
        name, source = said.get("stream"), said.get("source")
        if fd < 0 or not isinstance(name, str) or not isinstance(source, str):
            if fd >= 0:
                os.close(fd)
            raise WireError("look", "no frame came with the answer")
        return rebuild(fd, said, name, source)

    def restart(self, stage: str) -> None:
        """Give a stage new processes, or one of them by its name, as `cam/gate` or `detect#1`.

        What it has in hand is finished, and nothing of its inputs is lost. Returns when that is
        under way. Raises ConfigError where there is no such stage, OvpipeError where it cannot be.
        """
        self._order({"ask": "restart", "stage": stage})

    def drain(self) -> None:
        """Ask the producers to end; what is in flight is finished. Returns at once."""
        self._order({"ask": "drain"})

    def kill(self) -> None:
        """End the run at once: what is in flight is lost, and counted."""
        self._order({"ask": "kill"})

    def logs(self, *, follow: bool = False) -> Iterator[LogLine]:
        """The last lines that were said; `follow`: and all further ones, until the run ends.

        Numbers that are left out were forgotten before they could be sent.
        """
        with self._connected(None if follow else _TIMEOUT_S) as channel:
            more = control.send(channel, {"ask": "logs", "follow": follow})
            while more and (received := control.receive(channel)) is not None:
                said, fds = received
                for fd in fds:
                    os.close(fd)
                try:
                    lines = [LogLine(*_line(row)) for row in said["lines"]]
                    more = bool(said["more"])
                except (KeyError, TypeError, ValueError) as error:
                    raise WireError("logs", str(error)) from None
                yield from lines

    def _order(self, request: dict[str, Any]) -> None:
        with self._connected(_TIMEOUT_S) as channel:
            _, fds = _ask(channel, request)
            for fd in fds:
                os.close(fd)

    @contextmanager
    def _connected(self, timeout_s: float | None) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
            until_s = time.monotonic() + (_TIMEOUT_S if timeout_s is None else timeout_s)
            channel.settimeout(timeout_s)
            while True:
                try:
                    channel.connect(os.fspath(self._folder / SOCKET))
                    break
                except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
                    raise PipelineClosed("the run has ended") from None
                except BlockingIOError:  # so many came at once that it has to let some in first
                    if time.monotonic() >= until_s:
                        raise TimeoutError("the run is too busy to be asked") from None
                    time.sleep(_AGAIN_S)
            yield channel


def _ask(channel: socket.socket, request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """The answer to a request. Raises what it says is wrong."""
    received = control.receive(channel) if control.send(channel, request) else None
    if received is None:
        raise PipelineClosed("the run has ended, or would not hear this")
    said, fds = received
    if "error" not in said:
        return said, fds
    for fd in fds:
        os.close(fd)
    text = str(said["error"])
    if said.get("kind") == "wrong":
        raise ConfigError(text)
    raise TimeoutError(text) if request["ask"] == "peek" else OvpipeError(text)


def _line(row: Any) -> tuple[int, float, str, str]:
    number, at_s, worker, text = row
    if not (isinstance(worker, str) and isinstance(text, str)):
        raise TypeError(f"a line of the log is not {row!r}")
    return int(number), float(at_s), worker, text
