"""How soon a pipeline gets on after a fault, and whether starts that are cut short leave anybody.

    python benchmarks/recovery.py --model FILE.xml [--repeats 20] [--starts 100] [--rows A01 A07]

Three live synthetic streams of 640x360 at 30 frames a second go to an infer stage, and from there
to two consumers, `sink` and `beside`, which note each frame that reaches them: stream, seq, when
it was captured, and when it came (one clock, monotonic). `ovpipe run` runs it as a user would; this
script disturbs one worker at a time, at a random moment:

    A01  SIGKILL to the infer stage        A02  SIGKILL to the source of one stream
    A03  SIGKILL to `sink`                 A07  SIGSTOP to the infer stage, never continued

and reads off the run's own words and the consumers' notes:

    noticed   from the signal to the line that says so
    results   from the signal to the first frame captured after it that reached `sink`
              (A02: of that stream; A07: from the line that says that it hangs)
    others    the longest gap between frames of whoever the fault does not touch: the other streams
              at `sink` (A02), all streams at `beside` (A03)
    lost      frames of those that never came, by their seqs

Reported is the 95th percentile of `--repeats` disturbances, and the worst. Restarts are told to be
forgotten after two seconds, so that each one is a first one. Results of A01 and A07 contain the
load time of the model, which is measured beside it in this process (read, compile, first inference;
the file is in the page cache, as it is for the stage).

Then `--starts` runs are started and killed (SIGKILL to `ovpipe run`) at a random moment of their
first 200 ms; two seconds after the last of them the processes are counted that still carry a mark
which all of them inherited.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import ovpipe
from ovpipe.testing.chaos import workers
from ovpipe.testing.leaks import command_line

ROWS = ("A01", "A02", "A03", "A07")
STREAMS = ("cam/a", "cam/b", "cam/c")
MARK = "OVPIPE_RECOVERY"
WAIT_S = 60.0
CALM_S = 2.5
_MS = 1e6


class Notes(ovpipe.Consumer):
    """Writes a line for each frame, at once: stream, seq, captured, now."""

    path: str

    def open(self) -> None:
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def consume(self, frame: ovpipe.Frame) -> None:
        line = f"{frame.stream} {frame.seq} {frame.captured_ns} {time.monotonic_ns()}\n"
        os.write(self._file, line.encode())


@dataclass(frozen=True)
class Note:
    stream: str
    seq: int
    captured_ns: int
    at_ns: int


def notes(path: Path) -> list[Note]:
    """All whole lines that were written so far."""
    found = []
    for line in path.read_text().split("\n")[:-1]:
        stream, seq, captured, at = line.split()
        found.append(Note(stream, int(seq), int(captured), int(at)))
    return found


@dataclass
class Run:
    """`ovpipe run` under way; `said`: what it wrote to stderr, and when."""

    process: subprocess.Popen[str]
    folder: Path
    said: list[tuple[int, str]] = field(default_factory=list)
    pids: dict[str, int] = field(default_factory=dict)

    def listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append((time.monotonic_ns(), line))

    def heard(self, since_ns: int, word: str) -> int | None:
        """When a line with that word came, after `since_ns`."""
        return next((at for at, line in list(self.said) if at > since_ns and word in line), None)

    def notes(self, sink: str) -> list[Note]:
        return notes(self.folder / sink)

    def first(self, since_ns: int, streams: tuple[str, ...]) -> int | None:
        """When the first frame captured after that came to `sink`."""
        return next(
            (
                note.at_ns
                for note in self.notes("sink")
                if note.captured_ns > since_ns and note.stream in streams
            ),
            None,
        )

    def replaced(self, stage: str) -> bool:
        """Find the successor of a stage's worker; False while there is none."""
        new = set(workers(self.process.pid)) - set(self.pids.values())
        if len(new) != 1:
            return False
        self.pids[stage] = new.pop()
        return True


def until(what: Callable[[], Any], run: Run, words: str) -> Any:
    """The first true value of `what`."""
    end = time.monotonic() + WAIT_S
    while not (value := what()):
        if time.monotonic() > end or run.process.poll() is not None:
            raise SystemExit(f"{words} did not come:\n" + "".join(line for _, line in run.said))
        time.sleep(0.005)
    return value


@contextmanager
def running(model: str) -> Iterator[Run]:
    """A run in which all frames have come to flow."""
    source = {"kind": "synthetic", "live": True, "fps": 30, "size": [640, 360]}
    run = {"max_restarts": 1000, "within": "2s"}
    stages: dict[str, dict[str, Any]] = {
        "cam": {**source, "for_each": {name.partition("/")[2]: {} for name in STREAMS}},
        "det": {"kind": "infer", "model": model, "inputs": "cam"},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for sink in ("sink", "beside"):
            path = folder / sink
            path.touch()
            stages[sink] = {"kind": "recovery:Notes", "path": str(path), "inputs": "det"}
        for stage in stages.values():
            stage["run"] = run
        (folder / "recovery.py").symlink_to(Path(__file__).absolute())
        config = folder / "recovery.yaml"
        config.write_text(json.dumps({"version": 1, "stages": stages}))
        process = subprocess.Popen(
            [sys.executable, "-m", "ovpipe", "run", str(config)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env={**os.environ, MARK: name},
        )  # fmt: skip
        it = Run(process, folder)
        listener = threading.Thread(target=it.listen)
        listener.start()
        try:
            until(lambda: {n.stream for n in it.notes("sink")} >= set(STREAMS), it, "frames")
            order = [*STREAMS, "det", "sink", "beside"]  # as they are started
            it.pids = dict(zip(order, workers(process.pid), strict=True))
            yield it
            process.send_signal(signal.SIGINT)
            process.wait(WAIT_S)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            listener.join()


def gaps(found: list[Note], streams: tuple[str, ...], since_ns: int, to_ns: int) -> float:
    """The longest time without a frame, over streams, in ms."""
    longest = 0.0
    for stream in streams:
        at = [n.at_ns for n in found if n.stream == stream and since_ns <= n.at_ns <= to_ns]
        at = [since_ns, *at, to_ns]
        longest = max(longest, *((b - a) / _MS for a, b in pairwise(at)))
    return longest


def missing(found: list[Note], streams: tuple[str, ...], since_ns: int, to_ns: int) -> int:
    """Frames of those streams that were captured in that time and did not come."""
    count = 0
    for stream in streams:
        seqs = [n.seq for n in found if n.stream == stream and since_ns <= n.captured_ns <= to_ns]
        count += seqs[-1] - seqs[0] + 1 - len(seqs) if seqs else 0
    return count


def disturb(run: Run, row: str) -> dict[str, float]:
    """One disturbance, and what it cost; times in ms."""
    time.sleep(CALM_S + random.random())
    stage = {"A01": "det", "A02": STREAMS[0], "A03": "sink", "A07": "det"}[row]
    began = time.monotonic_ns()
    os.kill(run.pids[stage], signal.SIGSTOP if row == "A07" else signal.SIGKILL)
    word = "hangs" if row == "A07" else "died (SIGKILL)"
    noticed = until(lambda: run.heard(began, word), run, f"'{word}'")
    since = noticed if row == "A07" else began
    mine = STREAMS[:1] if row == "A02" else STREAMS
    results = until(lambda: run.first(since, mine), run, "results")
    until(lambda: run.replaced(stage), run, "a successor")
    told = {"noticed": (noticed - began) / _MS, "results": (results - since) / _MS}
    if row in ("A02", "A03"):
        time.sleep(0.5)
        others = STREAMS[1:] if row == "A02" else STREAMS
        found = run.notes("sink" if row == "A02" else "beside")
        told["others"] = gaps(found, others, began, results)
        told["lost"] = missing(found, others, began - 10**9, results)
    return told


def load_ms(model: str) -> float:
    """Read, compile, one inference; once before, so that the file is in the page cache."""
    import numpy as np
    import openvino as ov

    core, spent = ov.Core(), 0.0
    for _ in range(2):
        began = time.monotonic_ns()
        compiled = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})
        compiled(np.zeros(tuple(compiled.input(0).shape), np.float32))
        spent = (time.monotonic_ns() - began) / _MS
    return spent


def carry(mark: str) -> list[int]:
    """The processes that have inherited a mark."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and folder.name != str(os.getpid()):
            with suppress(OSError):
                if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found


def orphans(starts: int) -> int:
    """How many processes are left of runs that were killed while they started."""
    stages = {
        "src": {"kind": "synthetic", "fps": 30},
        "sink": {"kind": "log", "every": 1000},
    }
    mark = f"start-{os.getpid()}"
    with tempfile.TemporaryDirectory() as name:
        config = Path(name) / "start.yaml"
        config.write_text(json.dumps({"version": 1, "stages": stages}))
        for i in range(starts):
            process = subprocess.Popen(
                [sys.executable, "-m", "ovpipe", "run", str(config)],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env={**os.environ, MARK: mark},
            )  # fmt: skip
            time.sleep(random.uniform(0, 0.2))
            process.kill()
            process.wait()
            print(f"\rstarts {i + 1}/{starts}", end="", file=sys.stderr, flush=True)
        time.sleep(2)
    print(file=sys.stderr)
    left = carry(mark)
    for pid in left:
        print(f"left: {pid} {command_line(pid)}")
    return len(left)


def p95(values: list[float]) -> float:
    """The 95th percentile, by the nearest rank above."""
    return sorted(values)[max(0, -(-95 * len(values) // 100) - 1)]


def main() -> None:
    """Every row, then the starts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--starts", type=int, default=100)
    parser.add_argument("--rows", nargs="+", default=ROWS, choices=ROWS)
    arguments = parser.parse_args()
    model = str(Path(arguments.model).absolute())
    print(f"load time of the model: {load_ms(model):.0f} ms")
    print(f"{'':4} {'ms':8} {'median':>8} {'p95':>8} {'worst':>8}")
    for row in arguments.rows:
        told: list[dict[str, float]] = []
        with running(model) as run:
            for i in range(arguments.repeats):
                told.append(disturb(run, row))
                print(f"\r{row} {i + 1}/{arguments.repeats}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        for name in told[0]:
            values = [each[name] for each in told]
            median, high, worst = statistics.median(values), p95(values), max(values)
            print(f"{row:4} {name:8} {median:8.0f} {high:8.0f} {worst:8.0f}", flush=True)
    if arguments.starts:
        print(f"{arguments.starts} starts killed within 200 ms: {orphans(arguments.starts)} left")


if __name__ == "__main__":
    main()
