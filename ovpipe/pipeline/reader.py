"""A reader: the frames of one stage, for a `for` or an `async for`.

Law: a frame is a read-only view of shared memory, valid as long as anything refers to it. Several
threads may share a reader: each frame goes to one of them. An `async for` never blocks its loop:
the frames are waited for on a thread, one at a time and only when asked for, so that who reads
slowly is waited for. A wait that is cancelled loses no frame.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import Protocol

from ovpipe.errors import OvpipeError, PipelineClosed, together
from ovpipe.frame import Frame
from ovpipe.pipeline.tap import TICK_MS, Tap
from ovpipe.spec import WhenFull


class Life(Protocol):
    """What a reader asks of its pipeline, which it keeps alive."""

    def start(self) -> object:
        """Have all stages open. Idempotent."""

    def wait(self) -> bool:
        """Wait for the end. Raises what made it come early."""


class Reader(Iterator[Frame], AsyncIterator[Frame]):
    """Iterates over the frames of one stage; made by `Pipeline.read`."""

    def __init__(
        self,
        pipeline: Life,
        stage: str,
        depth: int,
        when_full: WhenFull | None,
        timeout: float | None,
    ) -> None:
        self.stage = stage
        self.depth = depth
        self.when_full = when_full
        self._timeout_s = timeout
        self._pipeline = pipeline
        self._tap = Tap()
        self._lock = threading.Lock()
        self._joined = False
        self._ended = False
        self._closed = False
        self._fetcher: _Fetcher | None = None
        self._coming: Future[Frame | None] | None = None

    def join(self, channel: socket.socket) -> None:
        """Become a member of the run."""
        self._tap.join(channel)

    def wait_for_start(self) -> None:
        """Return when all stages are ready."""
        self._tap.wait_for_start()
        self._joined = True

    def __next__(self) -> Frame:
        """The next frame; StopIteration at the end of all streams.

        Raises TimeoutError, or what made the pipeline fail.
        """
        frame = self._take()
        if frame is None:
            raise StopIteration
        return frame

    def _take(self) -> Frame | None:
        """The next frame, or None at the end."""
        self._pipeline.start()
        limit_s = self._timeout_s
        deadline = float("inf") if limit_s is None else time.monotonic() + limit_s
        if not self._lock.acquire(timeout=-1 if limit_s is None else limit_s):
            raise self._late()
        try:
            frame = None if self._ended else self._wait(deadline)
        finally:
            self._lock.release()
        return frame

    def _wait(self, deadline: float) -> Frame | None:
        if self._closed or not self._joined:
            raise PipelineClosed("this reader is closed")
        self._tap.settle()
        while not self._tap.over:
            left_ms = max(0, min(TICK_MS, int(1000 * min(deadline - time.monotonic(), 1e6))))
            frame = self._tap.next(left_ms)
            if frame is not None:
                return frame
            if self._closed:
                raise PipelineClosed("this reader was closed")
            if time.monotonic() >= deadline and not self._tap.over:
                raise self._late()
        errors = self._finish()
        self._ended = not errors
        error = together(errors)
        if error is not None:
            raise error
        return None

    def _late(self) -> TimeoutError:
        return TimeoutError(f"no frame of '{self.stage}' within {self._timeout_s} s")

    def _finish(self) -> list[OvpipeError]:
        try:
            errors = self._tap.finish()
        except PipelineClosed:  # the supervisor is gone: it has said why, or died
            self._tap.close()
            self._pipeline.wait()
            return []
        self._tap.close()
        self._closed = True
        return errors

    async def __anext__(self) -> Frame:
        """The next frame, awaited; StopAsyncIteration at the end. Raises as `next` does."""
        if self._fetcher is None:
            self._fetcher = _Fetcher(self._take, self.stage)
        if self._coming is None:  # else an earlier wait for it was cancelled
            self._coming = self._fetcher.ask()
        coming = self._coming
        try:
            frame = await asyncio.shield(asyncio.wrap_future(coming))
        finally:
            if coming.done():
                self._coming = None
        if frame is None:
            raise StopAsyncIteration
        return frame

    def close(self) -> None:
        """Stop reading. What is in flight to this reader is counted `link_lost`. Idempotent.

        A thread that waits for a frame is told: PipelineClosed.
        """
        self._closed = True
        if self._fetcher is not None:
            self._fetcher.end()
        self._tap.nudge()
        with self._lock:
            self._tap.close()


class _Fetcher:
    """A thread that takes a frame when one is asked for; one at a time."""

    def __init__(self, take: Callable[[], Frame | None], stage: str) -> None:
        self._take = take
        self._news = threading.Condition()
        self._asked: Future[Frame | None] | None = None
        self._over = False
        threading.Thread(target=self._work, name=f"ovpipe-read-{stage}", daemon=True).start()

    def ask(self) -> Future[Frame | None]:
        """A frame to come."""
        future: Future[Frame | None] = Future()
        future.set_running_or_notify_cancel()  # a frame that was taken is kept for the next wait
        with self._news:
            self._asked = future
            self._news.notify()
        return future

    def end(self) -> None:
        """No more will be asked for."""
        with self._news:
            self._over = True
            self._news.notify()

    def _work(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._asked is not None or self._over)
                future, self._asked = self._asked, None
            if future is None:
                return
            try:
                future.set_result(self._take())
            except BaseException as error:  # noqa: BLE001 - for whoever awaits it
                future.set_exception(error)
            del future  # and the frame with it
