"""What a run shows while it lasts and when it is over: to stderr, since stdout is for data.

On a terminal, and with `rich` installed, tables that stay in place; otherwise plain lines every
five seconds. Rates, ages and shares are of the last five seconds, the verdict is of the last ten.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict
from typing import Any, TextIO

from ovpipe.supervisor.accountant import Reading, WorkerReading
from ovpipe.supervisor.outcome import Outcome
from ovpipe.supervisor.rates import Interval, Window, interval

_PLAIN_EVERY_S = 5.0
_RATES_OF_S = 5.0
_VERDICT_LINES = 4


def say(stream: TextIO, text: str) -> bool:
    """Print a line; False where nobody reads any more.

    A reader that has gone away must not end what somebody else still needs.
    """
    try:
        print(text, file=stream, flush=True)
        return True
    except OSError:
        # From here on into nothing, also for what the interpreter flushes at its end.
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), stream.fileno())
        return False


class Status:
    """Shows readings as they come; rates are those of the last seconds.

    `whole`: everything that is known, not only a line. `before`: an earlier reading of the run.
    """

    def __init__(
        self,
        name: str,
        stream: TextIO = sys.stderr,
        before: Reading | None = None,
        *,
        whole: bool = False,
    ) -> None:
        self._name = name
        self._stream = stream
        self._whole = whole
        self._window = Window(_RATES_OF_S)
        if before is not None:
            self._window.add(before)
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

    def show(
        self, phase: str, reading: Reading, verdict: Sequence[str] = (), *, at_once: bool = False
    ) -> None:
        """A reading has come. Plain lines are written when they are due, or `at_once`."""
        self._window.add(reading)
        span = self._window.span or interval(reading, reading)
        if self._live is not None:
            self._live.update(_rich(self._name, phase, span, verdict), refresh=True)
        elif at_once or time.monotonic() >= self._plain_at:
            self._plain_at = time.monotonic() + _PLAIN_EVERY_S
            for line in _plain(self._name, phase, span, verdict, self._whole):
                say(self._stream, line)


def _plain(
    name: str, phase: str, span: Interval, verdict: Sequence[str], whole: bool
) -> Iterator[str]:
    rates = zip(span.reading.workers, span.workers, strict=True)
    parts = [f"{w.name} {rate.frames:.1f}/s {w.state}" for w, rate in rates]
    yield f"ovpipe {name} {phase}: " + ", ".join(parts)
    if whole:
        yield table(_WORKERS, worker_rows(span), left=2, tail=True)
        yield table(_EDGES, edge_rows(span), left=2, tail=True)
    for line in verdict if whole else verdict[:1]:
        yield f"verdict: {line}"


_WORKERS = ["stage", "state", "frames/s", "busy %", "blocked %", "restarts", "says"]
_EDGES = ["edge", "stream", "in/s", "out/s", "p50 ms", "p95 ms", "p99 ms", "full %", "lost/s"]


def worker_rows(span: Interval) -> list[list[str]]:
    """What each worker did and says, as text."""
    return [
        [
            w.name,
            w.state,
            f"{rate.frames:.1f}",
            f"{100 * rate.busy:.0f}",
            f"{100 * rate.blocked:.0f}",
            str(w.restarts),
            says(w, span.reading.at_ns),
        ]
        for w, rate in zip(span.reading.workers, span.workers, strict=True)
    ]


def edge_rows(span: Interval) -> list[list[str]]:
    """What went along each edge, stream by stream, as text."""
    rows = []
    for edge in span.edges:
        ages = [f"{age / 1e6:.1f}" for age in edge.ages_ns] or ["-"] * 3
        lost = {**edge.dropped, **edge.failed}
        rows.append([
            f"{edge.source} -> {edge.target}", edge.stream, f"{edge.claimed:.1f}",
            f"{edge.delivered:.1f}", *ages, f"{100 * edge.saturation:.0f}",
            ", ".join(f"{reason} {per_s:.1f}" for reason, per_s in lost.items()) or "-",
        ])  # fmt: skip
    return rows


def says(worker: WorkerReading, at_ns: int) -> str:
    """What a worker reports of itself, in a few words; a camera its state, since when and why."""
    facts = dict(worker.facts)
    words = []
    if camera := facts.pop("camera", ""):
        since_ns, why, _ = (facts.pop(key, "") for key in ("since_ns", "why", "address"))
        words.append(str(camera))
        if isinstance(since_ns, int):
            words[0] += f" {_ago((at_ns - since_ns) / 1e9)}"
        if camera != "streaming":
            words[0] += f": {why}"
    return ", ".join(words + [f"{name} {value}" for name, value in facts.items()])


def _ago(seconds: float) -> str:
    """A time in one unit."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _rich_live(stream: TextIO) -> Any:
    if not stream.isatty():
        return None
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        return None
    return Live(console=Console(file=stream), auto_refresh=False)


def _rich(name: str, phase: str, span: Interval, verdict: Sequence[str]) -> Any:
    from rich.console import Group
    from rich.text import Text

    return Group(
        _rich_table(f"{name}: {phase}", _WORKERS, worker_rows(span), ("stage", "state", "says")),
        _rich_table("", _EDGES, edge_rows(span), ("edge", "stream", "lost/s")),
        *(Text(f"verdict: {line}") for line in verdict[:_VERDICT_LINES]),
    )


def _rich_table(title: str, head: list[str], rows: list[list[str]], left: Container[str]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, title_justify="left")
    for column in head:
        table.add_column(column, justify="left" if column in left else "right")
    for row in rows:
        table.add_row(*map(Text, row))  # what others say is text, no markup
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


def table(head: list[str], rows: list[list[str]], left: int, *, tail: bool = False) -> str:
    """A table of text; the first `left` columns begin at the left, the others end at the right.

    tail: the last one begins at the left, too.
    """
    begins = {*range(left), *([len(head) - 1] if tail else [])}
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for row in [head, ["-" * w for w in widths], *rows]:
        pairs = enumerate(zip(row, widths, strict=True))
        cells = [c.ljust(w) if i in begins else c.rjust(w) for i, (c, w) in pairs]
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
        "flows": [asdict(f) for f in outcome.reading.flows],
    }
