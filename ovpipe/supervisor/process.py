"""Where stages live: a worker process, started, watched, ended; and its members, by a channel each.

Law: started by exec from the supervisor's main thread, in a process group of its own (the
terminal's Ctrl-C is the supervisor's business), with no descriptor but its ends of the control
channels. Its death is an event (a pidfd), and it is reaped when that event comes. What it
writes to stderr is read without ever blocking it, and the end of it kept; of a flood only the
first lines of each turn are shown, and the others counted.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import IO, Any

from ovpipe.errors import PreflightError, StageError
from ovpipe.supervisor.launch import WorkerPlan
from ovpipe.transport import control

_TAIL_LINES = 40
_MAX_LINE = 2000
_LINES_PER_TURN = 100
_READ_BYTES = 1 << 16
_ENVIRONMENT = {
    # Importing openvino would otherwise start a telemetry process.
    "CI": "true",
    # FFmpeg, OpenCV and OpenVINO would each start a thread per core and more to spin on.
    "OMP_WAIT_POLICY": "PASSIVE",
    "OPENCV_THREAD_POOL_ACTIVE_WAIT_MAIN": "0",
    "OPENCV_THREAD_POOL_ACTIVE_WAIT_WORKER": "0",
}


def _text(line: bytes) -> str:
    return line[:_MAX_LINE].decode("utf-8", "backslashreplace").rstrip()


class WorkerMember:
    """A stage that lives in a worker process. `failure`: its own word about why it failed."""

    def __init__(self, plan: WorkerPlan, process: Workplace, channel: socket.socket) -> None:
        self.plan = plan
        self.process = process
        self.channel = channel
        self.finished = False
        self.failure: dict[str, Any] | None = None

    def say(self, word: str, fds: tuple[int, ...] = (), /, **values: Any) -> None:
        """Send one control message; a dead worker does not hear it."""
        with suppress(OSError):
            control.send(self.channel, {"t": word, **values}, fds)

    def hear(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next control message, or None at end-of-file."""
        return control.receive(self.channel)

    def cause(self) -> StageError | PreflightError:
        """Why it is dead: its own last word, the supervisor's verdict, or how its process ended."""
        failure, name, process = self.failure, self.plan.name, self.process
        if failure is None:
            told = process.verdict or process.describe_exit()
            return StageError(name, told, "\n".join(process.tail))
        if failure["what"] == "preflight":
            return PreflightError(f"stage '{name}': {failure['cause']}")
        return StageError(name, failure["cause"], failure["traceback"])


class Workplace(ABC):
    """Where some members live, the host first.

    `verdict`: why the supervisor ends it, if it does, at `kill_at_s`; `hung`: because it does not
    get on with its frames; `accused`: the worker that this is said of; `asked`: somebody asked for
    its end, and for a successor; `lasting`: it could not be ended, so that nothing may take its
    place. `pidfd` can be read once it is dead; `stderr`: what it writes.
    """

    stderr: IO[bytes]
    pidfd: int

    def __init__(self, plans: Sequence[WorkerPlan]) -> None:
        pairs = [control.pair() for _ in plans]
        self.members = [
            WorkerMember(p, self, ours) for p, (ours, _) in zip(plans, pairs, strict=True)
        ]
        self.name = "+".join(plan.name for plan in plans)
        self._theirs = [end for _, end in pairs]
        self.lasting = False
        self.verdict = ""
        self.hung = False
        self.accused: int | None = None
        self.asked = False
        self.kill_at_s = float("inf")
        self.exit_status: int | None = None
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._partial = b""
        self._lines_left = _LINES_PER_TURN
        self._suppressed = 0

    @property
    @abstractmethod
    def pid(self) -> int:
        """The process id."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once; harmless when it is dead."""

    @abstractmethod
    def print_stacks(self) -> None:
        """Have it say where it is."""

    @abstractmethod
    def reap(self) -> int:
        """Its exit status (negative: the signal), once it is dead."""

    @property
    def alive(self) -> bool:
        """True until its death was seen."""
        return self.exit_status is None

    @property
    def finished(self) -> bool:
        """True once all that live in it have said that their work is done."""
        return all(member.finished for member in self.members)

    def read_stderr(self) -> list[str] | None:
        """Whole lines that have come, as many as may be shown; None at end-of-file.

        Raises BlockingIOError where there is nothing to read now.
        """
        data = os.read(self.stderr.fileno(), _READ_BYTES)
        whole, _, self._partial = (self._partial + data).rpartition(b"\n")
        if len(self._partial) > _MAX_LINE or not data:
            whole, self._partial = (b"\n".join(filter(None, (whole, self._partial))), b"")
        if not whole:
            return [] if data else None
        shown = whole.split(b"\n", self._lines_left)
        if len(shown) > self._lines_left:
            self._suppressed += shown.pop().count(b"\n") + 1
        self._lines_left -= len(shown)
        self.tail.extend(map(_text, whole.rsplit(b"\n", _TAIL_LINES)[-_TAIL_LINES:]))
        return [_text(line) for line in shown]

    def turn(self) -> int:
        """Begin a new period of showing lines; how many were not shown in the last."""
        suppressed, self._suppressed, self._lines_left = self._suppressed, 0, _LINES_PER_TURN
        return suppressed

    def describe_exit(self) -> str:
        """How it ended, in words."""
        status = self.exit_status
        if status is None:
            return "is running"
        if status < 0:
            try:
                return f"died ({signal.Signals(-status).name})"
            except ValueError:
                return f"died (signal {-status})"
        return f"exited with code {status}" + (" before its work was done" if status == 0 else "")

    def close(self) -> None:
        """Give back the descriptors."""
        for member in self.members:
            member.channel.close()
        with suppress(OSError):
            self.stderr.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


class WorkerProcess(Workplace):
    """A started process."""

    def __init__(self, plans: Sequence[WorkerPlan]) -> None:
        super().__init__(plans)
        fds = [end.fileno() for end in self._theirs]
        with ExitStack() as closing:
            for end in self._theirs:
                closing.callback(end.close)
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",  # the current folder must not shadow installed packages
                    "-m",
                    "ovpipe.worker",
                    ",".join(map(str, fds)),
                    str(os.getpid()),
                    self.name,  # for whoever lists processes
                ],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=fds,
                env={**os.environ, **_ENVIRONMENT},
                process_group=0,
            )
        assert self._process.stderr is not None
        self.stderr = self._process.stderr
        os.set_blocking(self.stderr.fileno(), False)
        self.pidfd = os.pidfd_open(self._process.pid)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL; harmless when it is dead."""
        self._signal(signal.SIGKILL)

    def print_stacks(self) -> None:
        """Have it write the stacks of its threads to stderr. One that is stopped does not."""
        self._signal(signal.SIGUSR1)

    def _signal(self, number: signal.Signals) -> None:
        if self.alive:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def reap(self) -> int:
        """Its exit status (negative: the signal), once the pidfd says that it is dead."""
        self.exit_status = self._process.wait()
        return self.exit_status


class ExternalMember:
    """A member of the run that lives in the embedding application, reached by its channel."""

    def __init__(self, plan: WorkerPlan, channel: socket.socket) -> None:
        self.plan = plan
        self.channel = channel
        self.finished = False
        self.left = False

    def hear(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next control message, or None at end-of-file."""
        return control.receive(self.channel)

    def say(self, word: str, fds: tuple[int, ...] = (), /, **values: Any) -> None:
        """Send one control message; a dead application does not hear it."""
        with suppress(OSError):
            control.send(self.channel, {"t": word, **values}, fds)
