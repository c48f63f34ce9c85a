"""The logbook: the last lines that workers and the supervisor said. Pure, but for the date.

Law: never more than MAX_LINES lines nor MAX_BYTES bytes, whoever says how much. Lines are numbered
from 0 without a gap; a reader keeps the number of the next line that it wants, and is told how
many of those it wanted were forgotten before it came.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from dataclasses import dataclass

MAX_LINES = 1000
MAX_BYTES = 1 << 18
_OVERHEAD = 64


@dataclass(frozen=True)
class LogLine:
    """One line. `at_s`: by the wall's clock; `worker`: who said it, `ovpipe` is the supervisor."""

    number: int
    at_s: float
    worker: str
    text: str

    @property
    def cost(self) -> int:
        """Bytes that it is taken for."""
        return _OVERHEAD + len(self.worker) + len(self.text.encode("utf-8", "backslashreplace"))


class LogBook:
    """Keeps lines. `next`: the number that the next line will have."""

    def __init__(self) -> None:
        self.next = 0
        self._lines: deque[LogLine] = deque()
        self._bytes = 0

    def add(self, worker: str, text: str) -> None:
        """One more line; the oldest ones make room for it."""
        line = LogLine(self.next, time.time(), worker, text)
        self.next += 1
        self._lines.append(line)
        self._bytes += line.cost
        while len(self._lines) > MAX_LINES or self._bytes > MAX_BYTES:
            self._bytes -= self._lines.popleft().cost

    def since(self, number: int, most: int, most_bytes: int) -> tuple[list[LogLine], int]:
        """Up to `most` lines from `number` on; how many before them are forgotten.

        At least one line where there is any, however long it is.
        """
        first = self._lines[0].number if self._lines else self.next
        missed = max(0, first - number)
        found: list[LogLine] = []
        size = 0
        for line in itertools.islice(self._lines, max(0, number - first), None):
            size += line.cost
            if len(found) == most or (found and size > most_bytes):
                break
            found.append(line)
        return found, missed
