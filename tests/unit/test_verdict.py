"""What is said of readings whose limit is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ovpipe.graph import Graph, resolve
from ovpipe.loader import load
from ovpipe.supervisor.accountant import Account, Reading, WorkerReading
from ovpipe.supervisor.verdict import verdict

S = 10**9


def graph(tmp_path: Path, stages: str) -> Graph:
    path = tmp_path / "c.yaml"
    path.write_text(f"version: 1\nstages:\n{stages}")
    return resolve(load(path, {}))


CHAIN = """\
  cam: {kind: synthetic}
  slow: {kind: annotate, inputs: cam}
  out: {kind: csv, path: '-', inputs: slow}
"""


def worker(stage: str, busy: float, blocked: float, frames: int = 1000, **more: Any) -> Any:
    """Of ten seconds."""
    spent = 10 * S
    values = {
        "name": stage, "stage": stage, "state": "ended", "frames_in": frames,
        "frames_out": frames, "busy_ns": int(busy * spent), "blocked_ns": int(blocked * spent),
        "idle_ns": int((1 - busy - blocked) * spent), "age_ns": 0, "malformed": 0, "restarts": 0,
        "at_ns": 0,
    }  # fmt: skip
    return WorkerReading(**{**values, **more})


def reading(*workers: WorkerReading, accounts: tuple[Account, ...] = ()) -> Reading:
    return Reading(0, accounts, workers)


def test_the_stage_that_is_always_busy_is_the_limit(tmp_path: Path) -> None:
    chain = graph(tmp_path, CHAIN)
    found = verdict(
        chain,
        reading(worker("cam", 0.1, 0.8), worker("slow", 0.97, 0), worker("out", 0.05, 0)),
        10.0,
    )
    assert found == [
        "slow is saturated (busy 97% of its time, 100.0 /s) and holds back cam (blocked 80%): "
        "make its work less, give it `replicas`, or lower the sources' fps to 100"
    ]


def test_replicas_count_together_and_the_busiest_speaks(tmp_path: Path) -> None:
    chain = graph(tmp_path, CHAIN)
    found = verdict(
        chain, reading(worker("slow", 0.5, 0), worker("slow", 0.9, 0, name="slow#1")), 10.0
    )
    assert found[0].startswith("slow is saturated (busy 90% of its time, 200.0 /s)")


def test_advice_is_for_each_stream(tmp_path: Path) -> None:
    many = graph(tmp_path, "  cam: {kind: synthetic, for_each: {a: {}, b: {}}}\n"
                           "  slow: {kind: annotate, inputs: cam}\n"
                           "  out: {kind: csv, path: '-', inputs: slow}\n")  # fmt: skip
    (found,) = verdict(many, reading(worker("slow", 0.9, 0)), 10.0)
    assert found.endswith("or lower the sources' fps to 50 each")


@pytest.mark.parametrize(
    ("cpu", "text"),
    [
        (0.5, "no stage is saturated; the busiest is slow (40%): the sources set the pace"),
        (None, "no stage is saturated"),
        (0.95, "the processors of this machine are saturated (95%)"),
    ],
)
def test_no_limit_is_named_where_none_was_measured(
    tmp_path: Path, cpu: float | None, text: str
) -> None:
    chain = graph(tmp_path, CHAIN)
    (found,) = verdict(chain, reading(worker("cam", 0.1, 0), worker("slow", 0.4, 0)), 10.0, cpu)
    assert text in found


def test_a_source_that_computes_all_the_time_is_the_limit(tmp_path: Path) -> None:
    chain = graph(tmp_path, CHAIN)
    (found,) = verdict(chain, reading(worker("cam", 0.9, 0), worker("slow", 0.4, 0)), 10.0)
    assert found.startswith("cam is saturated")
    assert "hardware decoder" in found


def test_of_a_few_frames_nothing_is_said(tmp_path: Path) -> None:
    assert verdict(graph(tmp_path, CHAIN), reading(worker("cam", 1, 0, frames=9)), 10.0) == []


def test_what_is_lost_is_told_with_place_rate_and_cause(tmp_path: Path) -> None:
    lost = Account("cam", "slow", "cam", 100, 70, {"queue_full": 20}, {"infer_error": 10}, 0)
    other = Account("slow", "out", "cam", 70, 69, {"stale": 1}, {}, 0)
    found = verdict(
        graph(tmp_path, CHAIN), reading(worker("slow", 0.9, 0), accounts=(lost, other)), 10.0
    )
    assert found[1:] == [
        "cam -> slow dropped 20 of 100 frames (2.0 /s): newer ones took their place, since what is "
        "behind is slower (queue_full)",
        "cam -> slow failed 10 of 100 frames (1.0 /s): the model or its decoder failed on them "
        "(infer_error)",
        "slow -> out, stream cam dropped 1 of 70 frames (0.1 /s): they were older than the edge's "
        "`max_age` when their turn came (stale)",
    ]


INLINE = """\
  cam: {kind: synthetic}
  slow: {kind: annotate, inputs: cam, run: {placement: inline}}
  out: {kind: csv, path: '-', inputs: slow, run: {placement: inline}}
"""


def test_a_guest_that_is_the_limit_is_told_to_move_out(tmp_path: Path) -> None:
    workers = worker("cam", 0.02, 0.95), worker("slow", 0.9, 0), worker("out", 0.05, 0)
    (found,) = verdict(graph(tmp_path, INLINE), reading(*workers), 10.0)
    assert found == (
        "slow is saturated (busy 90% of its time, 100.0 /s) and holds back cam (blocked 95%): "
        "make its work less, give it a process (leave out `placement: inline`), or lower the "
        "sources' fps to 100"
    )


def test_stages_of_one_process_may_be_the_limit_together(tmp_path: Path) -> None:
    workers = worker("cam", 0.3, 0.65), worker("slow", 0.5, 0.1), worker("out", 0.1, 0)
    (found,) = verdict(graph(tmp_path, INLINE), reading(*workers), 10.0)
    assert found == (
        "one process is saturated by its stages together (busy 90% of its time): "
        "cam (30%), slow (50%), out (10%); give slow a process of its own, without "
        "`placement: inline`"
    )
    (apart,) = verdict(graph(tmp_path, CHAIN), reading(*workers), 10.0)
    assert apart.startswith("no stage is saturated; the busiest is slow (50%)")
