"""Who hangs, and which edge is stalled. Pure: progress words and the time in, names out.

A worker gets on as long as its progress words change. At work they change with each frame; in a
wait, for frames or for a credit, at each turn of the wait, many times as often as is asked for
here. So one that waits properly never hangs, however long it waits, and one that is stopped in a
wait does.

Law: only time in which the watch itself was running counts. A machine that slept, or that is so
busy that not even the supervisor runs, has no hung workers.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

WAIT_STALL_S = 5.0
STALLED_EDGE_S = 10.0
REMIND_S = 60.0
_TRUSTED_S = 1.0
_WAITS = ("starting", "loading", "idle", "blocked")


class HangWatch:
    """Looks at workers again and again. `timeouts_s`: how long each may work on one frame."""

    def __init__(self, timeouts_s: Mapping[int, float]) -> None:
        self._timeouts_s = timeouts_s
        self._last_s: float | None = None
        self._signs: dict[int, Hashable] = {}
        self._still_s: dict[int, float] = {}

    def look(self, now_s: float, signs: Mapping[int, tuple[str, Hashable]]) -> dict[int, float]:
        """Those that hang, and the seconds they were given.

        `signs`: for each worker that is up, what it does and all that changes with its progress;
        one that is still said to load has not come to look for frames. A worker left out starts
        from nothing when it is there again.
        """
        passed_s = min(now_s - self._last_s, _TRUSTED_S) if self._last_s is not None else 0.0
        self._last_s = now_s
        hung = {}
        for worker, (doing, _) in signs.items():
            if self._signs.get(worker) != signs[worker]:
                self._still_s[worker] = 0.0
                continue
            self._still_s[worker] += passed_s
            limit_s = self._limit_s(worker, doing)
            if self._still_s[worker] > limit_s:
                hung[worker] = limit_s
        self._signs = dict(signs)
        return hung

    def _limit_s(self, worker: int, doing: str) -> float:
        if doing in _WAITS:
            return WAIT_STALL_S
        return self._timeouts_s[worker] if doing == "working" else float("inf")


class Reminder:
    """Tells of a thing that lasts once a minute, from its first `STALLED_EDGE_S` on."""

    def __init__(self) -> None:
        self._told_s: dict[Hashable, float] = {}

    def due(self, now_s: float, what: Hashable, lasted_s: float) -> bool:
        """Whether to tell of it now."""
        if lasted_s < STALLED_EDGE_S or now_s - self._told_s.get(what, -REMIND_S) < REMIND_S:
            return False
        self._told_s[what] = now_s
        return True
