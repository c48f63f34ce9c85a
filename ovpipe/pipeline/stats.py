"""How a pipeline is doing, as frozen values.

Law: the numbers add up: on each edge claimed = delivered + dropped + failed + in flight, at every
reading. Rates and shares are of the time since the reading before, or since the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class EdgeStats:
    """One edge and stream.

    claimed      frames that the sender had for the receiver
    delivered    those that the receiver is done with
    dropped      by reason, as in the ledger
    failed       by reason
    in_flight    on their way, or in the receiver's hands
    claimed_per_s, delivered_per_s
    """

    source: str
    target: str
    stream: str
    claimed: int
    delivered: int
    dropped: Mapping[str, int]
    failed: Mapping[str, int]
    in_flight: int
    claimed_per_s: float
    delivered_per_s: float


@dataclass(frozen=True)
class StageStats:
    """One worker of a stage.

    name         the stage's, with a stream or the number of a replica where it has several workers
    state        starting, loading, idle, working, blocked, draining, ended; away: to be restarted
    busy         share of the time in which it worked, 0 to 1
    blocked      share of the time in which it waited for those behind it
    frames_in, frames_out, restarts
    """

    name: str
    stage: str
    state: str
    busy: float
    blocked: float
    frames_in: int
    frames_out: int
    restarts: int


@dataclass(frozen=True)
class Stats:
    """A whole pipeline. `phase`: new, starting, running, draining, ending or ended; `at_ns`: when,
    monotonic; `window_s`: the time that rates and shares are of."""

    phase: str
    at_ns: int
    window_s: float
    edges: tuple[EdgeStats, ...]
    stages: tuple[StageStats, ...]

    def edge(self, source: str, target: str) -> tuple[EdgeStats, ...]:
        """The streams of one edge; none where there is no such edge."""
        return tuple(e for e in self.edges if (e.source, e.target) == (source, target))

    def stage(self, name: str) -> tuple[StageStats, ...]:
        """The workers of one stage; none where there is no such stage."""
        return tuple(s for s in self.stages if s.stage == name)


EMPTY = Stats("new", 0, 0.0, (), ())


def stats_of(phase: str, reading: Mapping[str, Any], before: Mapping[str, Any] | None) -> Stats:
    """From a supervisor's reading, and the one before it."""
    at_ns = reading["at_ns"]
    edges = {_edge(a): a for a in before["accounts"]} if before else {}
    workers = {w["name"]: w for w in before["workers"]} if before else {}
    window_s = (at_ns - before["at_ns"]) / 1e9 if before else _running_s(reading)

    def rate(account: Mapping[str, Any], word: str) -> float:
        earlier = edges.get(_edge(account), {}).get(word, 0)
        return (account[word] - earlier) / window_s if window_s > 0 else 0.0

    return Stats(
        phase,
        at_ns,
        window_s,
        tuple(
            EdgeStats(
                a["source"],
                a["target"],
                a["stream"],
                a["claimed"],
                a["delivered"],
                MappingProxyType(a["dropped"]),
                MappingProxyType(a["failed"]),
                a["in_flight"],
                rate(a, "claimed"),
                rate(a, "delivered"),
            )
            for a in reading["accounts"]
        ),
        tuple(_stage(w, workers.get(w["name"], {})) for w in reading["workers"]),
    )


def _edge(account: Mapping[str, Any]) -> tuple[str, str, str]:
    return account["source"], account["target"], account["stream"]


def _running_s(reading: Mapping[str, Any]) -> float:
    """How long the worker that has counted longest has been at it."""
    words = ("busy_ns", "blocked_ns", "idle_ns")
    return max((sum(w[k] for k in words) for w in reading["workers"]), default=0) / 1e9


def _stage(now: Mapping[str, Any], before: Mapping[str, Any]) -> StageStats:
    busy, blocked, idle = (
        max(0, now[word] - before.get(word, 0)) for word in ("busy_ns", "blocked_ns", "idle_ns")
    )
    counted = busy + blocked + idle
    return StageStats(
        now["name"],
        now["stage"],
        now["state"],
        busy / counted if counted else 0.0,
        blocked / counted if counted else 0.0,
        now["frames_in"],
        now["frames_out"],
        now["restarts"],
    )
