"""One link as its sender sees it: which records are free, who reads, what may be sent again."""

from __future__ import annotations

from ovpipe.transport.ledger import INFLIGHT, L_TAKEN, R_STATE, RECORD_WORDS, LinkLedger
from ovpipe.transport.peers import Peer, Peers
from ovpipe.transport.plan import Link


class Outlet:
    """`free` and `used` records, the latter oldest first.

    `peer`: the receiver as it was when this link was last brought up to date with it.
    `messages`: of the used records that this process claimed, where the link keeps them.
    `ended`: the streams whose end was said.
    """

    def __init__(self, link: Link, ledger: LinkLedger, peers: Peers) -> None:
        self.link = link
        self.ledger = ledger
        self._peers = peers
        self.peer: Peer | None = None
        self.used = ledger.in_use(link.records)
        self.free = [r for r in range(link.records - 1, -1, -1) if r not in self.used]
        self.sent = ledger.words[ledger.base + L_TAKEN]
        self.messages: dict[int, bytes] = {}
        self.ended: list[int] = []

    def lost(self) -> bool:
        """True where the receiver is dead for good."""
        return self._peers[self.link.receiver].state == "gone"

    def here(self) -> bool:
        """True where the receiver lives, and is the one that this link is up to date with."""
        peer = self._peers[self.link.receiver]
        return peer is self.peer and peer.state == "here"

    def inflight(self, record: int) -> bool:
        """True where the receiver has not taken it yet."""
        at = self.ledger.records + record * RECORD_WORDS
        return self.ledger.words[at + R_STATE] & 0xFF == INFLIGHT
