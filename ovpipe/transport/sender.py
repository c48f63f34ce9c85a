"""The sending end of all links that leave one worker.

Law: a frame given to `publish` is claimed on every edge, once, and on each it ends as exactly
one outcome. An edge is one link, or one to each replica of the stage that reads: then the frame
goes to the one with the most credits. Its pixels stay in the slot they were written to; links carry
descriptors. With `block` nothing is lost and the caller waits; with `drop_oldest` the caller never
waits, and the oldest frame not taken yet (`shares`: of which stream) makes room, counted
`queue_full`; with `drop_newest` neither waits nor makes room: the new frame itself is refused,
counted the same.

While a receiver is away, waiting for its restart, frames for it are claimed and not sent; its
successor is sent all that are still INFLIGHT, in order, and the ends of streams behind them. A
successor of a sender takes over the records that it finds in use; it cannot send them again and
leaves them to the receiver, who knows what has arrived.

A receiver that lives in this process is called with each message, once it is claimed on every
edge that leads to others, and has done its work on it when the call returns. Meanwhile this worker
waits for it, and says so as in any wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
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
    L_TAKEN,
    L_WAKE,
    MAX_REFS,
    R_EPOCH,
    R_SINCE,
    R_STREAM,
    RECORD_WORDS,
    W_BEAT,
    W_BLOCKED_NS,
    W_FRAMES_OUT,
    W_STATE,
    W_WAITING,
)
from ovpipe.transport.look import Looks
from ovpipe.transport.outlet import Outlet
from ovpipe.transport.peers import Peers
from ovpipe.transport.plan import Link
from ovpipe.transport.pool import DTYPE_CODE, Pool
from ovpipe.transport.shared import SharedMemory
from ovpipe.transport.shares import Shares
from ovpipe.transport.slots import RequestPool, Slots
from ovpipe.transport.wire import (
    EOS,
    FRAME,
    NO_PTS,
    ArrayRef,
    Message,
    copied,
    encode_body,
    encode_eos,
    encode_frame,
)

_STALE_MESSAGES = 256
_WAIT_MS = 100
_LINGER_MS = 20
_QUEUE_FULL = CODE["queue_full"]
_LINK_LOST = CODE["link_lost"]
_LOST = CODE["lost_in_transit"]

Calls = Mapping[int, Callable[[Message], None]]
"""By worker: what takes the messages for a receiver that lives in this process."""


class Sender:
    """Loans, publishes, ends streams. One thread only.

    `downstream`: every link that a frame of this worker can travel on, upstream first.
    `pump(timeout_ms)`: called while waiting for a credit; returns after a message or the time.
    `peers`: frames for those that are gone end as `link_lost`. `epoch`: which process of its
    worker this is; `pools`: what the one before it had; `calls`: for links that are `by_call`.
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
        calls: Calls,
    ) -> None:
        self._shared = shared
        self._roots = roots
        self._inbox = inbox
        self._peers = peers
        self._epoch = epoch
        self._seen = -1  # the version of `peers` that the links are up to date with
        self._outlets = [Outlet(link, shared.link(link.index), peers) for link in links]
        edges = dict.fromkeys(link.edge for link in links)
        self._edges = [[o for o in self._outlets if o.link.edge == edge] for edge in edges]
        self._edges.sort(key=lambda edge: edge[0].link.by_call)  # others work meanwhile
        self._calls = calls
        below = [(shared.link(link.index), link.records) for link in downstream]
        self._slots = Slots(roots, below, request_pool, pools)
        self._pump = pump
        self._shares = Shares()
        self.looks = Looks()

    def loan(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A writable array in a free slot. Raises FrameError where dtype cannot travel."""
        return self._slots.loan(shape, dtype)

    def prepare(self) -> None:
        """While there is time: the slot that the next loan will need, if it is like the last."""
        self._slots.prepare()

    # -- frames -------------------------------------------------------------------------

    def publish(self, frame: Frame, stream: int) -> None:
        """Claim `frame` on every edge and send its descriptor.

        Raises FrameError where it cannot travel; then it was not claimed on any edge.
        """
        self._shared.words[self._shared.me + W_FRAMES_OUT] += 1
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
        keep, arrays = [], []  # what was copied into a slot just now lives until all links have it
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
            outlet, record = self._record(edge, stream)
            if record is None:
                outlet.ledger.refuse(stream, _LINK_LOST if outlet.lost() else _QUEUE_FULL)
                continue
            link = outlet.link
            if link.revocable:
                self._shared.tokens.reset(outlet.ledger.token(record))
                self._shares.sent(link.edge, stream)
            generation = outlet.ledger.claim(
                record, stream, frame.seq, refs, time.monotonic_ns(), self._epoch
            )
            outlet.used.append(record)
            if link.by_call:
                outlet.sent += 1
                pts_ns = NO_PTS if frame.pts_ns is None else frame.pts_ns
                self._call(
                    link,
                    Message(
                        FRAME, link.index, self._epoch, record, stream, generation, frame.seq,
                        pts_ns, frame.captured_ns, tuple(arrays), copied(meta),
                    ),
                )  # fmt: skip
                continue
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

    def room(self, stream: int, give_up: Callable[[], bool]) -> bool:
        """Wait until `publish` would not have to; False where `give_up` says so before that.

        Nothing is claimed, and a credit that was seen here stays until the next frame.
        """
        self.sync()
        for edge in self._edges:
            if edge[0].link.when_full == "block":
                outlet, record = self._record(edge, stream, give_up)
                if record is not None:
                    outlet.free.append(record)
                elif not all(o.lost() for o in edge):
                    return False
        return True

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
                if outlet.link.by_call:
                    link = outlet.link
                    self._call(
                        link, Message(EOS, link.index, self._epoch, 0, stream, 0, 0, 0, 0, (), {})
                    )
                    continue
                outlet.ended.append(stream)
                self._send(outlet, encode_eos(outlet.link.index, self._epoch, stream))

    def _call(self, link: Link, message: Message) -> None:
        self.lend(link.index, lambda: self._calls[link.receiver](message))

    def lend(self, link: int, work: Callable[[], None]) -> None:
        """Let the receiver of a link do some work on this thread; meanwhile this worker waits."""
        words, me = self._shared.words, self._shared.me
        wait = self._wait_begins()
        words[me + W_WAITING] = 1 + link
        try:
            work()
        finally:
            self._wait_ends(wait)

    def linger(self, give_up: Callable[[], bool] = lambda: False) -> None:
        """Stay until nobody may need to be sent anything again. All streams have ended."""
        while not give_up() and any(
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
            if peer is before or outlet.link.by_call:
                continue
            if before is not None:
                self._inbox.forget(before.endpoint)
            outlet.peer = peer
            if peer.state == "here":
                self._resend(outlet)

    def _resend(self, outlet: Outlet) -> None:
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

    def _send(self, outlet: Outlet, message: bytes) -> bool:
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

    def _record(
        self, edge: list[Outlet], stream: int, give_up: Callable[[], bool] = lambda: False
    ) -> tuple[Outlet, int | None]:
        """A free record on one of the links, waited for or made free as the edge's policy says.

        None where there is none to have: no room is made, all receivers are dead, or who waits
        gives up.
        """
        if len(edge) == 1 and edge[0].free and not edge[0].lost():
            return edge[0], edge[0].free.pop()
        alive = [outlet for outlet in edge if not outlet.lost()]
        if not alive:
            return edge[0], None
        found = self._free(alive)
        if found is not None:
            edge.remove(found[0])  # of those with as many credits, the others come first next time
            edge.append(found[0])
            return found
        match alive[0].link.when_full:
            case "block":
                return self._await(edge, give_up)
            case "drop_oldest":
                return self._revoke(alive, stream) or (alive[0], None)
            case "drop_newest":
                return alive[0], None

    @staticmethod
    def _free(alive: list[Outlet]) -> tuple[Outlet, int] | None:
        """A free record of whoever has the most, and is here."""
        for outlet in alive:
            outlet.free += outlet.ledger.collect(outlet.used)
        best = max(alive, key=lambda outlet: (bool(outlet.free), outlet.here(), len(outlet.free)))
        return (best, best.free.pop()) if best.free else None

    def _revoke(self, alive: list[Outlet], stream: int) -> tuple[Outlet, int] | None:
        """Drop a frame that was not taken yet, for one of `stream`; None where all are in work."""
        words = self._shared.words
        oldest = []
        for outlet in alive:
            ledger, most = outlet.ledger, outlet.link.records + _STALE_MESSAGES
            if outlet.sent - words[ledger.base + L_TAKEN] > most:
                continue  # the receiver does not even read: do not pile up messages either
            for record in outlet.used:
                at = ledger.records + record * RECORD_WORDS
                # What was claimed before this process came, the receiver ends.
                if words[at + R_EPOCH] == self._epoch and outlet.inflight(record):
                    whose = words[at + R_STREAM]
                    rank = self._shares.rank(outlet.link.edge, whose, stream), words[at + R_SINCE]
                    oldest.append((rank, record, whose, outlet))
        for _, record, whose, outlet in sorted(oldest, key=lambda found: found[0]):
            if outlet.inflight(record) and self._shared.tokens.take(outlet.ledger.token(record)):
                outlet.ledger.settle(record, _QUEUE_FULL)
                outlet.used.remove(record)
                self._shares.lost(outlet.link.edge, whose)
                return outlet, record
        return None

    def _await(self, edge: list[Outlet], give_up: Callable[[], bool]) -> tuple[Outlet, int | None]:
        wait = self._wait_begins()
        try:
            while (alive := [o for o in edge if not o.lost()]) and not give_up():
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

    def _wait_goes_on(self, outlet: Outlet) -> None:
        words, me = self._shared.words, self._shared.me
        words[me + W_WAITING] = 1 + outlet.link.index
        words[me + W_BEAT] += 1

    def _wait_ends(self, wait: tuple[int, int]) -> None:
        words, me, now = self._shared.words, self._shared.me, time.monotonic_ns()
        since, before = wait
        words[me + W_WAITING] = 0
        words[me + W_BLOCKED_NS] += now - since
        self._shared.set_state(before, now)
