"""What a run shows while it lasts and when it is over: to stderr, since stdout is for data.

On a terminal, and with `rich` installed, a table that stays in place; otherwise one plain line
every five seconds. Rates are over the time since the last reading.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict
from typing import Any, TextIO

from ovpipe.supervisor.accountant import Reading, WorkerReading
from ovpipe.supervisor.outcome import Outcome

_PLAIN_EVERY_S = 5.0


def say(stream: TextIO, text: str) -> None:
    """Print a line. A reader that has gone away must not end what somebody else still needs."""
    try:
        print(text, file=stream, flush=True)
    except OSError:
        # From here on into nothing, also for what the interpreter flushes at its end.
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), stream.fileno())


class Status:
    """Shows readings as they come. `show` is the supervisor's on_tick, `log` its on_log."""

    def __init__(
        self, name: str, stream: TextIO = sys.stderr, before: Reading | None = None
    ) -> None:
        self._name = name
        self._stream = stream
        self._before = before
        self._plain_at = time.monotonic() + _PLAIN_EVERY_S
        self._live = _rich_live(stream)

    def __enter__(self) -> Status:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def log(self, worker: str, line: str) -> None:
        """One line that a worker wrote to stderr."""
        if self._live is not None:
            self._live.console.print(f"[{worker}] {line}", markup=False, highlight=False)
        else:
            say(self._stream, f"[{worker}] {line}")

    def show(self, phase: str, reading: Reading, at_once: bool = False) -> None:
        """A reading has come. A plain line is written when it is due, or `at_once`."""
        before = self._before or reading
        if self._live is not None:
            self._live.update(_rich_table(self._name, phase, reading, before), refresh=True)
            self._before = reading
        elif at_once or time.monotonic() >= self._plain_at:
            self._plain_at += _PLAIN_EVERY_S
            self._before = reading
            parts = [f"{w.name} {_rate(w, before):.1f}/s {w.state}" for w in reading.workers]
            say(self._stream, f"ovpipe {self._name} {phase}: " + ", ".join(parts))


def _rate(worker: WorkerReading, before: Reading) -> float:
    """Frames per second through a worker since `before`."""
    old = next((w for w in before.workers if w.name == worker.name), worker)
    since = max(worker.at_ns - old.at_ns, 1) / 1e9
    new, was = (max(w.frames_in, w.frames_out) for w in (worker, old))
    return (new - was) / since


def _share(now: int, was: int, worker: WorkerReading, old: WorkerReading) -> float:
    return 100.0 * (now - was) / max(worker.at_ns - old.at_ns, 1)


def _rich_live(stream: TextIO) -> Any:
    if not stream.isatty():
        return None
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        return None
    return Live(console=Console(file=stream), auto_refresh=False)


def _rich_table(name: str, phase: str, reading: Reading, before: Reading) -> Any:
    from rich.table import Table

    table = Table(title=f"{name}: {phase}", title_justify="left")
    for column in ("stage", "state", "frames", "frames/s", "busy %", "blocked %", "age ms"):
        table.add_column(column, justify="left" if column in ("stage", "state") else "right")
    old = {w.name: w for w in before.workers}
    for w in reading.workers:
        was = old.get(w.name, w)
        table.add_row(
            w.name,
            w.state,
            str(max(w.frames_in, w.frames_out)),
            f"{_rate(w, before):.1f}",
            f"{_share(w.busy_ns, was.busy_ns, w, was):.0f}",
            f"{_share(w.blocked_ns, was.blocked_ns, w, was):.0f}",
            f"{w.age_ns / 1e6:.1f}" if w.frames_in else "-",
        )
    return table


def ledger_table(reading: Reading) -> str:
    """The ledger as a table of text: one line per edge and stream."""
    head = ["edge", "stream", "claimed", "delivered", "dropped", "failed", "in flight"]
    rows = [
        [
            f"{a.source} -> {a.target}",
            a.stream,
            str(a.claimed),
            str(a.delivered),
            _with_reasons(a.dropped),
            _with_reasons(a.failed),
            str(a.in_flight),
        ]
        for a in reading.accounts
    ]
    return table(head, rows, left=2)


def table(head: list[str], rows: list[list[str]], left: int) -> str:
    """A table of text; the first `left` columns begin at the left, the others end at the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for row in [head, ["-" * w for w in widths], *rows]:
        pairs = enumerate(zip(row, widths, strict=True))
        cells = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in pairs]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _with_reasons(counts: dict[str, int]) -> str:
    total = str(sum(counts.values()))
    reasons = ", ".join(f"{name} {count}" for name, count in counts.items())
    return f"{total} ({reasons})" if reasons else total


def as_json(
    name: str, outcome: Outcome, exit_code: int, seconds: float, found: list[str]
) -> dict[str, Any]:
    """The end of a run as one JSON object."""
    return {
        "v": 1,
        "name": name,
        "exit_code": exit_code,
        "error": None if outcome.error is None else str(outcome.error),
        "seconds": round(seconds, 3),
        "ledger": [asdict(a) for a in outcome.reading.accounts],
        "verdict": found,
        "stages": [asdict(w) for w in outcome.reading.workers],
    }
