"""The verdict while a run lasts: of its last seconds, not of all its time.

Law: as verdict.py's, for the time between the first and the last reading of a window. Nothing is
said of less than three seconds, so that nothing is said of how a run begins.
"""

from __future__ import annotations

from collections import deque

from ovpipe.graph import Graph
from ovpipe.supervisor.accountant import Reading
from ovpipe.supervisor.rates import Window
from ovpipe.supervisor.verdict import verdict

WINDOW_S = 10.0
_ENOUGH_S = 3.0


class Outlook:
    """Takes readings as they come. `lines`: what can be said now, the most important first."""

    def __init__(self, graph: Graph, window_s: float = WINDOW_S) -> None:
        self.lines: tuple[str, ...] = ()
        self._graph = graph
        self._window = Window(window_s)
        self._window_ns = round(window_s * 1e9)
        self._processors: deque[tuple[int, tuple[int, int]]] = deque()

    def add(self, reading: Reading) -> tuple[str, ...]:
        """One more reading; what can be said with it."""
        if not any(account.claimed for account in reading.accounts):
            return self.lines  # its stages are being opened
        self._window.add(reading)
        self._processors.append((reading.at_ns, processors()))
        while len(self._processors) > 2 and (
            reading.at_ns - self._processors[1][0] >= self._window_ns
        ):
            self._processors.popleft()
        span = self._window.span
        if span is None or span.seconds < _ENOUGH_S:
            return self.lines
        busy = share_busy(self._processors[0][1], self._processors[-1][1])
        self.lines = tuple(verdict(self._graph, span.reading, span.seconds, busy))
        return self.lines


def processors() -> tuple[int, int]:
    """(busy, all) time of this machine's processors since it started, in ticks."""
    try:
        with open("/proc/stat") as file:
            times = [int(word) for word in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return 0, 0
    return sum(times) - times[3] - times[4], sum(times)  # but for idle, and waiting for disks


def share_busy(before: tuple[int, int], after: tuple[int, int]) -> float | None:
    """How busy the processors were in between, 0 to 1; None where nobody can tell."""
    passed = after[1] - before[1]
    return (after[0] - before[0]) / passed if passed > 0 else None
