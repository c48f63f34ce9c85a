"""Shares: which stream has got how much through an edge that several have to share. Pure.

Law: where a frame has to make room for a new one, it is of the new one's own stream if one of that
waits; else of the stream that has got the most through lately. So no stream starves because others
are faster, or always come a moment later, and what waits is the newest of each.
"""

from __future__ import annotations

_LATELY = 64
"""Frames of a stream after which what was before counts half."""


class Shares:
    """Frames of each edge and stream that were sent and not dropped again."""

    def __init__(self) -> None:
        self._through: dict[int, dict[int, int]] = {}

    def sent(self, edge: int, stream: int) -> None:
        """A frame is on its way."""
        through = self._through.setdefault(edge, {})
        count = through[stream] = through.get(stream, 0) + 1
        if count > 2 * _LATELY:
            for name in through:
                through[name] //= 2

    def lost(self, edge: int, stream: int) -> None:
        """It was dropped: it made room for another."""
        through = self._through[edge]
        through[stream] = max(0, through[stream] - 1)

    def rank(self, edge: int, stream: int, new: int) -> int:
        """Of the frames that wait, one with the least rank is to make room for one of `new`."""
        if stream == new:
            return -4 * _LATELY
        return -self._through[edge].get(stream, 0)
