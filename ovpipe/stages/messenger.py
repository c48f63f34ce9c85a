"""Messenger: what all stages have in common that send what was found to a broker.

    {"v":1,"id":"5f0c…/cam/7","time":"2026-03-01T12:00:00.280Z","stream":"cam","seq":7, …}

A message is what `jsonl` writes of a frame, with an `id` that no other frame has, in this run or
another, and with the time of capture by the wall's clock.

Law: a frame is delivered when the spool has taken its message; what becomes of it later is counted
by the stage (`outbox.Counts`) and told at its end. A frame that the spool does not take fails:
`link_lost` where it is full, `disk_full` where the disk is. A broker that is away fails no frame
before that, and never the stage; an option that cannot be right ends the run before it begins.
"""

from __future__ import annotations

import json
import logging
import time
from abc import abstractmethod
from dataclasses import field, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, TypedDict

from annotated_types import Ge, Gt

from ovpipe.errors import FrameError
from ovpipe.frame import UNSET, Frame
from ovpipe.options import Duration
from ovpipe.stages.jsonl import record
from ovpipe.stages.outbox import Client, Counts, Outbox
from ovpipe.stages.paths import expanded
from ovpipe.stages.selective import Selective
from ovpipe.stages.spool import (
    DiskFull,
    InMemory,
    Message,
    NoRoom,
    OnDisk,
    Spool,
    TooLarge,
    WhenFull,
)

_WAIT_S = 0.1
_MB = 1 << 20
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class SpoolOptions(TypedDict, total=False):
    """The option `spool`."""

    path: Annotated[str, "the file where messages wait; none: in memory, lost with the process"]
    max_messages: Annotated[int, Ge(2), "how many wait at most (100000)"]
    max_mb: Annotated[float, Gt(0), "megabytes of messages that wait at most (64)"]


class Messenger(Selective):
    """Sends a message for each frame that is wanted to a broker, which may be away meanwhile."""

    one_process: ClassVar[bool] = True

    meta: Annotated[bool, "send the frame's metadata too"] = False
    spool: Annotated[SpoolOptions, "where messages wait for the broker"] = field(
        default_factory=SpoolOptions
    )
    when_full: Annotated[
        WhenFull,
        "the spool: drop_oldest gives up old messages, drop_newest fails new frames, block waits",
    ] = "drop_oldest"
    timeout: Annotated[Duration, Gt(0), "how long the broker may take to answer"] = 10.0
    flush_timeout: Annotated[
        Duration,
        Ge(0),
        "at the end, how long to try to get rid of what waits; a drain is that short,"
        " else it begins anew while the broker takes messages",
    ] = 3.0

    _outbox: Any = None
    _log: Any = None
    _give_up_s: float = float("inf")

    @abstractmethod
    def client(self) -> tuple[Client, str]:
        """What speaks to the broker, and the broker's name in the log.

        Connects to nothing. Raises PreflightError where an option cannot be right.
        """

    def secrets(self) -> list[str]:
        """What must not be in the log, whoever says it."""
        return []

    def open(self) -> None:
        """Check the options, open the spool, begin to connect."""
        self._log = logging.getLogger(f"ovpipe.{self.context.stage}")
        client, shown = self.client()
        path = self.spool.get("path", "")
        store = OnDisk(expanded(path)) if path else InMemory()
        spool = Spool(
            store,
            self.spool.get("max_messages", 100_000),
            int(self.spool.get("max_mb", 64) * _MB),
            self.when_full,
        )
        if isinstance(store, OnDisk) and store.put_aside is not None:
            self._warn("the spool '%s' was damaged; it is now '%s'", path, store.put_aside)
        if spool.found:
            self._warn("%d messages of before wait in the spool '%s'", spool.found, path)
        self._outbox = Outbox(
            spool,
            client,
            stage=self.context.stage,
            shown=shown,
            secrets=self.secrets(),
            timeout_s=self.timeout,
        )
        self._outbox.start()

    def consume(self, frame: Frame) -> None:
        """Hand the frame's message to the spool."""
        something = self.select(frame, self.found)
        if something is None:
            return
        message = self.message(replace(frame, detections=something))
        while True:
            try:
                self._outbox.put(message)
                return
            except DiskFull as error:
                raise FrameError("no space for the spool", "disk_full") from error
            except NoRoom as error:
                hopeless = self.when_full != "block" or isinstance(error, TooLarge)
                if hopeless or not self._wait(len(message.body)):
                    raise FrameError(f"the spool is full: {error}", "link_lost") from error

    def message(self, frame: Frame) -> Message:
        """What is sent of a frame."""
        line = record(frame, self.meta)
        key = f"{self.context.run}/{frame.stream}/{frame.seq}"
        document = {"v": line.pop("v"), "id": key, "time": _captured(frame), **line}
        body = _encode(document).encode("utf-8", "backslashreplace")
        return Message(key, frame.stream, body)

    def close(self) -> None:
        """Send what can still be sent within `flush_timeout`; tell what became of all."""
        outbox, self._outbox = self._outbox, None
        if outbox is None:
            return
        self._patience()
        counts: Counts = outbox.close(
            self._give_up_s, self.flush_timeout, lambda: self.context.stopping
        )
        if counts.refused or counts.dropped or counts.waiting:
            left = f"left in '{self.spool['path']}'" if self.spool.get("path") else "lost"
            self._warn(
                "%d messages confirmed, %d refused, %d dropped, %d %s (broker %s)",
                counts.confirmed, counts.refused, counts.dropped, counts.waiting, left,
                outbox.state,
            )  # fmt: skip
        if outbox.error is not None:
            raise outbox.error

    def _wait(self, body_bytes: int) -> bool:
        """Wait for room, for ever; once the run is to end, for `flush_timeout` in all."""
        outbox: Outbox = self._outbox
        while not outbox.wait_for_room(body_bytes, _WAIT_S):
            self.context.waiting()
            if self.context.stopping:
                self._patience()
            if time.monotonic() >= self._give_up_s or outbox.error is not None:
                return False
        return True

    def _patience(self) -> None:
        """The time that is left begins to run, once."""
        self._give_up_s = min(self._give_up_s, time.monotonic() + self.flush_timeout)

    def _warn(self, text: str, *values: object) -> None:
        self._log.warning("%s: " + text, self.context.stage, *values)


def _captured(frame: Frame) -> str | None:
    """When the frame was captured, by the wall's clock, as RFC 3339 says."""
    if frame.captured_ns == UNSET:
        return None
    age = timedelta(microseconds=(time.monotonic_ns() - frame.captured_ns) // 1000)
    at = datetime.now(UTC) - age
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"
