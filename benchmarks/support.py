"""What every side of a hop measurement does in the same way: pacing, stamping, touching, metering.

Law: only numpy and the standard library are imported, since this runs inside of the peers' own
processes, too. The last process of a chain measures; what it counts as processor time is that
of all processes of its session, daemons and helper threads included, between two moments at
which all of them are alive.
"""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PAGE = 4096
DEPTH = 8
"""Frames that may be in flight on a hop, or buffers of its ring, where a peer lets us say so."""
WARM_S = 0.5
_AFTER_S = 1.0
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_STAMP = struct.Struct("<Qq")
END = (1 << 64) - 1


@dataclass(frozen=True)
class Job:
    """One run of one chain. `fps` 0 = as fast as it goes; `report`: where the figures go."""

    width: int
    height: int
    stages: int
    fps: float
    seconds: float
    report: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a frame: 3 bytes per pixel."""
        return self.height, self.width, 3

    @property
    def nbytes(self) -> int:
        """Of a frame."""
        return self.height * self.width * 3


def ticks(job: Job) -> Iterator[tuple[int, int]]:
    """(seq, now in ns) of each frame to make, when it is due; ends when enough were made."""
    began = due = time.monotonic()
    end = began + WARM_S + job.seconds + _AFTER_S
    seq = 0
    while (now := time.monotonic()) < end:
        if job.fps:
            time.sleep(max(0.0, due - now))
            due += 1 / job.fps
        yield seq, time.monotonic_ns()
        seq += 1


def stamp(buffer: Any, seq: int, now_ns: int) -> None:
    """All that a producer writes to a frame: its number and the time at which it was begun."""
    _STAMP.pack_into(buffer, 0, seq, now_ns)


def number(buffer: Any) -> int:
    """The number in a frame's stamp; END for the one behind the last."""
    return int(_STAMP.unpack_from(buffer)[0])


def touch(array: Any) -> int:
    """Read one byte of every page: what makes the memory be there, without measuring its width."""
    return int(array.reshape(-1)[::PAGE].sum())


def session_cpu() -> tuple[float, int]:
    """(processor seconds, number) of all processes of this session."""
    session, total, count = str(os.getsid(0)), 0, 0
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if fields[3] == session:
            total += int(fields[11]) + int(fields[12])
            count += 1
    return total * _TICK_S, count


class Meter:
    """The reader at the end of a chain: touches each frame, and reports what they cost."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._frames = 0
        self._first_seq = 0
        self._latencies: list[int] = []
        self._began_ns = 0
        self._warm_ns = 0
        self._end_ns = 0
        self._cpu = 0.0
        self._done = False

    def __call__(self, array: Any) -> None:
        """One frame has arrived, with its stamp in its first bytes."""
        seq, since = _STAMP.unpack_from(array)
        touch(array)
        now = time.monotonic_ns()
        if not self._end_ns:
            self._warm_ns = self._warm_ns or now + int(WARM_S * 1e9)
            if now >= self._warm_ns:
                self._cpu, _ = session_cpu()
                self._first_seq = seq
                self._began_ns = time.monotonic_ns()
                self._end_ns = self._began_ns + int(self._job.seconds * 1e9)
        elif not self._done:
            self._frames += 1
            if self._job.fps:
                self._latencies.append(now - since)
            if now >= self._end_ns:
                self._done = True
                self._report(seq, now)

    def _report(self, seq: int, now: int) -> None:
        cpu, processes = session_cpu()
        figures = {
            "frames": self._frames,
            "rate": self._frames / (now - self._began_ns) * 1e9,
            "cpu_us": (cpu - self._cpu) / self._frames * 1e6,
            "lost": seq - self._first_seq - self._frames,
            "processes": processes,
            "latencies_us": [ns / 1e3 for ns in self._latencies],
        }
        file = Path(self._job.report)
        new = file.with_suffix(".new")
        new.write_text(json.dumps(figures))
        new.rename(file)


def ring(job: Job) -> list[Any]:
    """Prepared frames for those who copy what they send; used in turn."""
    return [np.ones(job.shape, np.uint8) for _ in range(2 * DEPTH)]
