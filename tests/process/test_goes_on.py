"""Consumers that are restarted go on with what they have written: a restart empties no file."""

import csv
import json
import signal

import pytest

from tests.process.conftest import S, T
from tests.support.processes import wait_for, worker_of

CAM = {"kind": T + "Script", "items": [{"frame": 100}], "repeat": True, "fps": 200}


def grown(path):
    """Wait until there is more in it than now."""
    before = path.stat().st_size if path.exists() else 0
    wait_for(lambda: path.exists() and path.stat().st_size > before + 1000, "more lines")


def seqs(path):
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [int(row["seq"]) for row in csv.DictReader(file)]
    return [json.loads(line)["seq"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("name", ["found.jsonl", "found.csv", "{stream}.jsonl"])
def test_A03_lines_that_were_delivered_are_there_after_a_restart(
    ovpipe_run, tmp_path, name, append
):
    """A03."""
    path = tmp_path / name.format(stream="cam")
    sink = {"kind": path.suffix[1:], "path": str(tmp_path / name), "append": append}
    run = ovpipe_run.start({"cam": CAM, "finds": {"kind": S + "Finds"}, "sink": sink})
    grown(path)
    for times in (1, 2):
        worker_of(run.pid, "sink").kill()
        ovpipe_run.until(run, f"restart {times}/5")
        grown(path)
    run.send_signal(signal.SIGINT)
    ended = ovpipe_run.finish(run).balanced()
    assert ended.code == 0, ended.err
    there = seqs(path)
    row = ended.ledger["finds", "sink"]
    # Of the frame that it died of nobody can say whether its line was written.
    crashed = row["failed"].get("stage_crash", 0)
    assert set(row["failed"]) <= {"stage_crash"}, (row, ended.err)
    assert row["delivered"] <= len(there) <= row["delivered"] + crashed
    assert there == sorted(set(there))


def test_A03_an_earlier_run_is_replaced_and_this_one_is_not(ovpipe_run, tmp_path):
    """A03."""
    av = pytest.importorskip("av")
    path = tmp_path / "film.mp4"
    path.write_bytes(b"of an earlier run")
    source = {"kind": "synthetic", "size": "64x48", "fps": 50}
    run = ovpipe_run.start(
        {"cam": source, "film": {"kind": "video-writer", "path": str(path), "overwrite": True}}
    )
    wait_for(lambda: path.stat().st_size > 5000, "a part of the film")
    worker_of(run.pid, "film").kill()
    second = path.with_name("film-2.mp4")
    wait_for(lambda: second.exists() and second.stat().st_size > 5000, "the other part")
    run.send_signal(signal.SIGINT)
    ended = ovpipe_run.finish(run).balanced()
    assert ended.code == 0, ended.err
    for part in (path, second):
        with av.open(str(part)) as container:
            assert sum(1 for _ in container.decode(video=0)) > 1
