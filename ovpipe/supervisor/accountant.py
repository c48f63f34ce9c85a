"""Readings of the ledger, repairs after deaths, and the final account.

Law: a reading is consistent (no step of a living sender is half in it) and balanced. After the
proven death of a sender the supervisor is the accountant of its links.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ovpipe.errors import LedgerError
from ovpipe.stages.facts import Fact
from ovpipe.supervisor.launch import Plan
from ovpipe.transport import ledger as l
from ovpipe.transport.ages import plus, trimmed
from ovpipe.transport.ledger import CODE, LinkLedger, Row
from ovpipe.transport.pool import Mapping
from ovpipe.transport.token import Tokens

_READ_TRIES = 1000


@dataclass(frozen=True)
class Account:
    """One line of the ledger as people see it: an edge and a stream."""

    source: str
    target: str
    stream: str
    claimed: int
    delivered: int
    dropped: dict[str, int]
    failed: dict[str, int]
    in_flight: int


@dataclass(frozen=True)
class WorkerReading:
    """What one worker was doing; times in ns since it started. `facts`: its own words."""

    name: str
    stage: str
    state: str
    frames_in: int
    frames_out: int
    busy_ns: int
    blocked_ns: int
    idle_ns: int
    age_ns: int
    malformed: int
    restarts: int
    at_ns: int
    facts: dict[str, Fact] = field(default_factory=dict)


@dataclass(frozen=True)
class Flow:
    """How frames of one stream travel on an edge. No part of the ledger's law.

    `ages`: a histogram of capture to arrival (transport/ages.py). `in_flight` of `credits`: on the
    links of this stream, frames of the other streams on them included.
    """

    source: str
    target: str
    stream: str
    ages: tuple[int, ...]
    in_flight: int
    credits: int


@dataclass(frozen=True)
class Reading:
    """The whole run at one moment (`at_ns`, monotonic)."""

    at_ns: int
    accounts: tuple[Account, ...]
    workers: tuple[WorkerReading, ...] = field(default=())
    flows: tuple[Flow, ...] = field(default=())


@dataclass(frozen=True)
class Held:
    """A frame in a receiver's hands. `ref`: pool << 32 | slot of its first array, if it has any."""

    ref: int | None
    seconds: float


class Accountant:
    """Reads and closes the ledger of one run.

    `facts`: what each worker's process says of itself, by worker. `credits`: records by link.
    """

    def __init__(self, plan: Plan, ledger_fd: int) -> None:
        self._plan = plan
        mapping = Mapping(ledger_fd, plan.layout.words * 8, writable=True)
        self._memory = mapping.memory
        self._words = mapping.words()
        self._tokens = Tokens(mapping.memory)
        self._links = [LinkLedger(self._words, plan.layout, x.index) for x in plan.links]
        self.facts: dict[int, dict[str, Fact]] = {}
        self.credits: dict[int, int] = {}

    def died(self, worker: int) -> str:
        """Finish the steps that it died in, on each of its links; what it was doing."""
        self.facts.pop(worker, None)
        for link in self._plan.links:
            if link.sender == worker:
                self._links[link.index].repair()
        # Or its receivers would go on waking it.
        self._words[self._plan.layout.worker(worker) + l.W_WAITING] = 0
        return self.doing(worker)

    def doing(self, worker: int) -> str:
        """Its progress word."""
        state = self._words[self._plan.layout.worker(worker) + l.W_STATE]
        return l.PROGRESS[min(state, len(l.PROGRESS) - 1)]

    def signs(self, worker: int) -> tuple[str, tuple[int, int]]:
        """What it is doing, and the words that change when it gets on."""
        at, doing = self._plan.layout.worker(worker), self.doing(worker)
        beat = 0 if doing == "working" else self._words[at + l.W_BEAT]  # frames, not turns, count
        return doing, (self._words[at + l.W_SINCE], beat)

    def blocked(self, worker: int) -> tuple[int, float] | None:
        """The link whose credit it waits for, and the seconds since it does."""
        at = self._plan.layout.worker(worker)
        link, since_ns = self._words[at + l.W_WAITING], self._words[at + l.W_SINCE]
        if not link or self.doing(worker) != "blocked":
            return None
        return link - 1, (time.monotonic_ns() - since_ns) / 1e9

    def held(self, link: int) -> list[Held]:
        """The frames that the receiver of a link is working on, or keeps; oldest first."""
        now, words = time.monotonic_ns(), self._words
        found = []
        for record in range(l.MAX_RECORDS):
            at = self._links[link].records + record * l.RECORD_WORDS
            if words[at] & 0xFF == l.HELD:
                ref = words[at + l.R_REFS] if words[at + l.R_NREFS] else None
                found.append(Held(ref, (now - words[at + l.R_SINCE]) / 1e9))
        return sorted(found, key=lambda held: -held.seconds)

    def mark(self, worker: int, state: int) -> None:
        """The progress word of a worker that has no process, or none yet."""
        at = self._plan.layout.worker(worker)
        self._words[at + l.W_SINCE] = time.monotonic_ns()
        self._words[at + l.W_STATE] = state

    def restarted(self, worker: int) -> None:
        """It gets one more process."""
        self._words[self._plan.layout.worker(worker) + l.W_RESTARTS] += 1
        self.mark(worker, l.STARTING)

    def first_seq(self, worker: int) -> int:
        """Where the successor of a producer goes on: behind all that was claimed on any link.

        Edges that the dead one did not come to are evened out, while the supervisor is their
        accountant: their frame is the stage_crash that it was.
        """
        stream = self._plan.streams.index(self._plan.workers[worker].stream)
        edges: dict[int, list[LinkLedger]] = {}  # one link each, or one to each replica
        for link in self._plan.links:
            if link.sender == worker:
                edges.setdefault(link.edge, []).append(self._links[link.index])
        counts = {e: sum(x.claimed(stream) for x in links) for e, links in edges.items()}
        most = max(counts.values(), default=0)
        for edge, count in counts.items():
            for _ in range(most - count):
                edges[edge][0].refuse(stream, CODE["stage_crash"])
        return most

    def end_held(self, worker: int, outcome: str) -> None:
        """End the frames that it was working on."""
        for link in self._plan.links:
            if link.receiver == worker:
                self._links[link.index].abandon(None, CODE[outcome])

    def receiver_died(self, worker: int, inflight: str, held: str | None) -> None:
        """End the frames that it will not take or, unless `held` is None, finish any more.

        Their senders may be alive, and dropping one of them just now.
        """
        for link in self._plan.links:
            if link.receiver == worker:
                ledger = self._links[link.index]
                may = self._may(ledger) if link.when_full == "drop_oldest" else None
                ledger.abandon(CODE[inflight], None if held is None else CODE[held], may)

    def _may(self, ledger: LinkLedger) -> Callable[[int], bool]:
        return lambda record: self._tokens.take(ledger.token(record))

    def externals_hold(self, workers: list[int]) -> None:
        """What an application still holds when the run is over was delivered to it."""
        for link in self._plan.links:
            if link.receiver in workers:
                self._links[link.index].abandon(None, CODE["delivered"])

    def _copy(self, ledger: LinkLedger) -> memoryview:
        """A consistent copy of a link's block; a step under way is finished in the copy.

        So it needs no patience with a sender that was stopped in the middle of one.
        """
        start, end = ledger.base, ledger.base + self._plan.layout.link_words
        words = self._words
        for _ in range(_READ_TRIES):
            step = words[start]
            copy = bytearray(self._memory[start * 8 : end * 8])
            if words[start] == step:
                view = memoryview(copy).cast("Q")
                if step & 1:
                    for address, value in (
                        (l.L_ADDRESS_0, l.L_VALUE_0),
                        (l.L_ADDRESS_1, l.L_VALUE_1),
                    ):
                        view[view[address] - start] = view[value]
                return view
        raise LedgerError("the ledger changes faster than it can be read")

    def read(self) -> Reading:
        """The whole ledger. Raises LedgerError where a row does not balance."""
        accounts: dict[tuple[int, int], Account] = {}
        flows: dict[tuple[int, int], Flow] = {}
        edges = {edge.index: edge for edge in self._plan.graph.edges}
        for link in self._plan.links:
            ledger, edge = self._links[link.index], edges[link.edge]
            rows = ledger.read(self._copy(ledger))
            in_flight, credits = sum(x.in_flight for x in rows), self.credits.get(link.index, 0)
            for stream in link.streams:
                row = rows[stream]
                name = self._plan.streams[stream]
                if not row.balanced:
                    raise LedgerError(f"{edge.source} -> {edge.target}, stream {name}: {row}")
                key = (link.edge, stream)
                accounts[key] = _add(accounts.get(key), edge.source, edge.target, name, row)
                ages = trimmed(ledger.ages(stream))
                flow = Flow(edge.source, edge.target, name, ages, in_flight, credits)
                flows[key] = _join(flows.get(key), flow)
        return Reading(
            time.monotonic_ns(),
            tuple(accounts.values()),
            tuple(self._workers()),
            tuple(flows.values()),
        )

    def _workers(self) -> list[WorkerReading]:
        w = self._words
        result = []
        for plan in self._plan.workers:
            at = self._plan.layout.worker(plan.index)
            result.append(
                WorkerReading(
                    name=plan.name,
                    stage=plan.stage,
                    state=self.doing(plan.index),
                    frames_in=w[at + l.W_FRAMES_IN],
                    frames_out=w[at + l.W_FRAMES_OUT],
                    busy_ns=w[at + l.W_BUSY_NS],
                    blocked_ns=w[at + l.W_BLOCKED_NS],
                    idle_ns=w[at + l.W_IDLE_NS],
                    age_ns=w[at + l.W_AGE_NS],
                    malformed=w[at + l.W_MALFORMED],
                    restarts=w[at + l.W_RESTARTS],
                    at_ns=time.monotonic_ns(),
                    facts=self.facts.get(plan.index, {}),
                )
            )
        return result

    def close(self, leftover: str) -> Reading:
        """The final account, once every member is gone; what is in flight ended as `leftover`.

        Raises LedgerError where the law does not hold.
        """
        for ledger in self._links:
            ledger.repair()
            ledger.abandon(CODE[leftover], CODE[leftover])
        return self.read()


def _add(old: Account | None, source: str, target: str, stream: str, row: Row) -> Account:
    if old is None:
        return Account(
            source, target, stream, row.claimed, row.delivered, row.dropped, row.failed,
            row.in_flight,
        )  # fmt: skip
    return Account(
        source,
        target,
        stream,
        old.claimed + row.claimed,
        old.delivered + row.delivered,
        _sum(old.dropped, row.dropped),
        _sum(old.failed, row.failed),
        old.in_flight + row.in_flight,
    )


def _join(old: Flow | None, new: Flow) -> Flow:
    """Two links of one edge, to two replicas or from two."""
    if old is None:
        return new
    return replace(
        old,
        ages=plus(old.ages, new.ages),
        in_flight=old.in_flight + new.in_flight,
        credits=old.credits + new.credits,
    )


def _sum(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    return {k: a.get(k, 0) + b.get(k, 0) for k in {**a, **b}}
