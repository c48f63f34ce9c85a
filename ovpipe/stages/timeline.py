"""Timeline: the times of a live source, made to rise. Pure.

Law: times begin at 0 and each is later than the one before, whatever the source says. A time that
goes back, repeats, is absent or jumps by more than five seconds against the clock of capture
begins a new reckoning there, as does a new connection: what has passed on that clock has passed.
"""

from __future__ import annotations

_JUMP_NS = 5 * 10**9


class Timeline:
    """Times of one live source; all in nanoseconds."""

    def __init__(self) -> None:
        self._given: tuple[int, int] | None = None  # the last time given, and when it was captured
        self._offset_ns: int | None = None

    def restart(self) -> None:
        """What comes next is of another connection, with times of its own."""
        self._offset_ns = None

    def place(self, pts_ns: int | None, captured_ns: int) -> int:
        """The time of a frame that the source says is of `pts_ns`."""
        expected = 0
        if self._given is not None:
            last, when = self._given
            expected = last + max(1, captured_ns - when)
        placed = expected
        if pts_ns is not None:
            if self._offset_ns is not None:
                placed = pts_ns + self._offset_ns
            if self._given is not None and (
                placed <= self._given[0] or abs(placed - expected) > _JUMP_NS
            ):
                placed = expected
            self._offset_ns = placed - pts_ns
        self._given = placed, captured_ns
        return placed
