"""A reading -> Prometheus' text format, version 0.0.4. Pure.

Names, units and label values are fixed by what the documentation lists. Counters are those of the
ledger, so they never fall while a run lasts and add up: claimed = delivered + dropped + failed +
in flight, of one scrape.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from ovpipe import __version__
from ovpipe.stages.camera import State
from ovpipe.supervisor.accountant import Account, Flow, WorkerReading
from ovpipe.supervisor.bulletin import Run
from ovpipe.transport.ages import bounds_ns
from ovpipe.transport.ledger import PROGRESS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_AGE_BUCKETS = range(16, 85, 4)  # the last of an octave each: 1 ms to 2 minutes
Labels = Mapping[str, str]


def exposition(run: Run | None, up: bool) -> str:
    """The metrics of a run. `up`: it lives, as far as the page can tell."""
    page = [
        _family("ovpipe_up", "gauge", "Whether the run is alive.", [({}, int(up))]),
        _family(
            "ovpipe_build_info", "gauge", "The version of ovpipe.", [({"version": __version__}, 1)]
        ),
    ]
    if run is not None:
        page += _run(run)
    return "".join(page)


def _run(run: Run) -> list[str]:
    accounts, workers = run.reading.accounts, run.reading.workers
    phases = [
        ({"phase": phase}, int(phase == run.phase))
        for phase in ("starting", "running", "draining", "ending")
    ]
    return [
        _family("ovpipe_run_info", "gauge", "The run.", [({"name": run.name}, 1)]),
        _family("ovpipe_run_phase", "gauge", "1 for the phase that the run is in.", phases),
        _family(
            "ovpipe_run_start_time_seconds", "gauge",
            "When the run began, in seconds since 1970.", [({}, run.started_s)],
        ),
        _family(
            "ovpipe_frames_claimed_total", "counter", "Frames that were given to an edge.",
            [(_edge(a), a.claimed) for a in accounts],
        ),
        _family(
            "ovpipe_frames_delivered_total", "counter", "Frames that the edge's reader finished.",
            [(_edge(a), a.delivered) for a in accounts],
        ),
        _family(
            "ovpipe_frames_dropped_total", "counter", "Frames dropped as the edge was told to.",
            [(_reason(a, r), n) for a in accounts for r, n in a.dropped.items()],
        ),
        _family(
            "ovpipe_frames_failed_total", "counter", "Frames that something went wrong with.",
            [(_reason(a, r), n) for a in accounts for r, n in a.failed.items()],
        ),
        _family(
            "ovpipe_frames_in_flight", "gauge", "Frames on the edge, or in its reader's hands.",
            [(_edge(a), a.in_flight) for a in accounts],
        ),
        _ages(run.reading.flows),
        *_workers(workers),
    ]  # fmt: skip


def _workers(workers: Sequence[WorkerReading]) -> list[str]:
    def each(value: str, scale: float = 1) -> list[tuple[Labels, float]]:
        return [(_worker(w), getattr(w, value) * scale) for w in workers]

    states = [
        ({**_worker(w), "state": state}, int(state == w.state))
        for w in workers
        for state in PROGRESS
    ]
    return [
        _family(
            "ovpipe_worker_frames_in_total", "counter", "Frames that a worker took.",
            each("frames_in"),
        ),
        _family(
            "ovpipe_worker_frames_out_total", "counter", "Frames that a worker gave.",
            each("frames_out"),
        ),
        _family(
            "ovpipe_worker_busy_seconds_total", "counter", "Time at work.", each("busy_ns", 1e-9)
        ),
        _family(
            "ovpipe_worker_blocked_seconds_total", "counter",
            "Time in which what is behind it was full.", each("blocked_ns", 1e-9),
        ),
        _family(
            "ovpipe_worker_idle_seconds_total", "counter", "Time without a frame to work on.",
            each("idle_ns", 1e-9),
        ),
        _family(
            "ovpipe_worker_restarts_total", "counter", "Processes started after a death.",
            each("restarts"),
        ),
        _family(
            "ovpipe_worker_malformed_total", "counter", "Messages that were not understood.",
            each("malformed"),
        ),
        _family(
            "ovpipe_camera_state", "gauge", "1 for the state that a camera is in.",
            [
                ({**_worker(w), "state": state}, int(state == w.facts["camera"]))
                for w in workers
                if "camera" in w.facts
                for state in get_args(State)
            ],
        ),
        _family("ovpipe_worker_state", "gauge", "1 for the state that a worker is in.", states),
    ]  # fmt: skip


def _ages(flows: Sequence[Flow]) -> str:
    """How old frames were when they arrived. The sum takes each for the middle of its bucket."""
    name = "ovpipe_frame_age_seconds"
    lines = [f"# HELP {name} From capture to the edge's reader.", f"# TYPE {name} histogram"]
    for flow in flows:
        labels = _edge(flow)
        counts = [*flow.ages]
        total_ns = sum(count * sum(bounds_ns(i)) / 2 for i, count in enumerate(counts))
        for last in _AGE_BUCKETS:
            passed = sum(counts[: last + 1])
            le = repr(bounds_ns(last)[1] / 1e9)
            lines.append(f"{name}_bucket{_labels({**labels, 'le': le})} {passed}")
        lines.append(f"{name}_bucket{_labels({**labels, 'le': '+Inf'})} {sum(counts)}")
        lines.append(f"{name}_sum{_labels(labels)} {_value(total_ns / 1e9)}")
        lines.append(f"{name}_count{_labels(labels)} {sum(counts)}")
    return "\n".join([*lines, ""]) if flows else ""


def _edge(account: Account | Flow) -> dict[str, str]:
    return {"edge": f"{account.source}->{account.target}", "stream": account.stream}


def _reason(account: Account, reason: str) -> dict[str, str]:
    return {**_edge(account), "reason": reason}


def _worker(worker: WorkerReading) -> dict[str, str]:
    return {"stage": worker.stage, "worker": worker.name}


def _family(name: str, kind: str, text: str, samples: Iterable[tuple[Labels, float]]) -> str:
    """One metric; left out where there is nothing to say."""
    lines = [f"{name}{_labels(labels)} {_value(value)}" for labels, value in samples]
    if not lines:
        return ""
    return "\n".join([f"# HELP {name} {text}", f"# TYPE {name} {kind}", *lines, ""])


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _value(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(round(value, 9))
