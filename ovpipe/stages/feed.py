"""Feed: one connection to a live source, in a thread that owns everything of FFmpeg's in it.

Law: all calls of one container, from open to close, are made on its own thread, so that none is
ever closed under a read; what comes out are decoded pictures, which need it no more. `read` never
waits longer than asked. Native calls end by their own time limits, and `close` waits for that:
one that breaks its limits keeps `close` from returning, and whoever watches this process sees it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ovpipe.errors import PreflightError
from ovpipe.stages.media import library, nanoseconds, pictures, reason
from ovpipe.stages.packets import Origin, Packet, Tap

_AHEAD = 2  # pictures that may wait: more would only grow old
_TICK_S = 0.1


class Disconnected(Exception):
    """The connection is over, or could not be made: says why, without a secret."""


class Denied(Disconnected):
    """The source refused name or password."""


class Over(Disconnected):
    """The source has come to its end."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture, when it was captured (monotonic clock), its time in the source.

    `first_ns`: what was taken off that time; `origin`, `packets`: where they are asked for.
    """

    picture: Any
    captured_ns: int
    pts_ns: int | None
    fps: float
    first_ns: int = 0
    origin: Origin | None = None
    packets: tuple[Packet, ...] = ()


class Feed:
    """Pictures of one connection. `connect` opens the container; called on the thread."""

    def __init__(
        self,
        connect: Callable[[], Any],
        *,
        endless: bool,
        keyframes: bool,
        packets: bool = False,
    ) -> None:
        self._connect = connect
        self._packets = packets
        self._endless = endless
        self._keyframes = keyframes
        self._closing = threading.Event()
        self._queue: queue.Queue[Picture | Disconnected | None] = queue.Queue(_AHEAD)
        self.errors = 0
        """Packets that could not be decoded; only rises."""
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._thread.start()

    def read(self, timeout_s: float) -> Picture | None:
        """The next picture, or None after `timeout_s`. Raises Disconnected, at the end."""
        try:
            item = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(item, Disconnected):
            raise item
        return item

    def close(self, wait: bool = True) -> None:
        """End the thread; without `wait` it is left to end by itself."""
        self._closing.set()
        while wait and self._thread.is_alive():
            try:
                self._queue.get(timeout=_TICK_S)  # it may be waiting for room
            except queue.Empty:
                pass

    def _run(self) -> None:
        self._put(self._life())

    def _life(self) -> Disconnected:
        error = library().error
        try:
            container = self._connect()
        except (error.HTTPUnauthorizedError, error.HTTPForbiddenError) as failure:
            return Denied(reason(failure))
        except (error.FFmpegError, OSError, ValueError, PreflightError) as failure:
            return Disconnected(reason(failure))
        try:
            length = container.duration
            self._frames(container)
        except (error.FFmpegError, OSError, ValueError) as failure:
            return Disconnected(reason(failure))
        finally:
            container.close()
        if length and length > 0 and not self._endless:
            return Over("the source has ended")
        return Disconnected("the source ended the stream")

    def _frames(self, container: Any) -> None:
        stream = container.streams.video[0]
        if self._keyframes:
            stream.codec_context.skip_frame = "NONKEY"
        base, origin = stream.time_base, stream.start_time
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        fps = fps if 0 < fps <= 1000 else 0.0  # a clock rate, where none is told
        tap = Tap(stream, time.monotonic_ns()) if self._packets else None
        closing = self._closing.is_set
        for picture in pictures(container, closing, self._error, patient=False, tap=tap):
            now = time.monotonic_ns()
            pts = picture.pts
            pts_ns = None if pts is None else nanoseconds(pts - (origin or 0), base)
            item = Picture(picture, now, pts_ns, fps)
            if tap is not None:
                first_ns = nanoseconds(origin or 0, base) or 0
                item = replace(
                    item, first_ns=first_ns, origin=tap.origin, packets=tuple(tap.pending.take())
                )
            if not self._put(item):
                return

    def _error(self) -> None:
        self.errors += 1

    def _put(self, item: Picture | Disconnected) -> bool:
        while not self._closing.is_set():
            try:
                self._queue.put(item, timeout=_TICK_S)
                return True
            except queue.Full:
                pass
        return False
