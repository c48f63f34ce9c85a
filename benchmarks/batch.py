"""What gathering frames into batches is worth on this device, in one run.

    python benchmarks/batch.py --model FILE.xml [--device CPU] [--sizes 2 4 8] [--seconds 3]
                               [--repeats 5] [--streams 4]

The infer stage alone, in this process, kept full with frames of the model's own size from
`--streams` streams in turn; without `batch`, and with each of the sizes. Frames per second over
`--seconds` after a warm-up; the settings take turns, and the median of `--repeats` turns is
reported, with its ratio to the one without `batch`.

These figures are for comparing within one run; between machines they mean little. A CPU gains by
batches where the model is so small that starting it is most of the work, and loses otherwise.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections import deque

import numpy as np

from ovpipe import Frame, Image
from ovpipe.stages.infer import Infer


def rate(stage: Infer, frames: list[Frame], seconds: float) -> float:
    """Frames a second through a stage that is kept full."""
    under_way: deque = deque()
    done = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        while len(under_way) < stage.capacity:
            ended = threading.Event()
            frame = frames[(done + len(under_way)) % len(frames)]
            under_way.append((ended, stage.submit(frame, ended.set)))
        ended, finish = under_way.popleft()
        ended.wait()
        finish()
        done += 1
    for ended, finish in under_way:
        ended.wait()
        finish()
    return done / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", default="CPU")
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--streams", type=int, default=4)
    given = parser.parse_args()
    stages: dict[str, Infer] = {}
    for size in (1, *given.sizes):
        batch = {"size": size, "wait": 0.02} if size > 1 else {}
        stage = Infer(model=given.model, device=given.device, batch=batch, decode="raw")
        stage.open()
        stages[f"batch {size}" if size > 1 else "no batch"] = stage
    width, height = stages["no batch"]._feed.size
    pixels = np.zeros((height, width, 3), np.uint8)
    frames = [Frame(image=Image(pixels), stream=f"cam{i}") for i in range(given.streams)]
    rates: dict[str, list[float]] = {name: [] for name in stages}
    for stage in stages.values():
        rate(stage, frames, 0.5)
    for _ in range(given.repeats):
        for name, stage in stages.items():
            rates[name].append(rate(stage, frames, given.seconds))
    base = statistics.median(rates["no batch"])
    for name, values in rates.items():
        middle = statistics.median(values)
        print(f"{given.device}, {name:9}: {middle:7.1f} frames/s, x{middle / base:.2f}")
    for stage in stages.values():
        stage.close()


if __name__ == "__main__":
    main()
