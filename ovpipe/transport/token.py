"""An atomic test-and-set on one word of shared memory.

Everything else in the ledger has one writer at a time. Only with `drop_oldest` do two want the
same frame: the receiver, to take it, and the sender, to drop it in favour of a newer one. The
C library's process-shared spin lock decides: its try-lock is one atomic instruction, never
waits, and is a plain 32-bit word that a dead process cannot spoil (the ledger's record says
what its death meant).
"""

from __future__ import annotations

import ctypes

_libc = ctypes.CDLL(None)
_trylock = _libc.pthread_spin_trylock
_trylock.argtypes = [ctypes.c_void_p]
_unlock = _libc.pthread_spin_unlock
_unlock.argtypes = [ctypes.c_void_p]
_init = _libc.pthread_spin_init
_init.argtypes = [ctypes.c_void_p, ctypes.c_int]
_PROCESS_SHARED = 1


class Tokens:
    """The tokens in one mapping, by byte offset."""

    def __init__(self, memory: memoryview) -> None:
        self._keep = ctypes.c_char.from_buffer(memory)
        self._base = ctypes.addressof(self._keep)

    def reset(self, offset: int) -> None:
        """Make the token free; only while nobody else can want it."""
        _init(self._base + offset, _PROCESS_SHARED)

    def take(self, offset: int) -> bool:
        """True for exactly one caller until `reset` or `give_back`."""
        return bool(_trylock(self._base + offset) == 0)

    def give_back(self, offset: int) -> None:
        """Undo a `take` that met a newer frame than the one meant."""
        _unlock(self._base + offset)
