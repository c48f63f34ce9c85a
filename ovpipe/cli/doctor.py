"""`ovpipe doctor`: whether this machine is fit, and what to do where it is not.

Law: each check has its time and its own thread; one that hangs or fails is told, and keeps none of
the others from being made.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import asdict

import click

from ovpipe.cli import complete, health
from ovpipe.cli.examples import examples
from ovpipe.cli.health import Finding
from ovpipe.cli.host import Host
from ovpipe.cli.probe import TIMEOUT_S
from ovpipe.cli.source import Source
from ovpipe.cli.status import say
from ovpipe.errors import ConfigError, OvpipeError
from ovpipe.graph import Graph

CHECKS = {
    "system": health.system,
    "processors": health.processors,
    "clock": health.clock,
    "memory": health.memory,
    "limits": health.files,
    "run directory": health.run_folder,
    "caches": health.caches,
    "devices": health.openvino,
    "video": health.video,
    "packages": health.packages,
    "cameras": health.cameras,
}
_COLOUR = {"ok": "green", "warn": "yellow", "bad": "red"}


@click.command(
    epilog=examples(
        ("ovpipe doctor", "this machine"),
        ("ovpipe doctor yard.yaml --env-file .env", "and what yard.yaml needs of it"),
        ("ovpipe doctor --json", "for programs: nothing is bad where `ok` is true"),
    )
)
@click.argument(
    "config",
    required=False,
    type=click.Path(dir_okay=False, allow_dash=True),
    shell_complete=complete.configs,
)
@click.option(
    "--env-file", type=click.Path(dir_okay=False), help="Variables of CONFIG, as for `ovpipe run`."
)
@click.option("--json", "json_", is_flag=True, help="As one JSON object.")
def doctor(config: str | None, env_file: str | None, json_: bool) -> None:
    """Look at this machine: devices and drivers, memory, limits, caches, codecs, packages, cameras.

    With CONFIG, also whether it has what that needs. Each line is ok, warn or bad, and says what
    to do. Nothing is changed and nothing started.

    Exit code: 0, or 3 where something is bad.
    """
    findings: dict[str, list[Finding]] = {}
    graph = None
    if config is not None:
        graph, findings["configuration"] = _configuration(Source(config, (), env_file))
    findings |= examine(Host(), graph)
    bad = any(finding.level == "bad" for found in findings.values() for finding in found)
    if json_:
        told = {area: [asdict(f) for f in found] for area, found in findings.items()}
        say(sys.stdout, json.dumps({"v": 1, "ok": not bad, "areas": told}))
    else:
        _show(findings)
    sys.exit(3 if bad else 0)


def examine(
    host: Host, graph: Graph | None, timeout_s: float = TIMEOUT_S + 5
) -> dict[str, list[Finding]]:
    """Make all checks at once, each for so long at most."""
    found: dict[str, list[Finding]] = {area: [] for area in CHECKS}

    def look(area: str) -> None:
        try:
            for finding in CHECKS[area](host, graph):
                found[area].append(finding)
        except Exception as error:  # noqa: BLE001 - a check that fails is a finding
            text = f"cannot be looked at: {type(error).__name__}: {error}"
            found[area].append(Finding("warn", text))

    threads = {a: threading.Thread(target=look, args=(a,), daemon=True) for a in CHECKS}
    for thread in threads.values():
        thread.start()
    deadline = time.monotonic() + timeout_s
    result = {}
    for area, thread in threads.items():
        thread.join(max(0.0, deadline - time.monotonic()))
        result[area] = list(found[area])
        if thread.is_alive():
            text = f"not answered within {timeout_s:g} s: a disk or a driver hangs"
            result[area].append(Finding("warn", text))
    return result


def _configuration(source: Source) -> tuple[Graph | None, list[Finding]]:
    warnings: list[str] = []
    try:
        graph = source.graph(warnings.append)
    except OvpipeError as error:
        problems = error.problems if isinstance(error, ConfigError) else (error,)
        do = f"ovpipe validate {source.config}"
        return None, [Finding("bad", str(problem), do) for problem in problems]
    counts = f"{len(graph.stages)} stages, {len(graph.streams)} streams"
    found = [Finding("ok", f"{source.config}: {counts}")]
    return graph, found + [Finding("warn", text) for text in warnings]


def _show(findings: dict[str, list[Finding]]) -> None:
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for area, found in findings.items():
        say(sys.stdout, area)
        for finding in found:
            level = f"{finding.level:4}"
            if colour:
                level = click.style(level, fg=_COLOUR[finding.level])
            say(sys.stdout, f"  {level}  {finding.what}")
            if finding.do:
                say(sys.stdout, f"        to do: {finding.do}")
