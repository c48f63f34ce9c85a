"""Leases: who may still read or write a slot, told by whether an array over it is alive.

Law: a slot that an array of this process lies in is given back only when no such array, nor
any view of one, is alive. A stage that keeps a view keeps its slot: that costs a credit, and
never shows it other pixels.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovpipe.transport.ledger import DELIVERED

Array = NDArray[Any]


class Roots:
    """Which slot an array of ours lies in.

    The root of an array is the flat array made over the slot: numpy keeps it as the base of
    every view of it, however derived, so its death is the death of the last view.
    """

    def __init__(self) -> None:
        self._roots: dict[int, tuple[weakref.ref[Array], int, int, int]] = {}

    def __len__(self) -> int:
        """How many are alive."""
        return len(self._roots)

    def add(self, root: Array, pool: int, slot: int, on_death: Callable[[], None]) -> None:
        """Remember `root`; `on_death` is called once, on whatever thread drops the last view."""
        key = id(root)

        def gone(_: weakref.ref[Array]) -> None:
            del self._roots[key]
            on_death()

        self._roots[key] = (weakref.ref(root, gone), pool, slot, root.nbytes)

    def find(self, array: Array) -> tuple[int, int] | None:
        """(pool, slot) where `array` is the whole of a slot's array, else None (a crop, say)."""
        root = array.base if isinstance(array.base, np.ndarray) else array
        known = self._roots.get(id(root))
        if known is None or array.nbytes != known[3] or not array.flags.c_contiguous:
            return None
        return known[1], known[2]


class Lease:
    """A reader's hold on one frame: from taking it until its stage and all its views are done."""

    __slots__ = ("_open", "_outcome", "_release", "_views")

    def __init__(self, release: Callable[[int], None], views: int) -> None:
        self._release = release
        self._views = [None] * views
        self._outcome: int | None = None
        self._open = [None]  # popped by the one who releases: list.pop is atomic

    def view_died(self) -> None:
        """One array of the frame is gone."""
        self._views.pop()
        self._try()

    def finish(self, outcome: int = DELIVERED) -> None:
        """The stage is done with the frame, and how it ended."""
        self._outcome = outcome
        self._try()

    @property
    def kept(self) -> bool:
        """True where the stage is done and something still holds a view."""
        return self._outcome is not None and bool(self._open)

    def force(self) -> None:
        """Release although views are alive; only when nobody will write to the slot again."""
        if self._outcome is not None:
            self._release_once(self._outcome)

    def _try(self) -> None:
        if not self._views and self._outcome is not None:
            self._release_once(self._outcome)

    def _release_once(self, outcome: int) -> None:
        try:
            self._open.pop()
        except IndexError:
            return
        self._release(outcome)
