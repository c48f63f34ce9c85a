"""The crew of a run: who holds which post, what each is told, and of whom.

Posts of one process (a stage and those that live with it) start, leave and go together.

Law: a process learns of its neighbours once, as they are when it is given its links, and of each
change after that in order. Nobody is told of a process before its inbox is open. The number of
records of a link never changes, whoever works at its ends.
"""

from __future__ import annotations

import random
import secrets
import socket
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ovpipe.errors import OvpipeError, PreflightError, StageError
from ovpipe.supervisor.accountant import Accountant
from ovpipe.supervisor.launch import Plan, WorkerPlan
from ovpipe.supervisor.pools import Pools
from ovpipe.supervisor.post import Post
from ovpipe.supervisor.preflight import Need, check_memory
from ovpipe.supervisor.process import ExternalMember, WorkerMember, Workplace
from ovpipe.supervisor.restart import Again, GiveUp
from ovpipe.supervisor.rundir import RunDir
from ovpipe.transport.ledger import AWAY
from ovpipe.transport.peers import Peer
from ovpipe.transport.plan import Link

Home = Callable[[Sequence[WorkerPlan]], Workplace]
"""Starts what those who live together live in. Raises OSError."""


class Crew:
    """All posts of a plan. `channels`: those of the members that live in the application."""

    def __init__(
        self,
        plan: Plan,
        accountant: Accountant,
        run_dir: RunDir,
        ledger_fd: int,
        channels: Mapping[str, socket.socket],
        home: Home,
    ) -> None:
        self.plan = plan
        self.posts = [Post(worker) for worker in plan.workers]
        self.pools = Pools(plan, lambda index: self.posts[index].member)
        self._accountant = accountant
        self._run_dir = run_dir
        self._ledger_fd = ledger_fd
        self._channels = channels
        self._home = home
        self._links: list[Link] = []
        self._run = secrets.token_hex(8)

    def together(self, post: Post) -> list[Post]:
        """The posts of the process that this one belongs to, each behind the one it reads."""
        return [self.posts[index] for index in self.plan.together(post.plan.index)]

    def returns(self, post: Post) -> bool:
        """True where its holder may get a successor: all that live with it may."""
        return all(each.returns for each in self.together(post))

    def culprit(self, process: Workplace) -> Post:
        """Whose failure it was that a process is dead, of all that lived in it.

        Of whoever said so or was condemned, else of the one at work: who calls another waits.
        """
        posts = [self.posts[member.plan.index] for member in process.members]
        failed = [m.plan.index for m in process.members if m.failure is not None]
        if failed:
            return self.posts[failed[0]]
        if process.accused is not None:
            return self.posts[process.accused]
        doing = {p.plan.index: self._accountant.doing(p.plan.index) for p in posts}
        at_work = [p for p in posts if doing[p.plan.index] in ("loading", "working")]
        return at_work[-1] if at_work else posts[0]

    def signs(self, posts: Sequence[Post]) -> dict[int, tuple[str, Hashable]]:
        """What each of them is doing, and what changes when it gets on (for HangWatch).

        One that waits for another of its process is left out while that one is at work, or waits
        itself: that is the one to look at. So is one that is only called and has nothing to do.
        """
        signs = {p.plan.index: self._accountant.signs(p.plan.index) for p in posts}
        told: dict[int, tuple[str, Hashable]] = {}
        for post in posts:
            index, called = post.plan.index, None
            doing, _ = signs[index]
            if (blocked := self._accountant.blocked(index)) is not None:
                link = self.plan.links[blocked[0]]
                called = signs.get(link.receiver) if link.by_call else None
            at_rest = post.plan.neighbour is not None and doing in ("idle", "loading")
            if not at_rest and (called is None or called[0] not in ("working", "blocked")):
                told[index] = signs[index]
        return told

    def judge(self, culprit: Post, now_s: float, may: bool) -> Again | GiveUp[OvpipeError]:
        """Whether the process of a post, which is dead, gets a successor. `may`: if at all."""
        member = culprit.member
        assert isinstance(member, WorkerMember)
        cause = member.cause()
        if may and member.process.asked and not member.process.lasting:
            return Again(0.0, 0, 0)
        if not may or member.process.lasting or not self.returns(culprit):
            return GiveUp(cause, 0)
        never_ready = culprit.epoch == 0 and culprit.state == "starting"
        condemned = bool(member.process.verdict)
        permanent = isinstance(cause, PreflightError) or (never_ready and condemned)
        return culprit.restarts.died(now_s, cause, permanent=permanent, chance=random.random())

    def describe_death(self, culprit: Post, doing: str, again: Again) -> list[str]:
        """How a process died, for the log, with the traceback that it sent."""
        member = culprit.member
        assert isinstance(member, WorkerMember)
        worker, cause = member.process, member.cause()
        if worker.asked and member.failure is None:
            return []  # that was said when it was asked for
        what = worker.describe_exit()
        if member.failure is not None and isinstance(cause, StageError):
            what = f"failed: {cause.cause}"
        beside = [f"'{m.plan.name}'" for m in worker.members if m is not member]
        line = (
            f"stage '{culprit.plan.name}' {worker.verdict or what} while {doing}; "
            f"restart {again.number}/{again.of} in {again.delay_s:.1f} s"
        )
        if beside:
            line += f", with {', '.join(beside)} in the same process"
        if member.failure is None or not isinstance(cause, StageError):
            return [line]
        return [line, *cause.remote_traceback.splitlines()]

    def at_work(self) -> list[WorkerPlan]:
        """Those whose processes are alive; of those that share one, whoever is at work."""
        processes = dict.fromkeys(p.process for p in self.posts if p.alive)
        plans = [self.culprit(process).plan for process in processes if process is not None]
        return plans + [post.plan for post in self.posts if post.pushes]

    def hire(self, posts: Sequence[Post]) -> None:
        """Give the posts of a process their first holders, or successors, the host's first.

        Raises OSError where none starts.
        """
        first_seq = 0
        for post in posts:
            if post.state == "away":
                post.epoch += 1
                self._accountant.restarted(post.plan.index)
                if post.plan.producer:
                    first_seq = self._accountant.first_seq(post.plan.index)
            post.become("starting")
            post.open = False
            # They open one after the other.
            post.start_by_s = time.monotonic() + sum(p.plan.start_timeout_s for p in posts)
        plan = posts[0].plan
        if plan.external:
            external = ExternalMember(plan, self._channels[plan.name])
            self._assign(posts[0], external, first_seq)
            return
        process = self._home([post.plan for post in posts])
        for post, member in zip(posts, process.members, strict=True):
            self._assign(post, member, first_seq)

    def _assign(self, post: Post, member: WorkerMember | ExternalMember, first_seq: int) -> None:
        plan = post.plan
        post.member = member
        member.say(
            "assign",
            (self._ledger_fd,),
            worker=plan.index,
            epoch=post.epoch,
            stage=plan.stage,
            kind=plan.kind,
            options=dict(plan.options),
            run=self._run,
            stream=plan.stream,
            inputs=self.plan.inputs(plan.stage),
            first_seq=first_seq,
            neighbour=plan.neighbour,
            endless=plan.policy.restart == "always",
            max_frames=self.plan.graph.max_frames if plan.producer else 0,
            folder=str(self.plan.graph.folder),
            streams=list(self.plan.streams),
            endpoint=self._endpoint(post),
            layout=asdict(self.plan.layout),
        )
        self.pools.introduce(plan.index)

    def begin(self) -> None:
        """All are up: draw the links and give them out.

        Raises PreflightError where there is no memory for the frames that may travel on them.
        """
        posts = self.posts
        self._links = [
            link.with_capacity(posts[link.receiver].capacity, self.returns(posts[link.receiver]))
            for link in self.plan.links
        ]
        self._accountant.credits = {link.index: link.records for link in self._links}
        needs: list[Need] = []
        for post in posts:
            for link in self.plan.downstream(post.plan.index) if post.frame_bytes else ():
                name = f"{link.source} -> {posts[link.receiver].plan.name}"
                needs.append(Need(name, self._links[link.index].records, post.frame_bytes))
        check_memory(needs)
        for post in posts:
            self._give_links(post)

    def rejoin(self, posts: Sequence[Post]) -> None:
        """Successors are up: they get the links of their posts, and the others their address."""
        for post in posts:
            self._give_links(post)
        for post in posts:
            place = self._endpoint(post)
            self.tell("back", worker=post.plan.index, epoch=post.epoch, endpoint=place)

    def leave(self, post: Post, due_s: float) -> None:
        """Nobody holds a post until `due_s`."""
        post.become("away")
        post.died_s, post.due_s = time.monotonic(), due_s
        self._accountant.mark(post.plan.index, AWAY)
        self.tell("gone", worker=post.plan.index, epoch=post.epoch, returns=True)

    def done(self, post: Post) -> None:
        """A worker has finished: those that sent to it need not go on looking for it."""
        post.become("done")
        for link in self.plan.links:
            sender = self.posts[link.sender].member
            if link.receiver == post.plan.index and sender is not None:
                sender.say("gone", worker=post.plan.index, epoch=post.epoch, returns=False)

    def dismiss(self, post: Post, inflight: str, held: str | None) -> None:
        """Nobody will hold a post again; what was sent to it ends with these outcomes."""
        post.become("gone")
        if post.process is not None:
            post.process.kill()
        self._accountant.receiver_died(post.plan.index, inflight, held)
        self.tell("gone", worker=post.plan.index, epoch=post.epoch, returns=False)

    def describe_stall(self, index: int, seconds: float) -> str:
        """Who has the frames of a link whose sender has waited for a credit so long."""
        link, edge = self._links[index], self.plan.graph.edges[self.plan.links[index].edge]
        receiver, held = self.posts[link.receiver], self._accountant.held(index)
        text = (
            f"edge '{edge.source} -> {edge.target}' stalled for {seconds:.0f} s: "
            f"{receiver.plan.name} holds {len(held)} of {link.records} frames"
        )
        if not held or receiver.process is None:
            return text
        oldest, by = held[0], f"by stage '{receiver.plan.name}' pid {receiver.process.pid}"
        place = (
            ""
            if oldest.ref is None
            else (f"slot {oldest.ref & 0xFFFFFFFF} of pool {oldest.ref >> 32}, ")
        )
        return f"{text} ({place}held {oldest.seconds:.0f} s {by})"

    def tell(self, word: str, **values: Any) -> None:
        """Say something to everybody."""
        for post in self.posts:
            if post.member is not None:
                post.member.say(word, **values)

    def kill(self) -> None:
        """SIGKILL to all processes."""
        for post in self.posts:
            if post.process is not None:
                post.process.kill()

    def close(self) -> None:
        """End what is alive, give back what it needed."""
        self.kill()
        for post in self.posts:
            if post.process is not None:
                if post.alive:
                    post.process.reap()
                post.process.close()
        self.pools.close()

    def _give_links(self, post: Post) -> None:
        index, links = post.plan.index, self._links
        assert post.member is not None
        post.member.say(
            "start",
            enter=[x.to_json() for x in links if x.receiver == index],
            leave=[x.to_json() for x in links if x.sender == index],
            shared=[links[x.index].to_json() for x in self.plan.shared(index)],
            beyond=[links[x.index].to_json() for x in self.plan.downstream(index)],
            peers=[self._peer(p).to_json() for p in self.posts],
        )

    def _peer(self, post: Post) -> Peer:
        """A post as others are told of it; one that is starting again is still its dead self."""
        epoch = post.epoch - (post.state == "starting")
        return Peer(post.peer_state, epoch, self._endpoint(post))

    def _endpoint(self, post: Post) -> str:
        """The inbox of its process: that of the first who lives there."""
        return self._run_dir.endpoint(self.plan.together(post.plan.index)[0], post.epoch)
