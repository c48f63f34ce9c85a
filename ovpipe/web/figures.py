"""Two readings of a run -> what the page shows of it. Pure.

All rates are those between the two readings. A worker's busy, blocked and idle are shares of that
time. An edge's `saturation` is measured, not guessed from how full it is:

    drop_oldest, drop_newest    the share of the frames that came to it and found no room
    block                       the share of the time in which its sender could not go on, while
                                it was full

`graph_facts` says what does not change in a run, with the places of a drawing.

Law: every number follows from the readings and the graph alone; no option of a stage is in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ovpipe import drawing
from ovpipe.graph import Edge, Graph, Stage
from ovpipe.supervisor.accountant import Account, Reading, WorkerReading
from ovpipe.supervisor.bulletin import Run
from ovpipe.supervisor.verdict import verdict

BOX = (176.0, 82.0)
_CROWDED = ("queue_full", "stale", "no_slot")


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
                "room": edge.depth * _links(graph, edge),
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


def status(graph: Graph, readings: Sequence[Reading], run: Run) -> dict[str, Any]:
    """How the run is doing: now, and as rates since the first of `readings`."""
    reading, before = run.reading, readings[0]
    seconds = max(reading.at_ns - before.at_ns, 1) / 1e9
    was = {(a.source, a.target, a.stream): a for a in before.accounts}
    workers = _workers(reading, before)
    edges = [_edge(edge, reading, was, seconds, workers) for edge in graph.edges]
    return {
        "name": run.name,
        "pid": run.pid,
        "phase": run.phase,
        "started_s": run.started_s,
        "at_ns": reading.at_ns,
        "over_s": round(seconds, 3),
        "verdict": verdict(graph, _since(reading, before), seconds),
        "stages": [_stage(stage, workers) for stage in graph.stages],
        "edges": edges,
        "streams": [_stream(name, graph, edges, workers) for name in graph.streams],
    }


def moment(told: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What of a status is kept as history."""
    return {
        "stages": [{k: s[k] for k in ("per_s", "busy")} for s in told["stages"]],
        "edges": [
            {k: e[k] for k in ("per_s", "dropped_per_s", "saturation")} for e in told["edges"]
        ],
        "streams": [{k: s[k] for k in ("per_s", "dropped_per_s")} for s in told["streams"]],
    }


def _links(graph: Graph, edge: Edge) -> int:
    return max(1, len(graph.stage(edge.source).workers)) * max(
        1, len(graph.stage(edge.target).workers)
    )


# -- workers and stages --------------------------------------------------------------------


def _workers(reading: Reading, before: Reading) -> dict[str, list[dict[str, Any]]]:
    """What each worker did in between, by stage."""
    old = {w.name: w for w in before.workers}
    found: dict[str, list[dict[str, Any]]] = {}
    for worker in reading.workers:
        found.setdefault(worker.stage, []).append(_worker(worker, old.get(worker.name, worker)))
    return found


def _worker(now: WorkerReading, was: WorkerReading) -> dict[str, Any]:
    seconds = max(now.at_ns - was.at_ns, 1) / 1e9
    spent = {
        kind: max(0, getattr(now, f"{kind}_ns") - getattr(was, f"{kind}_ns"))
        for kind in ("busy", "blocked", "idle")
    }
    # A worker adds to these when a turn ends; one in a long turn has added nothing.
    whole = max(sum(spent.values()), 1)
    return {
        "name": now.name,
        "state": now.state,
        "per_s": _round(max(0, _frames(now) - _frames(was)) / seconds),
        "frames": _frames(now),
        **{kind: _round(ns / whole, 3) for kind, ns in spent.items()},
        "age_s": _round(now.age_ns / 1e9, 4) if now.frames_in else None,
        "restarts": now.restarts,
        "malformed": now.malformed,
    }


def _stage(stage: Stage, workers: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    own = workers.get(stage.name, [])
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


def _frames(worker: WorkerReading) -> int:
    return max(worker.frames_in, worker.frames_out)


# -- edges and streams ---------------------------------------------------------------------


def _edge(
    edge: Edge,
    reading: Reading,
    was: Mapping[tuple[str, str, str], Account],
    seconds: float,
    workers: Mapping[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    rows = [
        _row(account, was.get((account.source, account.target, account.stream)), seconds)
        for account in reading.accounts
        if (account.source, account.target) == (edge.source, edge.target)
    ]
    total = {
        key: _round(sum(row[key] for row in rows))
        for key in ("claimed_per_s", "per_s", "dropped_per_s", "failed_per_s")
    }
    in_flight = sum(row["in_flight"] for row in rows)
    if edge.when_full == "block":
        sender = max((float(w["blocked"]) for w in workers.get(edge.source, ())), default=0.0)
        saturation = sender if in_flight >= edge.depth else 0.0
    else:
        crowded = sum(row["crowded_per_s"] for row in rows)
        saturation = min(1.0, crowded / total["claimed_per_s"]) if total["claimed_per_s"] else 0.0
    return {
        **total,
        "in_flight": in_flight,
        "saturation": _round(saturation, 3),
        "dropped": _added(row["dropped"] for row in rows),
        "failed": _added(row["failed"] for row in rows),
        "streams": rows,
    }


def _row(now: Account, was: Account | None, seconds: float) -> dict[str, Any]:
    lost, failed = sum(now.dropped.values()), sum(now.failed.values())
    crowded = sum(now.dropped.get(reason, 0) for reason in _CROWDED)
    old = was or Account(now.source, now.target, now.stream, 0, 0, {}, {}, 0)
    return {
        "stream": now.stream,
        "claimed": now.claimed,
        "delivered": now.delivered,
        "in_flight": now.in_flight,
        "dropped": dict(now.dropped),
        "failed": dict(now.failed),
        "claimed_per_s": _round((now.claimed - old.claimed) / seconds),
        "per_s": _round((now.delivered - old.delivered) / seconds),
        "dropped_per_s": _round((lost - sum(old.dropped.values())) / seconds),
        "failed_per_s": _round((failed - sum(old.failed.values())) / seconds),
        "crowded_per_s": _round(
            (crowded - sum(old.dropped.get(reason, 0) for reason in _CROWDED)) / seconds
        ),
    }


def _stream(
    name: str,
    graph: Graph,
    edges: list[dict[str, Any]],
    workers: Mapping[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """A stream from its source to the ends that it reaches."""
    source = next(s.name for s in graph.stages for w in s.workers if w.stream == name)
    several = len(graph.stage(source).workers) > 1
    worker = next(
        (w for w in workers.get(source, ()) if not several or w["name"] == name),
        {"state": "starting", "restarts": 0},
    )
    rows = [
        (edge, row)
        for edge, told in zip(graph.edges, edges, strict=True)
        for row in told["streams"]
        if row["stream"] == name
    ]
    leaving = [row for edge, row in rows if edge.source == source]
    read = {edge.source for edge in graph.edges}
    ends = [row for edge, row in rows if edge.target not in read]
    return {
        "name": name,
        "source": source,
        "state": worker["state"],
        "restarts": worker["restarts"],
        "per_s": max((row["claimed_per_s"] for row in leaving), default=0.0),
        "arrives_per_s": max((row["per_s"] for row in ends), default=0.0),
        "claimed": max((row["claimed"] for row in leaving), default=0),
        "dropped": _added(row["dropped"] for _, row in rows),
        "failed": _added(row["failed"] for _, row in rows),
        "dropped_per_s": _round(sum(row["dropped_per_s"] for _, row in rows)),
    }


def _since(now: Reading, before: Reading) -> Reading:
    """What happened in between, as a reading of its own."""
    old_workers = {w.name: w for w in before.workers}
    old_rows = {(a.source, a.target, a.stream): a for a in before.accounts}
    return Reading(
        now.at_ns,
        tuple(_less(a, old_rows.get((a.source, a.target, a.stream))) for a in now.accounts),
        tuple(_less_worker(w, old_workers.get(w.name)) for w in now.workers),
    )


def _less(now: Account, was: Account | None) -> Account:
    if was is None:
        return now
    return Account(
        now.source,
        now.target,
        now.stream,
        now.claimed - was.claimed,
        now.delivered - was.delivered,
        _difference(now.dropped, was.dropped),
        _difference(now.failed, was.failed),
        now.in_flight,
    )


def _less_worker(now: WorkerReading, was: WorkerReading | None) -> WorkerReading:
    if was is None:
        return now
    counts = ("frames_in", "frames_out", "busy_ns", "blocked_ns", "idle_ns")
    return replace(now, **{k: max(0, getattr(now, k) - getattr(was, k)) for k in counts})


def _difference(now: Mapping[str, int], was: Mapping[str, int]) -> dict[str, int]:
    return {k: n - was.get(k, 0) for k, n in now.items() if n > was.get(k, 0)}


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for reason, count in each.items():
            total[reason] = total.get(reason, 0) + count
    return total


def _round(value: float, digits: int = 2) -> float:
    return round(float(value), digits)
