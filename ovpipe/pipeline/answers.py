"""Answers: what one stage gives for each frame that the application pushed, as futures.

Law: every future ends. With the frame of that stream and seq, copied out of shared memory, so that
answers which nobody has looked at hold no slot; with FrameError where there will be none: the
ledger is looked at ten times a second while anybody waits, and a frame that is nowhere on its way
was dropped, has failed, or a stage gave nothing for it; with what made the pipeline fail; or it is
cancelled at the end.
"""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import Future
from dataclasses import replace

from ovpipe.errors import FrameError, PipelineClosed, together
from ovpipe.frame import Frame
from ovpipe.pipeline.source import Source
from ovpipe.pipeline.tap import TICK_MS, Tap, drive
from ovpipe.spec import WhenFull
from ovpipe.transport.ledger import DELIVERED
from ovpipe.transport.whereabouts import Whereabouts

_LOOK_MS = 100


class Awaited:
    """A frame on its way, and who waits for what becomes of it. `claimed`: it has set out."""

    def __init__(self, answers: Answers, stream: str, index: int, way: Whereabouts) -> None:
        self.future: Future[Frame] = Future()
        self.stream = stream
        self.index = index
        self.way = way
        self.seq = -1
        self.claimed = False
        self.before: list[int] = []
        self._answers = answers

    def sets_out(self, seq: int) -> None:
        """It is about to be claimed, as this seq."""
        self.seq = seq
        self.before = self.way.losses(self.index)
        self._answers.expect(self)

    def is_claimed(self) -> None:
        """From now on it is somewhere, or has ended."""
        self.claimed = True

    def forget(self) -> None:
        """It did not set out."""
        if self.seq >= 0 and not self.claimed:
            self._answers.forget(self)


class Answers:
    """The frames of one stage. `depth`, `when_full`: of its edge to the application; `tap`: the
    name of what reads there."""

    depth = 4
    when_full: WhenFull = "block"

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.tap = ""
        self._tap = Tap()
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, int], Awaited] = {}
        self._refused = False
        self._next_look = 0.0
        self._closing = False
        self._thread: threading.Thread | None = None
        self._ways: dict[str, Whereabouts] = {}

    def join(self, channel: socket.socket) -> None:
        """Become a member of the run."""
        self._tap.join(channel)

    def wait_for_start(self) -> None:
        """Return when all stages are ready; frames are taken from now on."""
        self._tap.wait_for_start()
        self._thread = threading.Thread(
            target=self._work, name=f"ovpipe-answers-{self.stage}", daemon=True
        )
        self._thread.start()

    # -- any thread ----------------------------------------------------------------------

    def awaited(self, source: Source, edges: frozenset[int]) -> Awaited:
        """A frame of `source` that is to be pushed; `edges`: all on its way to here."""
        way = self._ways.get(source.stream)
        if way is None:
            way = self._ways[source.stream] = source.whereabouts(edges)
        return Awaited(self, source.stream, source.index, way)

    def expect(self, awaited: Awaited) -> None:
        """Look out for it from now on."""
        with self._lock:
            refused = self._refused
            first = not self._waiting
            if not refused:
                self._waiting[awaited.stream, awaited.seq] = awaited
        if refused:
            awaited.future.cancel()
        elif first:
            self._tap.nudge()

    def forget(self, awaited: Awaited) -> None:
        """It did not set out."""
        with self._lock:
            self._waiting.pop((awaited.stream, awaited.seq), None)

    def close(self) -> None:
        """Cancel what is still waited for. Idempotent."""
        self._closing = True
        self._tap.nudge()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
            self._ways.clear()  # they would hold on to the memory
        elif self._thread is None:
            self._tap.close()

    # -- our thread ----------------------------------------------------------------------

    def _work(self) -> None:
        failure: Exception | None = None
        over = False
        try:
            failure = together(drive(self._tap, self._take, self._look))
            over = True
        except PipelineClosed:
            pass
        except Exception as error:  # noqa: BLE001 - or nobody would hear of it
            failure = error
        with self._lock:
            self._refused = True
            left = list(self._waiting.values())
            self._waiting.clear()
        for awaited in left:
            if failure is not None:
                _fail(awaited, failure)
            elif over:
                self._lost(awaited)
            else:
                awaited.future.cancel()
        self._tap.close()

    def _take(self, frame: Frame) -> int:
        with self._lock:
            awaited = self._waiting.pop((frame.stream, frame.seq), None)
        if awaited is not None and awaited.future.set_running_or_notify_cancel():
            try:
                awaited.future.set_result(_copied(frame))
            except MemoryError as error:
                awaited.future.set_exception(error)
        return DELIVERED

    def _look(self) -> int:
        """Those that are nowhere will not come; how long the next wait may be, in ms."""
        if self._closing:
            return -1
        now = time.monotonic()
        with self._lock:
            waiting = [awaited for awaited in self._waiting.values() if awaited.claimed]
            none = not self._waiting
        if none:
            return TICK_MS
        if now < self._next_look:
            return _LOOK_MS
        self._next_look = now + _LOOK_MS / 1000
        for stream in {awaited.stream for awaited in waiting}:
            here = [awaited for awaited in waiting if awaited.stream == stream]
            flying = here[0].way.flying(here[0].index)
            for awaited in here:
                if awaited.seq not in flying:
                    self.forget(awaited)
                    self._lost(awaited)
        return _LOOK_MS

    def _lost(self, awaited: Awaited) -> None:
        reason = awaited.way.fate(awaited.index, awaited.seq)
        if reason == "drain_timeout":  # nothing is wrong with the frame: the run was ended
            awaited.future.cancel()
            return
        why = f"it ended as {reason}" if reason else "a stage passed nothing on for it"
        if not reason and (grown := awaited.way.grown(awaited.index, awaited.before)):
            why = f"it was dropped, or a stage passed nothing on ({grown} since it set out)"
        told = f"frame {awaited.seq} of stream '{awaited.stream}' did not reach '{self.stage}'"
        _fail(awaited, FrameError(f"{told}: {why}", reason))


def _fail(awaited: Awaited, error: Exception) -> None:
    if awaited.future.set_running_or_notify_cancel():
        awaited.future.set_exception(error)


def _copied(frame: Frame) -> Frame:
    """The frame in memory of its own."""
    image = frame.image
    return replace(
        frame,
        image=None if image is None else replace(image, data=image.data.copy(), _cache={}),
        arrays={name: array.copy() for name, array in frame.arrays.items()},
    )
