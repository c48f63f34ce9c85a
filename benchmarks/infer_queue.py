"""ovpipe.queue.AsyncInferQueue against openvino.AsyncInferQueue: requests/s and CPU time.

    python benchmarks/infer_queue.py [--model FILE ...] [--seconds 2] [--rounds 5] [--json]

Method. For each model one compiled model (CPU, hint THROUGHPUT), and in each round one pool of
each class over it, one after the other, the order turned from round to round. A round submits
for `--seconds` from one thread, with a callback that reads the outputs, then waits for all.
CPU time is the process's own, user and system, over the requests of the round. Medians over
the rounds; the ratio is the median of the rounds' ratios. Always measured: a tiny network of
1x3x64x64 and one ReLU, where the pool itself is all the cost, and inputs of 1080p, copied and
shared, writable and read-only, where the copy is.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("CI", "true")  # importing openvino starts a telemetry process otherwise

import numpy as np
import openvino as ov
from openvino import opset13 as op

from ovpipe.queue import AsyncInferQueue


def tiny() -> ov.Model:
    data = op.parameter([1, 3, 64, 64], np.float32, name="data")
    return ov.Model([op.relu(data)], [data], "tiny")


def picture() -> ov.Model:
    """Little to compute from much to read."""
    data = op.parameter([1, 1080, 1920, 3], np.uint8, name="data")
    crop = op.slice(data, [0, 0, 0, 0], [1, 8, 8, 3], [1, 1, 1, 1])
    return ov.Model([op.convert(crop, "f32")], [data], "1080p")


def run(queue, seconds: float, make, share: bool) -> tuple[float, float]:
    """Requests/s and CPU us per request of one round."""
    done = [0]

    def callback(request, _):
        request.get_output_tensor(0).data.ravel()[:1].sum()
        done[0] += 1

    queue.set_callback(callback)
    for _ in range(2 * len(queue)):  # every request has run before the clock starts
        queue.start_async(make(), None, share)
    queue.wait_all()
    done[0] = 0
    start, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        for _ in range(len(queue)):
            queue.start_async(make(), None, share)
    queue.wait_all()
    took, spent = time.perf_counter() - start, time.process_time() - cpu
    return done[0] / took, spent / done[0] * 1e6


def compare(name: str, variants: dict, rounds: int) -> dict:
    """Run the variants in turn; ratios to the first."""
    names = list(variants)
    results: dict = {v: [] for v in names}
    for number in range(rounds):
        for variant in names if number % 2 == 0 else names[::-1]:
            results[variant].append(variants[variant]())
            print(f"\r{name}: round {number + 1}/{rounds} {variant:24}", end="", file=sys.stderr)
    print("\r" + " " * 70 + "\r", end="", file=sys.stderr)
    rows = {}
    first = results[names[0]]
    for variant in names:
        rate = [r for r, _ in results[variant]]
        cpu = [c for _, c in results[variant]]
        rows[variant] = {
            "requests_per_s": statistics.median(rate),
            "cpu_us": statistics.median(cpu),
            "rate_ratio": statistics.median(a / b[0] for a, b in zip(rate, first, strict=True)),
            "cpu_ratio": statistics.median(a / b[1] for a, b in zip(cpu, first, strict=True)),
        }
    return rows


def pools(model: ov.CompiledModel, seconds: float) -> dict:
    port = model.inputs[0]
    data = np.zeros(tuple(port.shape), port.element_type.to_dtype())

    def measure(cls):
        queue = cls(model, 0)
        result = run(queue, seconds, lambda: data, False)
        if cls is AsyncInferQueue:
            queue.close()
        return result

    return {
        "openvino": lambda: measure(ov.AsyncInferQueue),
        "ovpipe": lambda: measure(AsyncInferQueue),
    }


def inputs(model: ov.CompiledModel, seconds: float) -> dict:
    data = np.zeros(tuple(model.inputs[0].shape), np.uint8)
    readonly = data.view()
    readonly.flags.writeable = False

    def measure(cls, array, share):
        queue = cls(model, 0)
        result = run(queue, seconds, lambda: array, share)
        if cls is AsyncInferQueue:
            queue.close()
        return result

    return {
        "openvino, copied": lambda: measure(ov.AsyncInferQueue, data, False),
        "ovpipe, copied": lambda: measure(AsyncInferQueue, data, False),
        "openvino, shared": lambda: measure(ov.AsyncInferQueue, data, True),
        "ovpipe, shared": lambda: measure(AsyncInferQueue, data, True),
        "openvino, read-only": lambda: measure(ov.AsyncInferQueue, readonly, True),
        "ovpipe, read-only": lambda: measure(AsyncInferQueue, readonly, True),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", default=[], help="a model file; repeatable")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    core = ov.Core()
    config = {"PERFORMANCE_HINT": "THROUGHPUT"}
    tables = {}
    for model in (tiny(), *options.model):
        name = model.friendly_name if isinstance(model, ov.Model) else Path(model).stem
        compiled = core.compile_model(model, "CPU", config)
        tables[name] = compare(name, pools(compiled, options.seconds), options.rounds)
        show(name, tables[name], options.json)
    compiled = core.compile_model(picture(), "CPU", config)
    tables["1080p inputs"] = compare("1080p", inputs(compiled, options.seconds), options.rounds)
    show("1080p inputs", tables["1080p inputs"], options.json)
    if options.json:
        print(json.dumps(tables, indent=2))
    sys.stdout.flush()
    os._exit(0)  # openvino's own pool aborts some ordinary exits


def show(name: str, rows: dict, quiet: bool) -> None:
    if quiet:
        return
    print(f"{name:40}   requests/s   ratio   CPU us   ratio")
    for variant, row in rows.items():
        print(
            f"  {variant:38}   {row['requests_per_s']:10.0f}   {row['rate_ratio']:5.2f}"
            f"   {row['cpu_us']:6.0f}   {row['cpu_ratio']:5.2f}"
        )


if __name__ == "__main__":
    main()
