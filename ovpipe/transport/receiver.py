"""The receiving end of all links that enter one worker.

Law: each message that names a frame of ours is answered by exactly one outcome in the ledger:
the stage's own when it is done, `stale` where the frame is older than the edge allows,
`malformed` where it cannot be read. A message that names a frame which is no longer the one
meant (it was dropped in favour of a newer one) is passed over: its sender has counted it.
What a dead sender had on its way and did not arrive is lost_in_transit, told by its epoch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ovpipe.errors import WireError
from ovpipe.frame import Frame
from ovpipe.transport.ages import bucket
from ovpipe.transport.inbox import Inbox
from ovpipe.transport.lease import Lease, Roots
from ovpipe.transport.ledger import (
    CODE,
    L_TAKEN,
    L_WAKE,
    W_AGE_NS,
    W_FRAMES_IN,
    W_MALFORMED,
    LinkLedger,
)
from ovpipe.transport.peers import Departed, Peers
from ovpipe.transport.plan import Link
from ovpipe.transport.shared import SharedMemory
from ovpipe.transport.unpack import frame_of
from ovpipe.transport.wire import Message

_STALE = CODE["stale"]
_MALFORMED = CODE["malformed"]
_LOST = CODE["lost_in_transit"]
# What the arrays, image, detections and frame of a message raise where it lies about them.
_MALFORMED_ERRORS = (WireError, KeyError, TypeError, ValueError, OverflowError)


class _Inlet:
    def __init__(self, link: Link, ledger: LinkLedger) -> None:
        self.link = link
        self.ledger = ledger
        self.wake = ledger.base + L_WAKE
        self.rivals: list[_Inlet] = []  # other ways by which frames of the same streams come
        self.open = {stream for stream in link.streams if not ledger.has_ended(stream)}


class Receiver:
    """Turns messages into frames with leases, and tells when streams have ended.

    `streams`: names by index. What a receiver before this one was through with stays so.
    """

    def __init__(
        self,
        shared: SharedMemory,
        roots: Roots,
        inbox: Inbox,
        links: Sequence[Link],
        streams: Sequence[str],
        peers: Peers,
    ) -> None:
        self._shared = shared
        self._peers = peers
        self._roots = roots
        self._inbox = inbox
        self._streams = streams
        self.owes = False  # a sender waits, and was not woken for the last frame that ended
        self._inlets = {link.index: _Inlet(link, shared.link(link.index)) for link in links}
        for inlet in self._inlets.values():
            inlet.rivals = [
                other
                for other in self._inlets.values()
                if other is not inlet
                and other.link.edge == inlet.link.edge
                and set(other.link.streams) & set(inlet.link.streams)
            ]

        self.merges = any(inlet.rivals for inlet in self._inlets.values())
        entering = [inlet.link for inlet in self._inlets.values()]
        live = all(link.revocable for link in entering)
        self.shared_out = (
            sum(len(link.streams) for link in entering) > 1 and live and not self.merges
        )
        """Whether streams that wait take turns: with `block`, credits see to that."""

    @property
    def links(self) -> list[int]:
        """The links that lead here."""
        return list(self._inlets)

    @property
    def finished(self) -> bool:
        """True when every stream of every link has ended."""
        return not any(inlet.open for inlet in self._inlets.values())

    @property
    def over(self) -> list[int]:
        """The streams that had ended on every link before this receiver came."""
        streams = {s for inlet in self._inlets.values() for s in inlet.link.streams}
        return [s for s in sorted(streams) if self._all_ended(s)]

    def _all_ended(self, stream: int) -> bool:
        return not any(stream in inlet.open for inlet in self._inlets.values())

    def ended(self, message: Message) -> list[int]:
        """Note an EOS; its stream, where it was the last one of it on any link."""
        inlet, stream = self._inlets.get(message.link), message.stream
        if inlet is None or stream not in inlet.link.streams:
            self.count_malformed()
        elif stream in inlet.open:
            inlet.open.discard(stream)
            return [stream] if self._all_ended(stream) else []
        elif self._speaks(inlet, message.epoch) and not message.epoch:
            self.count_malformed()  # said twice; a successor may repeat what was said before it
        return []

    def overtakes(self, message: Message) -> bool:
        """True where a frame that another replica sent before this one has still to be read.

        Replicas send in turn, but by different connections. Who waits for what this tells of
        waits for a moment: that frame is claimed, so it has been sent, or its sender has died.
        """
        inlet = self._inlets.get(message.link)
        if inlet is None or not inlet.rivals or message.record >= inlet.link.records:
            return False
        if not inlet.ledger.is_inflight(message.record, message.generation):
            return False
        since = inlet.ledger.since(message.record)
        return any(
            other.ledger.waits_before(other.link.records, message.stream, since, True)
            for other in inlet.rivals
        )

    def ledger(self, link: int) -> LinkLedger:
        """The block of a link that leads here."""
        return self._inlets[link].ledger

    def sender_of(self, link: int) -> int | None:
        """The worker at the other end of a link; None where it does not lead here."""
        inlet = self._inlets.get(link)
        return None if inlet is None else inlet.link.sender

    def bury(self, departed: Departed) -> list[int]:
        """Settle what a dead sender can no longer send; the streams that end with that."""
        self._inbox.forget(departed.endpoint)
        ends = []
        for inlet in self._inlets.values():
            if inlet.link.sender == departed.worker:
                inlet.ledger.lose(inlet.link.records, departed.epoch, _LOST)
                if not departed.returns:
                    ends += sorted(inlet.open)
                    inlet.open.clear()
        return [stream for stream in ends if self._all_ended(stream)]

    def close_stream(self, stream: int) -> None:
        """Its end has been dealt with: a successor of ours need not do that again."""
        for inlet in self._inlets.values():
            if stream in inlet.link.streams:
                inlet.ledger.set_ended(stream)

    def _speaks(self, inlet: _Inlet, epoch: int) -> bool:
        """True where the sender's process of that epoch is the one that lives."""
        peer = self._peers[inlet.link.sender]
        return peer.state == "here" and peer.epoch == epoch

    def count_malformed(self) -> None:
        """Count a message that is none of ours: it belongs to no frame."""
        self._shared.words[self._shared.me + W_MALFORMED] += 1

    def passes_over(self, message: Message) -> bool:
        """True where its frame was dropped in favour of a newer one: it is done with."""
        inlet = self._inlets.get(message.link)
        if inlet is None or message.record >= inlet.link.records or not inlet.link.revocable:
            return False  # whoever takes it says what is wrong with it
        if inlet.ledger.is_inflight(message.record, message.generation):
            return False
        self._shared.words[inlet.ledger.base + L_TAKEN] += 1
        return True

    def take(self, message: Message) -> tuple[Frame, Lease] | None:
        """The frame that a FRAME message names, held for us; None where there is none to have."""
        inlet = self._inlets.get(message.link)
        if (
            inlet is None
            or message.record >= inlet.link.records
            or message.stream >= len(self._streams)
        ):
            self.count_malformed()
            return None
        words, ledger, link = self._shared.words, inlet.ledger, inlet.link
        record, generation = message.record, message.generation
        if link.revocable:
            words[ledger.base + L_TAKEN] += 1
            if not ledger.is_inflight(record, generation):
                return None
            token = ledger.token(record)
            if not self._shared.tokens.take(token):
                return None
            if not ledger.is_inflight(record, generation):  # a newer frame's token, not ours
                self._shared.tokens.give_back(token)
                return None
        elif not ledger.is_inflight(record, generation):
            if self._speaks(inlet, message.epoch):
                self.count_malformed()
            return None
        now = time.monotonic_ns()
        age = now - message.captured_ns
        if link.max_age_ns and age > link.max_age_ns:
            self._finish(inlet, record, generation, _STALE)
            return None
        ledger.hold(record, generation)
        words[self._shared.me + W_FRAMES_IN] += 1
        words[self._shared.me + W_AGE_NS] = age = max(age, 0)
        ledger.count_age(message.stream, bucket(age))
        lease = Lease(
            lambda outcome: self._finish(inlet, record, generation, outcome), len(message.arrays)
        )
        try:
            return self._frame(message, lease, link.source), lease
        except _MALFORMED_ERRORS:
            self._finish(inlet, record, generation, _MALFORMED)
            return None

    def _frame(self, message: Message, lease: Lease, source: str) -> Frame:
        arrays: dict[str, Any] = {}
        for ref in message.arrays:
            root = self._shared.pool(ref.pool).view(ref.slot, ref.dtype, ref.shape)
            root.flags.writeable = False
            arrays[ref.name] = root.reshape(ref.shape)
            self._roots.add(root, ref.pool, ref.slot, lease.view_died)
        return frame_of(message, arrays, self._streams[message.stream], source)

    def _finish(self, inlet: _Inlet, record: int, generation: int, outcome: int) -> None:
        inlet.ledger.finish(record, generation, outcome)
        words = self._shared.words
        left = words[inlet.wake]
        if left == 1:
            self._wake(inlet)
        elif left:
            words[inlet.wake] = left - 1
            self.owes = True

    def pay(self) -> None:
        """Wake every sender that waits, and for which a frame has ended since it does.

        To be called before waiting for frames: nobody else would wake them.
        """
        self.owes = False
        for inlet in self._inlets.values():
            if 0 < self._shared.words[inlet.wake] < inlet.link.wake_after:
                self._wake(inlet)

    def _wake(self, inlet: _Inlet) -> None:
        self._shared.words[inlet.wake] = 0  # once is enough; a sender that waits on says it again
        peer = self._peers[inlet.link.sender]
        if peer.state == "here":
            self._inbox.wake(peer.endpoint)
