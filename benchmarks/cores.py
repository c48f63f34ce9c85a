"""Two infer pools on one machine: does it help to leave their threads unpinned?

    python benchmarks/cores.py --model FILE.xml [--seconds 4] [--repeats 5] [--processes 2]
                               [--threads 1]

OpenVINO may pin the threads of its streams to cores, and each process begins with the first
one: two infer stages that take a part of the cores each (--threads) then share the same part while
the others idle. Here `--processes`
processes start together, each with a pool of its own (hint throughput, the device's optimal
number of jobs, blank input), with the property ENABLE_CPU_PINNING left to OpenVINO, true, and
false. Each process counts its inferences within the same window of `--seconds`, which begins when
all have warmed up; the sum over the processes is one measurement. The three settings take turns,
and the median of `--repeats` turns is reported, as inferences a second and as a ratio to what
OpenVINO does by itself. A single process is measured the same way beside it, since what helps
two must not cost one.

These figures are for comparing within one run; between machines they mean little.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

SETTINGS: dict[str, dict[str, bool | int]] = {
    "by itself": {},
    "pinned": {"ENABLE_CPU_PINNING": True},
    "not pinned": {"ENABLE_CPU_PINNING": False},
}


def child(model: str, seconds: float, config: dict[str, bool | int]) -> None:
    """Warm up, say so, wait for the word, count inferences for that long."""
    import numpy as np
    import openvino as ov

    from ovpipe.queue import AsyncInferQueue

    properties = {"PERFORMANCE_HINT": "THROUGHPUT", **config}
    compiled = ov.Core().compile_model(model, "CPU", properties)
    done = 0

    def ended(request: object, userdata: object) -> None:
        nonlocal done
        done += 1

    picture = np.zeros(tuple(compiled.input(0).shape), np.float32)
    with AsyncInferQueue(compiled) as queue:
        queue.set_callback(ended)
        for _ in range(4 * len(queue)):
            queue.start_async(picture, share_inputs=True)
        queue.wait_all()
        print("ready", flush=True)
        sys.stdin.readline()
        done = 0
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            queue.start_async(picture, share_inputs=True)
        counted = done
        queue.wait_all()
    print(json.dumps({"rate": counted / seconds, "jobs": len(queue)}), flush=True)


def rate(processes: int, model: str, seconds: float, config: dict[str, bool | int]) -> float:
    """Inferences a second of all processes together."""
    command = [sys.executable, __file__, "--model", model, "--seconds", str(seconds)]
    children = [
        subprocess.Popen(
            [*command, "--child", json.dumps(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    for process in children:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "a process did not start"
    for process in children:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return sum(float(json.loads(process.communicate()[0])["rate"]) for process in children)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0, help="INFERENCE_NUM_THREADS of each")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.model, given.seconds, json.loads(given.child))
        return
    limit = {"INFERENCE_NUM_THREADS": given.threads} if given.threads else {}
    for processes in dict.fromkeys((1, given.processes)):
        rates: dict[str, list[float]] = {name: [] for name in SETTINGS}
        for _ in range(given.repeats):
            for name, config in SETTINGS.items():
                rates[name].append(rate(processes, given.model, given.seconds, config | limit))
        base = statistics.median(rates["by itself"])
        for name, values in rates.items():
            middle = statistics.median(values)
            print(f"{processes} process(es), {name:10}: {middle:7.1f}/s, x{middle / base:.2f}")


if __name__ == "__main__":
    main()
