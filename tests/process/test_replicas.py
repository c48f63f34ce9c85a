"""Replicas: the work is shared, each stream keeps its order, and every frame is accounted for."""

import pytest

from tests.process.conftest import S

E = "tests.support.edges:"


def shared(tmp_path, work=None, source=None, edge=None, replicas=3, **run):
    """src -> work, by several -> sink, which checks order and pixels."""
    reads = {"from": "src", **(edge or {})}
    work = {"kind": E + "Uneven", **(work or {})}
    return {
        "src": source or {"kind": S + "Count", "count": 300},
        "work": {**work, "inputs": reads, "run": {"replicas": replicas, **run}},
        "sink": {"kind": E + "Who", "who": str(tmp_path / "who"), "inputs": "work"},
    }


def shares(tmp_path):
    return [int(n) for n in (tmp_path / "who").read_text().split()]


@pytest.mark.parametrize("replicas", [2, 5])
@pytest.mark.parametrize("depth", [1, 8])
def test_all_of_them_work_and_the_order_stays(ovpipe_run, tmp_path, replicas, depth):
    ended = ovpipe_run(shared(tmp_path, replicas=replicas, edge={"depth": depth})).balanced()
    assert ended.code == 0, ended.err
    assert all(row["delivered"] == 300 for row in ended.ledger.values())
    assert len(shares(tmp_path)) == replicas
    assert min(shares(tmp_path)) > 10
    assert set(ended.stages) == {"src", "sink", *(f"work#{i}" for i in range(replicas))}


def test_each_of_several_streams_keeps_its_own_order(ovpipe_run, tmp_path):
    each = {name: {"count": n} for name, n in (("a", 100), ("b", 150), ("c", 1), ("d", 0))}
    source = {"kind": S + "Count", "for_each": each}
    stages = shared(tmp_path, source=source, edge={"depth": 1})
    stages["sink"]["path"] = str(tmp_path / "seen")
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    seen = sorted((tmp_path / "seen").read_text().splitlines())
    assert seen == ["src/a 100 99", "src/b 150 149", "src/c 1 0", "src/d 0 None"]


@pytest.mark.parametrize("when_full", ["drop_oldest", "drop_newest"])
def test_what_is_dropped_is_counted_once(ovpipe_run, tmp_path, when_full):
    edge = {"when_full": when_full, "depth": 1}
    ended = ovpipe_run(shared(tmp_path, source={"kind": S + "Count", "count": 2000}, edge=edge))
    assert ended.balanced().code == 0, ended.err
    row = ended.ledger["src", "work"]
    assert row["claimed"] == 2000
    assert row["dropped"]["queue_full"] == 2000 - row["delivered"] > 0
    assert sum(shares(tmp_path)) == row["delivered"] == ended.ledger["work", "sink"]["delivered"]


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("kind", [S + "Count", S + "LiveCount"])
def test_one_that_dies_takes_its_own_frames_only(ovpipe_run, tmp_path, kind, times):
    (tmp_path / "mark").mkdir()
    work = {"at": 20, "mark": str(tmp_path / "mark"), "times": times}
    source = {"kind": kind, "count": 600}
    edge = {"when_full": "block"}
    ended = ovpipe_run(shared(tmp_path, work, source, edge)).balanced()
    assert ended.code == 0, ended.err
    assert "stage 'work#" in ended.err
    row, out = ended.ledger["src", "work"], ended.ledger["work", "sink"]
    lost = sum(row["failed"].values())
    assert times <= lost <= 40
    assert row["claimed"] == row["delivered"] + lost == 600
    # what it had sent, or was sending, when it died
    assert out["claimed"] - lost <= row["delivered"] <= out["claimed"] + lost
    assert out["delivered"] + sum(out["dropped"].values()) >= 600 - 2 * lost


def test_one_that_is_not_restarted_ends_the_run_and_its_frames_are_told(ovpipe_run, tmp_path):
    (tmp_path / "mark").mkdir()
    work = {"at": 20, "mark": str(tmp_path / "mark")}
    ended = ovpipe_run(shared(tmp_path, work, restart="never")).balanced()
    assert ended.code == 4
    assert "stage 'work#" in ended.err
    assert "died (SIGKILL)" in ended.err


def test_frames_that_fail_or_end_there_hold_nobody_up(ovpipe_run, tmp_path):
    stages = shared(tmp_path, {"kind": S + "Fails"})
    stages["half"] = {"kind": S + "even", "inputs": "work", "run": {"replicas": 2}}
    stages["sink"] = {"kind": S + "Check", "inputs": "half"}
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    assert ended.ledger["src", "work"]["failed"] == {"infer_error": 100}
    assert ended.ledger["work", "half"]["delivered"] == 200
    assert ended.ledger["half", "sink"]["delivered"] == 100


def test_replicas_of_replicas_and_two_readers(ovpipe_run, tmp_path):
    stages = shared(tmp_path)
    stages["more"] = {"kind": S + "Keep", "inputs": "work", "run": {"replicas": 2}}
    stages["end"] = {"kind": S + "Check", "inputs": "more"}
    stages["both"] = {"kind": "join", "inputs": ["work", "more"]}
    stages["last"] = {"kind": S + "Check", "inputs": "both"}
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    assert all(row["delivered"] == 300 for row in ended.ledger.values())


def test_what_a_stage_gives_at_the_end_comes_behind_all_frames(ovpipe_run, tmp_path):
    stages = shared(tmp_path, {"kind": E + "Last", "passes": True}, replicas=2)
    stages["sink"] = {"kind": E + "Metas", "path": str(tmp_path / "seen"), "inputs": "work"}
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    seen = [int(line.split()[1]) for line in (tmp_path / "seen").read_text().splitlines()]
    assert seen[:300] == list(range(300))
    assert len(seen) == 302
    assert 299 in seen[300:]


def test_consumers_share_what_there_is_to_take(ovpipe_run, tmp_path):
    stages = {
        "src": {"kind": S + "Count", "count": 300},
        "sink": {"kind": S + "Check", "pause_s": 0.002, "run": {"replicas": 3}},
    }
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    assert ended.ledger["src", "sink"]["delivered"] == 300
    assert all(ended.stages[f"sink#{i}"]["frames_in"] > 10 for i in range(3))


def test_an_endless_run_is_drained(ovpipe_run, tmp_path):
    process = ovpipe_run.start(shared(tmp_path, source={"kind": S + "Endless"}))
    ovpipe_run.until(process, "under way")
    process.terminate()
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    assert sum(shares(tmp_path)) == ended.ledger["work", "sink"]["delivered"] > 50


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("src", {"kind": S + "Count", "run": {"replicas": 2}}),
        ("sink", {"kind": "jsonl", "path": "out.jsonl", "run": {"replicas": 2}}),
        ("sink", {"kind": "log", "run": {"replicas": 0}}),
        ("sink", {"kind": "log", "run": {"replicas": True}}),
    ],
    ids=["producer", "one-file", "zero", "true"],
)
def test_where_there_can_be_none(ovpipe_run, name, stage):
    stages = {"src": {"kind": S + "Count"}, "sink": {"kind": "log"}, name: stage}
    ended = ovpipe_run(stages)
    assert ended.code == 2
    assert "replicas" in ended.err
    assert f"stages.{name}" in ended.err
