"""Fan-out and join through real processes: nothing waits for ever, all is accounted for."""

import os
import signal
from pathlib import Path

import pytest

from tests.process.conftest import S, everywhere

E = "tests.support.edges:"


def diamond(a, b, source=None, sink=None, edge=None, **join):
    """src -> a and b -> join -> sink; `edge`: what all inputs have in common."""

    def reads(name):
        return {"from": name, **(edge or {})}

    return {
        "src": source or {"kind": S + "Count", "count": 300},
        "a": {**a, "inputs": reads("src")},
        "b": {**b, "inputs": reads("src")},
        "both": {"kind": "join", "inputs": [reads("a"), reads("b")], **join},
        "sink": {**(sink or {"kind": S + "Check"}), "inputs": reads("both")},
    }


def noted(name):
    return {"kind": E + "note", "name": name}


FAST, SLOW = {"kind": S + "tag"}, {"kind": E + "Slow"}


@everywhere
def test_each_frame_leaves_once_with_what_both_gave(ovpipe_run, tmp_path):
    seen = tmp_path / "seen"
    sink = {"kind": E + "Metas", "path": str(seen)}
    ended = ovpipe_run(diamond(noted("one"), noted("two"), sink=sink)).balanced()
    assert ended.code == 0, ended.err
    assert all(row["delivered"] == 300 for row in ended.ledger.values())
    assert seen.read_text().splitlines() == [
        f"src {i} {i} one={i},two={i} ['x']" for i in range(300)
    ]


@pytest.mark.parametrize("hold", [1, 64])
@pytest.mark.parametrize("a", [FAST, SLOW], ids=["fast", "slow"])
def test_branches_of_unequal_speed_do_not_block_each_other(ovpipe_run, a, hold):
    b = FAST if a is SLOW else SLOW
    ended = ovpipe_run(diamond(a, b, edge={"depth": 1, "when_full": "block"}, hold=hold))
    assert ended.balanced().code == 0, ended.err
    out = ended.ledger["both", "sink"]
    lost = out["dropped"].get("policy_skip", 0)
    assert out["delivered"] + lost == out["claimed"] == 300
    assert hold == 1 or not lost  # two frames of a branch cannot both wait with hold: 1


@pytest.mark.parametrize(("incomplete", "arrive"), [("drop", 150), ("pass", 300)])
def test_what_one_branch_dropped(ovpipe_run, incomplete, arrive, tmp_path):
    seen = tmp_path / "seen"
    stages = diamond(
        noted("one"), {"kind": S + "even"}, incomplete=incomplete,
        sink={"kind": E + "Metas", "path": str(seen)}, edge={"depth": 1},
    )  # fmt: skip
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    out = ended.ledger["both", "sink"]
    assert (out["claimed"], out["delivered"]) == (300, arrive)
    assert out["dropped"] == ({} if arrive == 300 else {"policy_skip": 150})
    assert ended.ledger["a", "both"]["delivered"] == 300
    lines = seen.read_text().splitlines()
    missing = {i: f"missing=['b'],one={i}" if i % 2 else f"one={i}" for i in range(300)}
    wanted = range(300) if incomplete == "pass" else range(0, 300, 2)
    assert lines == [f"src {i} {i} {missing[i]} ['x']" for i in wanted]


def test_a_branch_that_gives_nothing_stops_nobody(ovpipe_run):
    stages = diamond(FAST, {"kind": S + "Never"}, edge={"depth": 1}, hold=2, timeout="1h")
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    out = ended.ledger["both", "sink"]
    assert (out["claimed"], out["dropped"]) == (300, {"policy_skip": 300})


def test_an_incomplete_set_goes_on_in_time_though_no_frame_comes(ovpipe_run, tmp_path):
    stages = diamond(
        FAST, {"kind": S + "Never"}, incomplete="pass", timeout="50ms",
        source={"kind": E + "Echoes", "count": 3, "folder": str(tmp_path)},
        sink={"kind": E + "Answers", "folder": str(tmp_path)},
    )  # fmt: skip
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    assert ended.ledger["both", "sink"]["delivered"] == 3


def test_two_streams_are_joined_each_for_itself(ovpipe_run, tmp_path):
    seen = tmp_path / "seen"
    source = {"kind": S + "Count", "for_each": {"x": {"count": 40}, "y": {"count": 70}}}
    sink = {"kind": S + "Check", "path": str(seen)}
    ended = ovpipe_run(diamond(FAST, SLOW, source=source, sink=sink)).balanced()
    assert ended.code == 0, ended.err
    assert sorted(seen.read_text().splitlines()) == ["src/x 40 39", "src/y 70 69"]


def test_a_stream_that_comes_along_one_input_only_passes(ovpipe_run):
    stages = {
        "one": {"kind": S + "Count", "count": 20},
        "two": {"kind": S + "Count", "count": 30},
        "both": {"kind": "join", "inputs": ["one", "two"]},
        "sink": {"kind": S + "Check", "inputs": "both"},
    }
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    out = {r["stream"]: r["delivered"] for r in ended.summary["ledger"] if r["source"] == "both"}
    assert out == {"one": 20, "two": 30}


@pytest.mark.parametrize("branch", [FAST, {"kind": E + "copied"}], ids=["forwarded", "copied"])
def test_an_array_that_came_both_ways_is_taken_once(ovpipe_run, branch, tmp_path):
    seen = tmp_path / "seen"
    sink = {"kind": E + "Metas", "path": str(seen)}
    ended = ovpipe_run(diamond({"kind": S + "Keep"}, branch, sink=sink)).balanced()
    assert ended.code == 0, ended.err
    assert ("b.x" in seen.read_text()) == (branch is not FAST)


def test_a_join_copies_nothing(ovpipe_run):
    process = ovpipe_run.start(diamond(FAST, FAST, source={"kind": S + "Endless"}))
    ovpipe_run.until(process, "under way")
    links = [os.readlink(f) for f in Path(f"/proc/{process.pid}/fd").iterdir()]
    pools = {x.split(":")[1].split(" ")[0] for x in links if x.startswith("/memfd:")}
    assert pools == {"ovpipe-ledger", "ovpipe-src"}
    process.send_signal(signal.SIGINT)
    assert ovpipe_run.finish(process).balanced().code == 0


@pytest.mark.parametrize("restart", ["never", "on-failure"])
@pytest.mark.parametrize("victim", ["b", "both"])
def test_a_death_beside_or_at_the_join_leaves_the_ledger_exact(
    ovpipe_run, victim, restart, tmp_path
):
    stages = diamond(SLOW, FAST, timeout="1m")  # longer than any restart
    if victim == "b":
        stages["b"].update(kind=S + "Dies", how="kill", at=50)
    else:
        stages["both"].update(kind=E + "MortalJoin", mark=str(tmp_path / "mark"))
    stages[victim]["run"] = {"restart": restart}
    ended = ovpipe_run(stages).balanced()
    assert ended.code == (4 if restart == "never" else 0), ended.err
    if restart == "never":
        assert f"stage '{victim}' failed: died (SIGKILL)" in ended.err
        return
    out = ended.ledger["both", "sink"]
    lost = {name: sum(ended.ledger[name, "both"]["failed"].values()) for name in "ab"}
    if victim == "b":  # one frame died with it, and what it could not send any more
        assert (out["claimed"], out["dropped"]) == (300, {"policy_skip": 1 + lost["b"]})
    else:  # each set that is missing is told by a half that was lost, or came too late to be one
        halves = [ended.ledger[name, "both"] for name in "ab"]
        late = sum(half["dropped"].get("policy_skip", 0) for half in halves)
        missing = 300 - out["delivered"] - sum(out["failed"].values())
        assert 0 < missing <= lost["a"] + lost["b"] + late < 60, ended.err


@everywhere
def test_frames_at_the_end_of_a_stream_come_before_its_end(ovpipe_run, tmp_path):
    seen = tmp_path / "seen"
    source = {"kind": S + "Count", "for_each": {"x": {"count": 5}, "y": {"count": 7}}}
    stages = {"src": source, "last": {"kind": E + "Last"}}
    stages["sink"] = {"kind": E + "Metas", "path": str(seen)}
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    assert sorted(seen.read_text().splitlines()) == ["src/x 4 4  ['x']", "src/y 6 6  ['x']"]
