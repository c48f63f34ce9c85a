"""What happened between two readings."""

from __future__ import annotations

from dataclasses import replace

from ovpipe.supervisor.accountant import Account, Flow, Reading, WorkerReading
from ovpipe.supervisor.rates import Window, interval
from ovpipe.transport.ages import BUCKETS, bounds_ns, bucket, percentile_ns

S = 10**9
ACCOUNT = Account("cam", "detect", "cam/gate", 100, 60, {"stale": 30}, {"infer_error": 5}, 5)
WORKER = WorkerReading("detect", "detect", "working", 60, 55, 3 * S, S, 2 * S, 0, 0, 0, 0)


def ages(*seconds: float) -> tuple[int, ...]:
    counts = [0] * BUCKETS
    for each in seconds:
        counts[bucket(round(each * S))] += 1
    return tuple(counts)


FLOW = Flow("cam", "detect", "cam/gate", ages(0.5, 0.5), 3, 4)
BEFORE = Reading(0, (ACCOUNT,), (WORKER,), (FLOW,))
AFTER = Reading(
    2 * S,
    (replace(ACCOUNT, claimed=140, delivered=80, dropped={"stale": 40, "queue_full": 8}),),
    (replace(WORKER, frames_in=100, busy_ns=4 * S, blocked_ns=S + S // 2, state="blocked"),),
    (replace(FLOW, ages=ages(0.5, 0.5, 0.02, 0.02, 0.02)),),
)


def test_rates_are_those_of_the_time_between() -> None:
    between = interval(BEFORE, AFTER)
    (edge,) = between.edges
    assert (edge.claimed, edge.delivered) == (20.0, 10.0)
    assert edge.dropped == {"stale": 5.0, "queue_full": 4.0}
    assert edge.failed == {}
    assert edge.saturation == 0.75
    (worker,) = between.workers
    assert (worker.frames, worker.busy, worker.blocked) == (20.0, 0.5, 0.25)
    assert between.reading.workers[0].state == "blocked"


def test_percentiles_forget_what_came_before() -> None:
    low, high = bounds_ns(bucket(S // 50))
    (edge,) = interval(BEFORE, AFTER).edges
    assert len(edge.ages_ns) == 3
    assert all(low <= age <= high for age in edge.ages_ns)
    whole = percentile_ns(AFTER.flows[0].ages, 0.99)
    assert whole is not None
    assert whole > S // 4


def test_nothing_came_and_no_time_passed() -> None:
    still = interval(AFTER, AFTER)
    assert still.seconds == 0.0
    (edge,) = still.edges
    assert (edge.claimed, edge.ages_ns) == (0.0, ())


def test_what_is_new_began_at_nothing() -> None:
    (edge,) = interval(Reading(0, ()), AFTER).edges
    assert edge.claimed == 70.0


def test_a_window_slides() -> None:
    window = Window(longest_s=5.0)
    assert window.span is None
    for second in range(20):
        reading = Reading(second * S, (replace(ACCOUNT, claimed=100 + second * second),))
        window.add(reading)
        window.add(reading)
    span = window.span
    assert span is not None
    assert span.seconds == 5.0
    assert span.reading.accounts[0].claimed == 19**2 - 14**2
