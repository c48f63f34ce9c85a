"""Stages whose work takes a known time of a processor, or of a device."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import ovpipe
from ovpipe.stages.base import AsyncTransform

_WORK_S = 0.01


def work() -> None:
    """Compute for 10 ms."""
    until = time.thread_time() + _WORK_S
    while time.thread_time() < until:
        pass


class SlowSource(ovpipe.Producer):
    """Computes each of its frames."""

    count: int = 100

    def frames(self):
        for _ in range(self.count):
            work()
            yield ovpipe.Frame(arrays={"a": np.zeros(1)})


class SlowTransform(ovpipe.Transform):
    """Computes something of each frame."""

    def process(self, frame):
        work()
        return frame


class SlowSink(ovpipe.Consumer):
    """Computes something of each frame."""

    def consume(self, frame):
        work()


class SlowDevice(AsyncTransform):
    """Two requests at a time, each of `takes_s` in which nothing is computed here."""

    takes_s: float = _WORK_S
    capacity = 2

    def open(self):
        self.pool = ThreadPoolExecutor(2)
        self.never = threading.Event()

    def close(self):
        self.pool.shutdown()

    def submit(self, frame, done):
        self.pool.submit(lambda: (self.never.wait(self.takes_s), done()))
        return lambda: frame


class SlowWhile(ovpipe.Transform):
    """Computes something of each frame as long as there is such a file."""

    path: str

    def process(self, frame):
        if os.path.exists(self.path):
            work()
        return frame
