"""Rates: what happened between two readings of one run. Pure.

Law: a share is of the time in between, a rate per second of it; ages are those of the frames that
arrived in it. What is not in the earlier reading began at nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from ovpipe.supervisor.accountant import Account, Flow, Reading, WorkerReading
from ovpipe.transport.ages import minus, percentile_ns

PERCENTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class EdgeRate:
    """One edge and stream. Rates per second; `ages_ns`: p50, p95, p99, empty where nothing came.

    `saturation`: share of the credits that were in use at the later reading, 0 to 1.
    """

    source: str
    target: str
    stream: str
    claimed: float
    delivered: float
    dropped: dict[str, float]
    failed: dict[str, float]
    ages_ns: tuple[float, ...]
    saturation: float


@dataclass(frozen=True)
class WorkerRate:
    """One worker. `frames` per second; shares of its time, 0 to 1."""

    name: str
    frames: float
    busy: float
    blocked: float


@dataclass(frozen=True)
class Interval:
    """What `reading` counts happened within `seconds`; states, `restarts` and `in_flight` are those
    at its end."""

    seconds: float
    reading: Reading

    @property
    def edges(self) -> list[EdgeRate]:
        """A rate per edge and stream, in the ledger's order."""
        flows = {(f.source, f.target, f.stream): f for f in self.reading.flows}
        return [
            self._edge(account, flows.get((account.source, account.target, account.stream)))
            for account in self.reading.accounts
        ]

    @property
    def workers(self) -> list[WorkerRate]:
        """A rate per worker."""
        return [self._worker(worker) for worker in self.reading.workers]

    def _edge(self, account: Account, flow: Flow | None) -> EdgeRate:
        found = [] if flow is None else [percentile_ns(flow.ages, share) for share in PERCENTILES]
        return EdgeRate(
            account.source,
            account.target,
            account.stream,
            self._per_s(account.claimed),
            self._per_s(account.delivered),
            {reason: self._per_s(count) for reason, count in account.dropped.items()},
            {reason: self._per_s(count) for reason, count in account.failed.items()},
            tuple(age for age in found if age is not None),
            min(1.0, flow.in_flight / flow.credits) if flow is not None and flow.credits else 0.0,
        )

    def _worker(self, worker: WorkerReading) -> WorkerRate:
        frames = max(worker.frames_in, worker.frames_out)
        busy, blocked = (self._per_s(ns) / 1e9 for ns in (worker.busy_ns, worker.blocked_ns))
        return WorkerRate(worker.name, self._per_s(frames), busy, blocked)

    def _per_s(self, count: int) -> float:
        return count / self.seconds if self.seconds > 0 else 0.0


def interval(before: Reading, now: Reading) -> Interval:
    """What happened from one reading of a run to a later one of the same run."""
    accounts = {(a.source, a.target, a.stream): a for a in before.accounts}
    flows = {(f.source, f.target, f.stream): f for f in before.flows}
    workers = {w.name: w for w in before.workers}
    return Interval(
        (now.at_ns - before.at_ns) / 1e9,
        Reading(
            now.at_ns,
            tuple(_account(a, accounts.get((a.source, a.target, a.stream))) for a in now.accounts),
            tuple(_worker(w, workers.get(w.name)) for w in now.workers),
            tuple(_flow(f, flows.get((f.source, f.target, f.stream))) for f in now.flows),
        ),
    )


def _account(now: Account, before: Account | None) -> Account:
    if before is None:
        return now
    return replace(
        now,
        claimed=now.claimed - before.claimed,
        delivered=now.delivered - before.delivered,
        dropped=_less(now.dropped, before.dropped),
        failed=_less(now.failed, before.failed),
    )


def _less(now: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    rest = {reason: count - before.get(reason, 0) for reason, count in now.items()}
    return {reason: count for reason, count in rest.items() if count > 0}


def _worker(now: WorkerReading, before: WorkerReading | None) -> WorkerReading:
    if before is None:
        return now
    return replace(
        now,
        frames_in=now.frames_in - before.frames_in,
        frames_out=now.frames_out - before.frames_out,
        busy_ns=now.busy_ns - before.busy_ns,
        blocked_ns=now.blocked_ns - before.blocked_ns,
        idle_ns=now.idle_ns - before.idle_ns,
        malformed=now.malformed - before.malformed,
    )


def _flow(now: Flow, before: Flow | None) -> Flow:
    return now if before is None else replace(now, ages=minus(now.ages, before.ages))


class Window:
    """The last readings of a run: its `span` is what happened within about `longest_s`."""

    def __init__(self, longest_s: float = 10.0) -> None:
        self._longest_ns = round(longest_s * 1e9)
        self._readings: deque[Reading] = deque()

    def add(self, reading: Reading) -> None:
        """One more reading; the same one again changes nothing."""
        if self._readings and reading.at_ns <= self._readings[-1].at_ns:
            return
        self._readings.append(reading)
        while len(self._readings) > 2 and self._too_old(self._readings[1]):
            self._readings.popleft()

    def _too_old(self, reading: Reading) -> bool:
        return self._readings[-1].at_ns - reading.at_ns >= self._longest_ns

    @property
    def span(self) -> Interval | None:
        """From the oldest reading to the newest; None where there are no two."""
        if len(self._readings) < 2:
            return None
        return interval(self._readings[0], self._readings[-1])
