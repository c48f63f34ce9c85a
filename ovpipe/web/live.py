"""The live picture of an edge: taken, drawn and encoded once for all who watch it.

    nobody watches  nothing is done
    one or more     a frame is asked for, at most PER_S times a second, and encoded in a thread
    a slow viewer   gets the newest picture when it has taken the last; nobody waits for it
    one that hangs  is let go when it has taken nothing for PATIENCE_S

Law: never more than MAX_VIEWERS watch, MAX_LOOKS take a single frame. A feed ends with its last
viewer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from ovpipe.errors import OvpipeError
from ovpipe.frame import Frame
from ovpipe.web.picture import Painter, facts

MAX_VIEWERS = 8
MAX_LOOKS = 4
PER_S = 12.0
PATIENCE_S = 10.0
_FRESH_S = 1.0
_PAUSE_S = 1.0

Peek = Callable[[int, str], Frame]
"""(edge, stream) -> its next frame. Raises TimeoutError where none comes, or OvpipeError."""


class TooMany(Exception):
    """As many watch as may."""


@dataclass(frozen=True)
class Picture:
    """One frame as people see it; `jpeg` is None where it has no picture, `why` says so."""

    number: int
    at_s: float
    jpeg: bytes | None
    facts: dict[str, Any]
    why: str = ""


class Feed:
    """What all who watch one stream of an edge share."""

    def __init__(self) -> None:
        self.viewers = 0
        self.picture: Picture | None = None
        self._over = False
        self._news = asyncio.Condition()

    async def show(self, picture: Picture) -> None:
        """A newer picture is there."""
        async with self._news:
            self.picture = picture
            self._news.notify_all()

    async def end(self) -> None:
        """There will be no more."""
        async with self._news:
            self._over = True
            self._news.notify_all()

    async def after(self, number: int) -> Picture:
        """The newest picture, once there is one after that number. Raises EOFError at the end."""
        async with self._news:
            while self.picture is None or self.picture.number <= number:
                if self._over:
                    raise EOFError("no more pictures")
                await self._news.wait()
            return self.picture


class Live:
    """Pictures of edges. All methods but the constructor belong to one event loop."""

    def __init__(self, peek: Peek, clock: Callable[[], float] = time.monotonic) -> None:
        self._peek = peek
        self._clock = clock
        self._feeds: dict[tuple[int, str], Feed] = {}
        self._tasks: dict[tuple[int, str], asyncio.Task[None]] = {}
        self._looks = 0
        self._threads = ThreadPoolExecutor(MAX_VIEWERS + MAX_LOOKS, "ovpipe-live")

    @property
    def viewers(self) -> int:
        """How many watch now."""
        return sum(feed.viewers for feed in self._feeds.values())

    @asynccontextmanager
    async def watching(self, edge: int, stream: str) -> AsyncIterator[Feed]:
        """While it is open, pictures are taken. Raises TooMany."""
        if self.viewers >= MAX_VIEWERS:
            raise TooMany(f"{MAX_VIEWERS} watch already; close another picture")
        key = edge, stream
        if key not in self._feeds:
            feed = self._feeds[key] = Feed()
            self._tasks[key] = asyncio.create_task(self._take_on(edge, stream, feed))
        feed = self._feeds[key]
        feed.viewers += 1
        try:
            yield feed
        finally:
            feed.viewers -= 1
            if not feed.viewers:
                del self._feeds[key]
                self._tasks.pop(key).cancel()

    async def _take_on(self, edge: int, stream: str, feed: Feed) -> None:
        painter, number = Painter(), 0
        try:
            while True:
                began = self._clock()
                try:
                    picture = await self._taken(painter, edge, stream, number)
                except (TimeoutError, OSError, OvpipeError):  # no frames now, or no run
                    await asyncio.sleep(_PAUSE_S)
                    continue
                number += 1
                await feed.show(picture)
                await asyncio.sleep(max(0.0, began + 1 / PER_S - self._clock()))
        finally:
            await feed.end()  # of a fault of ours, too: who watches must not wait for ever

    async def look(self, edge: int, stream: str) -> Picture:
        """The picture of now; that of a feed where one is running.

        Raises TooMany, TimeoutError where no frame comes, OvpipeError.
        """
        feed = self._feeds.get((edge, stream))
        if feed is not None:
            picture = feed.picture
            if picture is not None and self._clock() - picture.at_s < _FRESH_S:
                return picture
        if self._looks >= MAX_LOOKS:
            raise TooMany(f"{MAX_LOOKS} others look at frames right now")
        self._looks += 1
        try:
            return await self._taken(Painter(), edge, stream, 0)
        finally:
            self._looks -= 1

    async def _taken(self, painter: Painter, edge: int, stream: str, number: int) -> Picture:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._threads, self._take, painter, edge, stream, number
        )  # fmt: skip

    def _take(self, painter: Painter, edge: int, stream: str, number: int) -> Picture:
        frame = self._peek(edge, stream)
        told = facts(frame, time.monotonic_ns())
        try:
            return Picture(number, self._clock(), painter.jpeg(frame), told)
        except Exception as error:  # noqa: BLE001 - pixels are a user's: no picture, and no end
            return Picture(number, self._clock(), None, told, str(error))

    def close(self) -> None:
        """Take no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
