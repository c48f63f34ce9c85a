"""Watch: a live source kept alive. Connects, reads, closes and connects again, as `Camera` says.

Law: nothing but the wish to stop, or the source's own end, ends it; no error of a connection gets
out. A connection is closed before the next begins: sources are rebuilt, never re-armed. Each
change of the camera's state is one line in the log `ovpipe.<stage>` and a fact that is reported,
with the reason, and never a secret. While it waits it says so (`context.waiting`): a source that
is away is no hung stage.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from ovpipe.stages.base import Context
from ovpipe.stages.camera import Camera, Timing
from ovpipe.stages.feed import Denied, Disconnected, Over

_TICK_S = 0.1
Item = TypeVar("Item")
Item_co = TypeVar("Item_co", covariant=True)


class Connection(Protocol[Item_co]):
    """What is connected to a source."""

    errors: int
    """Frames that could not be decoded; only rises."""

    def read(self, timeout_s: float) -> Item_co | None:
        """The next frame, None after `timeout_s`; raises Disconnected (Denied, Over)."""

    def close(self, wait: bool = True) -> None:
        """Close it; with `wait`, nothing of it is left afterwards."""


class Watch(Generic[Item]):
    """One live source. `connect` makes a connection and returns at once."""

    def __init__(
        self,
        context: Context,
        shown: str,
        connect: Callable[[], Connection[Item]],
        timing: Timing,
        connected: Callable[[], None] = lambda: None,
    ) -> None:
        self._context = context
        self._shown = shown
        self._connect = connect
        self._connected = connected
        self._log = logging.getLogger(f"ovpipe.{context.stage}")
        self.camera = Camera(time.monotonic(), random.random, timing)
        self._connection: Connection[Item] | None = None
        self._counted = 0
        self._told: tuple[str, str] | None = None

    def frames(self) -> Iterator[Item]:
        """Frames until the source ends or the stage is to stop."""
        self._tell()
        try:
            while not self._context.stopping and self.camera.state != "ended":
                item = self._step()
                self._tell()
                if item is None:
                    self._context.waiting()
                else:
                    yield item
                    del item
        finally:
            self.close()

    def close(self) -> None:
        """Leave the connection to itself; a stage that stops waits for no camera."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(wait=False)

    def _step(self) -> Item | None:
        camera, now = self.camera, time.monotonic()
        if self._connection is None:
            assert camera.connect_at_s is not None
            if now < camera.connect_at_s:
                time.sleep(min(camera.connect_at_s - now, _TICK_S))
                return None
            camera.begin(now)
            self._counted = 0
            self._connection = self._connect()
            self._connected()
        item = None
        try:
            item = self._connection.read(_TICK_S)
        except Denied as error:
            self._drop()
            camera.denied(time.monotonic(), str(error))
        except Over as error:
            self._drop()
            camera.end(time.monotonic(), str(error))
        except Disconnected as error:
            self._drop()
            camera.lost(time.monotonic(), str(error))
        else:
            self._count(self._connection)
            if item is not None:
                camera.frame(time.monotonic())
                return item
            camera.look(time.monotonic())
            if camera.state == "stalled":
                self._tell()
                self._drop()
                camera.lost(time.monotonic(), camera.why)
        return None

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            self._count(connection)

    def _count(self, connection: Connection[Item]) -> None:
        errors = connection.errors
        if errors > self._counted:
            reason = getattr(connection, "error_reason", "decode_error")
            self._context.count_failed(reason, errors - self._counted)
            self._counted = errors

    def _tell(self) -> None:
        camera = self.camera
        told = camera.state, camera.why
        if told == self._told:
            return
        self._told = told
        self._context.report(
            {
                "camera": camera.state,
                "why": camera.why,
                "since_ns": round(camera.since_s * 1e9),
                "address": self._shown,
            }
        )
        wait = ""
        if camera.connect_at_s is not None:
            wait = f"; next attempt in {max(0.0, camera.connect_at_s - time.monotonic()):.1f} s"
        self._log.warning(
            "%s: camera %s: %s (%s)%s",
            self._context.stream, camera.state, camera.why, self._shown, wait,
        )  # fmt: skip
