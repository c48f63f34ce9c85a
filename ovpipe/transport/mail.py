"""What has come in and was not looked at yet, in order; frames of several live streams in turn.

Law: the death of a sender is handed out behind everything of it that has arrived, and before
anything of its successor: their messages come by different connections, of which either may be
read first. So may a frame from one replica before an earlier frame of its stream from another:
it is held, and all that came behind it from there, until that one is read. Malformed messages are
counted and dropped; wake-ups and nudges only end a wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from ovpipe.errors import WireError
from ovpipe.transport import wire
from ovpipe.transport.fair import Fair
from ovpipe.transport.inbox import Inbox
from ovpipe.transport.peers import Departed, Peers
from ovpipe.transport.receiver import Receiver

_HELD_MS = 20  # a frame that is waited for may end without a word
Item = wire.Message | Departed


class Mail:
    """The backlog of one member. One thread only."""

    def __init__(self, inbox: Inbox, peers: Peers, receiver: Receiver) -> None:
        self._inbox = inbox
        self._peers = peers
        self._receiver = receiver
        self._backlog: deque[Item] = deque()
        self._fair = Fair()  # frames ahead of the backlog
        self._held: list[Item] = []
        self._dead: dict[int, int] = {}  # by worker: the last epoch whose death was handed out
        self._early: list[tuple[int, wire.Message]] = []  # of successors, by worker

    def __bool__(self) -> bool:
        return bool(self._backlog or self._fair or self._peers.departed)

    def pump(self, timeout_ms: int) -> None:
        """Wait for one message, and keep it."""
        data = self._inbox.receive(timeout_ms)
        if data:
            self._keep(data)

    def next(self, timeout_ms: int, starving: bool = True) -> Item | None:
        """The oldest; waited for where there is none. None after a nudge or the time.

        starving: there is nothing to do until something comes. Otherwise what comes is kept for
        later, and only the wait ends.
        """
        if not starving:
            self.pump(timeout_ms)
            return None
        if self._peers.departed:
            self._settle()
        if self._held:
            timeout_ms = min(timeout_ms, _HELD_MS)
            released = self._release()
            if released is not None:
                return released
        if self._receiver.shared_out:
            while (data := self._inbox.receive(0)) is not None:
                self._keep(data)
            self._sort()
            message = self._fair.next(self._receiver.passes_over)
            if message is not None:
                return message
        if not self._backlog and self._receiver.owes:
            self.pump(0)
            if not self._backlog:
                self._receiver.pay()
        if not self._backlog:
            self.pump(timeout_ms)
        while self._backlog:
            item = self._backlog.popleft()
            if self._too_early(item):
                continue
            if (self._held or self._receiver.merges) and self._must_wait(item, self._held):
                self._held.append(item)
                continue
            return self._handed_out(item)
        return self._release()

    def _sort(self) -> None:
        """Let the frames at the head of the backlog take turns: to the first that is none."""
        while self._backlog:
            item = self._backlog[0]
            if not isinstance(item, wire.Message) or item.kind != wire.FRAME:
                return
            self._backlog.popleft()
            if not self._too_early(item):
                self._fair.add(item)

    def _too_early(self, item: Item) -> bool:
        """True where it is of a successor, and the death before it was not handed out: kept."""
        if not isinstance(item, wire.Message) or not item.epoch:
            return False
        sender = self._receiver.sender_of(item.link)
        if sender is None or self._dead.get(sender, -1) >= item.epoch - 1:
            return False
        self._early.append((sender, item))
        return True

    def _must_wait(self, item: Item, before: Iterable[Item]) -> bool:
        """True where something that came `before` it must leave first, or has still to come."""
        if isinstance(item, Departed):
            return any(item.worker == self._from(other) for other in before)
        return any(item.link == getattr(other, "link", -1) for other in before) or (
            item.kind == wire.FRAME and self._receiver.overtakes(item)
        )

    def _from(self, item: Item) -> int | None:
        """The worker that a message came from, or that is dead."""
        return item.worker if isinstance(item, Departed) else self._receiver.sender_of(item.link)

    def _release(self) -> Item | None:
        """The first of those held that may leave now."""
        for i, item in enumerate(self._held):
            if not self._must_wait(item, self._held[:i]):
                del self._held[i]
                return self._handed_out(item)
        return None

    def _handed_out(self, item: Item) -> Item:
        if isinstance(item, Departed):
            self._buried(item)
        return item

    def _buried(self, departed: Departed) -> None:
        """What its successor has said meanwhile comes next."""
        self._dead[departed.worker] = departed.epoch
        mine = [item for sender, item in self._early if sender == departed.worker]
        self._early = [e for e in self._early if e[0] != departed.worker]
        self._backlog.extendleft(reversed(mine))

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
