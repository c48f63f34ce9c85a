"""OpenVINO's benchmark_app: what the device does with the model alone, its inputs filled once.

It runs in a process of its own, with the same device, hint, number of requests, streams and
threads as the stage.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovpipe.bench import cpu
from ovpipe.errors import PreflightError

_THROUGHPUT = re.compile(r"Throughput:\s+([\d.]+) FPS")
_CODE = "import sys; from openvino.tools.benchmark.main import main; sys.exit(main())"
_START_S = 180.0
_EVERY_S = 0.2
_FLAGS = {"NUM_STREAMS": "-nstreams", "INFERENCE_NUM_THREADS": "-nthreads"}


@dataclass(frozen=True)
class Alone:
    """The model alone: inferences per second, and processor time for each of them."""

    per_s: float
    cpu_ms: float


def arguments(options: Mapping[str, Any], seconds: float) -> list[str]:
    """Its command line for an infer stage's options."""
    model = str(Path(str(options["model"])).expanduser())
    device = str(options.get("device", "CPU"))
    words = ["-m", model, "-d", device, "-t", str(max(1, round(seconds)))]
    words += ["-hint", str(options.get("hint", "throughput"))]
    if options.get("jobs"):
        words += ["-nireq", str(options["jobs"])]
    batch = (options.get("batch") or {}).get("size", 0)
    if batch:
        words += ["-b", str(batch)]
    for name, value in (options.get("config") or {}).items():
        if name in _FLAGS:
            words += [_FLAGS[name], str(value)]
    return words


def alone(options: Mapping[str, Any], seconds: float) -> Alone:
    """Run it. PreflightError where it cannot say, with its last words."""
    command = [sys.executable, "-P", "-c", _CODE, *arguments(options, seconds)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "CI": "true"}, text=True, errors="replace",
    )  # fmt: skip
    samples: list[tuple[float, float]] = []
    deadline = time.monotonic() + _START_S + 2 * seconds
    try:
        while True:
            try:
                said, _ = process.communicate(timeout=_EVERY_S)
                break
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    raise PreflightError("benchmark_app did not end") from None
                with suppress(OSError):  # it has just ended
                    samples.append((time.monotonic(), cpu.of_process(process.pid)))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    found = _THROUGHPUT.search(said)
    if found is None:
        lines = [line for line in said.splitlines() if line.strip()]
        raise PreflightError(f"benchmark_app says: {(lines or ['nothing'])[-1][:200]}")
    per_s = float(found[1])
    return Alone(per_s, slope(samples, seconds) / per_s * 1e3)


def slope(samples: list[tuple[float, float]], seconds: float) -> float:
    """Processor seconds per second at the end of samples: when it measured, and loaded no more."""
    if not samples:
        return 0.0
    end_s, end = samples[-1]
    last = [(at, spent) for at, spent in samples if at >= end_s - 0.8 * seconds]
    at, spent = last[0]
    return (end - spent) / (end_s - at) if end_s > at else 0.0
