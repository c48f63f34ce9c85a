"""Commands for pipelines that run: ps, top, stop. They read what each run says of itself.

Law: nothing but the run is asked to end. A signal would not do: the process of a run is that of a
whole application where it runs inline.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from contextlib import nullcontext, suppress
from dataclasses import asdict
from typing import Any

import click

from ovpipe.cli import complete
from ovpipe.cli.examples import examples
from ovpipe.cli.status import Status, say, table
from ovpipe.errors import PipelineClosed
from ovpipe.supervisor.bulletin import Run, runs
from ovpipe.supervisor.contact import Contact
from ovpipe.supervisor.core import DRAIN_TIMEOUT_S

_LOOK_S = 0.2
_EVERY_S = 0.5
_WHICH = click.argument("which", required=False, shell_complete=complete.running)


def find(which: str | None) -> Run:
    """The run of that name or process; the only one, where none is named."""
    running = runs()
    found = [run for run in running if which in (None, run.name, str(run.pid))]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{run.name} ({run.pid})" for run in running) or "none"
    which = "" if which is None else f" '{which}'"
    few = f"no pipeline{which} runs" if not found else f"several pipelines{which} run"
    raise click.ClickException(f"{few}; there are: {known}; name one, or its process")


def as_dict(run: Run) -> dict[str, Any]:
    """A run as one JSON object."""
    return {
        "v": 1,
        "name": run.name,
        "pid": run.pid,
        "phase": run.phase,
        "started": run.started_s,
        "at_ns": run.reading.at_ns,
        "ledger": [asdict(account) for account in run.reading.accounts],
        "stages": [asdict(worker) for worker in run.reading.workers],
        "flows": [asdict(flow) for flow in run.reading.flows],
        "verdict": run.verdict,
    }


@click.command(
    epilog=examples(
        ("ovpipe ps", "all of your pipelines that run, those in applications too"),
        ("ovpipe ps --json | jq .name", "for programs"),
    )
)
@click.option("--json", "json_", is_flag=True, help="One JSON object a line.")
def ps(json_: bool) -> None:
    """List the pipelines that you run."""
    running = runs()
    if json_:
        for run in running:
            say(sys.stdout, json.dumps(as_dict(run)))
        return
    head = ["name", "process", "phase", "since", "cameras", "stages", "claimed", "delivered",
            "restarts"]  # fmt: skip
    rows = []
    for run in running:
        accounts, workers = run.reading.accounts, run.reading.workers
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.started_s))
        counts = [len(workers), sum(a.claimed for a in accounts),
                  sum(a.delivered for a in accounts), sum(w.restarts for w in workers)]  # fmt: skip
        cameras = Counter(w.facts["camera"] for w in workers if "camera" in w.facts)
        states = ", ".join(f"{count} {state}" for state, count in cameras.items()) or "-"
        rows.append([run.name, str(run.pid), run.phase, since, states, *map(str, counts)])
    say(sys.stdout, table(head, rows, left=5))


@click.command(
    epilog=examples(
        ("ovpipe top", "the one that runs"),
        ("ovpipe top yard --once", "one moment"),
        ("ovpipe top yard --json | jq .phase", "for programs"),
    )
)
@_WHICH
@click.option("--once", is_flag=True, help="Show one moment and end.")
@click.option("--json", "json_", is_flag=True, help="One JSON object a moment and line.")
def top(which: str | None, once: bool, json_: bool) -> None:
    """Show how the pipeline WHICH (its name or process) is doing, until it ends or Ctrl-C.

    Rates, ages of frames (capture to arrival: p50, p95, p99) and the share of an edge's places that
    are taken are those of the last five seconds, the verdict is of the last ten.
    """
    run = find(which)
    status = Status(run.name, sys.stdout, run.reading, whole=True)
    with nullcontext() if json_ else status, suppress(KeyboardInterrupt):
        while True:
            if json_:
                say(sys.stdout, json.dumps(as_dict(run)))
                if once:
                    return
            time.sleep(_EVERY_S)
            again = [other for other in runs() if other.folder == run.folder]
            if not again:
                break
            if run.reading.at_ns == (run := again[0]).reading.at_ns:
                continue
            if not json_:
                status.show(run.phase, run.reading, run.verdict, at_once=once)
                if once:
                    return
    say(sys.stderr, f"{run.name} ({run.pid}) has ended")


@click.command(
    epilog=examples(
        ("ovpipe stop yard", "what is in flight is finished"),
        ("ovpipe stop yard --now", "at once"),
    )
)
@_WHICH
@click.option("--now", is_flag=True, help="Do not wait for what is in flight.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=2 * DRAIN_TIMEOUT_S,
    show_default=True,
    help="Seconds to wait for its end.",
)
def stop(which: str | None, now: bool, timeout: float) -> None:
    """Drain the pipeline WHICH (its name or process) and wait for its end."""
    run = find(which)
    contact, deadline = Contact(run.folder), time.monotonic() + timeout
    try:
        with suppress(PipelineClosed):  # it has just ended
            contact.kill() if now else contact.drain()
    except TimeoutError:
        raise click.ClickException(
            f"{run.name} ({run.pid}) does not answer; `kill -9 {run.pid}` ends it"
        ) from None
    while run.here:
        if time.monotonic() >= deadline:
            hint = "" if now else "; --now ends it at once"
            raise click.ClickException(
                f"{run.name} ({run.pid}) has not ended within {timeout:g} s{hint}"
            )
        time.sleep(_LOOK_S)
    say(sys.stderr, f"{run.name} ({run.pid}) has ended")
