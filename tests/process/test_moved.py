"""Outputs that are moved or deleted while a run goes on: every frame is where somebody finds it."""

import json
import signal
import sqlite3
from contextlib import closing

from tests.process.conftest import T
from tests.support.processes import wait_for

CAM = {"kind": T + "Script", "items": [{"frame": 100}], "repeat": True, "fps": 200}
ANEW = "was moved or deleted; it is opened anew"


def seqs(path):
    return [json.loads(line)["seq"] for line in path.read_text().splitlines()]


def rows(path):
    """Of a database that is there, or will be."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return [seq for (seq,) in database.execute("SELECT seq FROM frames ORDER BY id")]
    except sqlite3.OperationalError:
        return []


def test_lines_rotated_by_renaming(ovpipe_run, tmp_path):
    out = tmp_path / "out"
    path = out / "found.jsonl"
    run = ovpipe_run.start({"cam": CAM, "sink": {"kind": "jsonl", "path": str(path)}})
    kept = []
    for n in range(3):
        wait_for(lambda: path.exists() and path.stat().st_size, "the first lines")
        kept.append(tmp_path / f"{n}.jsonl")
        path.rename(kept[-1])
    wait_for(path.exists, "the file, anew")
    out.rename(tmp_path / "kept")
    kept.append(tmp_path / "kept" / path.name)
    wait_for(lambda: path.exists() and path.stat().st_size, "the folder, made again")
    run.send_signal(signal.SIGINT)
    ended = ovpipe_run.finish(run).balanced()
    assert ended.code == 0, ended.err
    assert ended.err.count(ANEW) == 4
    there = [seq for one in [*kept, path] for seq in seqs(one)]
    assert there == list(range(ended.ledger["cam", "sink"]["delivered"]))


def test_a_database_rotated_by_renaming(ovpipe_run, tmp_path):
    path = tmp_path / "out" / "found.db"
    run = ovpipe_run.start({"cam": CAM, "sink": {"kind": "sqlite", "path": str(path)}})
    kept = [tmp_path / "kept-1.db", tmp_path / "kept-2" / path.name]
    wait_for(lambda: rows(path), "the first rows")
    path.rename(kept[0])
    wait_for(lambda: rows(path), "the first rows of another one")
    path.parent.rename(kept[1].parent)
    wait_for(lambda: rows(path), "the folder, made again")
    run.send_signal(signal.SIGINT)
    ended = ovpipe_run.finish(run).balanced()
    assert ended.code == 0, ended.err
    assert ended.err.count("was moved or deleted; it is made anew") == 2
    there = [seq for one in [*kept, path] for seq in rows(one)]
    assert there == list(range(ended.ledger["cam", "sink"]["delivered"]))


def test_a_folder_that_cannot_be_made_again_ends_the_run(ovpipe_run, tmp_path):
    (tmp_path / "kept").mkdir()
    out = tmp_path / "out"
    out.symlink_to("kept")
    path = out / "found.jsonl"
    run = ovpipe_run.start({"cam": CAM, "sink": {"kind": "jsonl", "path": str(path)}})
    wait_for(lambda: path.exists() and path.stat().st_size, "the first lines")
    (tmp_path / "file").touch()
    (tmp_path / "file").replace(out)
    ended = ovpipe_run.finish(run).balanced()
    assert ended.code == 3, ended.err
    assert f"stage 'sink': cannot write to '{path}': " in ended.err
    assert "Traceback" not in ended.err
    row = ended.ledger["cam", "sink"]
    assert seqs(tmp_path / "kept" / path.name) == list(range(row["delivered"]))
    assert row["failed"]
