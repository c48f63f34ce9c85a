"""Graph -> what is started: workers, links, and the layout of the ledger. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ovpipe.graph import Graph
from ovpipe.spec import (
    INFER_STALL_TIMEOUT_S,
    INFER_START_TIMEOUT_S,
    STALL_TIMEOUT_S,
    START_TIMEOUT_S,
    WhenFull,
)
from ovpipe.supervisor.restart import Policy
from ovpipe.transport.ledger import MAX_RECORDS, Layout
from ovpipe.transport.plan import Link


@dataclass(frozen=True)
class WorkerPlan:
    """One worker to be: a stage, one stream of a producer with `for_each`, or one replica.

    `neighbour`: the worker that it reads and in whose process it lives; None: in its own.
    """

    index: int
    stage: str
    kind: str
    options: Mapping[str, Any]
    stream: str
    producer: bool
    replica: int | None
    external: bool
    start_timeout_s: float
    stall_timeout_s: float
    policy: Policy
    neighbour: int | None = None

    @property
    def name(self) -> str:
        """For messages: the stage, with the stream or number where it has several workers."""
        if self.replica is not None:
            return f"{self.stage}#{self.replica}"
        return self.stream if self.producer else self.stage


@dataclass(frozen=True)
class EdgeLink:
    """A link before it is known how many frames its receiver works on at a time."""

    index: int
    edge: int
    sender: int
    source: str
    receiver: int
    depth: int
    when_full: WhenFull
    max_age_ns: int
    streams: tuple[int, ...]
    by_call: bool

    def with_capacity(self, capacity: int, resend: bool) -> Link:
        """The link as its ends see it."""
        return Link(
            index=self.index,
            edge=self.edge,
            sender=self.sender,
            source=self.source,
            receiver=self.receiver,
            records=min(self.depth + capacity, MAX_RECORDS),
            when_full=self.when_full,
            max_age_ns=self.max_age_ns,
            resend=resend and not self.by_call,
            wake_after=1 if self.by_call else max(1, self.depth // 2),
            streams=self.streams,
            by_call=self.by_call,
        )


@dataclass(frozen=True)
class Plan:
    """Everything that is to be started, with indices instead of names."""

    graph: Graph
    workers: tuple[WorkerPlan, ...]
    links: tuple[EdgeLink, ...]
    streams: tuple[str, ...]

    @property
    def layout(self) -> Layout:
        """The ledger's layout."""
        return Layout(len(self.workers), len(self.links), len(self.streams))

    def inputs(self, stage: str) -> dict[str, tuple[str, ...]]:
        """The stages that one reads, and the streams that can come from each."""
        return {edge.source: edge.streams for edge in self.graph.edges if edge.target == stage}

    def together(self, worker: int) -> tuple[int, ...]:
        """All workers of the process that this one lives in: each one's neighbour before it."""
        while (neighbour := self.workers[worker].neighbour) is not None:
            worker = neighbour
        found = [worker]
        for other in self.workers:  # in topological order
            if other.neighbour in found:
                found.append(other.index)
        return tuple(found)

    def downstream(self, worker: int) -> list[EdgeLink]:
        """Every link that a frame of `worker` can travel on, upstream before downstream."""
        reached = {worker}
        found = []
        for link in self.links:  # in topological order of their senders
            if link.sender in reached:
                found.append(link)
                reached.add(link.receiver)
        return found

    def shared(self, worker: int) -> list[EdgeLink]:
        """Every link into a replica of this one's stage, its own too; none where it is no replica.

        Those are what the frames of their edges were given out by.
        """
        own = self.workers[worker]
        if own.replica is None:
            return []
        return [x for x in self.links if self.workers[x.receiver].stage == own.stage]

    def readers(self, worker: int) -> list[int]:
        """The workers that may see slots of `worker`."""
        return sorted({link.receiver for link in self.downstream(worker)})


def make_plan(graph: Graph) -> Plan:
    """Number workers and links; both come in topological order."""
    streams = tuple(graph.streams)
    number = {name: i for i, name in enumerate(streams)}
    workers: list[WorkerPlan] = []
    of_stage: dict[str, list[int]] = {}
    inline = {stage.name for stage in graph.stages if stage.run.placement == "inline"}
    source = {edge.target: edge.source for edge in graph.edges}
    for stage in graph.stages:
        infer, producer, run = stage.kind == "infer", stage.role == "producer", stage.run
        start_s = INFER_START_TIMEOUT_S if infer else START_TIMEOUT_S
        stall_s = INFER_STALL_TIMEOUT_S if infer else STALL_TIMEOUT_S
        if producer:
            stall_s = float("inf")  # a source that waits for its camera is at work
        for worker in stage.workers:
            of_stage.setdefault(stage.name, []).append(len(workers))
            workers.append(
                WorkerPlan(
                    index=len(workers),
                    stage=stage.name,
                    kind=stage.kind,
                    options=worker.options,
                    stream=worker.stream or "",
                    producer=producer,
                    replica=worker.index if run.replicas > 1 else None,
                    external=stage.external,
                    start_timeout_s=run.start_timeout_s or start_s,
                    stall_timeout_s=run.stall_timeout_s or stall_s,
                    policy=Policy(run.restart, run.max_restarts, run.within_s),
                    neighbour=(of_stage[source[stage.name]][0] if stage.name in inline else None),
                )
            )
    links: list[EdgeLink] = []
    order = {stage.name: i for i, stage in enumerate(graph.stages)}
    for edge in sorted(graph.edges, key=lambda e: order[e.source]):
        for sender in of_stage[edge.source]:
            for receiver in of_stage[edge.target]:
                links.append(
                    EdgeLink(
                        index=len(links),
                        edge=edge.index,
                        sender=sender,
                        source=edge.source,
                        receiver=receiver,
                        depth=edge.depth,
                        when_full=edge.when_full,
                        max_age_ns=int((edge.max_age_s or 0) * 1e9),
                        streams=_streams(workers[sender], edge.streams, number),
                        by_call=edge.target in inline,
                    )
                )
    return Plan(graph, tuple(workers), tuple(links), streams)


def _streams(
    sender: WorkerPlan, edge_streams: Sequence[str], number: Mapping[str, int]
) -> tuple[int, ...]:
    """A producer's worker makes one stream; any other passes on all that reach it."""
    names = (sender.stream,) if sender.producer else edge_streams
    return tuple(sorted(number[name] for name in names))
