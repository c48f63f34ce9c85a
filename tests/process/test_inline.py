"""Stages in their neighbour's process: what is theirs alone.

What holds for stages wherever they live is asserted of both placements, in the other files.
"""

import os
import random
import signal

import pytest

import ovpipe
from tests.process.conftest import S, T, both, everywhere, said
from tests.support.processes import wait_for, worker_of, workers_of

E = "tests.support.edges:"
INLINE = {"run": {"placement": "inline"}}
ENDLESS = {"kind": S + "Endless"}


def inline(kind, **options):
    run = {**options.pop("run", {}), "placement": "inline"}
    return {"kind": kind, "run": run, **options}


def names(process):
    return {p.cmdline()[-1] for p in workers_of(process.pid).values()}


def test_a_chain_of_three_guests_is_one_process(ovpipe_run, tmp_path):
    stages = {
        "src": ENDLESS,
        "one": inline(S + "Keep"),
        "two": inline(S + "Fresh"),
        "sink": inline(S + "Check", path=str(tmp_path / "seen")),
    }
    process = ovpipe_run.start(stages)
    ovpipe_run.until(process, "under way")
    assert names(process) == {"src+one+two+sink"}
    process.send_signal(signal.SIGINT)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    rows = list(ended.ledger.values())
    assert len({(row["claimed"], row["delivered"]) for row in rows}) == 1
    assert rows[0]["claimed"] == rows[0]["delivered"] > 100
    count = rows[0]["claimed"]
    assert (tmp_path / "seen").read_text() == f"src {count} {count - 1}\n"


def test_of_two_branches_one_is_a_guest_and_one_a_process(ovpipe_run, tmp_path):
    stages = {
        "src": {"kind": S + "Count", "count": 300},
        "near": inline(S + "Keep", inputs="src"),
        "far": {"kind": S + "Keep", "inputs": "src"},
        "one": inline(S + "Check", inputs="near", path=str(tmp_path / "one")),
        "two": {"kind": S + "Check", "inputs": "near", "path": str(tmp_path / "two")},
        "three": inline(S + "Check", inputs="far", path=str(tmp_path / "three")),
        "both": {"kind": "join", "inputs": ["near", "far"]},
        "four": inline(S + "Check", inputs="both", path=str(tmp_path / "four")),
    }
    process = ovpipe_run.start(stages)
    wait_for(lambda: len(workers_of(process.pid)) == 4, "all processes")
    assert names(process) == {"src+near+one", "far+three", "two", "both+four"}
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    assert all(row["delivered"] == row["claimed"] == 300 for row in ended.ledger.values())
    for name in ("one", "two", "three", "four"):
        assert (tmp_path / name).read_text() == "src 300 299\n"


@everywhere
def test_a_stage_may_give_more_frames_than_it_gets(ovpipe_run, tmp_path):
    stages = {
        "src": {"kind": S + "Count", "count": 100},
        "twice": {"kind": E + "Twice"},
        "even": {"kind": S + "even"},
        "sink": {"kind": S + "Check", "path": str(tmp_path / "seen")},
    }
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    assert [row["delivered"] for row in ended.ledger.values()] == [100, 200, 100]
    assert (tmp_path / "seen").read_text() == "src 100 198\n"


@everywhere
def test_nobody_can_change_what_others_see(ovpipe_run):
    stages = {"src": {"kind": E + "Lists", "count": 50}}
    stages |= {name: {"kind": E + "Meddles", "inputs": "src"} for name in ("a", "b")}
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    assert "restart" not in ended.err
    assert all(row["delivered"] == 50 for row in ended.ledger.values())


@both
def test_a_tick_comes_though_no_frame_does(ovpipe_run, tmp_path):
    """Each frame is held back until a tick, and the source makes the next one only then."""
    stages = {
        "src": {"kind": E + "Echoes", "count": 3, "folder": str(tmp_path)},
        "mid": {"kind": S + "tag", "run": {"placement": "process"}, "inputs": ["src"]},
        "holds": {"kind": E + "Ticks"},
        "sink": {"kind": E + "Answers", "folder": str(tmp_path)},
    }
    stages["holds"]["inputs"], stages["sink"]["inputs"] = "mid", "holds"
    if ovpipe_run.inline:
        ovpipe_run.inline = False
        stages["holds"] |= INLINE
        stages["sink"] |= INLINE
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    assert [row["delivered"] for row in ended.ledger.values()] == [3, 3, 3]


def test_a_live_source_drops_nothing_on_its_way_to_a_guest(ovpipe_run):
    """A frame never waits in front of a guest: whoever made it does."""
    stages = {"src": {"kind": S + "LiveCount", "count": 200}}
    stages["sink"] = inline(S + "Check", pause_s=0.001)
    row = ovpipe_run(stages).balanced().ledger["src", "sink"]
    assert row["delivered"] == row["claimed"] == 200


def test_a_frame_too_old_for_a_guest_is_stale(ovpipe_run):
    stages = {
        "src": {"kind": S + "Count", "count": 50},
        "slow": inline(E + "Slow", pause_s=0.02, inputs="src"),
        "sink": inline(S + "Check", inputs={"from": "slow", "max_age": "5ms"}),
    }
    row = ovpipe_run(stages).balanced().ledger["slow", "sink"]
    assert (row["claimed"], row["delivered"], row["dropped"]) == (50, 0, {"stale": 50})


def test_a_guest_that_waits_for_a_process_loses_nothing_and_holds_its_host(ovpipe_run):
    stages = {
        "src": {"kind": S + "Count", "count": 300},
        "mid": inline(S + "Keep"),
        "slow": {"kind": S + "Check", "pause_s": 0.002},
    }
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    assert all(row["delivered"] == row["claimed"] == 300 for row in ended.ledger.values())
    assert ended.stages["mid"]["blocked_ns"] > 1e8
    assert ended.stages["src"]["blocked_ns"] >= ended.stages["mid"]["blocked_ns"]


def test_the_time_of_a_guest_is_the_guests(ovpipe_run):
    stages = {
        "src": {"kind": S + "Count", "count": 60},
        "mid": {"kind": S + "tag"},
        "slow": inline(E + "Slow", pause_s=0.01),
        "sink": {"kind": S + "Check"},
    }
    ended = ovpipe_run(stages).balanced()
    mid, slow = ended.stages["mid"], ended.stages["slow"]
    assert slow["busy_ns"] >= 60 * 10e6
    assert mid["blocked_ns"] >= slow["busy_ns"]
    assert mid["busy_ns"] < slow["busy_ns"] / 2
    assert "slow is saturated" in ended.err


# -- what goes wrong in a guest ------------------------------------------------------------


@pytest.mark.parametrize("how", ["raise", "exit-0", "_exit-1", "kill"])
def test_a_guest_that_dies_is_named_and_all_of_its_process_come_back(ovpipe_run, how):
    stages = {
        "src": {"kind": S + "Count", "count": 60},
        "mid": {"kind": S + "tag"},
        "bad": inline(S + "Dies", how=how),
        "near": inline(S + "Check"),
        "far": {"kind": S + "Check", "inputs": "mid"},
    }
    stages |= {"bad": {**stages["bad"], "inputs": "mid"}, "mid": {**stages["mid"], "inputs": "src"}}
    stages["near"]["inputs"] = "bad"
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    rows = ended.ledger
    # The frame that it died of was in the hands of its host, too.
    assert rows["src", "mid"]["failed"] == rows["mid", "bad"]["failed"] == {"stage_crash": 1}
    assert rows["src", "mid"]["claimed"] == rows["mid", "bad"]["claimed"] == 60
    assert rows["bad", "near"]["claimed"] == rows["bad", "near"]["delivered"] == 59
    far = rows["mid", "far"]  # it had left for there already
    assert far["claimed"] == 60
    assert far["delivered"] + far["failed"].get("lost_in_transit", 0) == 60
    restarts = {name: stage["restarts"] for name, stage in ended.stages.items()}
    assert restarts == {"src": 0, "mid": 1, "bad": 1, "near": 1, "far": 0}
    assert "stage 'bad' " in ended.err
    assert "restart 1/5 in 0.1 s, with 'mid', 'near' in the same process" in ended.err
    assert "stage 'mid' failed" not in ended.err
    assert ("ValueError: on purpose" in ended.err) == (how == "raise")


def test_a_failure_counts_for_the_guest_that_it_happened_in(ovpipe_run):
    """Its host may die as often as it may itself; this one may not die at all."""
    stages = {
        "src": {**ENDLESS, "run": {"max_restarts": 0}},
        "bad": inline(S + "Dies", at=50, run={"max_restarts": 1}),
        "sink": inline(S + "Dies", at=20, run={"max_restarts": 1}),
        "end": {"kind": S + "Check"},
    }
    process = ovpipe_run.start(stages)
    ovpipe_run.until(process, "restart 1/1 in 0.1 s, with 'src', 'sink' in the same process")
    process.send_signal(signal.SIGINT)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    assert ended.err.count("; restart 1/1") == 2


def test_one_that_may_not_be_restarted_ends_the_run_for_all_of_its_process(ovpipe_run):
    stages = {
        "src": {"kind": S + "Dies", "inputs": "one"},
        "one": {"kind": S + "Count", "count": 60},
        "sink": inline(S + "Check", inputs="src", run={"restart": "never"}),
    }
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 4
    assert "error: stage 'src' failed: ValueError: on purpose" in ended.err
    assert "restart" not in ended.err


@pytest.mark.parametrize(
    ("how", "when", "code", "says"),
    [
        ("preflight", "open", 3, "error: stage 'bad': no such thing: /nowhere"),
        ("segfault", "open", 4, "stage 'bad' failed: died (SIGSEGV)"),
        ("raise", "close", 4, "stage 'bad' failed: ValueError: on purpose"),
        ("abort", "process", 4, "stage 'bad' failed: died (SIGABRT)"),
    ],
)
def test_a_guest_is_named_wherever_it_fails(ovpipe_run, how, when, code, says):
    run = {"restart": "never"}
    stages = {
        "src": {"kind": S + "Count", "count": 60},
        "first": inline(S + "tag"),
        "bad": inline(S + "Dies", how=how, when=when, run=run),
        "sink": inline(S + "Check"),
    }
    ended = ovpipe_run(stages).balanced()
    assert ended.code == code, ended.err
    assert says in ended.err


def test_a_guest_that_hangs_is_named_and_its_host_is_not(ovpipe_run, tmp_path):
    stages = {
        "src": ENDLESS,
        "mid": {"kind": S + "tag", "run": {"stall_timeout": "300ms"}},
        "bad": inline(S + "Stuck", once=str(tmp_path / "once"), run={"stall_timeout": "1s"}),
        "sink": inline(S + "Check"),
    }
    process = ovpipe_run.start(stages)
    ovpipe_run.until(process, "stage 'bad' is back after")
    process.send_signal(signal.SIGINT)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    assert ended.ledger["src", "mid"]["failed"] == {"stage_hang": 1}
    assert ended.ledger["mid", "bad"]["failed"] == {"stage_hang": 1}
    assert "stage 'bad' hangs: no progress for 1 s while working" in ended.err
    assert ended.err.count(" hangs: ") == 1
    assert "in process" in ended.err  # its stacks


def test_a_guest_that_ends_no_drain_is_named_alone(ovpipe_run):
    stages = {
        "src": ENDLESS,
        "mid": {"kind": S + "tag"},
        "deaf": inline(S + "Deaf", inputs="mid"),
        "sink": inline(S + "Check", inputs="mid"),
    }
    stages["mid"]["inputs"] = "src"
    process = ovpipe_run.start(stages, "--drain-timeout", "0.5")
    ovpipe_run.until(process, "[mid+deaf+sink] deaf")
    process.send_signal(signal.SIGTERM)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 5
    (told,) = [line for line in ended.err.splitlines() if "still running were: " in line]
    assert "deaf" in told
    assert not {"mid", "sink"} & set(told.partition("were: ")[2].replace(",", "").split())
    assert ended.ledger["mid", "deaf"]["failed"]["drain_timeout"] > 0


def test_a_guest_may_take_longer_for_a_frame_than_its_host_may(ovpipe_run):
    stages = {
        "src": {"kind": S + "Count", "count": 3},
        "mid": {"kind": S + "tag", "run": {"stall_timeout": "200ms"}},
        "slow": inline(E + "Slow", pause_s=1.5, run={"stall_timeout": "30s"}),
        "sink": inline(S + "Check"),
    }
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    assert "hangs" not in ended.err
    assert ended.ledger["slow", "sink"]["delivered"] == 3


def test_kill_9_of_a_process_of_several_at_any_moment(ovpipe_run):
    stages = {
        "src": {**ENDLESS, "run": {"max_restarts": 100}},
        "mid": {"kind": S + "tag", "run": {"max_restarts": 100}},
        "keep": inline(S + "Keep"),
        "fresh": inline(S + "Fresh"),
        "sink": inline(S + "Check"),
    }
    process = ovpipe_run.start(stages)
    ovpipe_run.until(process, "under way")
    chance = random.Random(11)
    for number in range(1, 6):
        seen = len(said(process))
        os.kill(worker_of(process.pid, "mid+keep+fresh+sink").pid, signal.SIGKILL)
        wait_for(lambda at=seen: "stage 'sink' is back" in said(process)[at:], f"return {number}")
        if chance.random() < 0.5:
            worker_of(process.pid, "src").kill()
            wait_for(lambda at=seen: "stage 'src' is back" in said(process)[at:], "the source's")
    process.send_signal(signal.SIGINT)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    restarts = {name: stage["restarts"] for name, stage in ended.stages.items()}
    assert restarts["mid"] == restarts["keep"] == restarts["fresh"] == restarts["sink"] == 5
    for row in ended.ledger.values():
        assert set(row["failed"]) <= {"stage_crash", "lost_in_transit"}
        assert row["dropped"] == {}
    assert sum(s["malformed"] for s in ended.summary["stages"]) == 0
    assert "Error" not in ended.err


# -- others --------------------------------------------------------------------------------


def test_an_application_reads_a_guest():
    pipeline = ovpipe.Pipeline()
    pipeline.add("src", S + "Count", {"count": 50}).add("mid", S + "Keep", **INLINE)
    with pipeline:
        assert [frame.seq for frame in pipeline.read("mid")] == list(range(50))
        pipeline.wait()


def test_what_cannot_be_a_guest_is_refused_with_its_place(ovpipe_run):
    stages = {
        "cam": {"kind": T + "Script", "items": ["frame"], "for_each": {"a": None, "b": None}},
        "sink": inline(S + "Check"),
    }
    ended = ovpipe_run(stages)
    assert ended.code == 2
    assert (
        "stages.sink: cannot be inline: 'cam' has 2 streams, each in its own process" in ended.err
    )
