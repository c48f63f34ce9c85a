"""The inbox: the one ZeroMQ socket a worker waits on, and the sockets that reach others.

Everything that a worker may wait for arrives here in order: frames and ends of streams from
upstream, wake-ups from downstream, and nudges from other threads of its own process (a
completed inference, a control message). So there is one blocking call, and no poller.

Law: only the worker's own thread receives. `nudge` and `send` may be called from any thread.
Nothing here blocks without a time limit.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import zmq

from ovpipe.transport.wire import WAKE_MESSAGE

NUDGE = b""
_LINGER_MS = 5_000
_SEND_SLICE_MS = 50
_SEND_TRIES = 100


class Inbox:
    """A bound PULL socket and a PUSH socket per peer, made when first used."""

    def __init__(self, address: str) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._pull = self.context.socket(zmq.PULL)
        # Credits bound what is in flight; a high-water mark would only add a second, leaky bound.
        self._pull.set(zmq.RCVHWM, 0)
        self._pull.bind(address)
        self._pull.bind("inproc://nudge")
        self._lock = threading.Lock()
        self._nudge = self._push("inproc://nudge")
        self._peers: dict[str, zmq.Socket[bytes]] = {}
        self._timeout_ms = -2
        self._nudged = False
        self._asleep = False

    def _push(self, address: str) -> zmq.Socket[bytes]:
        push = self.context.socket(zmq.PUSH)
        push.set(zmq.SNDHWM, 0)
        push.set(zmq.IMMEDIATE, 1)
        push.set(zmq.LINGER, _LINGER_MS)
        push.set(zmq.SNDTIMEO, _SEND_SLICE_MS)
        push.connect(address)
        return push

    def receive(self, timeout_ms: int) -> bytes | None:
        """The next message; NUDGE for a nudge; None after `timeout_ms` without any."""
        if timeout_ms != self._timeout_ms:
            self._pull.set(zmq.RCVTIMEO, timeout_ms)
            self._timeout_ms = timeout_ms
        data: bytes | None = None
        self._asleep = True  # said before looking, as nudge() says before it looks
        if self._nudged:
            data = NUDGE
        else:
            try:
                data = self._pull.recv()
            except zmq.Again:
                pass
        self._asleep = False
        if data == NUDGE:  # whoever gets it looks at everything: it stands for all until now
            self._nudged = False
        return data

    def nudge(self) -> None:
        """Make the worker's thread look around; costs next to nothing while it is awake."""
        self._nudged = True
        if self._asleep:
            with self._lock, contextlib.suppress(zmq.ZMQError):
                self._nudge.send(NUDGE, zmq.NOBLOCK)

    def send(
        self, address: str, message: bytes, gone: Callable[[], bool], tries: int = _SEND_TRIES
    ) -> bool:
        """Send to a peer's inbox; False where it cannot be reached, or is `gone` meanwhile.

        `gone` is asked again and again while the peer does not answer.
        """
        for _ in range(tries):
            with self._lock:
                peer = self._peers.get(address)
                if peer is None:
                    peer = self._peers[address] = self._push(address)
                try:
                    peer.send(message)
                    return True
                except zmq.Again:  # not connected: not yet, or not any more
                    pass
                except zmq.ZMQError:
                    return False
            if gone():
                return False
        return False

    def forget(self, address: str) -> None:
        """A peer is dead: what was not delivered to it never will be."""
        with self._lock:
            peer = self._peers.pop(address, None)
            if peer is not None:
                peer.close(linger=0)

    def wake(self, address: str) -> None:
        """Tell a waiting sender to look for credits again; it does so by itself, a little later."""
        self.send(address, WAKE_MESSAGE, lambda: False, tries=1)

    def close(self) -> None:
        """Deliver what was sent (bounded by LINGER) and close."""
        with self._lock:
            for peer in self._peers.values():
                peer.close()
            self._nudge.close(linger=0)
            self._pull.close(linger=0)
        self.context.term()
