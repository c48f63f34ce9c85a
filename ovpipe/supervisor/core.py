"""The supervisor's event loop: from a graph to an outcome.

    starting    all workers are started at once; each opens its stage and says `ready`
    running     all are ready; the links are given out; frames flow
    draining    the producers were asked to end; what is in flight is finished, in order
    ending      nobody is waited for any longer: SIGKILL

Law: `run` returns only when no process of the run is alive and its folder is removed. A worker
that dies is restarted as its policy says (restart.py), and its neighbours are told; one that is
not ends the run: the producers are drained, what other stages hold is finished; then the run
fails with its name and the first cause. Nothing is started once a stop was asked for. The host's
signals, arguments and logging are not touched: `drain` and `kill` may be called from any thread
or signal handler.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

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
from ovpipe.stages.facts import merged
from ovpipe.supervisor.accountant import Accountant, Reading
from ovpipe.supervisor.again import ask_to_leave
from ovpipe.supervisor.bulletin import Bulletin
from ovpipe.supervisor.crew import Crew, Home
from ovpipe.supervisor.desk import Desk
from ovpipe.supervisor.launch import make_plan
from ovpipe.supervisor.outcome import Outcome, Phase
from ovpipe.supervisor.page import Page
from ovpipe.supervisor.post import Post, with_restarts
from ovpipe.supervisor.preflight import check_application, check_open_files
from ovpipe.supervisor.process import ExternalMember, WorkerMember, WorkerProcess, Workplace
from ovpipe.supervisor.restart import GiveUp
from ovpipe.supervisor.rundir import RunDir
from ovpipe.supervisor.stuck import STACKS_S, Stuck
from ovpipe.transport.pool import make_memfd

DRAIN_TIMEOUT_S = 8.0
_TICK_S = 0.5
_STACK = "most recent call first"
_CLOSING_S = 2.0  # for the rest of a worker's stderr and control messages after its death


class Supervisor:
    """Runs one graph once. `on_running()` is called when all stages are open, `on_tick(phase,
    reading)` twice a second while it runs,
    `on_log(worker, line)` for each line that a worker writes to stderr. `externals`: the control
    channels of stages that live in the embedding application, by name. `home`: what the stages
    that live together are started in."""

    def __init__(
        self,
        graph: Graph,
        *,
        drain_timeout_s: float = DRAIN_TIMEOUT_S,
        on_tick: Callable[[Phase, Reading], None] | None = None,
        on_log: Callable[[str, str], None] | None = None,
        externals: Mapping[str, socket.socket] | None = None,
        on_running: Callable[[], None] | None = None,
        home: Home = WorkerProcess,
    ) -> None:
        self.plan = make_plan(graph)
        self.phase: Phase = "starting"
        self._drain_timeout_s = drain_timeout_s
        self._on_tick, self._on_log = on_tick, on_log
        self._on_running = on_running
        self._channels = dict(externals or {})
        self._home = home
        self._selector = selectors.DefaultSelector()
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._asked_drain = self._asked_kill = self._killed = False
        self._error: OvpipeError | None = None
        self._others: list[OvpipeError] = []
        self._deadline_s = float("inf")
        check_application(self.plan, self._channels)

    # -- asked from outside --------------------------------------------------------------

    def drain(self) -> None:
        """Ask the producers to end and let what is in flight finish. Safe in a signal handler."""
        self._asked_drain = True
        self._poke()

    def kill(self) -> None:
        """End at once. Safe in a signal handler."""
        self._asked_kill = True
        self._poke()

    def reading(self) -> Reading:
        """How the run is now. Once its processes are being started; in any thread."""
        return self._accountant.read()

    def restart(self, stage: str) -> None:
        """Give a stage new processes, as somebody asks. Raises ConfigError, OvpipeError."""
        if self.phase not in ("starting", "running") or self._asked_drain:
            raise OvpipeError("the run is about to end")
        ask_to_leave(self._crew, stage)
        self._announce(f"stage '{stage}' is to be restarted, as asked for")

    def _poke(self) -> None:
        with suppress(BlockingIOError, OSError):
            os.write(self._wake_w, b"!")

    # -- the run -------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Run to the end. Raises nothing that a stage did: see Outcome.error."""
        with ExitStack() as closing:
            for fd in (self._wake_r, self._wake_w):
                closing.callback(os.close, fd)
            closing.callback(self._selector.close)
            check_open_files(len(self.plan.workers))
            run_dir = RunDir()
            closing.callback(run_dir.close)
            ledger_fd = make_memfd("ovpipe-ledger", self.plan.layout.words * 8)
            closing.callback(os.close, ledger_fd)
            self._accountant = Accountant(self.plan, ledger_fd)
            self._crew = Crew(
                self.plan, self._accountant, run_dir, ledger_fd, self._channels, self._home
            )
            closing.callback(self._crew.close)
            self._stuck = Stuck(self._crew, self._accountant, self._announce)
            self._bulletin = Bulletin(self.plan.graph, run_dir.path)
            self._desk = Desk(run_dir.path, self._selector, self.plan, self._crew.posts, self)
            closing.callback(self._desk.close)
            self._desk.open(self._announce)
            self._page = closing.enter_context(Page(self.plan.graph, run_dir.path, self._announce))
            self._selector.register(self._wake_r, selectors.EVENT_READ, self._on_wake)
            for post in self._crew.posts:
                if post.plan.neighbour is None:
                    self._spawn(post)
            self._loop()
            return self._outcome()

    def _spawn(self, host: Post) -> None:
        """Start a process for a post, and those that live with it: its first, or a successor."""
        if self._asked_drain or self._asked_kill:
            return
        posts = self._crew.together(host)
        try:
            self._crew.hire(posts)
        except OSError as error:
            for post in posts:
                post.become("gone")
            self._fail(PreflightError(f"cannot start stage '{host.plan.name}': {error}"))
            return
        select, process = self._selector.register, host.process
        for post in posts:
            assert post.member is not None
            select(post.member.channel, selectors.EVENT_READ, partial(self._hear, post))
        if process is not None:
            select(process.pidfd, selectors.EVENT_READ, lambda: self._bury(process))
            select(process.stderr, selectors.EVENT_READ, lambda: self._log(process))

    def _loop(self) -> None:
        next_tick = time.monotonic()
        while any(p.alive for p in self._crew.posts) or (
            self.phase != "ending" and any(p.state == "away" or p.pushes for p in self._crew.posts)
        ):
            wake_s = min(next_tick, *(p.next_s for p in self._crew.posts))
            self._select(max(0.0, wake_s - time.monotonic()))
            now = time.monotonic()
            self._keep_promises(now)
            if now >= next_tick:
                next_tick = now + _TICK_S
                self._look_after(now)
                self._desk.tick(now)
                self._page.look(now)
                reading = self._accountant.read()
                self._bulletin.post(self.phase, reading)
                if self._on_tick is not None:
                    self._on_tick(self.phase, reading)

    def _select(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            # One event may end another's source, whose descriptor may have a new meaning by now.
            if self._selector.get_map().get(key.fd) is key:
                key.data()

    def _keep_promises(self, now: float) -> None:
        """What was asked for, and what was to be done by now."""
        if self._asked_kill and self.phase != "ending":
            self._killed = True
            self._end()
        if self._asked_drain and self.phase == "running":
            self._begin_drain(now)
        elif self._asked_drain and self.phase == "starting":
            self._end()  # nothing has flown yet: there is nothing to finish
        for post in self._crew.posts:
            if post.state == "away" and now >= post.due_s:
                for each in self._crew.together(post):
                    each.due_s = float("inf")
                self._spawn(post)
            elif post.process is not None and now >= post.process.kill_at_s:
                post.process.kill_at_s = float("inf")
                post.process.kill()
            elif post.state == "starting" and post.process is not None and now > post.start_by_s:
                for each in self._crew.together(post):
                    each.start_by_s = float("inf")
                late = self._crew.culprit(post.process)
                self._stuck.condemn(
                    late,
                    f"was not ready after {late.plan.start_timeout_s:g} s; if it needs "
                    f"longer to open, raise `run: {{start_timeout: ...}}`",
                )
        if self.phase == "draining" and now > self._deadline_s:
            alive = self._crew.at_work()
            stuck = [p for p in alive if self._accountant.doing(p.index) != "draining"] or alive
            if self._error is None:
                self._error = DrainTimeout(
                    f"not everything in flight was finished within {self._drain_timeout_s:g} s; "
                    f"still running were: {', '.join(p.name for p in stuck)}"
                )
            self._end()

    # -- phases --------------------------------------------------------------------------

    def _ready(self, post: Post) -> None:
        """A stage is open, and perhaps it is the last of those that live together."""
        post.open, posts, now = True, self._crew.together(post), time.monotonic()
        if not all(each.open for each in posts):
            return
        for each in posts:
            each.become("up")
            each.restarts.ready(now)
            if each.epoch:
                self._announce(f"stage '{each.plan.name}' is back after {now - each.died_s:.1f} s")
        if self.phase == "running":
            self._crew.rejoin(posts)
        elif self.phase == "starting" and all(p.state == "up" for p in self._crew.posts):
            try:
                self._crew.begin()
                self.phase = "running"
                if self._on_running is not None:
                    self._on_running()
            except PreflightError as error:
                self._fail(error)

    def _announce(self, text: str) -> None:
        self._said("ovpipe", text)

    def _said(self, worker: str, text: str) -> None:
        self._desk.note(worker, text)
        if self._on_log is not None:
            self._on_log(worker, text)

    def _begin_drain(self, now: float) -> None:
        self.phase = "draining"
        self._deadline_s = now + self._drain_timeout_s
        for post in self._crew.posts:
            if post.state in ("away", "starting"):  # it would come too late
                self._crew.dismiss(post, "lost_in_transit", "stage_crash")
        self._crew.tell("drain", errors=[to_json(self._error)] if self._error else [])

    def _end(self) -> None:
        self.phase = "ending"
        self._crew.kill()

    def _fail(self, error: OvpipeError) -> None:
        if self._error is None:
            self._error = error
        elif self.phase != "ending":
            self._others.append(error)
        if self.phase == "starting":
            self._end()
        elif self.phase == "running":
            self._begin_drain(time.monotonic())

    # -- events --------------------------------------------------------------------------

    def _on_wake(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._wake_r, 4096)

    def _hear(self, post: Post) -> bool:
        """One control message of whoever holds a post; False at its end."""
        member = post.member
        assert member is not None
        try:
            received = member.hear()
        except (WireError, OSError):
            received = None
        if received is None:
            self._unregister(member.channel)
            if isinstance(member, ExternalMember):
                self._external_left(post, member)
            return False
        message, fds = received
        kind = message.get("t")
        if fds or kind == "seen":
            self._desk.viewing.seen(post.plan.index, message, fds)
        elif kind == "ready" and post.state == "starting":
            post.capacity = int(message["capacity"])
            post.frame_bytes = int(message.get("frame_bytes", 0))
            self._ready(post)
        elif kind == "pool":
            try:
                slots, slot_bytes = int(message["slots"]), int(message["slot_bytes"])
                self._crew.pools.make(post.plan.index, slots, slot_bytes)
            except PreflightError as error:
                self._fail(error)
                if post.process is not None:
                    post.process.asked = True  # that it ends of it is no failure of its own
                member.say("no_pool")
        elif kind == "facts":
            with suppress(ValueError, AttributeError):
                self._accountant.facts[post.plan.index] = merged({}, message.get("facts", {}))
        elif kind == "enough":
            self._announce(f"stage '{post.plan.name}' ends the run: {message.get('why')}")
            self._asked_drain = True
        elif kind == "failed" and isinstance(member, WorkerMember):
            member.failure = message
        elif kind == "failed":
            self._fail(StageError(post.plan.name, message["cause"], message["traceback"]))
        elif kind == "finished":
            member.finished = True
            if isinstance(member, ExternalMember):  # was that an ordinary end?
                errors = ([self._error] if self._error else []) + self._others
                member.say("bye", errors=[to_json(error) for error in errors])
        return True

    def _external_left(self, post: Post, member: ExternalMember) -> None:
        """The application reads or pushes no further. What it holds stays its own meanwhile."""
        member.left = True
        self._accountant.died(post.plan.index)
        if not member.finished and self.phase != "ending" and post.state != "gone":
            self._crew.dismiss(post, "link_lost", held=None)

    def _log(self, worker: Workplace) -> bool:
        """Pass on what a worker wrote to stderr; False where there was nothing."""
        try:
            lines = worker.read_stderr()
        except BlockingIOError:
            return False
        if lines is None:
            self._unregister(worker.stderr)
            return False
        if worker.verdict and any(_STACK in line for line in lines):
            worker.kill_at_s = min(worker.kill_at_s, time.monotonic() + STACKS_S / 5)
        for line in lines:
            self._said(worker.name, line)
        return True

    def _tell_suppressed(self, worker: Workplace) -> None:
        if count := worker.turn():
            self._announce(f"{count} lines of stage '{worker.name}' suppressed")

    def _bury(self, worker: Workplace) -> None:
        """A process is dead: hear its last words, close its accounts, see who comes next."""
        worker.reap()
        last = time.monotonic() + _CLOSING_S
        posts = self._crew.together(self._crew.posts[worker.members[0].plan.index])
        for post, member in zip(posts, worker.members, strict=True):
            member.channel.setblocking(False)
            while member.channel in self._selector.get_map() and self._hear(post):
                pass
        while worker.stderr in self._selector.get_map() and time.monotonic() < last:
            if not self._log(worker):
                break
        self._tell_suppressed(worker)
        for thing in (worker.pidfd, worker.stderr, *(m.channel for m in worker.members)):
            self._unregister(thing)
        worker.close()
        for post in posts:
            self._accountant.died(post.plan.index)
            self._desk.viewing.died(post.plan.index)
        if worker.finished and worker.exit_status == 0:
            for post in posts:
                self._crew.done(post)
            return
        if self.phase == "ending":
            return
        for post in posts:
            outcome = "stage_hang" if worker.hung else "stage_crash"
            self._accountant.end_held(post.plan.index, outcome)
        if posts[0].state != "gone":
            self._replace(posts, self._crew.culprit(worker))

    def _replace(self, posts: list[Post], culprit: Post) -> None:
        """Whether posts whose process is dead get another, as the policy of the culprit says."""
        now, doing = time.monotonic(), self._accountant.doing(culprit.plan.index)
        over = doing in ("draining", "ended")  # there is nothing left to do for a successor
        may = self.phase in ("starting", "running") and not self._asked_drain and not over
        decision = self._crew.judge(culprit, now, may)
        if isinstance(decision, GiveUp):
            if not (culprit.process and culprit.process.asked):
                self._fail(with_restarts(decision))
            for post in posts:
                if self.phase != "ending" and post.state != "gone":
                    self._crew.dismiss(post, "lost_in_transit", "stage_crash")
            return
        for post in posts:
            self._crew.leave(post, now + decision.delay_s)
        for line in self._crew.describe_death(culprit, doing, decision):
            self._announce(line)

    # -- what does not get on --------------------------------------------------------------

    def _look_after(self, now: float) -> None:
        """End what hangs; name what is stalled; say what was not shown."""
        for each in filter(None, {post.process for post in self._crew.posts}):
            self._tell_suppressed(each)
        if self.phase == "running":
            self._stuck.look(now)

    def _unregister(self, thing: Any) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(thing)

    # -- the end -------------------------------------------------------------------------

    def _outcome(self) -> Outcome:
        if self.phase in ("running", "draining"):
            self._await_externals()
        error = self._error
        try:
            externals = [p.plan.index for p in self._crew.posts if p.plan.external]
            self._accountant.externals_hold(externals)
            forced = self.phase == "ending"
            reading = self._accountant.close("drain_timeout" if forced else "lost_in_transit")
        except LedgerError as broken:
            return Outcome(error or broken, self._killed, Reading(time.monotonic_ns(), ()))
        return Outcome(error, self._killed, reading, tuple(self._others))

    def _await_externals(self) -> None:
        """All workers are gone; what they sent to the application is still its own to read."""
        externals = [p.member for p in self._crew.posts if isinstance(p.member, ExternalMember)]
        while not self._asked_kill and time.monotonic() < self._deadline_s:
            if all(member.finished or member.left for member in externals):
                return
            self._select(_TICK_S)
