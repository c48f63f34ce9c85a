"""Stages of the benchmarks: as little work as can be, and a count of what it cost.

Processor time is what a worker used between the first frame and the last one it saw, from its
own process clock, so that starting up is not in it.
"""

from __future__ import annotations

import json
import time
from typing import Annotated

import numpy as np

import ovpipe
from ovpipe.stages.infer.stage import Infer as InferStage
from ovpipe.stages.synthetic import Synthetic


def report(path: str, frames: int, began: tuple[float, float]) -> None:
    wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    with open(path, "a") as file:
        print(json.dumps({"frames": frames, "wall_s": wall, "cpu_s": cpu}), file=file)


class Source(ovpipe.Producer):
    """`count` frames from loaned slots; only the first row is written, as a decoder's DMA would
    leave the rest to the device."""

    count: int
    width: int
    height: int
    path: str

    def frames(self):
        began = time.perf_counter(), time.process_time()
        for seq in range(self.count):
            slot = self.loan((self.height, self.width), np.uint8)
            slot[0] = seq & 255
            yield ovpipe.Frame(arrays={"x": slot})
        report(self.path, self.count, began)


class Forward(ovpipe.Transform):
    """Passes frames on by reference."""

    path: str

    def open(self):
        self.frames = 0

    def process(self, frame):
        if not self.frames:
            self.began = time.perf_counter(), time.process_time()
        self.frames += 1
        return frame

    def close(self):
        report(self.path, self.frames, self.began)


class Sink(ovpipe.Consumer):
    """Reads every byte of each frame (`touch`), or none."""

    path: str
    touch: Annotated[bool, "read every byte"] = True

    def open(self):
        self.frames = 0

    def consume(self, frame):
        if not self.frames:
            self.began = time.perf_counter(), time.process_time()
        self.frames += 1
        if self.touch:
            for array in frame.arrays.values():
                array.max()

    def close(self):
        report(self.path, self.frames, self.began)


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
