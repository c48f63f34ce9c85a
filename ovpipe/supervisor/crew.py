"""The crew of a run: who holds which post, what each is told, and of whom.

Law: a process learns of its neighbours once, as they are when it is given its links, and of each
change after that in order. Nobody is told of a process before its inbox is open. The number of
records of a link never changes, whoever works at its ends.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ovpipe.supervisor.accountant import Accountant
from ovpipe.supervisor.launch import Plan
from ovpipe.supervisor.pools import Pools
from ovpipe.supervisor.post import Post
from ovpipe.supervisor.preflight import Need, check_memory
from ovpipe.supervisor.process import ExternalMember, WorkerProcess
from ovpipe.supervisor.rundir import RunDir
from ovpipe.transport.ledger import AWAY
from ovpipe.transport.peers import Peer
from ovpipe.transport.plan import Link


class Crew:
    """All posts of a plan. `channels`: those of the members that live in the application."""

    def __init__(
        self,
        plan: Plan,
        accountant: Accountant,
        run_dir: RunDir,
        ledger_fd: int,
        channels: Mapping[str, socket.socket],
    ) -> None:
        self.plan = plan
        self.posts = [Post(worker) for worker in plan.workers]
        self.pools = Pools(plan, lambda index: self.posts[index].member)
        self._accountant = accountant
        self._run_dir = run_dir
        self._ledger_fd = ledger_fd
        self._channels = channels
        self._links: list[Link] = []
        self._run = secrets.token_hex(8)

    def hire(self, post: Post) -> WorkerProcess | ExternalMember:
        """Give a post its first process, or a successor. Raises OSError where none starts."""
        plan, first_seq = post.plan, 0
        if post.state == "away":
            post.epoch += 1
            self._accountant.restarted(plan.index)
            if plan.producer:
                first_seq = self._accountant.first_seq(plan.index)
        post.become("starting")
        post.start_by_s = time.monotonic() + plan.start_timeout_s
        if plan.external:
            post.member = ExternalMember(plan, self._channels[plan.stage])
        else:
            post.member = WorkerProcess(plan)
        post.member.say(
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
            endless=plan.policy.restart == "always",
            max_frames=self.plan.graph.max_frames if plan.producer else 0,
            folder=str(self.plan.graph.folder),
            streams=list(self.plan.streams),
            endpoint=self._endpoint(post),
            layout=asdict(self.plan.layout),
        )
        self.pools.introduce(plan.index)
        return post.member

    def begin(self) -> None:
        """All are up: draw the links and give them out.

        Raises PreflightError where there is no memory for the frames that may travel on them.
        """
        posts = self.posts
        self._links = [
            link.with_capacity(posts[link.receiver].capacity, posts[link.receiver].returns)
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

    def rejoin(self, post: Post) -> None:
        """A successor is up: it gets the links of its post, and the others get its address."""
        self._give_links(post)
        self.tell("back", worker=post.plan.index, epoch=post.epoch, endpoint=self._endpoint(post))

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
        return self._run_dir.endpoint(post.plan.index, post.epoch)
