"""Where frames are between two stages, as the ledger says: for whoever waits for one of them.

Law: links are read from upstream to downstream, and a stage claims what it passes on before it
finishes what came in, so a frame that moves meanwhile is seen at least once. One that is not seen
is nowhere: it was dropped, or failed, or a stage gave nothing for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ovpipe.transport.ledger import DELIVERED, OUTCOMES
from ovpipe.transport.plan import Link
from ovpipe.transport.shared import SharedMemory


class Whereabouts:
    """The way from one stage to another: its links, upstream first. Any thread may ask."""

    def __init__(self, shared: SharedMemory, links: Sequence[Link]) -> None:
        self._ledgers = [(shared.link(link.index), link.records) for link in links]

    def flying(self, stream: int) -> set[int]:
        """The seqs of all frames of a stream that are under way."""
        found: set[int] = set()
        for ledger, records in self._ledgers:
            found.update(ledger.flying(records, stream))
        return found

    def losses(self, stream: int) -> list[int]:
        """How many frames of a stream have ended on the way, by outcome."""
        rows = [ledger.counted(stream) for ledger, _ in self._ledgers]
        return [sum(counts) for counts in zip(*rows, strict=True)]

    def fate(self, stream: int, seq: int) -> str:
        """How a frame that is nowhere has ended, if not as delivered: "" where nobody can tell.

        That is where a stage gave nothing for it, and where its records were used again.
        """
        for ledger, records in self._ledgers:
            outcome = ledger.ended(records, stream, seq)
            if outcome:
                return OUTCOMES[outcome]
        return ""

    def grown(self, stream: int, before: Sequence[int]) -> str:
        """What has ended on the way since it was `before`, in words, but what was delivered."""
        now = enumerate(zip(before, self.losses(stream), strict=True))
        return ", ".join(f"{b - a} {OUTCOMES[i]}" for i, (a, b) in now if b > a and i != DELIVERED)
