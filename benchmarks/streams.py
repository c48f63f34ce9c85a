"""Many streams through one model for a long time: who starves, how old frames are, what grows.

    python benchmarks/streams.py --model FILE [--minutes 10] [--streams 12] [--fps 15]
                                 [--max-age 0.5] [--overload] [--footage VIDEO]
                                 [--plot FILE.svg] [--json FILE]

One run of `video` (for_each, `pace: true`, `loop: true`: a 640x360 clip at its own speed, as
cameras give it, all of them starting at the same moment) -> `infer` -> a consumer, which notes when
each frame came, of which stream, and its age: the time since its capture. All edges are those of
live sources; `max_age` is what --max-age says. With --overload the consumer needs five times the
time that there is for each frame.

A table has a line per minute:

    frames     delivered in that minute, of all streams
    few/most   of the stream that got fewest, divided by that of the one that got most
    age        of what was delivered, in ms: p50, p95, p99 and the greatest
    MB         resident memory of all processes of the run at the end of it, its shared pages
               counted for each

and at the end: the slope of memory in each half of the run (least squares), the ledger
(claimed = delivered + dropped + failed + in flight for each edge and stream; what was delivered
at the last edge must be what the consumer noted), and whether each of these holds, which is also
the exit code:

    fair    few/most over the whole run is at least 0.9 (not with --overload)
    fresh   the p95 of the age is within `max_age` in every minute; with --overload, the greatest
            but for 20 ms
    flat    memory grows by less than 1 MB a minute in the second half, when what is made once, at
            its first use, has been made; known from three minutes on
    exact   the ledger agrees
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from ages import NOTE

import ovpipe

HERE = Path(__file__).parent
SIZE = (640, 360)
SECONDS = 20
LOOK_S = 2.0
WARM_S = 5.0


def make_clip(path: Path, footage: str, fps: int) -> None:
    """Twenty seconds of 640x360 at the wanted rate."""
    import av
    import numpy as np

    def pictures() -> Any:
        if footage:
            with av.open(footage) as container:
                for frame in container.decode(video=0):
                    yield frame.reformat(*SIZE, "yuv420p").to_ndarray()
            return
        random = np.random.default_rng(1)
        for i in range(SECONDS * fps):
            planes = np.full((SIZE[1] * 3 // 2, SIZE[0]), 128, np.uint8)
            planes[: SIZE[1]] = np.linspace(40, 200, SIZE[0], dtype=np.uint8)
            planes[: SIZE[1]] += random.integers(0, 9, (SIZE[1], SIZE[0]), np.uint8)
            planes[100:200, 4 * i % 500 : 4 * i % 500 + 90] = 30
            yield planes

    made = 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        while made < SECONDS * fps:
            for planes in pictures():
                for packet in stream.encode(av.VideoFrame.from_ndarray(planes, "yuv420p")):
                    container.mux(packet)
                made += 1
                if made == SECONDS * fps:
                    break
        for packet in stream.encode():
            container.mux(packet)


Notes = list[tuple[int, int, int, int]]
"""As NOTE has them."""


def read_notes(path: Path) -> Notes:
    data = path.read_bytes()
    return list(NOTE.iter_unpack(data[: len(data) // NOTE.size * NOTE.size]))


def memory(pid: int) -> int:
    """Resident bytes of all processes below one."""
    total = 0
    for process in psutil.Process(pid).children(recursive=True):
        try:
            total += process.memory_info().rss
        except psutil.Error:
            pass
    return total


def quantile(ages: list[int], part: float) -> float:
    """In ms."""
    return sorted(ages)[min(len(ages) - 1, int(part * len(ages)))] / 1e6 if ages else 0.0


def summary(notes: Notes, streams: int) -> dict[str, float]:
    """Of some notes: the figures of a line."""
    counts = [0] * streams
    for *_, number in notes:
        counts[number] += 1
    ages = [note[1] for note in notes]
    return {
        "frames": len(notes),
        "fairness": min(counts) / max(counts) if notes else 0.0,
        **{f"p{p}": quantile(ages, p / 100) for p in (50, 95, 99)},
        "max": max(ages, default=0) / 1e6,
    }


def slope(points: list[tuple[float, float]]) -> float:
    """Least squares, in y per x; 0 of too few."""
    if len(points) < 3:
        return 0.0
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def plot(path: str, ages: list[tuple[float, float]], used: list[tuple[float, float]]) -> None:
    """Age and memory over time, in one small picture."""
    width, height, gap = 900, 220, 50
    parts = []
    for row, (points, what) in enumerate(((ages, "p95 of the age, ms"), (used, "memory, MB"))):
        top, end = row * (height + gap) + 30, max(x for x, _ in points) or 1.0
        most = max(y for _, y in points) * 1.1 or 1.0
        line = " ".join(
            f"{60 + x / end * (width - 80):.1f},{top + height * (1 - y / most):.1f}"
            for x, y in points
        )
        parts.append(
            f'<text x="60" y="{top - 8}">{what}, up to {most / 1.1:.0f}; {end:.1f} minutes</text>'
            f'<rect x="60" y="{top}" width="{width - 80}" height="{height}" fill="none" '
            f'stroke="#999"/><polyline points="{line}" fill="none" stroke="#1565c0"/>'
        )
    box = f"0 0 {width} {2 * (height + gap) + 20}"
    Path(path).write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" font-family="sans-serif" '
        f'font-size="14">{"".join(parts)}</svg>\n'
    )


def told(minute: str, figures: dict[str, float], used: float) -> None:
    print(
        f"  {minute:>6} {figures['frames']:8.0f} {figures['fairness']:8.3f}   "
        + " ".join(f"{figures[k]:7.1f}" for k in ("p50", "p95", "p99", "max"))
        + f"   {used:7.1f}",
        flush=True,
    )


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    clip, noted = folder / "clip.mp4", folder / "notes"
    make_clip(clip, given.footage, given.fps)
    noted.touch()
    rate = given.streams * given.fps
    edge = {"max_age": given.max_age}
    cameras = {f"c{i:02}": {"url": str(clip)} for i in range(1, given.streams + 1)}
    pipeline = ovpipe.Pipeline("streams", folder=HERE)
    pipeline.add("cam", "video", {"pace": True, "loop": True}, for_each=cameras)
    infer = {"model": given.model, "decode": "raw"}
    pipeline.add("infer", "infer", infer, inputs={"from": "cam", **edge})
    ages = {"path": str(noted), "pause_s": 5 / rate if given.overload else 0.0}
    pipeline.add("ages", "ages:Ages", ages, inputs={"from": "infer", **edge})
    print(f"  {'minute':>6} {'frames':>8} {'few/most':>8}   {'age p50':>7} {'p95':>7} {'p99':>7} "
          f"{'max':>7}   {'MB':>7}", flush=True)  # fmt: skip
    used: list[tuple[float, float]] = []
    lines: list[dict[str, float]] = []
    with pipeline:
        pipeline.start()
        time.sleep(WARM_S)
        began = time.monotonic()
        while (passed := time.monotonic() - began) < 60 * given.minutes:
            used.append((passed / 60, memory(psutil.Process().pid) / 1e6))
            if passed >= 60 * (len(lines) + 1):
                lines.append(_line(read_notes(noted), began, len(lines), given.streams))
                told(str(len(lines)), lines[-1], used[-1][1])
            time.sleep(LOOK_S)
        lines.append(_line(read_notes(noted), began, len(lines), given.streams))
        told(str(len(lines)), lines[-1], used[-1][1])
        pipeline.drain()
        pipeline.wait()
        ledger = pipeline.ledger
    notes = read_notes(noted)
    counted = [n for n in notes if began <= n[0] / 1e9 < began + 60 * given.minutes]
    total = summary(counted, given.streams)
    told("all", total, used[-1][1])
    if given.plot:
        steps: dict[int, list[int]] = {}
        for when, age, *_ in counted:
            steps.setdefault(int((when / 1e9 - began) // 5), []).append(age)
        curve = [(step * 5 / 60, quantile(ages, 0.95)) for step, ages in sorted(steps.items())]
        plot(given.plot, curve, used)
    return {"minutes": lines, "all": total, "memory": used, "ledger": ledger, "noted": len(notes)}


def _line(notes: Notes, began: float, minute: int, streams: int) -> dict[str, float]:
    first, last = (began + 60 * m for m in (minute, minute + 1))
    return summary([n for n in notes if first <= n[0] / 1e9 < last], streams)


def verdict(given: argparse.Namespace, result: dict[str, Any]) -> dict[str, bool]:
    """What holds of what the docstring names; says so."""
    ledger = result["ledger"]
    apart = [
        row for row in ledger
        if row["claimed"] != row["delivered"] + sum(row["dropped"].values())
        + sum(row["failed"].values()) + row["in_flight"]
    ]  # fmt: skip
    arrived = sum(row["delivered"] for row in ledger if row["target"] == "ages")
    middle = given.minutes / 2
    early = slope([point for point in result["memory"] if point[0] < middle])
    growth = slope([point for point in result["memory"] if point[0] >= middle])
    limit = given.max_age * 1e3
    worst = max(line["max"] for line in result["minutes"])
    p95 = max(line["p95"] for line in result["minutes"])
    holds = {"exact": not apart and arrived == result["noted"]}
    holds["fresh"] = worst <= limit + 20 if given.overload else p95 <= limit
    if not given.overload:
        holds["fair"] = result["all"]["fairness"] >= 0.9
    if given.minutes >= 3:
        holds["flat"] = growth < 1.0
    dropped: dict[str, int] = {}
    failed: dict[str, int] = {}
    for row in ledger:
        for into, what in ((dropped, row["dropped"]), (failed, row["failed"])):
            for reason, count in what.items():
                name = f"{row['target']}: {reason}"
                into[name] = into.get(name, 0) + count
    print(
        f"  memory {early:+.2f} and {growth:+.2f} MB a minute; ledger: {len(ledger)} rows, "
        f"{len(apart)} do not add up, {arrived} delivered at the end, {result['noted']} noted"
    )
    print(f"  dropped {dropped or 'none'}, failed {failed or 'none'}")
    print("  " + ", ".join(f"{name} {'yes' if ok else 'NO'}" for name, ok in holds.items()))
    return holds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--streams", type=int, default=12)
    parser.add_argument("--fps", type=int, default=15)
    parser.add_argument("--max-age", type=float, default=0.5, help="of all edges, in seconds")
    parser.add_argument("--overload", action="store_true", help="a consumer five times too slow")
    parser.add_argument("--footage", default="", help="a real video to make the clip of")
    parser.add_argument("--plot", help="draw age and memory over time into this SVG file")
    parser.add_argument("--json", help="write the figures to this file")
    given = parser.parse_args()
    print(f"{given.streams} streams at {given.fps} frames/s, {Path(given.model).stem}, "
          f"{'overloaded, ' if given.overload else ''}{given.minutes:g} minutes")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        result = measure(given, Path(folder))
    result["holds"] = holds = verdict(given, result)
    if given.json:
        Path(given.json).write_text(json.dumps(result, indent=2))
    sys.exit(not all(holds.values()))


if __name__ == "__main__":
    main()
