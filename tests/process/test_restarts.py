"""Workers that die and are restarted: what is lost is counted, and nothing else is lost.

Every sink is a `Check`: it fails on a repeated frame, on disorder, and on foreign pixels.
"""

import os
import random
import signal

import psutil
import pytest

from tests.process.conftest import S, both, said
from tests.support.processes import wait_for, worker_of, workers_of

ENDLESS = {"kind": S + "Endless"}
SINK = {"kind": S + "Check"}


def counted(row, *reasons):
    """A row in which frames were delivered or failed for these reasons only."""
    assert set(row["failed"]) <= set(reasons), row
    assert row["dropped"] == {}, row
    return row


@pytest.mark.parametrize("which", ["src", "mid", "sink"])
def test_A01_A02_A03_sigkill_costs_what_was_in_hand_and_is_announced(ovpipe_run, which, tmp_path):
    """A01, A02, A03."""
    stages = {
        "src": ENDLESS,
        "mid": {"kind": S + "tag"},
        "sink": {**SINK, "path": str(tmp_path / "seen")},
    }
    process = ovpipe_run.start(stages)
    ovpipe_run.until(process, "under way")
    worker_of(process.pid, which).kill()
    ovpipe_run.until(process, f"stage '{which}' is back after")
    process.send_signal(signal.SIGINT)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    assert f"[ovpipe] stage '{which}' died (SIGKILL) while" in ended.err
    assert "; restart 1/5 in 0.1 s" in ended.err
    assert "Error" not in ended.err
    first = counted(ended.ledger["src", "mid"], "stage_crash", "lost_in_transit")
    second = counted(ended.ledger["mid", "sink"], "stage_crash", "lost_in_transit")
    for row, receiver in ((first, "mid"), (second, "sink")):
        assert row["failed"].get("stage_crash", 0) <= (which in (receiver, "src"))
        # Only a sender's own death can take what it had on its way.
        assert row["failed"].get("lost_in_transit", 0) <= 5 * (which == row["source"])
    restarts = {s["name"]: s["restarts"] for s in ended.summary["stages"]}
    assert restarts == {name: int(name == which) for name in stages}
    assert (tmp_path / "seen").read_text().startswith("src ")


@pytest.mark.parametrize("how", ["raise", "memory", "exit-0", "_exit-0", "_exit-1", "abort"])
def test_A11_each_way_to_die_costs_the_frame_that_it_died_of(ovpipe_run, tmp_path, how):
    """A11."""
    stages = {
        "src": {"kind": S + "Count", "count": 60},
        "bad": {"kind": S + "Dies", "how": how},
        "sink": {**SINK, "path": str(tmp_path / "seen")},
    }
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    before, after = ended.ledger["src", "bad"], ended.ledger["bad", "sink"]
    assert (before["claimed"], before["failed"]) == (60, {"stage_crash": 1})
    assert after["claimed"] == 59
    counted(after, "lost_in_transit")
    assert (tmp_path / "seen").read_text() == f"src {after['delivered']} 59\n"
    assert ("Traceback" in ended.err) == (how in ("raise", "memory", "exit-0"))


@both
def test_A12_one_that_always_dies_is_given_up_with_the_first_cause(ovpipe_run):
    """A12."""
    run = {"max_restarts": 2}
    stages = {"src": ENDLESS, "bad": {"kind": S + "Dies", "when": "open", "run": run}, "sink": SINK}
    ended = ovpipe_run(stages)
    assert ended.code == 4
    assert "error: stage 'bad' failed: ValueError: on purpose (restarted 2 times)" in ended.err
    assert "restart 1/2 in 0.1 s" in ended.err
    assert "restart 2/2 in 0.2 s" in ended.err
    assert ended.summary["stages"][1]["restarts"] == 2


@both
@pytest.mark.parametrize(("how", "code"), [("preflight", 3), ("raise", 4)])
def test_A13_what_is_permanent_or_not_wanted_is_not_tried_again(ovpipe_run, how, code):
    """A13."""
    run = {"restart": "on-failure" if how == "preflight" else "never"}
    bad = {"kind": S + "Dies", "when": "open", "how": how, "run": run}
    ended = ovpipe_run({"src": ENDLESS, "bad": bad, "sink": SINK})
    assert ended.code == code
    assert "restart" not in ended.err
    assert [s["restarts"] for s in ended.summary["stages"]] == [0, 0, 0]


@pytest.mark.parametrize("kind", ["DiesAsSource", "Careless"])
def test_a_source_goes_on_where_it_died(ovpipe_run, tmp_path, kind):
    stages = {
        "src": {"kind": S + kind, "count": 100},
        "a": {**SINK, "path": str(tmp_path / "a"), "inputs": "src"},
        "b": {**SINK, "path": str(tmp_path / "b"), "inputs": "src"},
    }
    process = ovpipe_run.start(stages)
    if kind == "Careless":
        wait_for(lambda: len(workers_of(process.pid)) == 3, "all workers")
        worker_of(process.pid, "src").kill()
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    for name in "ab":
        row = counted(ended.ledger["src", name], "stage_crash", "lost_in_transit")
        assert row["claimed"] == 100
        assert (tmp_path / name).read_text() == f"src {row['delivered']} 99\n"


def test_C05_the_end_of_a_stream_passes_once_also_over_a_dead_stage(ovpipe_run, tmp_path):
    """C05: one source has ended and gone when a stage dies; the other goes on."""
    seen = tmp_path / "seen"
    stages = {
        "short": {"kind": S + "Count", "count": 10},
        "long": ENDLESS,
        "mid": {"kind": S + "tag", "inputs": ["short", "long"]},
        "sink": {**SINK, "inputs": "mid", "path": str(seen)},
    }
    process = ovpipe_run.start(stages)
    ovpipe_run.until(process, "under way")
    wait_for(lambda: seen.exists(), "the end of the short stream")
    for name in ("mid", "sink"):
        worker_of(process.pid, name).kill()
        ovpipe_run.until(process, f"stage '{name}' is back after")
    process.send_signal(signal.SIGINT)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    lines = seen.read_text().splitlines()
    assert lines[0] == "short 10 9"
    assert [line.split()[0] for line in lines] == ["short", "long"]


def test_a_dead_reader_neither_loses_what_waits_for_it_nor_holds_its_neighbour_up(ovpipe_run):
    """ISO: a source with two readers, of which one dies; the other loses nothing."""
    stages = {
        "src": {"kind": S + "LiveCount", "count": 10**9},
        "dies": {**SINK, "inputs": "src"},
        "lives": {**SINK, "inputs": {"from": "src", "when_full": "drop_oldest"}},
    }
    process = ovpipe_run.start(stages)
    wait_for(lambda: len(workers_of(process.pid)) == 3, "all workers")
    worker_of(process.pid, "dies").kill()
    ovpipe_run.until(process, "stage 'dies' is back after")
    process.send_signal(signal.SIGINT)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    assert ended.ledger["src", "lives"]["failed"] == {}
    assert set(ended.ledger["src", "dies"]["failed"]) <= {"stage_crash"}


def test_A19_nothing_is_started_after_a_stop_was_asked_for(ovpipe_run):
    """A19: during the wait for a restart."""
    stages = {
        "src": {"kind": S + "Dies", "when": "open", "run": {"max_restarts": 100}, "inputs": "one"},
        "one": ENDLESS,
        "sink": {**SINK, "inputs": "one"},
    }
    process = ovpipe_run.start(stages)
    ovpipe_run.until(process, "restart 4/100 in")
    process.send_signal(signal.SIGTERM)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    assert "restart 5/100" not in ended.err


def test_A19_a_stop_during_the_wait_ends_the_streams_of_the_one_that_is_away(ovpipe_run, tmp_path):
    """A19: the source is away; what it has made is finished, and its stream ends."""
    stages = {
        "src": {**ENDLESS, "run": {"max_restarts": 100}},
        "sink": {**SINK, "path": str(tmp_path / "seen")},
    }
    process = ovpipe_run.start(stages)
    ovpipe_run.until(process, "under way")
    for number in range(1, 5):
        worker_of(process.pid, "src").kill()
        ovpipe_run.until(process, f"restart {number}/100 in")
        if number < 4:
            wait_for(lambda n=number: said(process).count("is back") == n, "its return")
            stages["src"] = stages.pop("src")
    process.send_signal(signal.SIGTERM)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    assert "restart 5/100" not in ended.err
    assert (tmp_path / "seen").read_text().startswith("src ")


@both
def test_always_takes_the_end_of_a_source_for_a_failure(ovpipe_run, tmp_path):
    run = {"restart": "always", "max_restarts": 1}
    stages = {"src": {"kind": S + "Count", "count": 10, "run": run}, "sink": SINK}
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 4
    assert "stage 'src' failed: its frames ended (restarted once)" in ended.err
    assert ended.ledger["src", "sink"]["claimed"] == 10


def test_a_reader_in_the_application_sees_every_frame_that_is_not_counted_lost(nothing_left):
    import ovpipe

    pipeline = ovpipe.Pipeline()
    pipeline.add("src", S + "Count", {"count": 300}).add("bad", S + "Dies", {"at": 100})
    with pipeline:
        seqs = [frame.seq for frame in pipeline.read("bad", when_full="block")]
        pipeline.wait()
    row = next(r for r in pipeline.ledger if r["source"] == "bad")
    assert seqs == sorted(set(seqs))
    assert len(seqs) == row["delivered"]
    assert row["delivered"] + row["failed"].get("lost_in_transit", 0) == 299


@both
def test_kill_9_of_anything_at_any_moment(ovpipe_run):
    """The whole table at random: every frame is accounted for, nothing comes twice."""
    run = {"run": {"max_restarts": 1000}}
    stages = {
        "src": {**ENDLESS, **run},
        "live": {"kind": S + "LiveCount", "count": 10**9, **run},
        "mid": {"kind": S + "Keep", "inputs": "src", **run},
        "fresh": {"kind": S + "Fresh", "inputs": "mid", **run},
        "a": {**SINK, "inputs": "fresh", **run},
        "b": {**SINK, "inputs": ["mid", "live"], **run},
    }
    process = ovpipe_run.start(stages)
    ovpipe_run.until(process, "under way")
    chance = random.Random(7)
    kills = 0
    for _ in range(8):
        living = list(workers_of(process.pid).values())
        for victim in chance.sample(living, min(len(living), chance.choice([1, 1, 2, 3]))):
            try:
                if chance.random() < 0.3:
                    victim.suspend()
                victim.kill()
                kills += 1
            except psutil.NoSuchProcess:
                pass
        wait_for(lambda k=kills: said(process).count("; restart ") >= k, "all deaths")
        if chance.random() < 0.5:
            wait_for(lambda k=kills: said(process).count("is back after") >= k, "all returns")
    process.send_signal(signal.SIGINT)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    assert "Error" not in ended.err
    assert sum(s["malformed"] for s in ended.summary["stages"]) == 0


def test_B04_kill_9_of_everything_leaves_nothing(ovpipe_run, nothing_left):
    """B04: memory has no name, so nothing of it can be left; see what the fixture checks."""
    stages = {"src": ENDLESS, "mid": {"kind": S + "Fresh"}, "sink": SINK}
    for _ in range(int(os.environ.get("OVPIPE_TEST_STARTS", "3"))):
        process = ovpipe_run.start(stages)
        ovpipe_run.until(process, "under way")
        for pid in (process.pid, *workers_of(process.pid)):
            os.kill(pid, signal.SIGKILL)
        process.wait()
    assert ovpipe_run({"src": {"kind": S + "Count", "count": 3}, "sink": SINK}).code == 0


def test_many_restarts_leave_no_descriptor_and_no_memory_behind(ovpipe_run):
    """CLEAN: what the survivors hold is the same after each restart of a neighbour."""
    stages = {
        "src": ENDLESS,
        "mid": {"kind": S + "Fresh", "run": {"max_restarts": 100, "within": "1s"}},
        "sink": SINK,
    }
    process = ovpipe_run.start(stages)
    ovpipe_run.until(process, "under way")
    survivors = [psutil.Process(process.pid)]
    survivors += [psutil.Process(worker_of(process.pid, name).pid) for name in ("src", "sink")]
    held: list[int] = []

    def as_before():
        return all(p.num_fds() <= fds + 4 for p, fds in zip(survivors, held, strict=True))

    for number in range(1, 9):
        kept = {p.pid for p in survivors}
        (victim,) = (p for pid, p in workers_of(process.pid).items() if pid not in kept)
        victim.kill()
        wait_for(lambda n=number: said(process).count("is back after") == n, "its return")
        # Three sockets may just be made when the first are counted; a leak is one a restart.
        if not held:
            held += [p.num_fds() for p in survivors]
        wait_for(as_before, "as few descriptors as before")
    process.send_signal(signal.SIGINT)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
