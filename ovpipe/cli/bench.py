"""`ovpipe bench`: how fast a configuration is, and where the time goes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from ovpipe.bench import app, measure, plot, variant
from ovpipe.bench.report import Report, headline, part_rows, stage_rows
from ovpipe.bench.streams import StreamSearch
from ovpipe.cli.examples import examples
from ovpipe.cli.source import Source, takes_source
from ovpipe.cli.status import say, table
from ovpipe.cli.types import SECONDS, SIZE, writable
from ovpipe.errors import OvpipeError, PreflightError
from ovpipe.spec import PipelineSpec

_KEEPS_UP = 0.98
"""Of the frames that streams make, this share must come through."""


@dataclass(frozen=True)
class Step:
    """One number of streams tried."""

    streams: int
    fits: bool
    per_s: float
    p50_ms: float
    p99_ms: float
    why: str = ""


@click.command(
    epilog=examples(
        ("ovpipe bench yard.yaml", "frames/s at most, where the time goes"),
        ("ovpipe bench yard.yaml --fps 25 --p99 100ms", "how many such streams go through"),
        ("ovpipe bench yard.yaml --json --plot yard.svg", "for programs, and a picture"),
        ("ovpipe bench yard.yaml --set stages.detect.jobs=4", "another value, nothing written"),
    )
)
@takes_source
@click.option("--seconds", type=SECONDS, default="5s", show_default=True, help="Of each round.")
@click.option("--warm", type=SECONDS, default="2s", show_default=True, help="Before it counts.")
@click.option("--rounds", type=click.IntRange(1, 100), default=2, show_default=True,
              help="The graph and benchmark_app take turns so often.")  # fmt: skip
@click.option("--size", type=SIZE, metavar="WxH", help="Of the frames in place of live sources'.")
@click.option("--fps", type=click.FloatRange(min=0, min_open=True),
              help="Also find how many streams of so many frames/s go through.")  # fmt: skip
@click.option("--p99", type=SECONDS, default="100ms", show_default=True,
              help="How old 99 % of the frames may be at the end, for --fps.")  # fmt: skip
@click.option("--most", type=click.IntRange(1, 256), default=64, show_default=True,
              help="Streams tried at most, for --fps.")  # fmt: skip
@click.option("--no-app", is_flag=True, help="Do not run benchmark_app for the models alone.")
@click.option("--json", "json_", is_flag=True, help="As one JSON object.")
@click.option("--plot", "picture", type=click.Path(dir_okay=False, writable=True),
              help="Draw it into this SVG file, too.")  # fmt: skip
def bench(
    source: Source,
    seconds: float,
    warm: float,
    rounds: int,
    size: tuple[int, int] | None,
    fps: float | None,
    p99: float,
    most: int,
    no_app: bool,
    json_: bool,
    picture: str | None,
) -> None:
    """Measure CONFIG: frames per second at most, its share of what OpenVINO's benchmark_app does
    with the model alone, and where the rest of the time goes.

    Files are read as they are, again and again, and nothing is dropped. In place of cameras and
    other live sources come synthetic frames of the same size, and what that changes is said.
    Nothing is written to your outputs, and nothing sent. With --fps it also finds how many such
    streams go through in time.
    """
    if picture:
        writable(picture)
    spec = source.spec()
    report = throughput(spec, rounds, warm, seconds, size, with_app=not no_app)
    steps = None
    if fps is not None:
        steps = find_streams(spec, fps, p99, most, warm, seconds, size)
    if json_:
        values: dict[str, Any] = {"v": 1, **report.to_json()}
        if steps is not None:
            best = max((s.streams for s in steps if s.fits), default=0)
            values["streams"] = {"fps": fps, "p99_ms": p99 * 1e3, "most": best,
                                 "tried": [asdict(s) for s in steps]}  # fmt: skip
        say(sys.stdout, json.dumps(values))
    else:
        _show(report)
        if steps is not None and fps is not None:
            _show_streams(steps, fps, p99, most)
    if picture:
        Path(picture).write_text(_drawn(report, steps, fps, p99), encoding="utf-8")


def throughput(
    spec: PipelineSpec,
    rounds: int,
    warm_s: float,
    seconds: float,
    size: tuple[int, int] | None,
    *,
    with_app: bool,
) -> Report:
    """The graph and benchmark_app in turn. Raises what makes the graph fail."""
    measured, alone, notes = [], {}, []
    with variant.folder() as folder:
        made = variant.at_full_speed(spec, folder, size)
        infer = {s.name: s.workers[0].options for s in made.graph.stages if s.kind == "infer"}
        found: dict[str, list[app.Alone]] = {name: [] for name in infer}
        for number in range(rounds):
            what = f"round {number + 1} of {rounds}"
            for name in infer if with_app else ():
                progress(f"{what}: benchmark_app, the model of '{name}'")
                try:
                    found[name].append(app.alone(infer[name], seconds))
                except PreflightError as error:
                    notes.append(f"'{name}' alone could not be measured: {error}")
                    with_app = False
            progress(f"{what}: the graph")
            measured.append(measure.run(made.graph, warm_s, seconds))
    if with_app:
        for name, each in found.items():
            alone[name] = sorted(each, key=lambda a: a.per_s)[(len(each) - 1) // 2]
    progress("")
    cores = len(os.sched_getaffinity(0))
    return Report(spec.name, cores, tuple(measured), alone, made.told, tuple(notes))


def find_streams(
    spec: PipelineSpec,
    fps: float,
    p99_s: float,
    most: int,
    warm_s: float,
    seconds: float,
    size: tuple[int, int] | None,
) -> list[Step]:
    """All that was tried, in order."""
    least = sum(stage.role == "producer" for stage in spec.stages)
    search = StreamSearch(least, max(least, most))
    steps = []
    while (count := search.next()) is not None:
        progress(f"{count} streams of {fps:g} frames/s")
        step = try_streams(spec, count, fps, p99_s, warm_s, seconds, size)
        search.tell(count, step.fits)
        steps.append(step)
    progress("")
    return steps


def try_streams(
    spec: PipelineSpec,
    count: int | None,
    fps: float,
    p99_s: float,
    warm_s: float,
    seconds: float,
    size: tuple[int, int] | None,
) -> Step:
    """One number of streams (None: as many as there are)."""
    with variant.folder() as folder:
        report = folder / "ages.json"
        number = count or 0
        try:
            made = variant.paced(
                spec, folder, report, streams=count, fps=fps, warm_s=warm_s, size=size
            )
            number = len(made.graph.streams)
            measured = measure.run(made.graph, warm_s, seconds)
            ages = json.loads(report.read_text())
        except (OvpipeError, OSError, ValueError) as error:
            text = str(error).partition("\n")[0]
            return Step(number, False, 0.0, 0.0, 0.0, text)
    wanted = number * fps
    why = ""
    if measured.frames_per_s < _KEEPS_UP * wanted:
        why = f"only {measured.frames_per_s:.1f} of {wanted:g} frames/s come to '{measured.at}'"
    elif ages["p99_ms"] > p99_s * 1e3:
        why = f"99 % are up to {ages['p99_ms']:.0f} ms old"
    return Step(number, not why, measured.frames_per_s, ages["p50_ms"], ages["p99_ms"], why)


def progress(text: str) -> None:
    """What is being done, on one line of a terminal; a line each elsewhere."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
    elif text:
        say(sys.stderr, text)


def _show(report: Report) -> None:
    out: Callable[[str], object] = lambda text: say(sys.stdout, text)  # noqa: E731
    for line in headline(report):
        out(line)
    out("")
    out(table(*stage_rows(report.typical), left=1))
    out("")
    out(table(*part_rows(report.parts), left=1))
    out("")
    for line in report.typical.verdict:
        out(f"verdict: {line}")
    if report.typical.lost_per_s:
        out(f"lost on the way: {report.typical.lost_per_s:.1f} frames/s")
    for line in (*report.notes, *(f"changed for this: {text}" for text in report.told)):
        out(line)


def _show_streams(steps: list[Step], fps: float, p99_s: float, most: int) -> None:
    best = max((s.streams for s in steps if s.fits), default=0)
    head = ["streams", "frames/s", "p50 ms", "p99 ms", ""]
    words = [s.why or "goes" for s in steps]
    rows = [
        [str(s.streams), f"{s.per_s:.1f}", f"{s.p50_ms:.1f}", f"{s.p99_ms:.1f}",
         word.ljust(max(map(len, words)))]
        for s, word in zip(steps, words, strict=True)
    ]  # fmt: skip
    say(sys.stdout, "")
    say(sys.stdout, table(head, rows, left=0))
    more = " (no more were tried)" if best >= most else ""
    say(sys.stdout, f"{best} streams of {fps:g} frames/s, p99 below {p99_s * 1e3:g} ms{more}")


def _drawn(report: Report, steps: list[Step] | None, fps: float | None, p99_s: float) -> str:
    if steps:
        ordered = sorted(steps, key=lambda s: s.streams)
        points = tuple((float(s.streams), s.p99_ms) for s in ordered)
        line = plot.Line("p99", points, tuple(s.fits for s in ordered))
        title = f"{report.name}: age of frames, streams of {fps:g} frames/s"
        return plot.lines(title, [line], "streams", "p99, ms", p99_s * 1e3)
    parts = tuple((part.what, part.cpu_ms) for part in report.parts)
    rows = [plot.Bar("each frame", parts)]
    title = f"{report.name}: {report.frames_per_s:.1f} frames/s"
    if report.share is not None:
        title += f", {report.share:.0%} of benchmark_app"
    return plot.bars(title, rows, "ms of processor time")
