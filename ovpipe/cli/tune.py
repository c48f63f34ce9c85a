"""`ovpipe tune`: a better configuration, found by measuring.

Law: the file that was given is never changed. Another is written only where, measured alternately
with it at the end, it was better.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, cast

import click

from ovpipe.bench import knobs as turning
from ovpipe.bench import measure, plot, variant
from ovpipe.bench.knobs import Goal, assignments, shown
from ovpipe.bench.search import Search, Setting, is_better
from ovpipe.cli.bench import progress, try_streams
from ovpipe.cli.examples import examples
from ovpipe.cli.source import Source, takes_source
from ovpipe.cli.status import say, table
from ovpipe.cli.types import SECONDS, SIZE, writable
from ovpipe.errors import ConfigError, OvpipeError
from ovpipe.loader import spec_of
from ovpipe.loader.overrides import override
from ovpipe.loader.tree import Node
from ovpipe.loader.writing import as_written, dump
from ovpipe.spec import PipelineSpec

_BEHIND = 1e-6
"""Of a setting that does not keep up: worse than any that does, better the less it is behind."""
_MARGIN = 1.15
_PROMISING = 1.03


@dataclass(frozen=True)
class Try:
    """One measurement. `score`: more is better, None where the setting does not work."""

    setting: dict[str, Any]
    score: float | None
    said: str


@dataclass
class Outcome:
    """All of it. `pairs`: what was given and what was found, measured alternately at the end."""

    tries: list[Try] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)
    """Of the best so far, after each try."""
    best: dict[str, Any] = field(default_factory=dict)
    pairs: list[tuple[Try, Try]] = field(default_factory=list)
    out_of_time: bool = False

    @property
    def better(self) -> bool:
        """Whether what was found is better."""
        given = [a.score or 0.0 for a, _ in self.pairs]
        return is_better(given, [b.score or 0.0 for _, b in self.pairs])


@click.command(
    epilog=examples(
        ("ovpipe tune yard.yaml", "most frames/s; writes yard.tuned.yaml"),
        ("ovpipe tune yard.yaml --goal latency --fps 25", "least age of frames at that rate"),
        ("ovpipe tune yard.yaml --budget 20m --plot yard.svg", "more time, and a picture"),
    )
)
@takes_source
@click.option("--goal", type=click.Choice(["throughput", "latency"]), default="throughput",
              show_default=True, help="Most frames/s, or least p99 age at --fps.")  # fmt: skip
@click.option(
    "--fps", type=click.FloatRange(min=0, min_open=True), help="Of each stream, for latency."
)
@click.option("--budget", type=SECONDS, default="5m", show_default=True, help="Time for all of it.")
@click.option("--seconds", type=SECONDS, default="3s", show_default=True, help="Of each try.")
@click.option("--warm", type=SECONDS, default="1s", show_default=True, help="Before it counts.")
@click.option("--rounds", type=click.IntRange(2, 50), default=3, show_default=True,
              help="Given and found are measured alternately so often at the end.")  # fmt: skip
@click.option("--size", type=SIZE, metavar="WxH", help="Of the frames in place of live sources'.")
@click.option("-o", "--output", type=click.Path(dir_okay=False),
              help="Write here; default: CONFIG with .tuned before its suffix.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace that file where it is there already.")
@click.option("--json", "json_", is_flag=True, help="As one JSON object.")
@click.option("--plot", "picture", type=click.Path(dir_okay=False), help="Draw the tries as SVG.")
def tune(
    source: Source,
    goal: str,
    fps: float | None,
    budget: float,
    seconds: float,
    warm: float,
    rounds: int,
    size: tuple[int, int] | None,
    output: str | None,
    overwrite: bool,
    json_: bool,
    picture: str | None,
) -> None:
    """Find values that make CONFIG faster, by measuring: hint, jobs, streams, threads and batch of
    the infer stages, and which stages share a process.

    What comes out stays the same: no model, device, size or policy is changed. The better
    configuration is written to a file of its own, without comments, and only where it was better
    when both were measured alternately at the end. As for `bench`, live sources are replaced by
    synthetic ones, and nothing is written to your outputs.
    """
    if goal == "latency" and fps is None:
        raise click.UsageError("--goal latency needs --fps: at which rate?")
    target = _target(source.config, output, overwrite)
    if picture:
        writable(picture)
    root, environ = source.tree(), source.environ()
    spec = spec_of(root, source.config, environ)
    cores = len(os.sched_getaffinity(0))
    knobs = turning.knobs(spec, cast(Goal, goal), cores)
    if not knobs:
        raise click.ClickException(f"{source.config}: there is nothing to turn: no infer stage")

    def attempt(setting: Setting) -> Try:
        try:
            changed = spec_of(override(root, assignments(setting)), source.config, environ)
            if goal == "throughput":
                score, said = _throughput(changed, warm, seconds, size)
            else:
                score, said = _latency(changed, cast(float, fps), warm, seconds, size)
        except OvpipeError as error:
            problem = error.problems[0].message if isinstance(error, ConfigError) else str(error)
            return Try(dict(setting), None, problem.partition("\n")[0][:160])
        return Try(dict(setting), score, said)

    outcome = search(Search(knobs), attempt, budget, rounds)
    if outcome.tries[0].score is None:
        raise click.ClickException(f"as given it cannot be measured: {outcome.tries[0].said}")
    written = None
    if outcome.better:
        target.write_text(_text(root, spec, outcome, goal), encoding="utf-8")
        written = str(target)
    if picture:
        Path(picture).write_text(_drawn(spec.name, outcome, goal), encoding="utf-8")
    if json_:
        say(sys.stdout, json.dumps({
            "v": 1, "name": spec.name, "goal": goal, "fps": fps, "written": written,
            "best": outcome.best, "better": outcome.better,
            "tries": [asdict(t) for t in outcome.tries],
            "alternately": [[asdict(a), asdict(b)] for a, b in outcome.pairs],
        }))  # fmt: skip
    else:
        _show(outcome, written)


def search(
    looking: Search,
    attempt: Callable[[Setting], Try],
    budget_s: float,
    rounds: int,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Try until nothing helps or only the time for the end is left; then both alternately."""
    began_s = clock()
    outcome = Outcome()
    dearest_s = 0.0

    def one(setting: Setting, what: str) -> Try:
        nonlocal dearest_s
        since_s = clock()
        spent = f"{_minutes(since_s - began_s)} of {_minutes(budget_s)}"
        progress(f"{spent}, {what}: {shown(setting)}")
        made = attempt(setting)
        dearest_s = max(dearest_s, clock() - since_s)
        return made

    while (setting := looking.next()) is not None:
        if outcome.tries:
            outcome.scores.append(looking.score)
            left_s = budget_s - (clock() - began_s)
            if left_s < dearest_s * (1 + 2 * rounds) * _MARGIN:
                outcome.out_of_time = True
                break
        made = one(setting, f"try {len(outcome.tries) + 1}")
        outcome.tries.append(made)
        looking.tell(made.score)
        if len(outcome.tries) == 1 and made.score is None:
            return outcome
    outcome.scores += [looking.score] * (len(outcome.tries) - len(outcome.scores))
    outcome.best = dict(looking.best) or most_promising(outcome.tries)
    for number in range(rounds if outcome.best else 0):
        given = one({}, f"given, {number + 1} of {rounds}")
        outcome.pairs.append((given, one(outcome.best, f"found, {number + 1} of {rounds}")))
    progress("")
    return outcome


def most_promising(tries: list[Try]) -> dict[str, Any]:
    """The setting that did best, where there was no time to confirm any; {} where none did better.

    Whether it is any better, the end says.
    """
    given = median(t.score or 0.0 for t in tries if not t.setting)
    best = max(tries, key=lambda t: t.score or 0.0)
    return best.setting if (best.score or 0.0) > given * _PROMISING else {}


def _throughput(
    spec: PipelineSpec, warm_s: float, seconds: float, size: tuple[int, int] | None
) -> tuple[float, str]:
    with variant.folder() as folder:
        measured = measure.run(variant.at_full_speed(spec, folder, size).graph, warm_s, seconds)
    return measured.frames_per_s, f"{measured.frames_per_s:.1f} frames/s"


def _latency(
    spec: PipelineSpec, fps: float, warm_s: float, seconds: float, size: tuple[int, int] | None
) -> tuple[float, str]:
    step = try_streams(spec, None, fps, 1e6, warm_s, seconds, size)
    if not step.fits:
        return _BEHIND * step.per_s / (step.streams * fps), step.why
    return 1e3 / max(step.p99_ms, 1e-3), f"p99 {step.p99_ms:.1f} ms, p50 {step.p50_ms:.1f} ms"


def _target(config: str, output: str | None, overwrite: bool) -> Path:
    """Where to write; told now, and not after minutes, where that cannot be."""
    if output is None and config == "-":
        raise click.UsageError("CONFIG from stdin needs -o FILE")
    target = Path(output) if output is not None else Path(config).with_suffix(".tuned.yaml")
    if target.exists() and (not overwrite or target.resolve() == Path(config).resolve()):
        hint = (
            "-o another" if target.resolve() == Path(config).resolve() else "--overwrite it, or -o"
        )
        raise click.ClickException(f"{target} is there already: {hint}")
    writable(str(target))
    return target


def _text(root: Node, spec: PipelineSpec, outcome: Outcome, goal: str) -> str:
    """The better configuration: as written, variables too, but for comments."""
    values = as_written(override(root, assignments(outcome.best)))
    if "name" not in values:
        values = {"version": values["version"], "name": spec.name, **values}
    given, found = (
        median(t.score or 0.0 for t in each) for each in zip(*outcome.pairs, strict=True)
    )
    head = [
        f"# Found by `ovpipe tune` for {goal}: {_ratio(given, found)}.",
        *(f"#   {path} = {json.dumps(value)}" for path, value in outcome.best.items()),
    ]
    return "\n".join(head) + "\n" + dump(values)


def _ratio(given: float, found: float) -> str:
    return f"{found / given:.2f} times as good as what was given" if given else "better"


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _show(outcome: Outcome, written: str | None) -> None:
    rows = [[str(i), t.said, shown(t.setting)] for i, t in enumerate(outcome.tries, 1)]
    say(sys.stdout, table(["try", "", "setting"], rows, left=3))
    if outcome.pairs:
        say(sys.stdout, "\nalternately, at the end:")
        pairs = [[a.said, b.said] for a, b in outcome.pairs]
        say(sys.stdout, table(["given", "found"], pairs, left=2))
    say(sys.stdout, "")
    if outcome.out_of_time:
        say(sys.stdout, "the time was over before all was tried: --budget gives it more")
    if written is not None:
        say(sys.stdout, f"better: {shown(outcome.best)}\nwritten to {written} (without comments)")
    elif outcome.pairs:
        say(
            sys.stdout,
            f"nothing written: {shown(outcome.best)} was not better, measured alternately",
        )
    else:
        say(sys.stdout, "nothing written: nothing that was tried is better than what was given")


def _drawn(name: str, outcome: Outcome, goal: str) -> str:
    scores = [t.score or 0.0 for t in outcome.tries]
    best = [score or 0.0 for score in outcome.scores]
    tried = plot.Line("tried", tuple((i + 1.0, s) for i, s in enumerate(scores)),
                      tuple(t.score is not None for t in outcome.tries))  # fmt: skip
    so_far = plot.Line("best so far", tuple((i + 1.0, s) for i, s in enumerate(best)))
    unit = "frames/s" if goal == "throughput" else "1000 / p99 in ms"
    return plot.lines(f"{name}: {goal}", [tried, so_far], "try", unit)
