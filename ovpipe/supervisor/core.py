"""The supervisor's event loop: from a graph to an outcome.

    starting    all workers are started at once; each opens its stage and says `ready`
    running     all are ready; the links are given out; frames flow
    draining    the producers were asked to end; what is in flight is finished, in order
    ending      nobody is waited for any longer: SIGKILL

Law: `run` returns only when no process of the run is alive and its folder is removed. The
first cause of a failure is kept. A stage that dies ends the run: its neighbours are told, the
producers are drained, what other stages hold is finished; then the run fails with its name.
The host's signals, arguments and logging are not touched: `drain` and `kill` may be called
from any thread or signal handler.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from ovpipe.errors import (
    DrainTimeout,
    LedgerError,
    OvpipeError,
    PreflightError,
    StageError,
    WireError,
    to_json,
)
from ovpipe.graph import Graph
from ovpipe.supervisor.accountant import Accountant, Reading
from ovpipe.supervisor.launch import make_plan
from ovpipe.supervisor.process import ExternalMember, WorkerProcess
from ovpipe.supervisor.rundir import RunDir
from ovpipe.transport.pool import make_memfd

DRAIN_TIMEOUT_S = 8.0
_TICK_S = 0.5
_CLOSING_S = 2.0  # for the rest of a worker's stderr and control messages after its death

Phase = Literal["starting", "running", "draining", "ending"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `error` is None for the end of all streams or a clean drain.

    `killed`: a second signal or the loss of the application ended it by force.
    """

    error: OvpipeError | None
    killed: bool
    reading: Reading

    @property
    def exit_code(self) -> int:
        """What the command line ends with, but for a forced end (130 or 143, the CLI's to say)."""
        return self.error.exit_code if self.error else 0


class Supervisor:
    """Runs one graph once. `on_tick(phase, reading)` is called twice a second while it runs,
    `on_log(worker, line)` for each line that a worker writes to stderr. `externals`: the control
    channels of stages that live in the embedding application, by name."""

    def __init__(
        self,
        graph: Graph,
        *,
        drain_timeout_s: float = DRAIN_TIMEOUT_S,
        on_tick: Callable[[Phase, Reading], None] | None = None,
        on_log: Callable[[str, str], None] | None = None,
        externals: Mapping[str, socket.socket] | None = None,
    ) -> None:
        self.plan = make_plan(graph)
        self.phase: Phase = "starting"
        self._drain_timeout_s = drain_timeout_s
        self._on_tick = on_tick
        self._on_log = on_log
        self._channels = dict(externals or {})
        self._workers: dict[int, WorkerProcess] = {}
        self._externals: dict[int, ExternalMember] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._asked_drain = False
        self._asked_kill = False
        self._killed = False
        self._error: OvpipeError | None = None
        self._deadline_s = float("inf")
        self._pools: list[int] = []

    # -- asked from outside --------------------------------------------------------------

    def drain(self) -> None:
        """Ask the producers to end and let what is in flight finish. Safe in a signal handler."""
        self._asked_drain = True
        self._poke()

    def kill(self) -> None:
        """End at once. Safe in a signal handler."""
        self._asked_kill = True
        self._poke()

    def _poke(self) -> None:
        with suppress(BlockingIOError, OSError):
            os.write(self._wake_w, b"!")

    # -- the run -------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Run to the end. Raises nothing that a stage did: see Outcome.error."""
        run_dir = RunDir()
        ledger_fd = -1
        try:
            ledger_fd = make_memfd("ovpipe-ledger", self.plan.layout.words * 8)
            self._accountant = Accountant(self.plan, ledger_fd)
            self._endpoints = [run_dir.endpoint(w.index) for w in self.plan.workers]
            self._selector.register(self._wake_r, selectors.EVENT_READ, self._on_wake)
            self._start(ledger_fd)
            self._loop()
            return self._outcome()
        finally:
            for worker in self._workers.values():
                worker.kill()
                if worker.alive:
                    worker.reap()
                worker.close()
            self._selector.close()
            for fd in (*self._pools, ledger_fd, self._wake_r, self._wake_w):
                if fd >= 0:
                    os.close(fd)
            run_dir.close()

    def _start(self, ledger_fd: int) -> None:
        layout = self.plan.layout
        now = time.monotonic()
        self._start_by: dict[int, float] = {}
        select = self._selector.register
        for plan in self.plan.workers:
            if self._asked_drain or self._asked_kill:
                return  # nothing is started after a stop was asked for
            assignment = {
                "worker": plan.index,
                "stage": plan.stage,
                "kind": plan.kind,
                "options": dict(plan.options),
                "stream": plan.stream,
                "folder": str(self.plan.graph.folder),
                "streams": list(self.plan.streams),
                "endpoints": self._endpoints,
                "layout": {
                    "workers": layout.workers,
                    "links": layout.links,
                    "streams": layout.streams,
                },
            }
            self._start_by[plan.index] = now + plan.start_timeout_s
            member: WorkerProcess | ExternalMember
            if plan.external:
                member = self._externals[plan.index] = ExternalMember(
                    plan, self._channels[plan.stage]
                )
            else:
                member = self._workers[plan.index] = worker = WorkerProcess(plan)
                select(worker.pidfd, selectors.EVENT_READ, lambda w=worker: self._bury(w))
                select(worker.stderr, selectors.EVENT_READ, lambda w=worker: self._log(w))
            select(member.channel, selectors.EVENT_READ, lambda m=member: self._hear(m))
            member.say("assign", (ledger_fd,), **assignment)

    def _loop(self) -> None:
        next_tick = time.monotonic()
        while any(w.alive for w in self._workers.values()):
            for key, _ in self._selector.select(max(0.0, next_tick - time.monotonic())):
                if key.fileobj in self._selector.get_map():
                    key.data()
            now = time.monotonic()
            self._keep_promises(now)
            if now >= next_tick:
                next_tick = now + _TICK_S
                if self._on_tick is not None:
                    self._on_tick(self.phase, self._accountant.read())

    def _keep_promises(self, now: float) -> None:
        """What was asked for, and what was to be done by now."""
        if self._asked_kill and self.phase != "ending":
            self._killed = True
            self._end()
        if self._asked_drain and self.phase == "running":
            self._begin_drain(now)
        elif self._asked_drain and self.phase == "starting":
            self._end()  # nothing has flown yet: there is nothing to finish
        if self.phase == "starting":
            for index, worker in self._workers.items():
                if not worker.ready and worker.alive and now > self._start_by[index]:
                    self._fail(
                        StageError(
                            worker.plan.name,
                            f"was not ready after {worker.plan.start_timeout_s:g} s; if it needs "
                            f"longer to open, raise `run: {{start_timeout: ...}}`",
                        )
                    )
        if self.phase == "draining" and now > self._deadline_s:
            stuck = ", ".join(w.plan.name for w in self._workers.values() if w.alive)
            if self._error is None:
                self._error = DrainTimeout(
                    f"not everything in flight was finished within {self._drain_timeout_s:g} s; "
                    f"still running were: {stuck}"
                )
            self._end()

    # -- phases --------------------------------------------------------------------------

    def _ready(self) -> None:
        members = self._members()
        if len(members) < len(self.plan.workers) or not all(m.ready for m in members.values()):
            return
        links = [
            link.with_capacity(members[link.receiver].capacity, self._endpoints[link.receiver])
            for link in self.plan.links
        ]
        self.phase = "running"
        for index, member in members.items():
            member.say(
                "start",
                enter=[x.to_json() for x in links if x.receiver == index],
                leave=[x.to_json() for x in links if x.sender == index],
                beyond=[links[x.index].to_json() for x in self.plan.downstream(index)],
            )

    def _members(self) -> dict[int, WorkerProcess | ExternalMember]:
        return {**self._workers, **self._externals}

    def _begin_drain(self, now: float) -> None:
        self.phase = "draining"
        self._deadline_s = now + self._drain_timeout_s
        for member in self._members().values():
            member.say("drain")

    def _end(self) -> None:
        self.phase = "ending"
        for worker in self._workers.values():
            worker.kill()

    def _fail(self, error: OvpipeError) -> None:
        if self._error is None:
            self._error = error
        if self.phase == "starting":
            self._end()
        elif self.phase == "running":
            self._begin_drain(time.monotonic())

    # -- events --------------------------------------------------------------------------

    def _on_wake(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._wake_r, 4096)

    def _hear(self, member: WorkerProcess | ExternalMember) -> bool:
        """One control message of a member; False at its end."""
        try:
            received = member.hear()
        except (WireError, OSError):
            received = None
        if received is None:
            self._unregister(member.channel)
            if isinstance(member, ExternalMember):
                self._external_left(member)
            return False
        message, _ = received
        kind = message.get("t")
        if kind == "ready":
            member.ready = True
            member.capacity = int(message["capacity"])
            self._ready()
        elif kind == "pool" and isinstance(member, WorkerProcess):
            self._make_pool(member, int(message["slots"]), int(message["slot_bytes"]))
        elif kind == "failed":
            member.failure = message
        elif kind == "finished":
            member.finished = True
            if isinstance(member, ExternalMember):  # was that an ordinary end?
                member.say("bye", error=self._error and to_json(self._error))
        return True

    def _external_left(self, member: ExternalMember) -> None:
        """The application reads no further. What it holds stays its own while it holds it."""
        member.left = True
        if not member.finished and self.phase != "ending":
            self._accountant.receiver_died(member.plan.index, "link_lost", held=None)
            for worker in self._workers.values():
                worker.say("gone", worker=member.plan.index)

    def _make_pool(self, worker: WorkerProcess, slots: int, slot_bytes: int) -> None:
        index = worker.plan.index
        try:
            fd = make_memfd(f"ovpipe-{worker.plan.name}", slots * slot_bytes)
        except (PreflightError, OSError) as error:
            self._fail(error if isinstance(error, PreflightError) else PreflightError(str(error)))
            worker.say("no_pool")
            return
        self._pools.append(fd)
        members = self._members()
        # Readers first: by the time the owner can name the pool, each has it on its way.
        for reader in (*self.plan.readers(index), index):
            members[reader].say(
                "pool",
                (fd,),
                number=len(self._pools) - 1,
                owner=index,
                slots=slots,
                slot_bytes=slot_bytes,
            )

    def _log(self, worker: WorkerProcess) -> bool:
        lines = worker.read_stderr()
        if lines is None:
            self._unregister(worker.stderr)
            return False
        if self._on_log is not None:
            for line in lines:
                self._on_log(worker.plan.name, line)
        return True

    def _bury(self, worker: WorkerProcess) -> None:
        """A worker is dead: hear its last words, close its accounts, tell its neighbours."""
        self._unregister(worker.pidfd)
        worker.reap()
        last = time.monotonic() + _CLOSING_S
        worker.channel.setblocking(False)
        while worker.channel in self._selector.get_map() and self._hear(worker):
            pass
        while worker.stderr in self._selector.get_map() and time.monotonic() < last:
            before = len(worker.tail)
            if not self._log(worker) or len(worker.tail) == before:
                break
        index = worker.plan.index
        self._accountant.sender_died(index)
        if worker.finished and worker.exit_status == 0:
            return
        if self.phase != "ending":
            self._accountant.receiver_died(index, "lost_in_transit", "stage_crash")
            for member in self._members().values():
                member.say("gone", worker=index)
            self._fail(self._cause(worker))

    def _cause(self, worker: WorkerProcess) -> OvpipeError:
        failure = worker.failure
        name = worker.plan.name
        if failure is None:
            tail = "\n".join(worker.tail)
            return StageError(name, worker.describe_exit(), tail)
        if failure["what"] == "preflight":
            return PreflightError(f"stage '{name}': {failure['cause']}")
        return StageError(name, failure["cause"], failure["traceback"])

    def _unregister(self, thing: Any) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(thing)

    # -- the end -------------------------------------------------------------------------

    def _outcome(self) -> Outcome:
        if self.phase in ("running", "draining"):
            self._await_externals()
        error = self._error
        try:
            self._accountant.externals_hold(list(self._externals))
            forced = self.phase == "ending"
            reading = self._accountant.close("drain_timeout" if forced else "lost_in_transit")
        except LedgerError as broken:
            return Outcome(error or broken, self._killed, Reading(time.monotonic_ns(), ()))
        return Outcome(error, self._killed, reading)

    def _await_externals(self) -> None:
        """All workers are gone; what they sent to the application is still its own to read."""
        while not self._asked_kill and time.monotonic() < self._deadline_s:
            if all(member.finished or member.left for member in self._externals.values()):
                return
            for key, _ in self._selector.select(_TICK_S):
                if key.fileobj in self._selector.get_map():
                    key.data()
