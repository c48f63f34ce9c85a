"""Whose result goes out next: the order of streams among the replicas of one stage.

Each replica keeps what a frame gave until all frames of its stream that were claimed before it, on
the same edge, have been passed on by whoever has them. So results leave in the order in which the
frames came, and a receiver has little to sort (mail.py).

Law: the ledger alone says whose turn it is. The oldest frame of a stream never waits, and what a
dead replica had is no frame any more: so somebody always gets on. Where a replica has results that
wait it says so, in W_TURN; whoever passes a frame on wakes those.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ovpipe.transport.inbox import Inbox
from ovpipe.transport.ledger import W_TURN, LinkLedger
from ovpipe.transport.peers import Peers
from ovpipe.transport.plan import Link
from ovpipe.transport.shared import SharedMemory
from ovpipe.transport.wire import Message


@dataclass(frozen=True, slots=True)
class Turn:
    """The place of one frame: its record, and when it was claimed."""

    edge: int
    stream: int
    since_ns: float
    ledger: LinkLedger | None = None
    record: int = 0
    generation: int = 0


class Turns:
    """The turns of one replica. `links`: those into all replicas of its stage. One thread only."""

    def __init__(
        self, shared: SharedMemory, inbox: Inbox, peers: Peers, links: Sequence[Link]
    ) -> None:
        self._words = shared.words
        self._mine = shared.me + W_TURN
        self._inbox = inbox
        self._peers = peers
        self._edge_of = {link.index: link.edge for link in links}
        self._edges: dict[int, list[tuple[LinkLedger, int]]] = {}
        for link in links:
            way = shared.link(link.index), link.records
            self._edges.setdefault(link.edge, []).append(way)
        others = {link.receiver for link in links} - {shared.worker}
        self._others = [(worker, shared.layout.worker(worker) + W_TURN) for worker in others]

    def of(self, message: Message, ledger: LinkLedger) -> Turn:
        """The turn of a frame that was just taken."""
        since = ledger.since(message.record)
        edge = self._edge_of[message.link]
        return Turn(edge, message.stream, since, ledger, message.record, message.generation)

    def last(self, stream: int) -> list[Turn]:
        """The turns of a stream's end: behind all of its frames."""
        return [Turn(edge, stream, math.inf) for edge in self._edges]

    def has_come(self, turn: Turn) -> bool:
        """True where no frame that comes before it is on its way."""
        return not any(
            ledger.waits_before(records, turn.stream, turn.since_ns, False)
            for ledger, records in self._edges[turn.edge]
        )

    def waiting(self, waits: bool) -> None:
        """Say whether results of ours wait, before looking whether they still must."""
        self._words[self._mine] = waits

    def pass_on(self, turn: Turn | None = None) -> None:
        """What a frame gave is sent, or a frame ended in another way: others may go on."""
        if turn is not None and turn.ledger is not None:
            turn.ledger.pass_on(turn.record, turn.generation)
        for worker, waits in self._others:
            peer = self._peers[worker]
            if self._words[waits] and peer.state == "here":
                self._words[waits] = 0
                self._inbox.wake(peer.endpoint)
