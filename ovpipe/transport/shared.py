"""What a worker knows of the shared memory of its run: the ledger and all pools it may see."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from ovpipe.errors import PipelineClosed, WireError
from ovpipe.transport.ledger import W_SINCE, W_STATE, Layout, LinkLedger
from ovpipe.transport.pool import Mapping, Pool
from ovpipe.transport.token import Tokens

_POOL_TIMEOUT_S = 10.0


class SharedMemory:
    """The ledger, mapped, and the pools by number.

    Pools are announced on the control thread and looked up on the worker's: a descriptor never
    names a pool whose announcement is not already on its way, so a look-up may wait for it.
    """

    def __init__(self, ledger_fd: int, layout: Layout, worker: int) -> None:
        mapping = Mapping(ledger_fd, layout.words * 8, writable=True)
        self.layout = layout
        self.worker = worker
        self.words = mapping.words()
        self.tokens = Tokens(mapping.memory)
        self.me = layout.worker(worker)
        self._pools: dict[int, Pool] = {}
        self._news = threading.Condition()
        self._closed = False

    def link(self, index: int) -> LinkLedger:
        """The block of one link."""
        return LinkLedger(self.words, self.layout, index)

    def set_state(self, state: int, now_ns: int) -> None:
        """The progress word, written by the work loop itself."""
        self.words[self.me + W_STATE] = state
        self.words[self.me + W_SINCE] = now_ns

    def add_pool(self, number: int, owner: int, fd: int, slots: int, slot_bytes: int) -> None:
        """Map an announced pool and close `fd`; writable for its owner only."""
        try:
            pool = Pool(number, owner, fd, slots, slot_bytes, writable=owner == self.worker)
        finally:
            os.close(fd)
        with self._news:
            self._pools[number] = pool
            self._news.notify_all()

    def pool(self, number: int) -> Pool:
        """A pool by number. Raises WireError where nobody ever announced it."""
        pool = self._pools.get(number)
        return pool if pool is not None else self._await(lambda: self._pools.get(number), number)

    def _await(self, get: Callable[[], Pool | None], number: int) -> Pool:
        with self._news:
            self._news.wait_for(lambda: self._closed or get() is not None, _POOL_TIMEOUT_S)
            pool = get()
        if pool is None:
            if self._closed:
                raise PipelineClosed("the pipeline is closed")
            raise WireError("pool", f"pool {number} is not known here")
        return pool

    def close(self) -> None:
        """Wake whoever waits for a pool that will not come."""
        with self._news:
            self._closed = True
            self._news.notify_all()
