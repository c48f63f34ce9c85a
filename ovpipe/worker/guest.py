"""A stage that lives in the process of the one it reads: called with each frame, on its thread.

Law: it sees, does and answers for what it would in a process of its own, except that whoever calls
it waits until it is done. It gets its messages by `deliver` and in no other way; what else happens
(a receiver that comes back, a tick that is due) it sees to when its neighbour has a moment.
"""

from __future__ import annotations

import time

from ovpipe.stages.base import Transform
from ovpipe.transport import wire
from ovpipe.transport.ledger import IDLE, W_IDLE_NS, WORKING
from ovpipe.transport.sender import Sender
from ovpipe.worker.blame import Blamed, blaming
from ovpipe.worker.run import TICK_MS, Worker


class Guest(Worker):
    """A worker without a loop of its own."""

    def deliver(self, message: wire.Message) -> None:
        """All of the work on one message of the stage above. Raises Blamed."""
        try:
            self._words[self._me + W_IDLE_NS] += time.monotonic_ns() - self.free_ns
            self._handle(message)
            self._rest()
        except Blamed:
            raise
        except BaseException as error:
            raise Blamed(self.member, error) from error

    def attend(self, neighbour: Sender) -> None:
        """What is to be done although no frame has come. Raises Blamed."""
        blaming(self.member, lambda: self._look_around(neighbour))

    def _look_around(self, neighbour: Sender) -> None:
        if self.facts.late:
            self.facts.catch_up()
        departed = self.member.peers.departed
        while departed:
            self._handle(departed.popleft())
        self.sender.sync()
        if isinstance(self._stage, Transform) and self._is_due():
            neighbour.lend(self.receiver.links[0], self._tick)
        self._attend_guests()

    def _is_due(self) -> bool:
        late = time.monotonic_ns() - self.free_ns > TICK_MS * 1_000_000
        return late and not self.receiver.finished

    def _tick(self) -> None:
        assert isinstance(self._stage, Transform)
        now = time.monotonic_ns()
        self._words[self._me + W_IDLE_NS] += now - self.free_ns
        self.member.shared.set_state(WORKING, now)
        self._publish_all(self._stage.tick())
        self._rest()

    def _rest(self) -> None:
        self.free_ns = time.monotonic_ns()
        self.member.shared.set_state(IDLE, self.free_ns)
