"""`ovpipe run`: the supervisor in the foreground, with a terminal's signals.

Law: the first SIGINT, SIGTERM or SIGHUP drains; a second SIGINT or SIGTERM kills, and the exit
code says which (130, 143); `ovpipe stop --now` counts as a SIGTERM. The handlers that were there
before are put back.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from types import FrameType

import click

from ovpipe.cli.examples import examples
from ovpipe.cli.source import Source, takes_source
from ovpipe.cli.status import as_json, say
from ovpipe.cli.talk import JsonTalk, Talk, TextTalk
from ovpipe.errors import ConfigError, OvpipeError, PreflightError, StageError
from ovpipe.graph import Graph
from ovpipe.supervisor.accountant import Reading
from ovpipe.supervisor.core import DRAIN_TIMEOUT_S, Supervisor
from ovpipe.supervisor.outlook import Outlook, processors, share_busy
from ovpipe.supervisor.rundir import OnlyOnce
from ovpipe.supervisor.verdict import verdict


@click.command(
    epilog=examples(
        ("ovpipe run yard.yaml --env-file .env", "passwords of cameras in .env"),
        ("ovpipe run yard.yaml --set stages.cam.url=clip.mp4", "a recording instead of the camera"),
        ("ovpipe run yard.yaml --max-frames 100 --json", "a short try, and how it ended"),
        ("ovpipe config yard.yaml --json | ovpipe run -", "a configuration from elsewhere"),
    )
)
@takes_source
@click.option(
    "--duration",
    type=click.FloatRange(min=0, min_open=True),
    help="Drain after so many seconds of running.",
)
@click.option(
    "--max-frames",
    type=click.IntRange(min=1),
    metavar="N",
    help="End each stream after N frames of its source, those counted that it lost.",
)
@click.option(
    "--drain-timeout",
    type=click.FloatRange(min=0),
    default=DRAIN_TIMEOUT_S,
    show_default=True,
    help="Seconds that a drain may take before what is left is killed.",
)
@click.option(
    "--http", metavar="HOST:PORT", help="Show the run on a page, as `http: {listen: HOST:PORT}`."
)
@click.option("--json", "json_", is_flag=True, help="Print how it ended as JSON to stdout.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="What is said on stderr: lines for people, or one JSON object a line for collectors.",
)
def run(
    source: Source,
    duration: float | None,
    max_frames: int | None,
    drain_timeout: float,
    http: str | None,
    json_: bool,
    log_format: str,
) -> None:
    """Run the pipeline that CONFIG (a YAML file, or - for stdin) describes.

    Ctrl-C once finishes what is in flight; twice ends at once.

    \b
    Exit codes: 0 all streams ended, or drained; 2 wrong configuration; 3 something needed is
    missing; 4 a stage failed; 5 the drain took too long; 6 a frame is unaccounted for, a fault of
    ovpipe; 130, 143 ended by force.
    """
    if http is not None:
        source = source.with_set("http.listen", http)
    talk: Talk | None = JsonTalk() if log_format == "json" else None
    try:
        warn = (lambda text: talk.say("warning", text)) if talk is not None else None
        graph = replace(source.graph(warn), max_frames=max_frames or 0)
        code = _run(
            source.config, graph, talk or TextTalk(graph.name), duration, drain_timeout, json_
        )
    except OvpipeError as error:
        if talk is None:
            raise
        problems = error.problems if isinstance(error, ConfigError) else [error]
        for problem in problems:
            talk.say("error", str(problem))
        code = error.exit_code
    sys.exit(code)


def _run(
    config: str,
    graph: Graph,
    talk: Talk,
    duration: float | None,
    drain_timeout: float,
    json_: bool,
) -> int:
    """Run to the end, say how it was; the exit code."""
    only = _only_once(config, graph.name)
    outlook = Outlook(graph)
    until_s = 0.0  # when to drain, once it runs

    def on_tick(phase: str, reading: Reading) -> None:
        nonlocal until_s
        talk.show(phase, reading, outlook.add(reading))
        if duration is not None and phase == "running":
            until_s = until_s or time.monotonic() + duration
            if time.monotonic() >= until_s:
                supervisor.drain()

    supervisor = Supervisor(graph, drain_timeout_s=drain_timeout, on_tick=on_tick, on_log=talk.log)
    began, before = time.monotonic(), processors()
    with closing(only), talk.showing(), _signals(supervisor, talk) as forced:
        outcome = supervisor.run()
    seconds = time.monotonic() - began
    by = forced[-1] if forced else signal.SIGTERM  # or `ovpipe stop --now`
    code = 128 + by if outcome.killed else outcome.exit_code
    if outcome.error is None or any(a.claimed for a in outcome.reading.accounts):
        talk.ledger(outcome.reading)
    found = verdict(graph, outcome.reading, seconds, share_busy(before, processors()))
    for line in found:
        talk.say("info", f"verdict: {line}")
    if outcome.error is None:
        for stream in _empty(graph, outcome.reading):
            talk.say("warning", f"stream '{stream}' gave no frame")
    for error in filter(None, (outcome.error, *outcome.others)):
        _tell(talk, error)
    if json_:
        say(sys.stdout, json.dumps(as_json(graph.name, outcome, code, seconds, found)))
    return code


def _tell(talk: Talk, error: OvpipeError) -> None:
    trace = error.remote_traceback.rstrip() if isinstance(error, StageError) else ""
    if isinstance(talk, JsonTalk):
        talk.say("error", str(error), traceback=trace)
        return
    if trace:
        talk.say("info", trace)
    talk.say("error", str(error))


def _only_once(config: str, name: str) -> OnlyOnce:
    """A file runs once at a time: two would fight for its camera and its output files."""
    file = os.path.realpath(config) if config != "-" else f"stdin of {os.getpid()}"
    try:
        return OnlyOnce(file, name)
    except PreflightError as error:
        raise PreflightError(
            f"{config}: {error}; end that one first, or give this one another `name:`"
        ) from None


def _empty(graph: Graph, reading: Reading) -> list[str]:
    """The streams of which nobody was ever given a frame."""
    producers = {stage.name for stage in graph.stages if stage.role == "producer"}
    claimed: dict[str, int] = {}
    for account in reading.accounts:
        if account.source in producers:
            claimed[account.stream] = claimed.get(account.stream, 0) + account.claimed
    return [stream for stream, count in claimed.items() if not count]


@contextmanager
def _signals(supervisor: Supervisor, talk: Talk) -> Iterator[list[int]]:
    """Drain at the first signal, kill at a second; yields the signals that forced."""
    asked: list[int] = []
    forced: list[int] = []

    def on_signal(number: int, _: FrameType | None) -> None:
        if asked and number != signal.SIGHUP:
            forced.append(number)
            supervisor.kill()
        else:
            asked.append(number)
            supervisor.drain()
            talk.from_handler("draining: what is in flight is finished; again to end at once")

    before = {
        n: signal.signal(n, on_signal) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield forced
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
