"""The consumer of streams.py and cameras.py: what came, when, and how old it was."""

from __future__ import annotations

import struct
import time

import ovpipe

NOTE = struct.Struct("<qqqi")
"""When (monotonic, ns), age (ns), seq, number of the stream in the order of their names."""


class Ages(ovpipe.Consumer):
    """Notes what came; `pause_s`: what each frame takes."""

    path: str
    pause_s: float = 0.0

    def open(self):
        self.file = open(self.path, "ab", buffering=0)  # noqa: SIM115
        names = sorted({name for streams in self.context.inputs.values() for name in streams})
        self.numbers = {name: i for i, name in enumerate(names)}

    def consume(self, frame):
        now = time.monotonic_ns()
        number = self.numbers[frame.stream]
        self.file.write(NOTE.pack(now, now - frame.captured_ns, frame.seq, number))
        if self.pause_s:
            time.sleep(self.pause_s)

    def close(self):
        self.file.close()
