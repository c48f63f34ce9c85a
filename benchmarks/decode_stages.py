"""The stages of decode.py: the product's own, and how much processor time its parts used.

Law: the product's code runs as it is; it is only asked for the time of a thread before and after.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from decode import Tally, spin

import ovpipe
from ovpipe.stages.infer.stage import Infer as InferStage
from ovpipe.stages.video import Video


class Spent:
    """Time of this thread by name, in ns."""

    def __init__(self) -> None:
        self.ns: dict[str, int] = {}
        self.restart()

    def restart(self) -> None:
        self.ns = {}
        self.process, self.thread = time.process_time_ns(), time.thread_time_ns()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            began = time.thread_time_ns()
            try:
                return function(*given)
            finally:
                self.ns[name] = self.ns.get(name, 0) + time.thread_time_ns() - began

        return call

    def ms(self, frames: int, threads_are: str, rest: str) -> dict[str, float]:
        """Per frame; what other threads of the process used belongs to `threads_are`."""
        mine = time.thread_time_ns() - self.thread
        threads = time.process_time_ns() - self.process - mine
        self.ns[rest] = mine - sum(self.ns.values())
        self.ns[threads_are] = self.ns.get(threads_are, 0) + threads
        return {name: ns / frames / 1e6 for name, ns in self.ns.items()}


class Film(Video):
    """Decodes, and says what decoding and copying took."""

    report: str
    skip: int
    count: int

    def frames(self):
        self.spent = spent = Spent()
        self._image = spent.timed("copy", super()._image)
        for i, frame in enumerate(islice(super().frames(), self.count)):
            if i == self.skip:
                spent.restart()
            yield frame
            del frame
        figures = spent.ms(self.count - self.skip, "decode", "source")
        Path(self.report).write_text(json.dumps(figures))

    def _pictures(self, *given):
        pictures = super()._pictures(*given)
        following = self.spent.timed("decode", lambda: next(pictures, None))
        while (picture := following()) is not None:
            yield picture


class Infer(InferStage):
    """Infers, and says what preparing the input and the device took."""

    report: str
    skip: int
    count: int

    def open(self):
        super().open()
        self.spent, self.seen, self.tally = Spent(), 0, Tally(self.count)
        self._feed.take = self.spent.timed("convert", self._feed.take)
        self._runner.start = self.spent.timed("infer", self._runner.start)

    def submit(self, frame, done):
        self.seen += 1
        if self.seen == self.skip:
            self.spent.restart()
        return super().submit(frame, done)

    def _finish(self, job):
        self.tally.frame()
        return super()._finish(job)

    def close(self):
        figures = self.spent.ms(self.count - self.skip, "infer", "stage")
        Path(self.report).write_text(json.dumps({**figures, **self.tally.figures}))
        super().close()


class End(ovpipe.Consumer):
    """Takes the answers, and works on each in Python for so many turns."""

    loops: int = 0

    def consume(self, frame):
        spin(self.loops)
