"""The slots of one worker: which of them are free, and arrays in them.

Law: a slot is free when no record of any link downstream, however many hops away, refers to it and
no array of this process lies in it. That is read from the ledger when a slot is needed: no
message, no count that a dead process could have left wrong. Links are read from upstream to
downstream, and a forwarding worker claims on its outputs before it finishes its input, so a
frame that moves while it is looked for is seen at least once.

Pools are never given back, and one serves all sizes down to half its slots'. The first few are
made as large as asked, further ones for other sizes are powers of two: so a source that keeps
changing its size needs memory by its largest frames, not by how many sizes it has had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ovpipe.errors import FrameError
from ovpipe.transport.lease import Roots
from ovpipe.transport.ledger import LinkLedger
from ovpipe.transport.pool import DTYPE_CODE, Pool, slot_size

_FIRST_SLOTS = 8
_EXACT_POOLS = 4
_SHARE_BELOW = 1 << 16

RequestPool = Callable[[int, int], Pool]
"""(slots, slot_bytes) -> a new pool of this worker, mapped for writing."""


def _fits(pool: Pool, size: int) -> bool:
    return size <= pool.slot_bytes <= max(2 * size, _SHARE_BELOW)


class Slots:
    """Loans slots of one worker's pools. One thread only.

    `downstream`: the links that a frame of this worker can travel on, upstream first, and how many
    records each has; `pools`: what the process before this one had.
    """

    def __init__(
        self,
        roots: Roots,
        downstream: Sequence[tuple[LinkLedger, int]],
        request_pool: RequestPool,
        pools: Sequence[Pool],
    ) -> None:
        self._roots = roots
        self._downstream = downstream
        self._request_pool = request_pool
        self._pools = list(pools)
        self._held: set[int] = set()  # refs of slots in which an array of ours is alive
        self._like: tuple[tuple[int, ...], DTypeLike] | None = None  # the last loan
        self._spare: NDArray[Any] | None = None  # the next one, if it is like that

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
