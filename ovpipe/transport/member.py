"""A member of a run: what a worker, or an application that reads a pipeline, has of it.

A member is given one end of a control channel. It learns its assignment from the first message,
maps the ledger, binds its inbox, says `ready`, waits for `start`, and listens for the rest of
its life on a thread of its own: pools, drain, dead peers, the end.

    supervisor -> member   assign (+ ledger fd), pool (+ fd) or no_pool, start, drain, leave, look,
                           gone, back, bye
    member -> supervisor   ready, pool, facts, seen (+ fd), failed, finished

Members of one process share the inbox of the first: whatever comes, wakes the one thread on which
they all work.

Law: the thread only stores values and nudges the inbox; all work stays on the member's own
thread. End-of-file means that the supervisor is dead: `on_lost` is called at once.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

from ovpipe.errors import OvpipeError, PipelineClosed, WireError, from_json
from ovpipe.transport import control
from ovpipe.transport.inbox import Inbox
from ovpipe.transport.lease import Roots
from ovpipe.transport.ledger import Layout
from ovpipe.transport.look import Looks
from ovpipe.transport.mail import Mail
from ovpipe.transport.peers import Peers
from ovpipe.transport.plan import Link
from ovpipe.transport.pool import Pool
from ovpipe.transport.receiver import Receiver
from ovpipe.transport.sender import Calls, Sender
from ovpipe.transport.shared import SharedMemory
from ovpipe.transport.turns import Turns

_POOL_TIMEOUT_S = 30.0
_NONE: Calls = {}


class Member:
    """One member. `index` is its place among the run's workers.

    `draining`: a drain was asked for, because of `errors` if there are any; `leaving`: another
    process is to take its place. `looks`: who wants to see its frames. `peers`: all workers of the
    run, once it has started. `turns`: a replica's; None where there is one worker only. `beyond`:
    every link that its frames can travel on, upstream first.
    """

    def __init__(
        self,
        channel: socket.socket,
        assignment: dict[str, Any],
        fds: list[int],
        inbox: Inbox | None = None,
    ) -> None:
        self.assignment = assignment
        self.index: int = assignment["worker"]
        self.streams: list[str] = assignment["streams"]
        self.shared = SharedMemory(fds[0], Layout(**assignment["layout"]), self.index)
        for fd in fds:
            socket.close(fd)
        self._owns_inbox = inbox is None
        self.inbox = Inbox(assignment["endpoint"]) if inbox is None else inbox
        self.roots = Roots()
        self.draining = False
        self.errors: list[OvpipeError] = []
        self.leaving = False
        self.looks = Looks(lambda message, fds: control.send(channel, message, fds))
        self.peers = Peers([])
        self.turns: Turns | None = None
        self.beyond: list[Link] = []
        self._bye: dict[str, Any] | None = None
        self.lost = False
        self._closing = False
        self._channel = channel
        self._start: dict[str, Any] | None = None
        self._granted: list[int] = []
        self._inherited: list[int] = []
        self._news = threading.Condition()

    @classmethod
    def join(cls, channel: socket.socket, inbox: Inbox | None = None) -> Member:
        """Wait for the assignment. Raises PipelineClosed where the supervisor is gone.

        `inbox`: of the member in whose process this one lives.
        """
        received = control.receive(channel)
        if received is None:
            raise PipelineClosed("the supervisor is gone")
        return cls(channel, *received, inbox)

    def listen(self, on_lost: Callable[[], None]) -> None:
        """Start the thread that listens to the supervisor."""
        threading.Thread(
            target=self._listen, args=(on_lost,), name="ovpipe-control", daemon=True
        ).start()

    def _listen(self, on_lost: Callable[[], None]) -> None:
        with contextlib.suppress(OSError, WireError):
            while (received := control.receive(self._channel)) is not None:
                self._on_message(*received)
        self.lost = True
        self.shared.close()
        if not self._closing:
            on_lost()
            self._tell()

    def _on_message(self, message: dict[str, Any], fds: list[int]) -> None:
        kind = message["t"]
        if kind == "pool":
            number, owner = message["number"], message["owner"]
            self.shared.add_pool(number, owner, fds[0], message["slots"], message["slot_bytes"])
            if owner == self.index:
                self._granted.append(number)
        elif kind == "start":
            self.peers = Peers(message["peers"])
            # What is ours and was not asked for is what the one before us had.
            self._inherited, self._granted = self._granted, []
            self._start = message
        elif kind == "drain":
            self.errors = [from_json(error) for error in message.get("errors", ())]
            self.draining = True
        elif kind == "look":
            self.looks.ask(message["stream"])
            return
        elif kind == "leave":
            self.leaving = True
        elif kind == "gone" and self._start is not None:
            self.peers.leave(message["worker"], message["epoch"], message["returns"])
        elif kind == "back" and self._start is not None:
            self.peers.back(message["worker"], message["epoch"], message["endpoint"])
        elif kind == "bye":
            self._bye = message
        elif kind == "no_pool":
            self._granted.append(-1)
        self._tell()

    def _tell(self) -> None:
        with self._news:
            self._news.notify_all()
        self.inbox.nudge()

    def _wait(self, condition: Callable[[], object], timeout_s: float | None = None) -> bool:
        with self._news:
            self._news.wait_for(lambda: self.lost or condition(), timeout_s)
        return bool(condition())

    # -- saying -------------------------------------------------------------------------

    def say(self, word: str, /, **values: Any) -> None:
        """Send one message to the supervisor."""
        control.send(self._channel, {"t": word, **values})

    def wait_for_start(
        self, calls: Calls = _NONE, pump: Callable[[int], None] | None = None
    ) -> tuple[Receiver, Sender, Mail]:
        """Both ends of this member's links, once all members are ready.

        `calls`: see Sender; `pump`: how it waits for a credit, where not by its own mail.
        Raises PipelineClosed where the run ends before it has begun.
        """
        if not self._wait(lambda: self._start) or self._start is None:
            raise PipelineClosed("the pipeline ended before it started")
        kinds = "enter", "leave", "beyond", "shared"
        links = {k: [Link.from_json(v) for v in self._start[k]] for k in kinds}
        receiver = Receiver(
            self.shared, self.roots, self.inbox, links["enter"], self.streams, self.peers
        )
        self.beyond = links["beyond"]
        mail = Mail(self.inbox, self.peers, receiver)
        sender = Sender(
            self.shared,
            self.roots,
            self.inbox,
            links["leave"],
            links["beyond"],
            self._request_pool,
            pump or mail.pump,
            self.peers,
            self.assignment["epoch"],
            [self.shared.pool(number) for number in self._inherited],
            calls,
        )
        sender.looks = self.looks
        if links["shared"]:
            self.turns = Turns(self.shared, self.inbox, self.peers, links["shared"])
        return receiver, sender, mail

    def _request_pool(self, slots: int, slot_bytes: int) -> Pool:
        self.say("pool", slots=slots, slot_bytes=slot_bytes)
        if not self._wait(lambda: self._granted, _POOL_TIMEOUT_S):
            raise PipelineClosed("the supervisor gave no shared memory")
        number = self._granted.pop(0)
        if number < 0:
            raise PipelineClosed("not enough memory for a pool")
        return self.shared.pool(number)

    def finish(self) -> list[OvpipeError]:
        """Say that all streams have ended here; returns what made them end early, if anything.

        Raises PipelineClosed where the supervisor is gone.
        """
        self.say("finished")
        if not self._wait(lambda: self._bye) or self._bye is None:
            raise PipelineClosed("the supervisor is gone")
        return [from_json(error) for error in self._bye["errors"]]

    def close(self) -> None:
        """Deliver what was sent to those who live, and leave."""
        self._closing = True
        for peer in self.peers:
            if peer.state != "here":
                self.inbox.forget(peer.endpoint)
        if self._owns_inbox:
            self.inbox.close()
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        self._channel.close()
