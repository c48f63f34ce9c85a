"""The verdict: which stage limits a run, what is lost where, and what to change. Pure.

Derived from what each worker measured while it worked: the time it was busy, the time it was
blocked because a stage behind it was full, the time it waited for frames. The stage that
limits is the one that is busy nearly all the time: those before it are blocked by it or drop,
those behind it wait for it. A stage with several requests in work is busy while frames are at
hand that it has no request for; a producer while it computes, not while it waits for a camera.

Law: what it says follows from the reading, the graph and the processors' time alone, and it names
a limit only where one was measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from ovpipe.graph import Graph, Stage
from ovpipe.supervisor.accountant import Account, Reading, WorkerReading

SATURATED = 0.85
_CPU_SATURATED = 0.9
_ENOUGH_FRAMES = 10
_BLOCKED = 0.2


@dataclass(frozen=True)
class Load:
    """Shares of a stage's time, 0 to 1: of its busiest worker. `per_s`: frames of all of them."""

    stage: str
    busy: float
    blocked: float
    per_s: float
    frames: int


def loads(reading: Reading) -> dict[str, Load]:
    """The load of every stage that did something."""
    workers: dict[str, list[WorkerReading]] = {}
    for worker in reading.workers:
        if _spent(worker):
            workers.setdefault(worker.stage, []).append(worker)
    result = {}
    for stage, all_of_it in workers.items():
        busiest = max(all_of_it, key=lambda w: w.busy_ns / _spent(w))
        result[stage] = Load(
            stage,
            busiest.busy_ns / _spent(busiest),
            busiest.blocked_ns / _spent(busiest),
            sum(_frames(w) / _spent(w) for w in all_of_it) * 1e9,
            sum(map(_frames, all_of_it)),
        )
    return result


def verdict(graph: Graph, reading: Reading, seconds: float, cpu: float | None = None) -> list[str]:
    """A few plain sentences, the most important first; empty where too little was measured.

    reading, seconds: of the whole run, or of a part of it (rates.Interval).

    `cpu`: how busy all processors of the machine were meanwhile, 0 to 1.
    """
    of = loads(reading)
    if not any(load.frames >= _ENOUGH_FRAMES for load in of.values()):
        return []
    limit = max(of.values(), key=lambda load: load.busy)
    said = []
    if limit.busy >= SATURATED:
        said.append(_saturated(limit, of, graph))
    elif (crowd := _crowded(of, graph)) is not None:
        said.append(crowd)
    elif cpu is not None and cpu >= _CPU_SATURATED:
        said.append(
            f"the processors of this machine are saturated ({cpu:.0%}), no stage is by itself; the "
            f"busiest is {limit.stage} ({limit.busy:.0%}): give it less to do, or another device"
        )
    else:
        said.append(
            f"no stage is saturated; the busiest is {limit.stage} ({limit.busy:.0%}): "
            "the sources set the pace"
        )
    lost = [loss for account in reading.accounts for loss in _losses(account, seconds)]
    return said + [line for _, line in sorted(lost, key=lambda loss: -loss[0])]


def _spent(worker: WorkerReading) -> int:
    return worker.busy_ns + worker.blocked_ns + worker.idle_ns


def _frames(worker: WorkerReading) -> int:
    return max(worker.frames_in, worker.frames_out)


def _saturated(limit: Load, of: dict[str, Load], graph: Graph) -> str:
    text = f"{limit.stage} is saturated (busy {limit.busy:.0%} of its time, {limit.per_s:.1f} /s)"
    back = [
        f"{load.stage} (blocked {load.blocked:.0%})"
        for load in (of[name] for name in _upstream(limit.stage, graph) if name in of)
        if load.blocked >= _BLOCKED
    ]
    if back:
        text += f" and holds back {', '.join(back)}"
    return f"{text}: {_advice(graph.stage(limit.stage), limit, graph)}"


def _crowded(of: dict[str, Load], graph: Graph) -> str | None:
    """Stages of one process that are no limit each, and together are."""
    homes: dict[str, list[Load]] = {}
    source = {edge.target: edge.source for edge in graph.edges}
    for name, load in of.items():
        home = name
        while graph.stage(home).run.placement == "inline":
            home = source[home]
        homes.setdefault(home, []).append(load)
    fullest = max(homes.values(), key=lambda loads: sum(load.busy for load in loads))
    busy = sum(load.busy for load in fullest)
    if len(fullest) == 1 or busy < SATURATED:
        return None
    names = ", ".join(f"{load.stage} ({load.busy:.0%})" for load in fullest)
    guests = [load for load in fullest if graph.stage(load.stage).run.placement == "inline"]
    most = max(guests, key=lambda load: load.busy).stage
    return (
        f"one process is saturated by its stages together (busy {busy:.0%} of its time): {names}; "
        f"give {most} a process of its own, without `placement: inline`"
    )


def _upstream(stage: str, graph: Graph) -> list[str]:
    """All stages whose frames come to `stage`, the nearest first."""
    found: list[str] = []
    todo = [stage]
    for name in todo:
        new = [e.source for e in graph.edges if e.target == name and e.source not in todo]
        todo += new
        found += new
    return found


def _advice(stage: Stage, limit: Load, graph: Graph) -> str:
    if stage.role == "producer":
        return "the source is the limit; smaller frames or a hardware decoder may help"
    streams = {s for edge in graph.edges if edge.target == stage.name for s in edge.streams}
    each = limit.per_s / max(1, len(streams))
    fewer = f"or lower the sources' fps to {each:.3g}" + (" each" if len(streams) > 1 else "")
    if stage.kind == "infer":
        return f"raise its jobs, take a faster device or a smaller model, {fewer}"
    if stage.run.placement == "inline":
        return f"make its work less, give it a process (leave out `placement: inline`), {fewer}"
    if stage.kind in ("join", "log", "jsonl", "csv", "images", "video-writer"):
        return f"make its work less, {fewer}"
    return f"make its work less, give it `replicas`, {fewer}"


def _losses(account: Account, seconds: float) -> list[tuple[int, str]]:
    """How many frames, and the sentence about them, for each reason."""
    edge = f"{account.source} -> {account.target}"
    if account.stream != account.source:
        edge += f", stream {account.stream}"
    lines = []
    for what, counts in (("dropped", account.dropped), ("failed", account.failed)):
        for reason, count in counts.items():
            rate = f" ({count / seconds:.1f} /s)" if seconds > 0 else ""
            why = _WHY.get(reason, reason)
            of = f"{count} of {account.claimed} frames"
            lines.append((count, f"{edge} {what} {of}{rate}: {why}"))
    return lines


_WHY = {
    "queue_full": "newer ones took their place, since what is behind is slower (queue_full)",
    "stale": "they were older than the edge's `max_age` when their turn came (stale)",
    "stage_crash": "in the hands of a stage that died (stage_crash)",
    "stage_hang": "in the hands of a stage that hung (stage_hang)",
    "link_lost": "nobody was there any more to take them (link_lost)",
    "drain_timeout": "not finished when the time of the drain was over (drain_timeout)",
    "infer_error": "the model or its decoder failed on them (infer_error)",
    "decode_error": "they could not be decoded (decode_error)",
    "disk_full": "there was no room to write them (disk_full)",
}
