"""Edges at their limits: who is refused, who makes room, and that each is counted."""

import itertools

import pytest

from tests.process.conftest import S, apart, everywhere

E = "tests.support.edges:"


@apart
@pytest.mark.parametrize("alive", [False, True])
def test_drop_newest_keeps_the_oldest_and_counts_the_rest(ovpipe_run, tmp_path, alive):
    mark, seqs = tmp_path / "mark", tmp_path / "seqs"
    stages = {
        "src": {"kind": E + "Marks", "count": 100, "mark": str(mark), "alive": alive},
        "sink": {
            "kind": E + "Waits",
            "until": str(mark),
            "seqs": str(seqs),
            "inputs": {"from": "src", "when_full": "drop_newest", "depth": 4},
        },
    }
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    row = ended.ledger["src", "sink"]
    assert (row["claimed"], row["delivered"], row["dropped"]) == (100, 5, {"queue_full": 95})
    assert seqs.read_text() == "0 1 2 3 4\n"


@apart
def test_drop_oldest_keeps_the_newest_and_counts_the_rest(ovpipe_run, tmp_path):
    mark, seqs = tmp_path / "mark", tmp_path / "seqs"
    stages = {
        "src": {"kind": E + "Marks", "count": 100, "mark": str(mark), "alive": True},
        "sink": {"kind": E + "Waits", "until": str(mark), "seqs": str(seqs)},
    }
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    row = ended.ledger["src", "sink"]
    seen = [int(seq) for seq in seqs.read_text().split()]
    assert row["dropped"] == {"queue_full": 100 - len(seen)}
    # The one in work, if it was taken before it could be dropped, and those that waited.
    assert seen[-4:] == [96, 97, 98, 99]
    assert len(seen) == 5


@apart
def test_one_edge_that_drops_takes_nothing_from_one_that_blocks(ovpipe_run, tmp_path):
    mark, seqs = tmp_path / "mark", tmp_path / "seqs"
    stages = {
        "src": {"kind": E + "Marks", "count": 100, "mark": str(mark)},
        "slow": {
            "kind": E + "Waits",
            "until": str(mark),
            "seqs": str(seqs),
            "inputs": {"from": "src", "when_full": "drop_newest", "depth": 1},
        },
        "fast": {"kind": S + "Check", "inputs": "src"},
    }
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    assert ended.ledger["src", "fast"]["delivered"] == 100
    assert ended.ledger["src", "slow"]["dropped"] == {"queue_full": 98}
    assert seqs.read_text() == "0 1\n"


@apart
def test_below_a_live_source_nobody_is_waited_for_however_far_away(ovpipe_run, tmp_path):
    mark, seqs = tmp_path / "mark", tmp_path / "seqs"
    stages = {
        "src": {"kind": E + "Marks", "count": 400, "mark": str(mark), "alive": True},
        "one": {"kind": S + "tag"},
        "two": {"kind": S + "tag"},
        "sink": {"kind": E + "Waits", "until": str(mark), "seqs": str(seqs)},
    }
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    rows = list(ended.ledger.values())
    assert rows[0]["claimed"] == 400
    for before, after in itertools.pairwise(rows):
        assert after["claimed"] == before["delivered"], "each frame delivered goes on"
    assert sum(row["dropped"].get("queue_full", 0) for row in rows) + len(
        seqs.read_text().split()
    ) == 400  # fmt: skip
    assert seqs.read_text().split()[-1] == "399", "the newest always arrives"


@everywhere
def test_a_file_beside_a_live_source_loses_nothing_on_its_own_edges(ovpipe_run):
    stages = {
        "live": {"kind": S + "LiveCount", "count": 500},
        "file": {"kind": S + "Count", "count": 100},
        "slow": {"kind": E + "Slow", "inputs": "file"},
        "both": {"kind": S + "tag", "inputs": ["live", "slow"]},
        "sink": {"kind": S + "Check", "inputs": "both"},
    }
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    rows = {(r["source"], r["stream"]): r for r in ended.summary["ledger"]}
    assert rows["file", "file"]["delivered"] == rows["slow", "file"]["delivered"] == 100


def test_streams_of_any_rate_share_a_stage_that_is_too_slow(ovpipe_run):
    each = {"fast": {"fps": 120}, "middle": {"fps": 60}, "slow": {"fps": 30}}
    graph = {
        "cam": {"kind": "synthetic", "size": "64x48", "live": True, "for_each": each},
        "device": {"kind": "tests.support.slow:SlowDevice", "takes_s": 0.05},
        "log": {"kind": "log"},
    }
    ended = ovpipe_run(graph, "--duration", "4").balanced()
    assert ended.code == 0, ended.err
    rows = [row for row in ended.summary["ledger"] if row["target"] == "device"]
    assert all(row["dropped"] for row in rows), rows
    delivered = [row["delivered"] for row in rows]
    assert min(delivered) >= 0.8 * max(delivered), rows
