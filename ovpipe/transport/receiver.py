"""The receiving end of all links that enter one worker.

Law: each message that names a frame of ours is answered by exactly one outcome in the ledger:
the stage's own when it is done, `stale` where the frame is older than the edge allows,
`malformed` where it cannot be read. A message that names a frame which is no longer the one
meant (it was dropped in favour of a newer one) is passed over: its sender has counted it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ovpipe.detections import Detections
from ovpipe.errors import WireError
from ovpipe.frame import Frame
from ovpipe.image import Image
from ovpipe.transport.inbox import Inbox
from ovpipe.transport.lease import Lease, Roots
from ovpipe.transport.ledger import (
    CODE,
    L_TAKEN,
    W_AGE_NS,
    W_FRAMES_IN,
    W_MALFORMED,
    W_WAITING,
    LinkLedger,
)
from ovpipe.transport.plan import Link
from ovpipe.transport.shared import SharedMemory
from ovpipe.transport.wire import EOS, NO_PTS, Message

_STALE = CODE["stale"]
_MALFORMED = CODE["malformed"]


class _Inlet:
    def __init__(self, link: Link, ledger: LinkLedger, sender_block: int, sender: str) -> None:
        self.link = link
        self.ledger = ledger
        self.waiting = sender_block + W_WAITING
        self.sender = sender
        self.open = set(link.streams)


class Receiver:
    """Turns messages into frames with leases, and tells when streams have ended.

    `streams`: names by index. `endpoints`: the ZeroMQ address of every worker.
    """

    def __init__(
        self,
        shared: SharedMemory,
        roots: Roots,
        inbox: Inbox,
        links: Sequence[Link],
        streams: Sequence[str],
        endpoints: Sequence[str],
    ) -> None:
        self._shared = shared
        self._roots = roots
        self._inbox = inbox
        self._streams = streams
        self._inlets = {
            link.index: _Inlet(
                link,
                shared.link(link.index),
                shared.layout.worker(link.sender),
                endpoints[link.sender],
            )
            for link in links
        }

    @property
    def finished(self) -> bool:
        """True when every stream of every link has ended."""
        return not any(inlet.open for inlet in self._inlets.values())

    def ended(self, message: Message) -> bool:
        """Note an EOS; True where it was the last one of its stream on any link."""
        inlet = self._inlets.get(message.link)
        if inlet is None or message.stream not in inlet.open:
            self.count_malformed()
            return False
        inlet.open.discard(message.stream)
        return not any(message.stream in other.open for other in self._inlets.values())

    def eos_of(self, worker: int) -> list[Message]:
        """The ends of stream that a dead sender can no longer send."""
        return [
            Message(EOS, inlet.link.index, 0, 0, stream, 0, 0, 0, 0, (), {})
            for inlet in self._inlets.values()
            if inlet.link.sender == worker
            for stream in sorted(inlet.open)
        ]

    def count_malformed(self) -> None:
        """Count a message that is none of ours: it belongs to no frame."""
        self._shared.words[self._shared.me + W_MALFORMED] += 1

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
            self.count_malformed()
            return None
        now = time.monotonic_ns()
        age = now - message.captured_ns
        if link.max_age_ns and age > link.max_age_ns:
            self._finish(inlet, record, generation, _STALE)
            return None
        ledger.hold(record, generation)
        words[self._shared.me + W_FRAMES_IN] += 1
        words[self._shared.me + W_AGE_NS] = max(age, 0)
        lease = Lease(
            lambda outcome: self._finish(inlet, record, generation, outcome), len(message.arrays)
        )
        try:
            return self._frame(message, lease), lease
        except WireError:
            self._finish(inlet, record, generation, _MALFORMED)
            return None

    def _frame(self, message: Message, lease: Lease) -> Frame:
        arrays: dict[str, Any] = {}
        for ref in message.arrays:
            root = self._shared.pool(ref.pool).view(ref.slot, ref.dtype, ref.shape)
            root.flags.writeable = False
            arrays[ref.name] = root.reshape(ref.shape)
            self._roots.add(root, ref.pool, ref.slot, lease.view_died)
        meta = message.meta
        try:
            image = None
            if "i" in meta:
                form, matrix, full_range = meta["i"]
                image = Image(arrays.pop("image"), form, matrix, bool(full_range))
            detections = Detections.from_wire(meta["d"]) if "d" in meta else None
        except (KeyError, TypeError, ValueError) as error:
            raise WireError("meta", str(error)) from None
        return Frame(
            image=image,
            arrays=arrays,
            detections=detections,
            meta=meta.get("m", {}),
            stream=self._streams[message.stream],
            seq=message.seq,
            pts_ns=None if message.pts_ns == NO_PTS else message.pts_ns,
            captured_ns=message.captured_ns,
        )

    def _finish(self, inlet: _Inlet, record: int, generation: int, outcome: int) -> None:
        inlet.ledger.finish(record, generation, outcome)
        words = self._shared.words
        if words[inlet.waiting]:
            words[inlet.waiting] = 0  # one wake-up is enough; the waiting one says it again
            self._inbox.wake(inlet.sender)
