"""What a pool did, in figures."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ovpipe.queue.slots import Slots

LATENCIES = 4096
"""Jobs that the percentiles are made of: the last ones."""


@dataclass(frozen=True)
class Statistics:
    """A pool's figures at one moment.

    jobs: infer requests. in_flight: inferences under way. waiting: jobs that wait for a request.
    completed, failed: inferences that ended, well and badly, since the pool was made.
    seconds: since then. busy: share of jobs * seconds in which requests inferred, 0 to 1.
    latency_*_ms: percentiles of an inference, from its start to its end, over the last 4096;
    0 where there was none.
    """

    jobs: int
    in_flight: int
    waiting: int
    completed: int
    failed: int
    seconds: float
    busy: float
    latency_p50_ms: float
    latency_p90_ms: float
    latency_p99_ms: float

    @classmethod
    def of(cls, slots: Slots, latencies: Iterable[int], since_ns: int) -> Statistics:
        """Read them, while the pool works."""
        now = time.monotonic_ns()
        with slots.lock:
            every = list(slots.all)
            in_flight, waiting = slots.inferring, slots.waiting
        running = sum(now - s.started_ns for s in every if s.running and not s.called_ns)
        spent = sum(s.infer_ns for s in every) + max(0, running)
        failed = sum(s.failed for s in every)
        ms = np.array(list(latencies) or [0]) / 1e6
        p50, p90, p99 = (float(v) for v in np.percentile(ms, (50, 90, 99)))
        return cls(
            jobs=slots.jobs,
            in_flight=in_flight,
            waiting=waiting,
            completed=sum(s.finished for s in every) - failed,
            failed=failed,
            seconds=(now - since_ns) / 1e9,
            busy=min(1.0, spent / max(1, slots.jobs * (now - since_ns))),
            latency_p50_ms=p50,
            latency_p90_ms=p90,
            latency_p99_ms=p99,
        )
