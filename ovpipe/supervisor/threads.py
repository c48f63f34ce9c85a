"""A whole run in the application's own process: the supervisor on a thread, each stage on another.

For looking at a stage with a debugger, for notebooks and for tests. What lives together in one
process otherwise is one thread here; links, ledger, restarts and errors are the same.

Law: no process is started. A thread cannot be killed: one that does not end when it is told is
left behind, named, cut off from the ledger, and the run ends with it; it is not restarted, since it
may go on one day. What ends a process (a segmentation fault, os._exit) ends the application.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress

from ovpipe.errors import PipelineClosed
from ovpipe.supervisor.launch import WorkerPlan
from ovpipe.supervisor.process import Workplace
from ovpipe.supervisor.serve import serve
from ovpipe.transport.member import Member
from ovpipe.worker.process import run

_PATIENCE_S = 1.0
"""How long a thread that is to end may take to notice."""


class WorkerThread(Workplace):
    """A started thread."""

    def __init__(self, plans: Sequence[WorkerPlan]) -> None:
        super().__init__(plans)
        self.pidfd, self._alive = os.pipe2(os.O_CLOEXEC)  # whose other end closes when it is dead
        nothing, silent = os.pipe2(os.O_CLOEXEC)  # what it writes is the application's to read
        os.close(silent)
        self.stderr = os.fdopen(nothing, "rb", buffering=0)
        self._joined: list[Member] = []
        self._status = 1
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._thread = threading.Thread(target=self._live, name=f"ovpipe-{self.name}", daemon=True)
        self._thread.start()

    def _live(self) -> None:
        try:
            with suppress(PipelineClosed):
                for channel in self._theirs:
                    inbox = self._joined[0].inbox if self._joined else None
                    member = Member.join(channel, inbox)
                    self._joined.append(member)
                    member.listen(on_lost=lambda: None)
                self._status = run(self._joined)
        finally:
            self._leave()
            self._over(self._status)

    def _leave(self) -> None:
        for member in reversed(self._joined):  # the first has the inbox of all
            with suppress(Exception):
                member.close()
        for channel in self._theirs:
            channel.close()

    def _over(self, status: int) -> None:
        """It is dead, or is taken to be; whoever says so first is right."""
        with self._lock:
            if self._alive >= 0:
                self._status = status
                os.close(self._alive)
                self._alive = -1

    @property
    def pid(self) -> int:
        """The application's process id."""
        return os.getpid()

    def kill(self) -> None:
        """Tell it that the run is over for it; one that does not hear that is given up."""
        with self._lock:
            if self._alive < 0 or self._timer is not None:
                return
            self._timer = threading.Timer(_PATIENCE_S, self._give_up)
            self._timer.daemon = True
        for member in self.members:
            with suppress(OSError):
                member.channel.shutdown(socket.SHUT_RDWR)
        self._timer.start()

    def _give_up(self) -> None:
        if self._alive >= 0:
            self.lasting = True
            for member in self._joined:  # whatever it does from now on, the ledger stays as it is
                with suppress(BufferError):
                    member.shared.words.release()
            self._over(1)

    def print_stacks(self) -> None:
        """Where it is goes to the error that tells of it."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        if frame is not None:
            text = "".join(traceback.format_stack(frame))
            self.tail.extend(text.splitlines())

    def reap(self) -> int:
        """0 where its work was done."""
        if self._timer is not None:
            self._timer.cancel()
        if not self.lasting:
            self._thread.join(2 * _PATIENCE_S)
        self.exit_status = self._status
        return self._status

    def describe_exit(self) -> str:
        """How it ended, in words."""
        if self.lasting:
            return "does not end, and its thread cannot be killed"
        return "ended before its work was done" if self.exit_status == 0 else "ended"


class SupervisorThread:
    """A supervisor on a thread of the application; `host` and `externals` as for a process."""

    def __init__(self, host: socket.socket, externals: Mapping[str, socket.socket]) -> None:
        self._channels = host, *externals.values()
        self._thread = threading.Thread(
            target=self._serve, args=(host, externals), name="ovpipe-supervisor", daemon=True
        )
        self._thread.start()

    def _serve(self, host: socket.socket, externals: Mapping[str, socket.socket]) -> None:
        try:
            serve(host, externals, home=WorkerThread)
        finally:
            for channel in self._channels:
                with suppress(OSError):  # or whoever is listening to it would listen for ever
                    channel.shutdown(socket.SHUT_RDWR)
                channel.close()

    def wait(self) -> None:
        """Return when it has ended."""
        self._thread.join()

    def kill(self) -> None:
        """A thread cannot be; it ends by itself when its host's channel closes."""
