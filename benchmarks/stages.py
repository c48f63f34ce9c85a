"""Stages of the benchmarks: as little work as can be, and a count of what it cost."""

from __future__ import annotations

import json
import time

import numpy as np
from support import Job, Meter, stamp, ticks

import ovpipe
from ovpipe.stages.infer.stage import Infer as InferStage
from ovpipe.stages.synthetic import Synthetic


class Source(ovpipe.Producer):
    """Frames in loaned slots; a stamp is all that is written, the rest is left to a device."""

    job: str

    def frames(self):
        job = Job(**json.loads(self.job))
        for seq, now in ticks(job):
            slot = self.loan(job.shape, np.uint8)
            stamp(slot, seq, now)
            yield ovpipe.Frame(arrays={"x": slot}, captured_ns=now)


class Forward(ovpipe.Transform):
    """Passes frames on by reference."""

    def process(self, frame):
        return frame


class Sink(ovpipe.Consumer):
    """Touches and measures."""

    job: str

    def open(self):
        self.meter = Meter(Job(**json.loads(self.job)))

    def consume(self, frame):
        self.meter(frame.arrays["x"])


class Clock:
    """Wall and processor time from frame `skip` to the last one, written at the end."""

    def __init__(self, path: str, skip: int) -> None:
        self.path, self.skip, self.frames = path, skip, 0

    def frame(self) -> None:
        self.frames += 1
        if self.frames == self.skip:
            self.began = time.perf_counter(), time.process_time()

    def end(self) -> None:
        report(self.path, self.frames - self.skip, self.began)


def report(path: str, frames: int, began: tuple[float, float]) -> None:
    """Wall time and what this process used since `began`, starting up left out."""
    wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    with open(path, "a") as file:
        print(json.dumps({"frames": frames, "wall_s": wall, "cpu_s": cpu}), file=file)


class Frames(Synthetic):
    """Synthetic frames, and what they cost."""

    report: str
    skip: int

    def frames(self):
        clock = Clock(self.report, self.skip)
        for frame in super().frames():
            yield frame
            clock.frame()
        clock.end()


class Infer(InferStage):
    """The infer stage, and what it costs."""

    report: str
    skip: int

    def open(self):
        super().open()
        self.clock = Clock(self.report, self.skip)

    def submit(self, frame, done):
        self.clock.frame()
        return super().submit(frame, done)

    def close(self):
        self.clock.end()
        super().close()


class Count(ovpipe.Consumer):
    """Takes frames and does nothing with them."""

    report: str
    skip: int

    def open(self):
        self.clock = Clock(self.report, self.skip)

    def consume(self, frame):
        self.clock.frame()

    def close(self):
        self.clock.end()
