"""The verdict of the last seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ovpipe.graph import resolve
from ovpipe.loader import load
from ovpipe.supervisor.accountant import Account, Reading, WorkerReading
from ovpipe.supervisor.outlook import Outlook

S = 10**9


def moments(busy_until: int, end: int) -> list[Reading]:
    """Twenty frames a second; `slow` is busy all the time up to a second, then a tenth of it."""
    worker = WorkerReading("slow", "slow", "working", 0, 0, 0, 0, 0, 0, 0, 0, 0)
    found = []
    for second in range(end):
        busy = min(second, busy_until) + max(0, second - busy_until) * 0.1
        lost = min(second, busy_until) * 5
        frames = 20 * second
        found.append(
            Reading(
                (100 + second) * S,
                (Account("cam", "slow", "cam", frames, frames - lost, {"stale": lost}, {}, 0),),
                (replace(worker, frames_in=frames, busy_ns=round(busy * S),
                         idle_ns=round((second - busy) * S)),),
            )
        )  # fmt: skip
    return found


def outlook(tmp_path: Path) -> Outlook:
    path = tmp_path / "c.yaml"
    path.write_text("version: 1\nstages:\n  cam: {kind: synthetic}\n  slow: {kind: log}\n")
    return Outlook(resolve(load(path, {})))


def test_what_was_long_ago_does_not_count(tmp_path: Path) -> None:
    it = outlook(tmp_path)
    said = [it.add(reading) for reading in moments(20, 60)]
    assert said[20][0].startswith("slow is saturated (busy 100% of its time, 20.0 /s)")
    assert said[20][1].startswith("cam -> slow dropped 50 of 200 frames (5.0 /s): ")
    assert "no stage is" in said[-1][0]
    assert len(said[-1]) == 1


def test_of_the_first_seconds_and_of_the_time_before_frames_nothing_is_said(tmp_path: Path) -> None:
    it = outlook(tmp_path)
    first = moments(20, 10)
    early = replace(first[0], at_ns=1 * S)
    said = [it.add(reading) for reading in (early, *first)]
    assert said[:5] == [()] * 5
    assert said[5][0].startswith("slow is saturated")
