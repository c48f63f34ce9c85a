"""The pools of a run: made when a worker asks, announced to all who may see their slots.

Law: readers are told before the owner, so that by the time the owner can name a pool, each of
them has it on its way. A successor is told of all that the process before it knew.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from ovpipe.errors import PreflightError
from ovpipe.supervisor.launch import Plan
from ovpipe.supervisor.process import ExternalMember, WorkerMember
from ovpipe.transport.pool import make_memfd

_NAMED = 3


@dataclass(frozen=True)
class _Pool:
    number: int
    owner: int
    fd: int
    slots: int
    slot_bytes: int


class Pools:
    """All pools of one run. `member(index)`: who holds a post now."""

    def __init__(
        self, plan: Plan, member: Callable[[int], WorkerMember | ExternalMember | None]
    ) -> None:
        self._plan = plan
        self._member = member
        self._pools: list[_Pool] = []

    def make(self, owner: int, slots: int, slot_bytes: int) -> None:
        """One more pool for a worker. Raises PreflightError where the memory is not to be had."""
        name = self._plan.workers[owner].name
        try:
            fd = make_memfd(f"ovpipe-{name}", slots * slot_bytes)
        except PreflightError as error:
            raise PreflightError(f"{error}{self._largest()}") from None
        except OSError as error:
            raise PreflightError(f"no shared memory for stage '{name}': {error}") from None
        pool = _Pool(len(self._pools), owner, fd, slots, slot_bytes)
        self._pools.append(pool)
        for index in (*self._plan.readers(owner), owner):
            self._tell(index, pool)

    def introduce(self, index: int) -> None:
        """Tell a new process of all pools that it may see."""
        for pool in self._pools:
            if index == pool.owner or index in self._plan.readers(pool.owner):
                self._tell(index, pool)

    def _tell(self, index: int, pool: _Pool) -> None:
        member = self._member(index)
        if member is not None:
            member.say(
                "pool",
                (pool.fd,),
                number=pool.number,
                owner=pool.owner,
                slots=pool.slots,
                slot_bytes=pool.slot_bytes,
            )

    def _largest(self) -> str:
        """What the run has already, the largest first."""
        by_owner: dict[int, int] = {}
        for pool in self._pools:
            size = pool.slots * pool.slot_bytes
            by_owner[pool.owner] = by_owner.get(pool.owner, 0) + size
        if not by_owner:
            return ""
        largest = sorted(by_owner.items(), key=lambda item: -item[1])[:_NAMED]
        told = [f"'{self._plan.workers[i].name}' {size / 2**20:.1f} MiB" for i, size in largest]
        return f"; this run has {', '.join(told)}"

    def close(self) -> None:
        """Give the descriptors back; the memory goes with the last process that maps it."""
        for pool in self._pools:
            os.close(pool.fd)
        self._pools.clear()
