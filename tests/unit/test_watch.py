"""Hang detection on a clock that the tests move."""

from pathlib import Path

from ovpipe.graph import resolve
from ovpipe.spec import InputSpec, PipelineSpec, RunSpec, StageSpec
from ovpipe.supervisor.launch import make_plan
from ovpipe.supervisor.watch import REMIND_S, WAIT_STALL_S, HangWatch, Reminder


def seen(watch, seconds, signs, *, every_s=0.5, begin_s=0.0):
    """What the watch says in looking at the same signs for so long."""
    hung = {}
    for i in range(int(seconds / every_s) + 1):
        hung |= watch.look(begin_s + i * every_s, signs)
    return hung


def test_no_progress_at_work_is_a_hang_after_the_stages_own_time():
    watch = HangWatch({0: 3.0, 1: 30.0})
    signs = {0: ("working", 1), 1: ("working", 1)}
    assert seen(watch, 3.0, signs) == {}
    assert watch.look(3.5, signs) == {0: 3.0}


def test_any_progress_starts_the_time_again():
    watch = HangWatch({0: 2.0})
    assert all(watch.look(i * 1.5, {0: ("working", i)}) == {} for i in range(100))


def test_a_wait_that_turns_is_no_hang_and_one_that_stands_still_is():
    watch = HangWatch({0: 1.0})
    assert all(watch.look(i * 0.5, {0: ("blocked", i)}) == {} for i in range(100))
    assert seen(watch, WAIT_STALL_S, {0: ("idle", 1)}, begin_s=50) == {}
    assert watch.look(50 + WAIT_STALL_S + 0.5, {0: ("idle", 1)}) == {0: WAIT_STALL_S}


def test_closing_is_not_watched():
    watch = HangWatch({0: 1.0})
    for doing in ("draining", "ended", "away"):
        assert seen(watch, 100, {0: (doing, 1)}) == {}


def test_time_in_which_nobody_watched_does_not_count():
    watch = HangWatch({0: 5.0})
    assert watch.look(0, {0: ("working", 1)}) == {}
    assert watch.look(3600, {0: ("working", 1)}) == {}
    assert watch.look(7200, {0: ("working", 1)}) == {}


def test_a_successor_starts_from_nothing():
    watch = HangWatch({0: 5.0})
    signs = {0: ("working", 1)}
    seen(watch, 5, signs)
    watch.look(5.5, {})
    assert seen(watch, 5, signs, begin_s=6) == {}


def test_a_source_may_wait_for_its_camera_unless_a_time_is_given():
    stages = (
        StageSpec("cam", "video", "producer"),
        StageSpec("slow", "video", "producer", run=RunSpec(stall_timeout_s=9.0)),
        StageSpec("det", "infer", "transform", inputs=(InputSpec("cam"), InputSpec("slow"))),
        StageSpec("log", "log", "consumer", inputs=(InputSpec("det"),)),
    )
    plan = make_plan(resolve(PipelineSpec("p", stages, Path())))
    times = {worker.name: worker.stall_timeout_s for worker in plan.workers}
    assert times == {"cam": float("inf"), "slow": 9.0, "det": 10.0, "log": 5.0}


def test_a_reminder_comes_once_a_minute():
    stalls = Reminder()
    assert not stalls.due(9, "edge", 9.0)
    told = [now for now in range(10, 200) if stalls.due(now, "edge", float(now))]
    assert told == [10, 10 + REMIND_S, 10 + 2 * REMIND_S, 10 + 3 * REMIND_S]
    assert stalls.due(11, "other", 11.0)
