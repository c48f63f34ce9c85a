"""A graph run for some seconds, and what it did in them.

Law: figures are of the time between two readings, both taken while frames flowed, the first after
the warm-up. Processor time is that of the worker processes, by the kernel's own account. Runs in
the calling process's main thread, as any supervisor; nothing of it is left behind.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ovpipe.errors import PreflightError
from ovpipe.graph import Graph
from ovpipe.supervisor.accountant import Account, Reading, WorkerReading
from ovpipe.supervisor.core import Supervisor
from ovpipe.supervisor.verdict import verdict

_TICKS = os.sysconf("SC_CLK_TCK")
_LATE_S = 600.0
_AND = "+"  # between the names of workers that live in one process


@dataclass(frozen=True)
class StageFigures:
    """One stage between the readings. Shares, 0 to 1, are of its busiest worker's time."""

    name: str
    per_s: float
    cpu_ms: float
    """Processor time for each of its frames, of all its processes."""
    cores: float
    busy: float
    blocked: float
    idle: float
    home: str = ""
    """The stage in whose process it lives, and by which its processor time is counted."""


@dataclass(frozen=True)
class Measured:
    """What a graph did. `frames_per_s`: see `pace`; `lost`: frames dropped or failed, per s."""

    seconds: float
    frames_per_s: float
    at: str
    stages: tuple[StageFigures, ...]
    cores_used: float
    lost_per_s: float
    verdict: tuple[str, ...] = field(default=())


@dataclass
class _Moment:
    reading: Reading
    cpu_s: dict[str, float]


def run(
    graph: Graph, warm_s: float, seconds: float, progress: Callable[[str], None] | None = None
) -> Measured:
    """Run it, for so long after it is warm. Raises what makes it fail."""
    moments: list[_Moment] = []
    warm_at_s = end_at_s = 0.0
    began_s = time.monotonic()

    def on_tick(phase: str, reading: Reading) -> None:
        nonlocal warm_at_s, end_at_s
        now = time.monotonic()
        if progress is not None:
            progress(phase if phase != "running" or moments else "warming up")
        if now - began_s > _LATE_S + warm_s + seconds:
            supervisor.kill()
        if phase != "running" or len(moments) == 2:
            return
        warm_at_s = warm_at_s or now + warm_s
        if not moments and now >= warm_at_s:
            moments.append(_Moment(reading, cpu_of_workers()))
            end_at_s = now + seconds
        elif moments and now >= end_at_s:
            moments.append(_Moment(reading, cpu_of_workers()))
            supervisor.drain()

    supervisor = Supervisor(graph, on_tick=on_tick, on_log=None)
    outcome = supervisor.run()
    if outcome.error is not None and len(moments) < 2:
        raise outcome.error
    if len(moments) < 2:
        raise PreflightError(
            "its streams ended before it was measured: less time (--seconds), or longer sources"
        )
    return between(graph, *moments)


def between(graph: Graph, first: _Moment, last: _Moment) -> Measured:
    """The figures of the time between two moments."""
    seconds = (last.reading.at_ns - first.reading.at_ns) / 1e9
    before = {w.name: w for w in first.reading.workers}
    stages = []
    for stage in graph.stages:
        workers = [(w, before[w.name]) for w in last.reading.workers if w.stage == stage.name]
        if workers:
            cpu_s = sum(
                max(0.0, cpu - first.cpu_s.get(process, 0.0))
                for process, cpu in last.cpu_s.items()
                if process.partition(_AND)[0] in {w.name for w, _ in workers}
            )
            home = _home(workers[0][0].name, last.cpu_s)
            stages.append(_figures(stage.name, workers, cpu_s, seconds, home))
    at, pace = _pace(graph, first.reading, last.reading, seconds)
    lost = _lost(last.reading.accounts) - _lost(first.reading.accounts)
    cores = sum(s.cores for s in stages)
    share = min(1.0, cores / (os.cpu_count() or 1))
    change = _change(first.reading, last.reading)
    said = tuple(verdict(graph, change, seconds, share)[:1])
    return Measured(seconds, pace, at, tuple(stages), cores, lost / seconds, said)


def _figures(
    name: str,
    workers: list[tuple[WorkerReading, WorkerReading]],
    cpu_s: float,
    seconds: float,
    home: str,
) -> StageFigures:
    frames = sum(_frames(w) - _frames(old) for w, old in workers)
    spent = []
    for w, old in workers:
        times = (w.busy_ns - old.busy_ns, w.blocked_ns - old.blocked_ns, w.idle_ns - old.idle_ns)
        whole = max(1, sum(times))
        spent.append(tuple(t / whole for t in times))
    busy, blocked, idle = max(spent)
    per_frame = cpu_s / frames * 1e3 if frames else 0.0
    rate, cores = frames / seconds, cpu_s / seconds
    return StageFigures(name, rate, per_frame, cores, busy, blocked, idle, home)


def _frames(worker: WorkerReading) -> int:
    return max(worker.frames_in, worker.frames_out)


def _pace(graph: Graph, first: Reading, last: Reading, seconds: float) -> tuple[str, float]:
    """The stage by which a graph's frames are counted, and how many it took per second.

    The slowest of those that infer; without any, of the consumers; else of all that take frames.
    """
    taken: dict[str, int] = {}
    for sign, reading in ((1, last), (-1, first)):
        for account in reading.accounts:
            taken[account.target] = taken.get(account.target, 0) + sign * account.delivered
    infer = [s.name for s in graph.stages if s.kind == "infer"]
    consumers = [s.name for s in graph.stages if s.role == "consumer"]
    names = [n for n in infer or consumers or list(taken) if n in taken]
    at = min(names, key=lambda name: taken[name], default="")
    return at, taken.get(at, 0) / seconds


def _lost(accounts: tuple[Account, ...]) -> int:
    return sum(sum(a.dropped.values()) + sum(a.failed.values()) for a in accounts)


def _change(first: Reading, last: Reading) -> Reading:
    """A reading of what happened between two, for the verdict."""
    before = {w.name: w for w in first.workers}
    workers = []
    for w in last.workers:
        old = before[w.name]
        fields = ("frames_in", "frames_out", "busy_ns", "blocked_ns", "idle_ns")
        workers.append(replace(w, **{f: getattr(w, f) - getattr(old, f) for f in fields}))
    return replace(last, accounts=(), workers=tuple(workers))


def cpu_of_workers(parent: int | None = None) -> dict[str, float]:
    """Processor seconds of the worker processes below this one, by the workers that live there."""
    me = str(parent or os.getpid())
    found: dict[str, float] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with suppress(OSError, IndexError):  # it may have just ended
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            if fields[1] != me:
                continue
            words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            if b"ovpipe.worker" in words:
                name = words[-2].decode(errors="replace")
                found[name] = (int(fields[11]) + int(fields[12])) / _TICKS
    return found


def _home(worker: str, processes: Iterable[str]) -> str:
    """The worker in whose process another lives; "" where that is its own."""
    for process in processes:
        host, *guests = process.split(_AND)
        if worker in guests:
            return host
    return ""
