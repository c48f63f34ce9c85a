"""A tap: the application as a member of the run that takes the frames of one stage.

Law: as in a worker, each frame that was taken ends as one outcome, and its slot is given back when
nothing refers to its arrays any more. One thread at a time.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress

from ovpipe.errors import OvpipeError, PipelineClosed
from ovpipe.frame import Frame
from ovpipe.transport import wire
from ovpipe.transport.lease import Lease
from ovpipe.transport.ledger import DELIVERED, IDLE, WORKING
from ovpipe.transport.mail import Mail
from ovpipe.transport.member import Member
from ovpipe.transport.peers import Departed
from ovpipe.transport.receiver import Receiver

TICK_MS = 500


class Tap:
    """Frames of one stage, once `join` and `wait_for_start` have returned."""

    def __init__(self) -> None:
        self._member: Member | None = None
        self._receiver: Receiver | None = None
        self._mail: Mail | None = None
        self._given: list[Lease] = []
        self._kept: list[Lease] = []

    def join(self, channel: socket.socket) -> None:
        """Become a member of the run."""
        self._member = Member.join(channel)
        self._member.listen(on_lost=lambda: None)
        self._member.say("ready", capacity=1)

    def wait_for_start(self) -> None:
        """Return when all stages are ready. Raises PipelineClosed where they never will be."""
        assert self._member is not None
        self._receiver, _, self._mail = self._member.wait_for_start()
        self._state(IDLE)

    @property
    def over(self) -> bool:
        """True once all streams have ended, or the supervisor is gone."""
        if self._member is None or self._receiver is None:
            return True
        return self._receiver.finished or (self._member.lost and not self._mail)

    def next(self, timeout_ms: int) -> Frame | None:
        """The next frame; None where none came in that time, or something else did."""
        assert self._member is not None
        assert self._receiver is not None
        assert self._mail is not None
        message = self._mail.next(timeout_ms)
        if message is None:
            return None
        if isinstance(message, Departed):
            self._receiver.bury(message)
        elif message.kind == wire.EOS:
            self._receiver.ended(message)
        else:
            taken = self._receiver.take(message)
            if taken is not None:
                self._state(WORKING)
                self._given.append(taken[1])
                return taken[0]
        return None

    def settle(self, outcome: int = DELIVERED) -> None:
        """The frames given out since the last call are done with; those still kept stay held."""
        if self._given:
            for lease in self._given:
                lease.finish(outcome)
            self._kept = [lease for lease in (*self._kept, *self._given) if lease.kept]
            self._given.clear()
            self._state(IDLE)

    def _state(self, state: int) -> None:
        assert self._member is not None
        self._member.shared.set_state(state, time.monotonic_ns())

    def nudge(self) -> None:
        """End a wait in `next`. Any thread may."""
        if self._member is not None:
            self._member.inbox.nudge()

    def fail(self, cause: str, traceback: str) -> None:
        """Say that the application failed on a frame: the run is drained, and fails with that."""
        assert self._member is not None
        with suppress(OSError):
            self._member.say("failed", cause=cause, traceback=traceback)

    def finish(self) -> list[OvpipeError]:
        """Once it is over: what made the streams end early, in order.

        Raises PipelineClosed where the supervisor is gone.
        """
        assert self._member is not None
        errors = self._member.finish()
        self.settle()
        for lease in self._kept:  # nobody will write to their slots again
            lease.force()
        return errors

    def close(self) -> None:
        """Leave. What is in flight to here is counted `link_lost`. Idempotent."""
        member, self._member = self._member, None
        if member is not None:
            for lease in self._given:
                lease.finish()
            self._given.clear()
            self._kept.clear()  # they would hold on to the memory
            self._receiver = self._mail = None
            member.close()


def drive(tap: Tap, take: Callable[[Frame], int], look: Callable[[], int]) -> list[OvpipeError]:
    """Take all frames, until the end; what made it come early.

    take(frame): its outcome. look(): called after each wait; how long the next may be, in ms, or
    less than 0 to leave. Raises PipelineClosed where the supervisor is gone.
    """
    while not tap.over:
        wait_ms = look()
        if wait_ms < 0:
            raise PipelineClosed("the pipeline was closed")
        frame = tap.next(wait_ms)
        if frame is not None:
            outcome = take(frame)
            del frame
            tap.settle(outcome)
    return tap.finish()
