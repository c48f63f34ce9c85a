"""The run as the page knows it: read twice a second, with some minutes of history.

Law: it only reads. What it holds is bounded, however long the run and however large the graph.
A reading that is older than STALE_S is not taken for how things are: the page says that it is old.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ovpipe.graph import Graph
from ovpipe.supervisor.bulletin import Run, read_run
from ovpipe.web import figures

EVERY_S = 0.5
STALE_S = 5.0
_STEP_S = 1.0
HISTORY_STEPS = 300
_HISTORY_VALUES = 600_000  # of all series together
_NOT_READY = ("starting", "loading", "away")


class Watch:
    """`now_ns`: the clock of the readings, monotonic."""

    def __init__(
        self, graph: Graph, folder: Path, now_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.graph = graph
        self.run: Run | None = None
        self._folder = folder
        self._now_ns = now_ns
        self._runs: deque[Run] = deque()
        self._status: dict[str, Any] = {}
        counts = {w: len(getattr(graph, w)) * len(keys) for w, keys in figures.HISTORY.items()}
        series = max(1, sum(counts.values()))
        steps = max(30, min(HISTORY_STEPS, _HISTORY_VALUES // series))
        self._history: deque[dict[str, Any]] = deque(maxlen=steps)

    async def watch(self) -> None:
        """Look, for as long as the page lives."""
        while True:
            self.look()
            await asyncio.sleep(EVERY_S)

    def look(self) -> None:
        """Read once. What cannot be read is as if nothing new were there."""
        run = read_run(self._folder)
        if run is not None and (self.run is None or run.reading.at_ns > self.run.reading.at_ns):
            self._take(run)

    def _take(self, run: Run) -> None:
        self.run = run
        self._runs.append(run)
        at_ns = run.reading.at_ns
        while (
            len(self._runs) > 2 and at_ns - self._runs[1].reading.at_ns >= figures.LATENCIES_S * 1e9
        ):
            self._runs.popleft()
        self._status = figures.status(self.graph, run, [r.reading for r in self._runs])
        if not self._history or at_ns - self._history[-1]["at_ns"] >= (_STEP_S - 0.1) * 1e9:
            self._history.append({"at_ns": at_ns, **figures.moment(self._status)})

    @property
    def age_s(self) -> float:
        """How old the last reading is; infinite where there is none."""
        if self.run is None:
            return float("inf")
        return max(0.0, (self._now_ns() - self.run.reading.at_ns) / 1e9)

    @property
    def status(self) -> dict[str, Any]:
        """How the run is doing. `why`: why nothing better can be said, or ""."""
        why = self.unwell()
        age_s = None if self.run is None else round(self.age_s, 2)
        return {"v": 1, "why": why, "age_s": age_s, **self._status}

    @property
    def history(self) -> dict[str, Any]:
        """Series of the same length, the oldest value first; `ago_s` says when each was."""
        moments, now = [*self._history], self._now_ns()
        return {
            "v": 1,
            "ago_s": [round((now - m["at_ns"]) / 1e9, 1) for m in moments],
            **{
                what: [
                    {key: [m[what][i][key] for m in moments] for key in moments[0][what][i]}
                    for i in range(len(moments[0][what]))
                ]
                if moments
                else []
                for what in figures.HISTORY
            },
        }

    def unwell(self) -> str:
        """Why the run does not look alive, or ""."""
        if self.run is None:
            return "the run has said nothing yet"
        if self.age_s > STALE_S:
            return f"the run has said nothing for {self.age_s:.0f} s"
        return ""

    def unready(self) -> str:
        """Why it is not at work with all of its stages, or ""."""
        if why := self.unwell():
            return why
        assert self.run is not None
        if self.run.phase != "running":
            return f"the run is {self.run.phase}"
        away = [f"{w.name} ({w.state})" for w in self.run.reading.workers if w.state in _NOT_READY]
        return f"not at work: {', '.join(away)}" if away else ""
