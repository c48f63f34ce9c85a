"""The floor: what three processes cost that only hand on a small message over pyzmq.

    python benchmarks/bare.py [--rate 200] [--seconds 5]

Method. Source, relay and sink, each one thread, PUSH to PULL over ipc, a message of 200 bytes at
`--rate` per second (the source sleeps in between), while as many other processes as there are
cores compute. No frames, no shared memory, no accounts, no framework. CPU time is each process's
own clock, ZeroMQ's threads included: nearly all of it is waking up, which is dear on a virtual
machine. Whatever stands on processes and ZeroMQ costs this much, and what it does itself.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import zmq

MESSAGE = bytes(200)


def stage(inlet: str, outlet: str, rate: float, count: int, tell: Connection) -> None:
    """Takes from `inlet`, or makes `rate` a second where there is none; gives to `outlet`."""
    context = zmq.Context()
    pull, push = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    if inlet:
        pull.bind(f"ipc://{inlet}")
    if outlet:
        push.connect(f"ipc://{outlet}")
    began = due = 0.0
    for number in range(count):
        if number == count // 10:
            began = time.process_time()
        if inlet:
            message = pull.recv()
        else:
            message = MESSAGE
            due = max(due + 1 / rate, time.perf_counter() - 1 / rate)
            time.sleep(max(0.0, due - time.perf_counter()))
        if outlet:
            push.send(message)
    tell.send((time.process_time() - began) / (count - count // 10) * 1e6)
    context.destroy(linger=1000)


def compute() -> None:
    while True:
        pass


def floor(rate: float, seconds: float) -> dict[str, float]:
    """CPU us per message of source, relay and sink."""
    count = max(100, int(rate * seconds))
    make = multiprocessing.get_context("spawn")
    others = [make.Process(target=compute, daemon=True) for _ in range(os.cpu_count() or 1)]
    with tempfile.TemporaryDirectory() as folder:
        a, b = str(Path(folder) / "a"), str(Path(folder) / "b")
        pipes = {name: make.Pipe(duplex=False) for name in ("source", "relay", "sink")}
        ways = {"source": ("", a), "relay": (a, b), "sink": (b, "")}
        chain = [
            make.Process(target=stage, args=(*ways[name], rate, count, pipe[1]))
            for name, pipe in pipes.items()
        ]
        for process in (*others, *chain):
            process.start()
        try:
            for name, pipe in pipes.items():
                if not pipe[0].poll(2 * seconds + 30):
                    raise TimeoutError(f"nothing from the {name}")
            return {name: float(pipe[0].recv()) for name, pipe in pipes.items()}
        finally:
            for process in (*others, *chain):
                process.kill()
                process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=200.0, help="messages per second")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    spent = floor(options.rate, options.seconds)
    if options.json:
        print(json.dumps(spent))
        return
    split = "  ".join(f"{name} {us:.0f}" for name, us in spent.items())
    print(f"bare pyzmq at {options.rate:.0f}/s: {sum(spent.values()):.0f} us = {split}")


if __name__ == "__main__":
    main()
