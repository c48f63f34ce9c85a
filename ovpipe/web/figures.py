"""Readings of a run -> what the page shows of it. Pure.

Rates and shares are those of the last RATES_S seconds, latencies of the last LATENCIES_S, since few
frames make no percentile. An edge's `saturation` is the share of its credits that were in use, the
mean of those moments, of its fullest link. Latencies are from capture to the edge's reader; a
stream's are those at the end that it reaches last.

`graph_facts` says what does not change in a run, with the places of a drawing.

Law: every number follows from the readings and the graph alone; no option of a stage is in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ovpipe import drawing
from ovpipe.graph import Graph
from ovpipe.stages.facts import Fact
from ovpipe.supervisor.accountant import Account, Reading
from ovpipe.supervisor.bulletin import Run
from ovpipe.supervisor.rates import PERCENTILES, EdgeRate, Interval, interval
from ovpipe.supervisor.verdict import verdict

BOX = (176.0, 82.0)
RATES_S = 2.0
LATENCIES_S = 10.0
HISTORY = {
    "stages": ("per_s", "busy"),
    "edges": ("per_s", "dropped_per_s", "saturation"),
    "streams": ("per_s", "dropped_per_s", "p95_s"),
}
_RATES = ("claimed_per_s", "per_s", "dropped_per_s", "failed_per_s")


def graph_facts(graph: Graph) -> dict[str, Any]:
    """The graph as the page draws it; stages and edges by index."""
    layout = drawing.Layout(graph, BOX)
    number = {stage.name: i for i, stage in enumerate(graph.stages)}
    stages, edges = [], []
    for i, stage in enumerate(graph.stages):
        cell = layout.cell(stage.name)
        stages.append(
            {
                "index": i,
                "name": stage.name,
                "kind": stage.kind,
                "role": stage.role,
                "live": stage.live,
                "description": stage.description,
                "workers": len(stage.workers),
                "box": [_round(v) for v in (cell.x, cell.y, cell.width, cell.height)],
            }
        )
    for edge in graph.edges:
        way = layout.way(edge)
        edges.append(
            {
                "index": edge.index,
                "source": number[edge.source],
                "target": number[edge.target],
                "policy": drawing.label(edge),
                "when_full": edge.when_full,
                "depth": edge.depth,
                "max_age_s": edge.max_age_s,
                "streams": list(edge.streams),
                "path": drawing.line(way),
                "end": [_round(v) for v in way[-1]],
            }
        )
    return {
        "v": 1,
        "name": graph.name,
        "size": [_round(layout.width), _round(layout.height)],
        "stages": stages,
        "edges": edges,
        "streams": list(graph.streams),
        "warnings": list(graph.warnings),
    }


def status(graph: Graph, run: Run, readings: Sequence[Reading]) -> dict[str, Any]:
    """How the run is doing: by its last reading, and those before, the oldest first."""
    reading = run.reading
    last = [r for r in readings if reading.at_ns - r.at_ns <= RATES_S * 1.25e9] or [reading]
    since = interval(last[0], reading)
    workers = _workers(reading, since)
    full = [interval(r, r) for r in last]
    edges = _edges(graph, reading, since, full, interval(readings[0], reading))
    return {
        "name": run.name,
        "pid": run.pid,
        "phase": run.phase,
        "started_s": run.started_s,
        "at_ns": reading.at_ns,
        "over_s": _round(since.seconds, 3),
        "verdict": verdict(graph, since.reading, since.seconds),
        "stages": [_stage(workers.get(stage.name, [])) for stage in graph.stages],
        "edges": edges,
        "streams": [_stream(name, graph, edges, workers) for name in graph.streams],
    }


def moment(told: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What of a status is kept as history."""
    return {
        what: [{key: each[key] for key in keys} for each in told[what]]
        for what, keys in HISTORY.items()
    }


# -- workers and stages --------------------------------------------------------------------


def _workers(reading: Reading, since: Interval) -> dict[str, list[dict[str, Any]]]:
    """How each worker is doing, by stage."""
    found: dict[str, list[dict[str, Any]]] = {}
    for now, rate in zip(reading.workers, since.workers, strict=True):
        found.setdefault(now.stage, []).append(
            {
                "name": now.name,
                "state": now.state,
                "per_s": _round(max(0.0, rate.frames)),
                "frames": max(now.frames_in, now.frames_out),
                "busy": _share(rate.busy),
                "blocked": _share(rate.blocked),
                "age_s": _round(now.age_ns / 1e9, 4) if now.frames_in else None,
                "restarts": now.restarts,
                "malformed": now.malformed,
                "facts": _facts(now.facts, reading.at_ns),
            }
        )
    return found


def _facts(facts: Mapping[str, Fact], at_ns: int) -> dict[str, Fact]:
    """What a stage says of itself; a moment as seconds ago, since clocks differ."""
    said = {k: v for k, v in facts.items() if k != "since_ns"}
    since_ns = facts.get("since_ns")
    if isinstance(since_ns, int):
        said["for_s"] = _round(max(0, at_ns - since_ns) / 1e9, 1)
    return said


def _stage(own: list[dict[str, Any]]) -> dict[str, Any]:
    busiest = max(own, key=lambda w: float(w["busy"]), default=None)
    return {
        "state": _worst(w["state"] for w in own),
        "per_s": _round(sum(w["per_s"] for w in own)),
        "frames": sum(w["frames"] for w in own),
        "busy": busiest["busy"] if busiest else 0.0,
        "blocked": busiest["blocked"] if busiest else 0.0,
        "age_s": max((w["age_s"] for w in own if w["age_s"] is not None), default=None),
        "restarts": sum(w["restarts"] for w in own),
        "malformed": sum(w["malformed"] for w in own),
        "workers": own,
    }


def _worst(states: Iterable[str]) -> str:
    """The state of several workers in a word: that of the one that people should look at."""
    order = ("away", "starting", "loading", "blocked", "working", "draining", "idle", "ended")
    return min(states, key=lambda s: order.index(s) if s in order else 0, default="starting")


# -- edges and streams ---------------------------------------------------------------------


def _edges(
    graph: Graph, reading: Reading, since: Interval, moments: Sequence[Interval], longer: Interval
) -> list[dict[str, Any]]:
    full: dict[_Key, list[float]] = {}
    for each in moments:
        for rate in each.edges:
            full.setdefault(_key(rate), []).append(rate.saturation)
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for now, rate, long in zip(reading.accounts, since.edges, longer.edges, strict=True):
        saturation = sum(full[_key(rate)]) / len(full[_key(rate)])
        row = _row(now, rate, saturation, long.ages_ns)
        rows.setdefault((rate.source, rate.target), []).append(row)
    return [_edge(rows.get((edge.source, edge.target), [])) for edge in graph.edges]


def _edge(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        **{key: _round(sum(row[key] for row in rows)) for key in _RATES},
        "in_flight": sum(row["in_flight"] for row in rows),
        "saturation": max((row["saturation"] for row in rows), default=0.0),
        "dropped": _added(row["dropped"] for row in rows),
        "failed": _added(row["failed"] for row in rows),
        "streams": rows,
    }


def _row(
    now: Account, rate: EdgeRate, saturation: float, ages_ns: Sequence[float]
) -> dict[str, Any]:
    return {
        "stream": now.stream,
        "claimed": now.claimed,
        "delivered": now.delivered,
        "dropped": dict(now.dropped),
        "failed": dict(now.failed),
        "in_flight": now.in_flight,
        "claimed_per_s": _round(rate.claimed),
        "per_s": _round(rate.delivered),
        "dropped_per_s": _round(sum(rate.dropped.values())),
        "failed_per_s": _round(sum(rate.failed.values())),
        "saturation": _share(saturation),
        "latency_s": _latency(ages_ns),
    }


def _latency(ages_ns: Sequence[float]) -> dict[str, float] | None:
    if not ages_ns:
        return None
    names = (f"p{100 * share:g}" for share in PERCENTILES)
    return {name: _round(ns / 1e9, 4) for name, ns in zip(names, ages_ns, strict=True)}


def _stream(
    name: str,
    graph: Graph,
    edges: Sequence[Mapping[str, Any]],
    workers: Mapping[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """A stream from its source to the ends that it reaches."""
    source = next(s for s in graph.stages for w in s.workers if w.stream == name)
    own = [w for w in workers.get(source.name, ()) if w["name"] == name or len(source.workers) == 1]
    worker = own[0] if own else {"state": "starting", "restarts": 0, "facts": {}}
    rows = [
        (edge, row)
        for edge, told in zip(graph.edges, edges, strict=True)
        for row in told["streams"]
        if row["stream"] == name
    ]
    leaving = [row for edge, row in rows if edge.source == source.name]
    read = {edge.source for edge in graph.edges}
    ends = [(edge, row) for edge, row in rows if edge.target not in read]
    slowest = max(ends, key=lambda end: (end[1]["latency_s"] or {}).get("p95", -1.0), default=None)
    return {
        "name": name,
        "source": source.name,
        "state": worker["state"],
        "facts": worker["facts"],
        "restarts": worker["restarts"],
        "claimed": max((row["claimed"] for row in leaving), default=0),
        "per_s": max((row["claimed_per_s"] for row in leaving), default=0.0),
        "arrives_per_s": max((row["per_s"] for _, row in ends), default=0.0),
        "latency_s": slowest[1]["latency_s"] if slowest else None,
        "latency_to": slowest[0].target if slowest else None,
        "p95_s": (slowest[1]["latency_s"] or {}).get("p95") if slowest else None,
        "dropped": _added(row["dropped"] for _, row in rows),
        "failed": _added(row["failed"] for _, row in rows),
        "dropped_per_s": _round(sum(row["dropped_per_s"] + row["failed_per_s"] for _, row in rows)),
    }


_Key = tuple[str, str, str]


def _key(rate: EdgeRate) -> _Key:
    return rate.source, rate.target, rate.stream


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for reason, count in each.items():
            total[reason] = total.get(reason, 0) + count
    return total


def _round(value: float, digits: int = 2) -> float:
    return round(float(value), digits)


def _share(value: float) -> float:
    return _round(min(1.0, max(0.0, value)), 3)
