"""What has come in and was not looked at yet, in order.

Law: the death of a sender is handed out behind everything of it that has arrived. Malformed
messages are counted and dropped; wake-ups and nudges only end a wait.
"""

from __future__ import annotations

from collections import deque

from ovpipe.errors import WireError
from ovpipe.transport import wire
from ovpipe.transport.inbox import Inbox
from ovpipe.transport.peers import Departed, Peers
from ovpipe.transport.receiver import Receiver


class Mail:
    """The backlog of one member. One thread only."""

    def __init__(self, inbox: Inbox, peers: Peers, receiver: Receiver) -> None:
        self._inbox = inbox
        self._peers = peers
        self._receiver = receiver
        self._backlog: deque[wire.Message | Departed] = deque()

    def __bool__(self) -> bool:
        return bool(self._backlog or self._peers.departed)

    def pump(self, timeout_ms: int) -> None:
        """Wait for one message, and keep it."""
        data = self._inbox.receive(timeout_ms)
        if data:
            self._keep(data)

    def next(self, timeout_ms: int, starving: bool = True) -> wire.Message | Departed | None:
        """The oldest; waited for where there is none. None after a nudge or the time.

        starving: there is nothing to do until something comes.
        """
        if self._peers.departed:
            self._settle()
        if not self._backlog and starving and self._receiver.owes:
            self.pump(0)
            if not self._backlog:
                self._receiver.pay()
        if not self._backlog:
            self.pump(timeout_ms)
        return self._backlog.popleft() if self._backlog else None

    def _keep(self, data: bytes) -> None:
        try:
            message = wire.decode(data)
        except WireError:
            self._receiver.count_malformed()
            return
        if message.kind != wire.WAKE:
            self._backlog.append(message)

    def _settle(self) -> None:
        known = len(self._peers.departed)
        while (data := self._inbox.receive(0)) is not None:
            if data:
                self._keep(data)
        self._backlog.extend(self._peers.departed.popleft() for _ in range(known))
