"""A graph run for some seconds, and what it did in them.

Law: figures are of the time between two readings, both taken while frames flowed, the first after
the warm-up. Processor time is that of the worker processes, by the kernel's own account. Runs in
the calling process's main thread, as any supervisor; nothing of it is left behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from ovpipe.bench import cpu
from ovpipe.errors import PreflightError
from ovpipe.graph import Graph
from ovpipe.supervisor.accountant import Account, Reading, WorkerReading
from ovpipe.supervisor.core import Supervisor
from ovpipe.supervisor.outlook import processors, share_busy
from ovpipe.supervisor.rates import interval
from ovpipe.supervisor.verdict import verdict

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
    processors: tuple[int, int]


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
            moments.append(_Moment(reading, cpu.of_workers(), processors()))
            end_at_s = now + seconds
        elif moments and now >= end_at_s:
            moments.append(_Moment(reading, cpu.of_workers(), processors()))
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
    span = interval(first.reading, last.reading)
    spent_s = {
        process: max(0.0, cpu_s - first.cpu_s.get(process, 0.0))
        for process, cpu_s in last.cpu_s.items()
    }
    stages = []
    for stage in graph.stages:
        workers = [w for w in span.reading.workers if w.stage == stage.name]
        if workers:
            stages.append(_figures(stage.name, workers, spent_s, span.seconds))
    at, taken = _pace(graph, span.reading.accounts)
    lost = sum(sum(a.dropped.values()) + sum(a.failed.values()) for a in span.reading.accounts)
    busy = share_busy(first.processors, last.processors)
    said = verdict(graph, replace(span.reading, accounts=()), span.seconds, busy)
    return Measured(
        span.seconds, taken / span.seconds, at, tuple(stages), sum(s.cores for s in stages),
        lost / span.seconds, tuple(said[:1]),
    )  # fmt: skip


def _figures(
    name: str, workers: list[WorkerReading], spent_s: Mapping[str, float], seconds: float
) -> StageFigures:
    frames = sum(max(w.frames_in, w.frames_out) for w in workers)
    names = {w.name for w in workers}
    cpu_s = sum(s for process, s in spent_s.items() if process.partition(_AND)[0] in names)
    shares = []
    for w in workers:
        whole = max(1, w.busy_ns + w.blocked_ns + w.idle_ns)
        shares.append((w.busy_ns / whole, w.blocked_ns / whole, w.idle_ns / whole))
    per_frame_ms = cpu_s / frames * 1e3 if frames else 0.0
    home = _home(workers[0].name, spent_s)
    return StageFigures(name, frames / seconds, per_frame_ms, cpu_s / seconds, *max(shares), home)


def _pace(graph: Graph, accounts: tuple[Account, ...]) -> tuple[str, int]:
    """The stage by which a graph's frames are counted, and how many it took.

    The slowest of those that infer; without any, of the consumers; else of all that take frames.
    """
    taken: dict[str, int] = {}
    for account in accounts:
        taken[account.target] = taken.get(account.target, 0) + account.delivered
    infer = [s.name for s in graph.stages if s.kind == "infer"]
    consumers = [s.name for s in graph.stages if s.role == "consumer"]
    names = [n for n in infer or consumers or list(taken) if n in taken]
    at = min(names, key=lambda name: taken[name], default="")
    return at, taken.get(at, 0)


def _home(worker: str, processes: Iterable[str]) -> str:
    """The worker in whose process another lives; "" where that is its own."""
    for process in processes:
        host, *guests = process.split(_AND)
        if worker in guests:
            return host
    return ""
