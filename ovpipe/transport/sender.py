"""The sending end of all links that leave one worker.

Law: a frame given to `publish` is claimed on every edge, once, and on each it ends as exactly
one outcome. An edge is one link, or one to each replica of the stage that reads: then the frame
goes to the one with the most credits. Its pixels stay in the slot they were written to; links carry
descriptors. With `block` nothing is lost and the caller waits; with `drop_oldest` the caller never
waits, and the oldest frame that no receiver has taken yet makes room, counted `queue_full`; with
`drop_newest` neither waits nor makes room: the new frame itself is refused, counted the same.

A slot is free when no record of any link downstream, however many hops away, refers to it and
no array of this process lies in it. That is read from the ledger when a slot is needed: no
message, no count that a dead process could have left wrong. Links are read from upstream to
downstream, and a forwarding worker claims on its outputs before it finishes its input, so a
frame that moves while it is looked for is seen at least once.

Pools are never given back, and one serves all sizes down to half its slots'. The first few are
made as large as asked, further ones for other sizes are powers of two: so a source that keeps
changing its size needs memory by its largest frames, not by how many sizes it has had.

While a receiver is away, waiting for its restart, frames for it are claimed and not sent; its
successor is sent all that are still INFLIGHT, in order, and the ends of streams behind them. A
successor of a sender takes over the records that it finds in use; it cannot send them again and
leaves them to the receiver, who knows what has arrived.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ovpipe.errors import FrameError
from ovpipe.frame import Frame
from ovpipe.transport.inbox import Inbox
from ovpipe.transport.lease import Roots
from ovpipe.transport.ledger import (
    BLOCKED_OUT,
    CODE,
    INFLIGHT,
    L_TAKEN,
    L_WAKE,
    MAX_REFS,
    R_EPOCH,
    R_SINCE,
    R_STATE,
    RECORD_WORDS,
    W_BEAT,
    W_BLOCKED_NS,
    W_FRAMES_OUT,
    W_STATE,
    W_WAITING,
    LinkLedger,
)
from ovpipe.transport.look import Looks
from ovpipe.transport.peers import Peer, Peers
from ovpipe.transport.plan import Link
from ovpipe.transport.pool import DTYPE_CODE, Pool, slot_size
from ovpipe.transport.shared import SharedMemory
from ovpipe.transport.wire import ArrayRef, encode_body, encode_eos, encode_frame

_FIRST_SLOTS = 8
_EXACT_POOLS = 4
_SHARE_BELOW = 1 << 16
_STALE_MESSAGES = 256
_WAIT_MS = 100
_LINGER_MS = 20
_QUEUE_FULL = CODE["queue_full"]
_LINK_LOST = CODE["link_lost"]
_LOST = CODE["lost_in_transit"]

RequestPool = Callable[[int, int], Pool]
"""(slots, slot_bytes) -> a new pool of this worker, mapped for writing."""


class _Outlet:
    """One link as its sender sees it: `free` and `used` records, the latter oldest first.

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


def _fits(pool: Pool, size: int) -> bool:
    return size <= pool.slot_bytes <= max(2 * size, _SHARE_BELOW)


class Sender:
    """Loans, publishes, ends streams. One thread only.

    `downstream`: every link that a frame of this worker can travel on, upstream first.
    `pump(timeout_ms)`: called while waiting for a credit; returns after a message or the time.
    `peers`: frames for those that are gone end as `link_lost`. `epoch`: which process of its
    worker this is; `pools`: what the one before it had.
    """

    def __init__(
        self,
        shared: SharedMemory,
        roots: Roots,
        inbox: Inbox,
        links: Sequence[Link],
        downstream: Sequence[Link],
        request_pool: RequestPool,
        pump: Callable[[int], None],
        peers: Peers,
        epoch: int,
        pools: Sequence[Pool],
    ) -> None:
        self._shared = shared
        self._roots = roots
        self._inbox = inbox
        self._peers = peers
        self._epoch = epoch
        self._seen = -1  # the version of `peers` that the links are up to date with
        self._outlets = [_Outlet(link, shared.link(link.index), peers) for link in links]
        edges = dict.fromkeys(link.edge for link in links)
        self._edges = [[o for o in self._outlets if o.link.edge == edge] for edge in edges]
        self._downstream = [(shared.link(link.index), link.records) for link in downstream]
        self._request_pool = request_pool
        self._pump = pump
        self._pools = list(pools)
        self._held: set[int] = set()  # refs of slots in which an array of ours is alive
        self._like: tuple[tuple[int, ...], DTypeLike] | None = None  # the last loan
        self._spare: NDArray[Any] | None = None  # the next one, if it is like that
        self.looks = Looks()

    # -- slots --------------------------------------------------------------------------

    def loan(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A writable array in a free slot. Raises FrameError where dtype cannot travel."""
        if np.dtype(dtype) not in DTYPE_CODE:
            raise FrameError(f"arrays of dtype {np.dtype(dtype)} cannot be sent", "malformed")
        like, spare = (shape, dtype), self._spare
        self._spare = None
        if spare is not None and like == self._like:
            return spare
        del spare
        self._like = like
        nbytes = prod(shape) * np.dtype(dtype).itemsize
        return self._array(*(self._free_slot(nbytes) or self._more(nbytes)), shape, dtype)

    def prepare(self) -> None:
        """While there is time: the slot that the next loan will need, if it is like the last."""
        if self._like is not None and self._spare is None:
            shape, dtype = self._like
            place = self._free_slot(prod(shape) * np.dtype(dtype).itemsize)
            if place is not None:
                self._spare = self._array(*place, shape, dtype)

    def _array(
        self, pool: Pool, slot: int, shape: tuple[int, ...], dtype: DTypeLike
    ) -> NDArray[Any]:
        root = pool.view(slot, DTYPE_CODE[np.dtype(dtype)], shape)
        ref = pool.number << 32 | slot
        self._held.add(ref)
        self._roots.add(root, pool.number, slot, lambda: self._held.discard(ref))
        return root.reshape(shape)

    def _free_slot(self, nbytes: int) -> tuple[Pool, int] | None:
        size = slot_size(nbytes)
        busy = set(self._held)
        for ledger, records in self._downstream:
            busy.update(ledger.live_refs(records))
        for pool in self._pools:
            if _fits(pool, size):
                for slot in range(pool.slots):
                    if pool.number << 32 | slot not in busy:
                        return pool, slot
        return None

    def _more(self, nbytes: int) -> tuple[Pool, int]:
        """Every slot is in somebody's hands. Records bound how many can be, so this ends."""
        size = slot_size(nbytes)
        slots = sum(pool.slots for pool in self._pools if _fits(pool, size))
        if not slots and len(self._pools) >= _EXACT_POOLS:
            size = slot_size(1 << (size - 1).bit_length())
        pool = self._request_pool(max(slots, _FIRST_SLOTS), size)
        self._pools.append(pool)
        return pool, 0

    # -- frames -------------------------------------------------------------------------

    def publish(self, frame: Frame, stream: int) -> None:
        """Claim `frame` on every edge and send its descriptor.

        Raises FrameError where it cannot travel; then it was not claimed on any edge.
        """
        words, me = self._shared.words, self._shared.me
        words[me + W_FRAMES_OUT] += 1
        if not self._outlets:
            return
        self.sync()
        named = dict(frame.arrays)
        meta: dict[str, Any] = {}
        if frame.meta:
            meta["m"] = dict(frame.meta)
        if frame.image is not None:
            image = frame.image
            named["image"] = image.data
            meta["i"] = [image.format, image.matrix, image.full_range]
        if frame.detections is not None:
            meta["d"] = frame.detections.to_wire()
        if len(named) > MAX_REFS:
            raise FrameError(f"a frame carries at most {MAX_REFS} arrays, not {len(named)}")
        keep = []  # arrays that were copied into a slot just now live until all links have them
        arrays = []
        for name, array in named.items():
            place = self._roots.find(array)
            if place is None:
                copy = self.loan(array.shape, array.dtype)
                np.copyto(copy, array)
                keep.append(copy)
                place = self._roots.find(copy)
                assert place is not None
            elif array.flags.writeable:
                array.flags.writeable = False  # published pixels do not change any more
            arrays.append(ArrayRef(name, *place, DTYPE_CODE[array.dtype], array.shape))
        body = encode_body(arrays, meta)
        if self.looks.wanted:
            self.looks.show(frame, stream, named, meta)
        refs = [a.pool << 32 | a.slot for a in arrays]
        for edge in self._edges:
            outlet, record = self._record(edge)
            if record is None:
                outlet.ledger.refuse(stream, _LINK_LOST if outlet.lost() else _QUEUE_FULL)
                continue
            link = outlet.link
            if link.revocable:
                self._shared.tokens.reset(outlet.ledger.token(record))
            generation = outlet.ledger.claim(
                record, stream, frame.seq, refs, time.monotonic_ns(), self._epoch
            )
            outlet.used.append(record)
            message = encode_frame(
                body,
                len(arrays),
                link=link.index,
                epoch=self._epoch,
                record=record,
                stream=stream,
                generation=generation,
                seq=frame.seq,
                pts_ns=frame.pts_ns,
                captured_ns=frame.captured_ns,
            )
            if link.resend:
                outlet.messages[record] = message
            if self._send(outlet, message):
                outlet.sent += 1
            elif outlet.lost() or outlet.here() or not link.resend:
                outlet.ledger.finish(record, generation, _LOST)

    def count_failed(self, stream: int, outcome: int, frames: int = 1) -> None:
        """Account on every edge for frames that never became ones."""
        for edge in self._edges:
            for _ in range(frames):
                edge[0].ledger.refuse(stream, outcome)

    def end_of_stream(self, stream: int) -> None:
        """Tell every link that `stream` has ended; needs no credit, travels behind its frames."""
        self.sync()
        for outlet in self._outlets:
            if stream in outlet.link.streams:
                outlet.ended.append(stream)
                self._send(outlet, encode_eos(outlet.link.index, self._epoch, stream))

    def linger(self) -> None:
        """Stay until nobody may need to be sent anything again. All streams have ended."""
        while any(
            outlet.link.resend and not outlet.lost() and any(map(outlet.inflight, outlet.used))
            for outlet in self._outlets
        ):
            self.sync()
            self._pump(_LINGER_MS)

    # -- receivers that die and come back ------------------------------------------------

    def sync(self) -> None:
        """Bring the links up to date with what is known of their receivers."""
        if self._seen == self._peers.version:
            return
        self._seen = self._peers.version  # first: what changes from now on is a change
        for outlet in self._outlets:
            peer, before = self._peers[outlet.link.receiver], outlet.peer
            if peer is before:
                continue
            if before is not None:
                self._inbox.forget(before.endpoint)
            outlet.peer = peer
            if peer.state == "here":
                self._resend(outlet)

    def _resend(self, outlet: _Outlet) -> None:
        """Send a new receiver all that is not taken, and all ends of streams."""
        link, ledger = outlet.link, outlet.ledger
        outlet.sent = self._shared.words[ledger.base + L_TAKEN]
        messages = [
            (record, outlet.messages[record])
            for record in outlet.used
            if record in outlet.messages and outlet.inflight(record)
        ]
        messages += [(-1, encode_eos(link.index, self._epoch, stream)) for stream in outlet.ended]
        for record, message in messages:
            if link.revocable and record >= 0:
                # The dead one may have had it; nobody else asks before this message is there.
                self._shared.tokens.reset(ledger.token(record))
                outlet.sent += 1
            if not self._send(outlet, message):
                outlet.peer, self._seen = None, -1  # again, from the first
                return

    def _send(self, outlet: _Outlet, message: bytes) -> bool:
        """Send where the receiver lives; False where it does not, or cannot be reached."""
        if not outlet.here() or outlet.peer is None:
            return False
        waited: list[tuple[int, int]] = []

        def gone() -> bool:  # asked only while the receiver does not answer: that is a wait
            if not waited:
                waited.append(self._wait_begins())
            self._wait_goes_on(outlet)
            return not outlet.here()

        try:
            return self._inbox.send(outlet.peer.endpoint, message, gone)
        finally:
            if waited:
                self._wait_ends(waited[0])

    # -- credits ------------------------------------------------------------------------

    def _record(self, edge: list[_Outlet]) -> tuple[_Outlet, int | None]:
        """A free record on one of the links, waited for or made free as the edge's policy says.

        None where there is none to have: no room is made, or all receivers are dead.
        """
        only = edge[0]
        if len(edge) == 1 and only.free and not only.lost():
            return only, only.free.pop()
        alive = [outlet for outlet in edge if not outlet.lost()]
        if not alive:
            return only, None
        found = self._free(alive)
        if found is not None:
            edge.remove(found[0])  # of those with as many credits, the others come first next time
            edge.append(found[0])
            return found
        match alive[0].link.when_full:
            case "block":
                return self._await(edge)
            case "drop_oldest":
                return self._revoke(alive) or (alive[0], None)
            case "drop_newest":
                return alive[0], None

    @staticmethod
    def _free(alive: list[_Outlet]) -> tuple[_Outlet, int] | None:
        """A free record of whoever has the most, and is here."""
        for outlet in alive:
            outlet.free += outlet.ledger.collect(outlet.used)
        best = max(alive, key=lambda outlet: (bool(outlet.free), outlet.here(), len(outlet.free)))
        return (best, best.free.pop()) if best.free else None

    def _revoke(self, alive: list[_Outlet]) -> tuple[_Outlet, int] | None:
        """Drop the oldest frame that was not taken yet; None where all are in work."""
        words = self._shared.words
        oldest = []
        for outlet in alive:
            ledger = outlet.ledger
            if outlet.sent - words[ledger.base + L_TAKEN] > outlet.link.records + _STALE_MESSAGES:
                continue  # the receiver does not even read: do not pile up messages either
            for record in outlet.used:
                at = ledger.records + record * RECORD_WORDS
                # What was claimed before this process came, the receiver ends.
                if words[at + R_EPOCH] == self._epoch and outlet.inflight(record):
                    oldest.append((words[at + R_SINCE], record, outlet))
        for _, record, outlet in sorted(oldest, key=lambda found: found[0]):
            ledger = outlet.ledger
            if outlet.inflight(record) and self._shared.tokens.take(ledger.token(record)):
                ledger.settle(record, _QUEUE_FULL)
                outlet.used.remove(record)
                return outlet, record
        return None

    def _await(self, edge: list[_Outlet]) -> tuple[_Outlet, int | None]:
        wait = self._wait_begins()
        try:
            while alive := [outlet for outlet in edge if not outlet.lost()]:
                self._wait_goes_on(alive[0])  # said first, looked after: no wake-up is missed
                for outlet in alive:
                    self._shared.words[outlet.ledger.base + L_WAKE] = outlet.link.wake_after
                self.sync()
                found = self._free(alive)
                if found is not None:
                    return found
                self._pump(_WAIT_MS)
            return edge[0], None
        finally:
            for outlet in edge:
                self._shared.words[outlet.ledger.base + L_WAKE] = 0
            self._wait_ends(wait)

    def _wait_begins(self) -> tuple[int, int]:
        """Since when, and what it interrupts."""
        words, me, since = self._shared.words, self._shared.me, time.monotonic_ns()
        before = words[me + W_STATE]
        self._shared.set_state(BLOCKED_OUT, since)
        return since, before

    def _wait_goes_on(self, outlet: _Outlet) -> None:
        words, me = self._shared.words, self._shared.me
        words[me + W_WAITING] = 1 + outlet.link.index
        words[me + W_BEAT] += 1

    def _wait_ends(self, wait: tuple[int, int]) -> None:
        words, me, now = self._shared.words, self._shared.me, time.monotonic_ns()
        since, before = wait
        words[me + W_WAITING] = 0
        words[me + W_BLOCKED_NS] += now - since
        self._shared.set_state(before, now)
