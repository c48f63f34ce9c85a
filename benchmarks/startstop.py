"""What starting and stopping a pipeline again and again leaves in the application.

    python benchmarks/startstop.py --times 200

A pipeline of an `app` source, a stage and a reader is started, sent three frames, and stopped.
Prints the descriptors, threads and resident memory of this process as it goes, and how long one
turn takes. Ends with 1 where descriptors or threads are more than after the first turns.
"""

from __future__ import annotations

import argparse
import gc
import mmap
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

import ovpipe

WARM_UP = 5


def mark(frame: ovpipe.Frame) -> ovpipe.Frame:
    """The stage."""
    return frame.with_(meta={"seen": True})


def once() -> None:
    """One start, three frames, one stop."""
    pipeline = ovpipe.Pipeline("startstop", folder=Path(__file__).parent)
    pipeline.add("in", "app").add("mark", "startstop:mark")
    with pipeline:
        reader = pipeline.read("mark")
        for i in range(3):
            pipeline.push("in", np.full((480, 640, 3), i, np.uint8))
            assert next(reader).meta["seen"]


def held() -> tuple[int, int, float]:
    """(descriptors, threads, resident MiB) of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return (
        len(os.listdir("/proc/self/fd")),
        threading.active_count(),
        pages * mmap.PAGESIZE / 2**20,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--times", type=int, default=200)
    times = parser.parse_args().times
    for _ in range(WARM_UP):
        once()
    before, began = held(), time.monotonic()
    print(f"{'turn':>5} {'fds':>5} {'threads':>8} {'MiB':>8}")
    print(f"{0:5} {before[0]:5} {before[1]:8} {before[2]:8.1f}")
    for turn in range(1, times + 1):
        once()
        if turn % max(1, times // 10) == 0:
            fds, threads, mib = held()
            print(f"{turn:5} {fds:5} {threads:8} {mib:8.1f}", flush=True)
    after = held()
    print(f"{(time.monotonic() - began) / times:.2f} s a turn; {after[2] - before[2]:+.1f} MiB")
    return int(after[0] > before[0] or after[1] > before[1])


if __name__ == "__main__":
    sys.exit(main())
