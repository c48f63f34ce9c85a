"""Both ends of one link in this process: real memory and ledger, messages in a list."""

import os
from collections import deque

from ovpipe.transport.lease import Roots
from ovpipe.transport.ledger import Layout
from ovpipe.transport.peers import Peers
from ovpipe.transport.plan import Link
from ovpipe.transport.pool import make_memfd
from ovpipe.transport.receiver import Receiver
from ovpipe.transport.sender import Sender
from ovpipe.transport.shared import SharedMemory
from ovpipe.transport.wire import decode

LAYOUT = Layout(workers=2, links=1, streams=2)
SENDER, RECEIVER = 0, 1


class Post:
    """An inbox whose messages stay where they were put."""

    def __init__(self):
        self.messages = deque()

    def send(self, address, message, gone=lambda: False):
        self.messages.append(decode(message))
        return True

    def wake(self, address, gone=lambda: False):
        pass

    def forget(self, address):
        pass


def all_here(workers):
    return Peers([{"state": "here", "epoch": 0, "endpoint": str(i)} for i in range(workers)])


class OneLink:
    """A sender and a receiver; `take()` reads the next message, as the worker would."""

    def __init__(self, when_full="block", depth=2, capacity=1, max_age_ns=0, pump=None):
        self.link = Link(
            index=0,
            edge=0,
            sender=SENDER,
            source="first",
            receiver=RECEIVER,
            records=depth + capacity,
            when_full=when_full,
            max_age_ns=max_age_ns,
            resend=False,
            wake_after=1,
            streams=(0, 1),
        )
        self._fd = make_memfd("test-ledger", LAYOUT.words * 8)
        self._pools = []
        self.ours = SharedMemory(self._fd, LAYOUT, SENDER)
        self.theirs = SharedMemory(self._fd, LAYOUT, RECEIVER)
        self.post = Post()
        self.roots = Roots()
        links, streams = [self.link], ["a", "b"]
        self.peers = all_here(2)
        self.receiver = Receiver(self.theirs, Roots(), Post(), links, streams, self.peers)
        self.sender = Sender(
            self.ours,
            self.roots,
            self.post,
            links,
            links,
            self._pool,
            pump or self._full,
            self.peers,
            0,
            [],
            {},
        )

    def _full(self, timeout_ms):
        raise AssertionError("the sender waits, and nobody will come")

    def _pool(self, slots, slot_bytes):
        number, fd = len(self._pools), make_memfd("test-pool", slots * slot_bytes)
        self._pools.append((slots, slot_bytes))
        self.theirs.add_pool(number, SENDER, os.dup(fd), slots, slot_bytes)
        self.ours.add_pool(number, SENDER, fd, slots, slot_bytes)
        return self.ours.pool(number)

    @property
    def pools(self):
        return list(self._pools)

    def take(self):
        """(frame, lease) of the next message, or None where it names no frame to have."""
        return self.receiver.take(self.post.messages.popleft())

    def rows(self):
        ledger = self.ours.link(0)
        return ledger.read(self.ours.words[ledger.base : ledger.base + LAYOUT.link_words])

    def close(self):
        os.close(self._fd)
