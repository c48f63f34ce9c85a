"""The judge of chaos runs sees each thing that can go wrong, and nothing else."""

import copy
import json
import subprocess
import sys

import pytest

from ovpipe.testing.paint import stream_number
from ovpipe.testing.verify import verify


def row(source, target, claimed, delivered, dropped=None, failed=None, in_flight=0):
    return {
        "source": source, "target": target, "stream": "file", "claimed": claimed,
        "delivered": delivered, "dropped": dropped or {}, "failed": failed or {},
        "in_flight": in_flight,
    }  # fmt: skip


def line(seq, **changes):
    painted = {"painted": seq, "painter": stream_number("file"), "ok": True, "pid": 1}
    return {"stream": "file", "seq": seq, **painted, **changes}


END = {"stream": "file", "end": True, "pid": 1}


def good():
    """Ten frames; one held by a stage that was killed, and passed on before; one failed."""
    return {
        "exit_code": 0,
        "ledger": [
            row("file", "mid", 10, 8, failed={"infer_error": 1, "stage_crash": 1}),
            row("mid", "sink", 9, 9),
        ],
        "lines": [*(line(i) for i in range(10) if i != 4), END],
    }


def judge(folder, run):
    lines = run.pop("lines")
    (folder / "summary.json").write_text(json.dumps(run))
    text = "".join(x if isinstance(x, str) else json.dumps(x) + "\n" for x in lines)
    (folder / "sink.jsonl").write_text(text)
    return verify(folder)


def test_a_run_that_adds_up(tmp_path):
    assert judge(tmp_path, good()) == {"frames": 9, "missing": 1, "differences": []}


def test_what_a_killed_stage_held_may_be_gone_too(tmp_path):
    run = good()
    run["ledger"][1] = row("mid", "sink", 8, 8)
    del run["lines"][5]
    assert judge(tmp_path, run) == {"frames": 8, "missing": 2, "differences": []}


def ledger(i, **changes):
    return lambda run: run["ledger"][i].update(changes)


def lines(change):
    return lambda run: change(run["lines"])


TAMPERED = {
    "lost": (lines(lambda x: x.pop(5)), "lost: mid -> sink delivered 9, 8 went on"),
    "lost on the way": (ledger(1, claimed=7, delivered=7), "lost: file -> mid delivered 8, 7"),
    "too many": (ledger(0, failed={"infer_error": 2}), "too many: file -> mid delivered 8 and held 0"),
    "duplicated": (lines(lambda x: x.insert(3, line(2))), "duplicated: frame 2"),
    "disordered": (lines(lambda x: x.insert(1, x.pop(3))), "disordered: frame 1 after 3"),
    "invented": (lines(lambda x: x.insert(9, line(10))), "invented: frame 10 of 10"),
    "corrupted": (lines(lambda x: x[2].update(ok=False)), "pixels of frame 2 have changed"),
    "of another": (lines(lambda x: x[2].update(painted=3)), "has the pixels of frame 3"),
    "of a stream": (lines(lambda x: x[2].update(painter=3)), "the pixels of another stream"),
    "torn": (lines(lambda x: x.insert(2, "{torn\n")), "sink.jsonl:3: not a whole line"),
    "no end": (lines(lambda x: x.pop()), "its end was never told"),
    "two ends": (lines(lambda x: x.append(END)), "its end was told twice"),
    "after the end": (lines(lambda x: x.insert(0, END)), "came after the end"),
    "in flight": (ledger(0, in_flight=1), "1 in flight after the end"),
    "unbalanced": (ledger(0, claimed=11), "claimed 11, ended 10"),
    "dropped": (
        ledger(0, claimed=11, dropped={"queue_full": 1}), "dropped although it waits: file -> mid",
    ),
    "unknown stream": (lines(lambda x: x.append({**line(0), "stream": "x"})), "sink x: invented"),
}  # fmt: skip


@pytest.mark.parametrize(("tamper", "says"), TAMPERED.values(), ids=TAMPERED)
def test_each_difference_is_told(tmp_path, tamper, says):
    run = copy.deepcopy(good())
    tamper(run)
    found = judge(tmp_path, run)["differences"]
    assert any(says in difference for difference in found), found


def test_who_was_away_at_the_end_may_not_have_heard_of_it(tmp_path):
    run = good()
    run["lines"].pop()
    judge(tmp_path, run)
    assert verify(tmp_path, hasty=True)["differences"] == []


def test_a_live_source_may_drop(tmp_path):
    run = good()
    run["ledger"][0].update(claimed=12, dropped={"queue_full": 2}, source="cam")
    assert judge(tmp_path, run)["differences"] == []


def test_the_judge_knows_nothing_of_whom_it_judges():
    script = "import sys, ovpipe.testing.verify; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    parts = ("transport", "supervisor", "worker", "pipeline", "graph", "loader", "cli")
    assert not {f"ovpipe.{part}" for part in parts} & set(loaded)
    assert "zmq" not in loaded
