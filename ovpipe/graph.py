"""Spec -> graph: defaults resolved, edges drawn, order found, and everything wrong said at once.

Law: pure. `resolve` gives a Graph in which every edge leads from an earlier stage to a later
one and every stage is reached from a producer, or raises ConfigError with all problems.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any, Literal

from ovpipe.errors import ConfigError, Problem
from ovpipe.hint import near
from ovpipe.spec import (
    DEFAULT_DEPTH,
    LIVE_AGE_S,
    LIVE_SOURCE_AGE_S,
    HttpSpec,
    InputSpec,
    PipelineSpec,
    RunSpec,
    StageSpec,
    WhenFull,
)

APP = "app"
"""The kind of stages that live in the embedding application."""

Role = Literal["producer", "transform", "consumer"]


@dataclass(frozen=True)
class WorkerPlan:
    """One process of a stage: its options, and the stream it makes if it is a producer.

    Of a stage that is none, several are replicas: they share its frames.
    """

    index: int
    options: Mapping[str, Any]
    stream: str | None


@dataclass(frozen=True)
class Stage:
    """A resolved stage. `external`: it lives in the embedding application."""

    name: str
    kind: str
    role: Role
    workers: tuple[WorkerPlan, ...]
    run: RunSpec = field(default_factory=RunSpec)
    live: bool = False
    external: bool = False
    description: str = ""


@dataclass(frozen=True)
class Edge:
    """Output of `source` -> input of `target`. `streams`: all that can come along here.

    `max_age_s`: since its capture; None: no limit.
    """

    index: int
    source: str
    target: str
    depth: int
    when_full: WhenFull
    max_age_s: float | None
    streams: tuple[str, ...]
    live: bool


@dataclass(frozen=True)
class Graph:
    """A resolved pipeline; `stages` in topological order.

    `max_frames`: each stream ends after so many frames of its source; 0: when the source does.
    """

    name: str
    folder: Path
    stages: tuple[Stage, ...]
    edges: tuple[Edge, ...]
    streams: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    max_frames: int = 0
    http: HttpSpec | None = None

    def stage(self, name: str) -> Stage:
        """A stage by name. Raises ConfigError with the nearest name."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        hint = near(name, [stage.name for stage in self.stages])
        raise ConfigError([Problem(f"no stage '{name}'", hint=hint)])

    def way(self, source: str, target: str) -> frozenset[int]:
        """The indices of all edges on which a frame can travel from `source` to `target`."""
        ahead, behind = {source}, {target}
        for edge in self.edges:  # in topological order of their targets
            if edge.source in ahead:
                ahead.add(edge.target)
        for edge in reversed(self.edges):
            if edge.target in behind:
                behind.add(edge.source)
        return frozenset(e.index for e in self.edges if e.source in ahead and e.target in behind)

    def with_tap(
        self,
        source: str,
        name: str,
        *,
        depth: int = DEFAULT_DEPTH,
        when_full: WhenFull | None = None,
    ) -> Graph:
        """This graph with one more consumer of `source`, which lives in the application."""
        if self.stage(source).role == "consumer":
            raise ConfigError(f"stage '{source}' is a consumer: it gives no frames to read")
        if any(stage.name == name for stage in self.stages):
            raise ConfigError(f"there is already a stage '{name}'")
        tap = Stage(name, APP, "consumer", (WorkerPlan(0, {}, None),), external=True)
        streams, live = _carried(self.stage(source), self.edges)
        policy = when_full or _policy(live)
        max_age_s = _max_age_s(self.stage(source), live, policy, None)
        edge = Edge(len(self.edges), source, name, depth, policy, max_age_s, streams, live)
        stages, edges = (*self.stages, tap), (*self.edges, edge)
        return replace(self, stages=stages, edges=edges, warnings=_unread(stages, edges))

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "folder": str(self.folder)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Graph:
        """The inverse of to_json."""
        stages = tuple(
            Stage(
                **{
                    **s,
                    "workers": tuple(WorkerPlan(**w) for w in s["workers"]),
                    "run": RunSpec(**s["run"]),
                }
            )
            for s in values["stages"]
        )
        edges = tuple(Edge(**{**e, "streams": tuple(e["streams"])}) for e in values["edges"])
        page = values["http"]
        http = page and HttpSpec(**{**page, "hosts": tuple(page["hosts"])})
        return cls(
            values["name"],
            Path(values["folder"]),
            stages,
            edges,
            tuple(values["streams"]),
            tuple(values["warnings"]),
            values["max_frames"],
            http,
        )


def resolve(spec: PipelineSpec) -> Graph:
    """The graph of a spec. Raises ConfigError with everything that is wrong with it."""
    problems: list[Problem] = []
    by_name = {stage.name: stage for stage in spec.stages}
    problems.extend(
        _problem(stage, f"there are two stages '{stage.name}'")
        for stage in spec.stages
        if by_name[stage.name] is not stage
    )
    inputs = _inputs(spec, by_name, problems)
    order = _order(by_name, inputs, problems)
    if problems:
        problems.sort(key=lambda p: (p.line, p.column))
        raise ConfigError(problems)
    stages = tuple(_stage(by_name[name]) for name in order)
    resolved = {stage.name: stage for stage in stages}
    edges: list[Edge] = []
    for stage in stages:
        for entry in inputs[stage.name]:
            streams, live = _carried(resolved[entry.source], edges)
            policy = entry.when_full or _policy(live)
            edges.append(
                Edge(
                    len(edges),
                    entry.source,
                    stage.name,
                    entry.depth or DEFAULT_DEPTH,
                    policy,
                    _max_age_s(resolved[entry.source], live, policy, entry.max_age_s),
                    streams,
                    live,
                )
            )
    streams = tuple(w.stream for s in stages for w in s.workers if w.stream is not None)
    warnings = _unread(stages, edges)
    return Graph(spec.name, spec.folder, stages, tuple(edges), streams, warnings, http=spec.http)


def _unread(stages: Sequence[Stage], edges: Sequence[Edge]) -> tuple[str, ...]:
    read = {edge.source for edge in edges}
    return tuple(
        f"stage '{s.name}': nobody reads what it gives"
        for s in stages
        if s.role != "consumer" and s.name not in read
    )


def _problem(
    stage: StageSpec, message: str, hint: str = "", entry: InputSpec | None = None
) -> Problem:
    """A problem of a stage, or of one of its inputs."""
    place = entry.place if entry is not None and entry.place.line else stage.place
    path = f"stages.{stage.name}" + (".inputs" if entry is not None else "")
    return Problem(message, path, place.file, place.line, place.column, hint)


def _inputs(
    spec: PipelineSpec, by_name: dict[str, StageSpec], problems: list[Problem]
) -> dict[str, tuple[InputSpec, ...]]:
    """What each stage reads: as written, or the one above it where nobody wrote any."""
    if not spec.stages:
        problems.append(Problem("there are no stages", "stages", spec.file))
    named = any(stage.inputs is not None for stage in spec.stages)
    result: dict[str, tuple[InputSpec, ...]] = {}
    above: StageSpec | None = None
    for stage in spec.stages:
        entries = stage.inputs or ()
        if stage.role == "producer":
            if entries:
                problems.append(_problem(stage, "a producer takes no inputs"))
            entries = ()
        elif stage.inputs is None and named:
            hint = "once one stage names its inputs, all but producers must"
            problems.append(_problem(stage, "has no inputs", hint))
        elif stage.inputs is None and above is None:
            problems.append(
                _problem(stage, "has nothing above it to read", "begin with a producer")
            )
        elif stage.inputs is None and above is not None:
            entries = (InputSpec(above.name),)
        elif not entries:
            problems.append(_problem(stage, "has an empty list of inputs"))
        seen: set[str] = set()
        for entry in entries:
            source = by_name.get(entry.source)
            if source is None:
                what = f"there is no stage '{entry.source}'"
                problems.append(_problem(stage, what, near(entry.source, by_name), entry))
            elif source.role == "consumer":
                what = f"'{entry.source}' is a consumer and gives no frames"
                hint = "name the stage that it reads, or write `inputs:` where the order is not it"
                problems.append(_problem(stage, what, hint, entry))
            if entry.source in seen:
                what = f"'{entry.source}' is named twice"
                problems.append(_problem(stage, what, entry=entry))
            seen.add(entry.source)
        if stage.run.replicas > 1 and (stage.one_process or stage.role == "producer"):
            what = f"a {stage.kind} sees to all of its frames in one process: no replicas"
            hint = "for several streams write for_each" if stage.role == "producer" else ""
            problems.append(_problem(stage, what, hint))
        if stage.kind == "join" and len(entries) == 1:
            hint = "inputs: [detect, pose]"
            problems.append(_problem(stage, "a join needs two inputs or more", hint))
        if stage.run.placement == "inline" and (what := _homeless(stage, entries, by_name)):
            problems.append(_problem(stage, f"cannot be inline: {what}", _OWN_PROCESS))
        result[stage.name] = tuple(e for e in entries if e.source in by_name)
        above = stage
    return result


_OWN_PROCESS = "leave out `placement: inline`: then it gets a process of its own"


def _homeless(
    stage: StageSpec, entries: Sequence[InputSpec], by_name: Mapping[str, StageSpec]
) -> str:
    """Why a stage cannot live in the process of the one that it reads; "" where it can."""
    if stage.role == "producer":
        return "a producer reads no stage in whose process it could live"
    if stage.overlaps:
        return f"a {stage.kind} works on several frames at a time, beside whoever sends them"
    if stage.run.replicas > 1:
        return f"its {stage.run.replicas} replicas are processes that work side by side"
    if len(entries) > 1:
        return f"it reads {len(entries)} stages and can live with one only"
    source = by_name.get(entries[0].source) if entries else None
    if source is None:
        return ""  # that is told already
    if source.kind == APP:
        return f"'{source.name}' lives in the application, which runs no stages"
    if source.run.replicas > 1:
        return f"'{source.name}' has {source.run.replicas} replicas, each in a process of its own"
    if len(source.for_each or ()) > 1:
        return f"'{source.name}' has {len(source.for_each or ())} streams, each in its own process"
    return ""


def _order(
    by_name: Mapping[str, StageSpec],
    inputs: Mapping[str, tuple[InputSpec, ...]],
    problems: list[Problem],
) -> list[str]:
    """Topological, and otherwise as written. Every cycle is told, then cut where it was found."""
    order: dict[str, None] = {}
    left = dict.fromkeys(by_name)
    while left:
        ready = next((n for n in left if all(e.source in order for e in inputs[n])), None)
        if ready is None:
            cycle = _cycle(left, order, inputs)
            ready = cycle[0]
            told = f"the stages form a cycle: {' -> '.join(cycle)}"
            problems.append(_problem(by_name[ready], told))
        order[ready] = None
        del left[ready]
    return list(order)


def _cycle(
    left: Mapping[str, None],
    order: Mapping[str, None],
    inputs: Mapping[str, tuple[InputSpec, ...]],
) -> list[str]:
    """One cycle among stages that all wait for one another, in the direction of the frames."""
    path = [next(iter(left))]
    while path.count(path[-1]) < 2:
        path.append(next(e.source for e in inputs[path[-1]] if e.source not in order))
    return list(reversed(path[path.index(path[-1]) :]))


def _stage(spec: StageSpec) -> Stage:
    workers = tuple(WorkerPlan(i, spec.options, None) for i in range(spec.run.replicas))
    if spec.role == "producer":
        each = spec.for_each or {"": {}}
        workers = tuple(
            WorkerPlan(i, {**spec.options, **own}, f"{spec.name}/{key}" if key else spec.name)
            for i, (key, own) in enumerate(each.items())
        )
    return Stage(
        spec.name,
        spec.kind,
        spec.role,
        workers,
        spec.run,
        spec.live,
        external=spec.kind == APP,
        description=spec.description,
    )


def _carried(stage: Stage, edges: Sequence[Edge]) -> tuple[tuple[str, ...], bool]:
    """The streams that leave a stage, and whether any of them is live."""
    if stage.role == "producer":
        return tuple(w.stream for w in stage.workers if w.stream is not None), stage.live
    entering = [e for e in edges if e.target == stage.name]
    streams = dict.fromkeys(name for e in entering for name in e.streams)
    return tuple(streams), any(e.live for e in entering)


def _policy(live: bool) -> WhenFull:
    return "drop_oldest" if live else "block"


def _max_age_s(source: Stage, live: bool, policy: WhenFull, written: float | None) -> float | None:
    """As written, else by liveness; where somebody asked for `block`, nothing is to be lost."""
    if written is not None:
        return written if written < inf else None
    if not live or policy == "block":
        return None
    return LIVE_SOURCE_AGE_S if source.role == "producer" else LIVE_AGE_S
