"""Commands that ask a run for something: peek, logs, restart. See supervisor/desk.py."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ovpipe.cli import complete
from ovpipe.cli.examples import examples
from ovpipe.cli.running import find
from ovpipe.cli.status import say
from ovpipe.errors import MissingExtra, OvpipeError, PipelineClosed
from ovpipe.frame import Frame
from ovpipe.stages.annotate import Annotate
from ovpipe.stages.base import LocalContext
from ovpipe.supervisor.bulletin import Run
from ovpipe.supervisor.contact import Contact

_LOOK_S = 0.2
_RUN = click.option(
    "--run", "which", metavar="WHICH", help="The run, by its name or process.",
    shell_complete=complete.running,
)  # fmt: skip


@click.command(
    epilog=examples(
        ("ovpipe peek detect", "what it gives"),
        ('ovpipe peek "cam -> detect" --stream cam/gate --png a.png', "its picture, with boxes"),
    )
)
@click.argument("edge")
@_RUN
@click.option("--stream", help="Of which stream; any, where it is left out.")
@click.option("--png", metavar="FILE", help="Write the picture, with boxes; - is stdout.")
@click.option("--timeout", type=click.FloatRange(min=0), default=5.0, show_default=True,
              help="Seconds to wait for a frame.")  # fmt: skip
@click.option("--json", "json_", is_flag=True, help="One JSON object.")
def peek(
    edge: str, which: str | None, stream: str | None, png: str | None, timeout: float, json_: bool
) -> None:
    """Look at the next frame that goes along EDGE of a pipeline that runs.

    EDGE is "cam -> detect", or a stage's name: the first edge that leaves it. The pipeline does not
    wait for whoever looks.
    """
    if png is not None:
        _need_drawing()
    contact = Contact(find(which).folder)
    try:
        frame = contact.peek(edge, stream, timeout=timeout)
    except (TimeoutError, PipelineClosed) as error:
        raise click.ClickException(str(error)) from None
    if png is not None:
        _write(png, picture(frame))
    if png != "-":
        say(sys.stdout, json.dumps(described(frame), default=repr) if json_ else _told(frame))


def _need_drawing() -> None:
    try:
        import cv2  # noqa: F401 - only whether it is there
    except ImportError:
        raise MissingExtra("ovpipe peek --png", "cv2", "draw") from None


def picture(frame: Frame) -> bytes:
    """The frame's picture with what was found in it, as PNG."""
    import cv2

    if frame.image is None:
        raise click.ClickException(f"the frame has no picture; it has {', '.join(frame.arrays)}")
    draw = Annotate()
    draw.bind(LocalContext("peek"))
    draw.open()
    drawn = draw.process(frame).image
    assert drawn is not None
    pixels = drawn.data if drawn.format == "gray" else drawn.bgr()
    done, data = cv2.imencode(".png", pixels)
    if not done:
        raise click.ClickException("the picture cannot be written as PNG")
    return data.tobytes()


def _write(path: str, data: bytes) -> None:
    try:
        if path == "-":
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
        else:
            Path(path).write_bytes(data)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None


def described(frame: Frame) -> dict[str, Any]:
    """A frame as one JSON object, without its pixels."""
    image, found = frame.image, frame.detections
    tracks = None if found is None or found.track_id is None else found.track_id.tolist()
    return {
        "v": 1,
        "stream": frame.stream,
        "seq": frame.seq,
        "pts": None if frame.pts_ns is None else frame.pts_ns / 1e9,
        "age_ms": round((time.monotonic_ns() - frame.captured_ns) / 1e6, 1),
        "source": frame.source,
        "image": image and {
            "format": image.format, "width": image.width, "height": image.height,
            "matrix": image.matrix, "full_range": image.full_range,
        },
        "arrays": {
            name: {"shape": list(array.shape), "dtype": str(array.dtype)}
            for name, array in frame.arrays.items()
        },
        "detections": None if found is None else [
            {
                "label": label, "class_id": class_id, "score": round(score, 4),
                "box": [round(edge, 1) for edge in box],
                **({} if tracks is None else {"track_id": tracks[row]}),
            }
            for row, (label, class_id, score, box) in enumerate(found)
        ],
        "meta": dict(frame.meta),
    }  # fmt: skip


def _told(frame: Frame) -> str:
    said = described(frame)
    at = "" if said["pts"] is None else f", at {said['pts']:.3f} s"
    lines = [f"stream {frame.stream}, frame {frame.seq}{at}, {said['age_ms']} ms old, "
             f"of {frame.source}"]  # fmt: skip
    if image := said["image"]:
        lines.append(f"image {image['format']} {image['width']}x{image['height']}")
    for name, array in said["arrays"].items():
        lines.append(f"array {name} {tuple(array['shape'])} {array['dtype']}")
    if said["detections"] is not None:
        lines.append(f"detections {len(said['detections'])}")
        for found in said["detections"]:
            track = f" #{found['track_id']}" if "track_id" in found else ""
            lines.append(f"  {found['label']} {found['score']:.2f} {found['box']}{track}")
    lines += [f"meta {name} {json.dumps(value, default=repr)}" for name, value in
              said["meta"].items()]  # fmt: skip
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)


@click.command(
    epilog=examples(("ovpipe logs", "what was said last"), ("ovpipe logs yard -f", "and goes on"))
)
@click.argument("which", required=False, shell_complete=complete.running)
@click.option("-f", "--follow", is_flag=True, help="And all that is said from now on.")
@click.option("-t", "--times", is_flag=True, help="When each line was said.")
@click.option("--json", "json_", is_flag=True, help="One JSON object a line.")
def logs(which: str | None, follow: bool, times: bool, json_: bool) -> None:
    """Show what the pipeline WHICH (its name or process) said last: up to 1000 lines.

    Those of its stages and its own. Of what comes faster than it can be shown, some is left out.
    """
    contact, last = Contact(find(which).folder), None
    with suppress(KeyboardInterrupt):
        try:
            for line in contact.logs(follow=follow):
                if last is not None and line.number > last + 1:
                    say(sys.stderr, f"{line.number - last - 1} lines left out")
                last = line.number
                at = time.strftime("%H:%M:%S ", time.localtime(line.at_s)) if times else ""
                text = f"{at}[{line.worker}] {line.text}"
                if not say(sys.stdout, json.dumps(asdict(line)) if json_ else text):
                    return
        except PipelineClosed as error:
            raise click.ClickException(str(error)) from None


@click.command(
    epilog=examples(
        ("ovpipe restart detect", "all of its processes"),
        ("ovpipe restart cam/gate", "the one of a stream"),
    )
)
@click.argument("stage")
@_RUN
@click.option("--timeout", type=click.FloatRange(min=0), default=60.0, show_default=True,
              help="Seconds to wait until it is back; 0: do not wait.")  # fmt: skip
def restart(stage: str, which: str | None, timeout: float) -> None:
    """Give STAGE of a pipeline that runs new processes, and wait until they work.

    Or one of its processes by its name in `ovpipe top`, as cam/gate or detect#1. What they have in
    hand is finished first, and it uses up none of the stage's restarts.
    """
    run = find(which)
    contact = Contact(run.folder)
    before = _restarts(run, stage)
    try:
        contact.restart(stage)
        until_s = time.monotonic() + timeout
        while timeout and not _are_back(now := contact.status(), stage, before):
            if time.monotonic() >= until_s:
                states = ", ".join(f"{w.name} {w.state}" for w in now.reading.workers
                                   if w.name in before)  # fmt: skip
                raise click.ClickException(f"not back within {timeout:g} s: {states}")
            time.sleep(_LOOK_S)
    except PipelineClosed as error:
        raise click.ClickException(str(error)) from None
    say(sys.stderr, f"{', '.join(before)}: {'back' if timeout else 'asked to leave'}")


def _restarts(run: Run, stage: str) -> dict[str, int]:
    """How often each process of a stage was started anew."""
    return {w.name: w.restarts for w in run.reading.workers if stage in (w.stage, w.name)}


def _are_back(run: Run, stage: str, before: dict[str, int]) -> bool:
    now = {w.name: w for w in run.reading.workers if w.name in before}
    if any(worker.state == "ended" for worker in now.values()):
        raise OvpipeError(f"stage '{stage}' has ended")
    return all(
        now[name].restarts > count and now[name].state not in ("away", "starting", "loading")
        for name, count in before.items()
    )
