"""What `ovpipe run` says on stderr: lines for people, or one JSON object a line for collectors.

An object has `time` (UTC), `stage` (`ovpipe` for what the supervisor says), `level` (info,
warning, error) and `message`; those of a moment, of the ledger and of an error more beside.

Law: a line of JSON is written as a whole, also when a signal handler says something meanwhile;
nothing else than such lines is written then. A reader that has gone away ends nothing.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from ovpipe.cli.status import Status, ledger_table, say
from ovpipe.supervisor.accountant import Account, Reading, WorkerReading
from ovpipe.supervisor.rates import WorkerRate, interval

Level = Literal["info", "warning", "error"]

_EVERY_S = 5.0
_STDERR = 2
_GOOD_NEWS = (" is back after ", " ends the run: ", ", as asked for")
_MARKED = re.compile(r"\W*(warn(?:ing)?|error|critical|fatal|traceback)\b", re.IGNORECASE)


class Talk(Protocol):
    """Both ways. `show` is the supervisor's on_tick, `log` its on_log."""

    def say(self, level: Level, message: str, **more: Any) -> None: ...

    def log(self, worker: str, line: str) -> None: ...

    def show(self, phase: str, reading: Reading, verdict: Sequence[str] = ()) -> None: ...

    def ledger(self, reading: Reading) -> None: ...

    def from_handler(self, message: str) -> None: ...

    def showing(self) -> AbstractContextManager[object]: ...


class TextTalk:
    """For people: a live table on a terminal, otherwise lines."""

    def __init__(self, name: str) -> None:
        self._status = Status(name)
        self.log = self._status.log
        self.show = self._status.show

    def say(self, level: Level, message: str, **more: Any) -> None:
        """A line; `more` is for machines."""
        say(sys.stderr, message if level == "info" else f"{level}: {message}")

    def ledger(self, reading: Reading) -> None:
        """As a table."""
        say(sys.stderr, ledger_table(reading))

    def from_handler(self, message: str) -> None:
        """A line from within a signal handler: not print, it may have interrupted one."""
        with suppress(OSError):
            os.write(_STDERR, f"{message}\n".encode())

    def showing(self) -> AbstractContextManager[object]:
        """While frames flow."""
        return self._status


class JsonTalk:
    """For collectors of logs."""

    def __init__(self) -> None:
        self._before: Reading | None = None
        self._due_s = 0.0

    def say(self, level: Level, message: str, **more: Any) -> None:
        """One object, of the run itself."""
        self._write("ovpipe", level, message, more)

    def log(self, worker: str, line: str) -> None:
        """One line that a worker wrote to stderr, or the supervisor has to say."""
        self._write(worker, level_of(worker, line), line, {})

    def show(self, phase: str, reading: Reading, verdict: Sequence[str] = ()) -> None:
        """How things are, when that is due: `per_s` are frames since the time before."""
        now = time.monotonic()
        if now < self._due_s:
            return
        self._due_s = now + _EVERY_S
        since = interval(self._before or reading, reading)
        stages = [_moment(*each) for each in zip(reading.workers, since.workers, strict=True)]
        self._before = reading
        self.say("info", phase, phase=phase, stages=stages, verdict=list(verdict))

    def ledger(self, reading: Reading) -> None:
        """One object per edge and stream."""
        for account in reading.accounts:
            self.say("info", _words(account), **asdict(account))

    def from_handler(self, message: str) -> None:
        """What `say` does is safe there."""
        self.say("info", message)

    def showing(self) -> AbstractContextManager[object]:
        """While frames flow."""
        return nullcontext()

    def _write(self, stage: str, level: Level, message: str, more: dict[str, Any]) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"time": at, "stage": stage, "level": level, "message": message, **more}
        left = json.dumps(line, default=str).encode() + b"\n"
        with suppress(OSError):
            while left:
                left = left[os.write(_STDERR, left) :]


def level_of(worker: str, line: str) -> Level:
    """How bad a line is, as far as it says so itself; what the supervisor announces mostly is."""
    if worker == "ovpipe":
        return "info" if any(words in line for words in _GOOD_NEWS) else "warning"
    marked = _MARKED.match(line)
    if marked is None:
        return "info"
    return "warning" if marked[1].lower().startswith("warn") else "error"


def _moment(worker: WorkerReading, rate: WorkerRate) -> dict[str, Any]:
    frames = max(worker.frames_in, worker.frames_out)
    return {
        "name": worker.name,
        "state": worker.state,
        "frames": frames,
        "per_s": round(rate.frames, 2),
    }


def _words(account: Account) -> str:
    return (
        f"edge '{account.source} -> {account.target}', stream '{account.stream}': "
        f"{account.claimed} claimed, {account.delivered} delivered, "
        f"{sum(account.dropped.values())} dropped, {sum(account.failed.values())} failed, "
        f"{account.in_flight} in flight"
    )
