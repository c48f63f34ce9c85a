"""Pools: sealed shared memory, cut into slots of equal size, one array per slot.

A pool is an anonymous memfd: it has no name that could be left behind, is not bound by the
size of /dev/shm, and its pages are reserved when it is made, so that touching it can never
raise SIGBUS. It is sealed against growing and shrinking and passed by file descriptor. A pool
never changes its size: a stage that needs larger slots gets one more pool, and views into the
old one stay valid.

Law: views are made here only, over an already bounded memoryview, so that no dtype, shape or
slot can reach outside of it. A view keeps its mapping alive.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from contextlib import suppress
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovpipe.errors import PreflightError, WireError

PAGE = mmap.PAGESIZE

_NAMES = "uint8 int8 uint16 int16 uint32 int32 uint64 int64 float16 float32 float64 bool"
DTYPES = tuple(np.dtype(name) for name in _NAMES.split(" "))
"""The dtypes that travel; a dtype's index is its code on the wire. Never object."""
DTYPE_CODE = {dtype: code for code, dtype in enumerate(DTYPES)}


def available_bytes() -> int:
    """Memory that can still be had: what the kernel calls available, within the cgroup's limit."""
    limits = [1 << 62]
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits += [int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable:")]
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # "max" is no number: no limit
        used = int((group / "memory.current").read_text())
        limits.append(int((group / "memory.max").read_text()) - used)
    return max(0, min(limits))


def make_memfd(name: str, size_bytes: int) -> int:
    """A sealed memfd of `size_bytes` with all its pages reserved; the caller owns the descriptor.

    Raises PreflightError where the machine has not that much memory. That is asked first, since
    the kernel would rather kill a process than refuse to reserve.
    """
    available = available_bytes()
    if size_bytes > available:
        raise PreflightError(
            f"not enough memory for {name}: {size_bytes / 2**20:.1f} MiB of shared memory are "
            f"needed, {available / 2**20:.1f} MiB are available; use smaller frames, a smaller "
            f"`depth`, or raise the memory limit"
        )
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.posix_fallocate(fd, 0, size_bytes)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except OSError as error:
        os.close(fd)
        raise PreflightError(f"cannot make shared memory for {name}: {error.strerror}") from None
    return fd


class Mapping:
    """A memfd mapped into this process. Closing is left to the last view that dies."""

    def __init__(self, fd: int, size_bytes: int, writable: bool) -> None:
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self._map = mmap.mmap(fd, size_bytes, flags=mmap.MAP_SHARED, prot=access)
        self.memory = memoryview(self._map)

    def words(self) -> memoryview:
        """The memory as aligned 64-bit words."""
        return self.memory.cast("Q")


class Pool:
    """One pool, mapped: for writing by its owner, read-only by everybody else.

    `fd` stays the caller's; the mapping does not need it any longer.
    """

    def __init__(
        self, number: int, owner: int, fd: int, slots: int, slot_bytes: int, writable: bool
    ) -> None:
        self.number = number
        self.owner = owner
        self.slots = slots
        self.slot_bytes = slot_bytes
        self._memory = Mapping(fd, slots * slot_bytes, writable).memory

    def view(self, slot: int, code: int, shape: tuple[int, ...]) -> NDArray[np.generic]:
        """A flat array over the first bytes of a slot; reshape it to `shape`.

        Raises WireError where slot, dtype code or shape do not fit the pool.
        """
        if not 0 <= slot < self.slots:
            raise WireError("slot", f"slot {slot} of a pool of {self.slots}")
        if not 0 <= code < len(DTYPES):
            raise WireError("dtype", f"dtype code {code}")
        dtype = DTYPES[code]
        count = prod(shape)
        if count * dtype.itemsize > self.slot_bytes:
            raise WireError("shape", f"{shape} of {dtype} in a slot of {self.slot_bytes} bytes")
        start = slot * self.slot_bytes
        if not count:  # frombuffer refuses nothing at all
            return np.empty(0, dtype)
        return np.frombuffer(self._memory[start : start + count * dtype.itemsize], dtype)


def slot_size(nbytes: int) -> int:
    """Bytes of a slot that holds `nbytes`: whole pages, so that slots never share one."""
    return max(1, -(-nbytes // PAGE)) * PAGE
