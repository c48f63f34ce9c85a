"""The sqlite stage, read by connections of others while it writes and after it died."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovpipe.detections import Detections
from ovpipe.errors import FrameError, PreflightError
from ovpipe.frame import Frame, Image
from ovpipe.stages.base import LocalContext
from ovpipe.stages.sqlite import VERSION, Sqlite

FOUND = Detections.of(
    [[1, 2.0004, 3.3333333, 4], [5, 6, 7, 8], [0, math.nan, 1, 1]],
    [0.93, 0.5, 0.9], [0, 1, 0], {0: "person", 1: "'; DROP TABLE frames; -- \ud800"}, [7, 2**40, 9],
)  # fmt: skip


def frame(seq: int, stream: str = "cam/gate", **parts: Any) -> Frame:
    return Frame(stream=stream, seq=seq, pts_ns=seq * 40_000_000, **parts)


def opened(path: Path, run: str = "", **options: Any) -> Sqlite:
    stage = Sqlite(path=str(path), **options)
    context = LocalContext("table")
    context.run = run or context.run
    stage.bind(context)
    stage.open()
    return stage


def ask(path: Path, question: str, *values: Any) -> list[tuple[Any, ...]]:
    """By a connection of its own, which can only read."""
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return database.execute(question, values).fetchall()
    finally:
        database.close()


def seqs(path: Path) -> list[int]:
    return [seq for (seq,) in ask(path, "SELECT seq FROM frames ORDER BY id")]


def test_rows_of_frames_and_of_what_was_found(tmp_path: Path) -> None:
    path = tmp_path / "new" / "found.db"
    image = Image(np.zeros((48, 64, 3), np.uint8))
    stage = opened(path, run="r", meta=True)
    classes = [{"label": "cat", "score": 0.5}]
    stage.consume(frame(7, image=image, detections=FOUND, meta={"classes": classes, "zone": 3}))
    stage.consume(Frame(stream="b", seq=0))
    # While it writes, another reads.
    rows = ask(path, "SELECT run, stream, seq, pts, width, height, classes, meta FROM frames")
    stage.close()
    assert rows == [
        ("r", "cam/gate", 7, 0.28, 64, 48, json.dumps(classes, separators=(",", ":")), '{"zone":3}'),
        ("r", "b", 0, None, None, None, None, "{}"),
    ]  # fmt: skip
    found = ask(
        path,
        "SELECT run, stream, seq, pts, n, label, class_id, score, x1, y1, x2, y2, track_id FROM found ORDER BY n",
    )
    assert found == [
        ("r", "cam/gate", 7, 0.28, 0, "person", 0, 0.93, 1.0, 2.0, 3.333, 4.0, 7),
        ("r", "cam/gate", 7, 0.28, 1, "'; DROP TABLE frames; -- \\ud800", 1, 0.5,
         5.0, 6.0, 7.0, 8.0, 2**40),
    ]  # fmt: skip
    assert ask(path, "PRAGMA user_version") == [(VERSION,)]
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]


def test_only_what_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "found.db"
    stage = opened(path, found=True, labels=["person"])
    for seq, found in enumerate([FOUND, None, FOUND[[False, True, False]], FOUND]):
        stage.consume(frame(seq, detections=found))
    stage.close()
    assert ask(path, "SELECT seq, label FROM found") == [(0, "person"), (3, "person")]


def test_a_frame_is_there_once_and_runs_are_added(tmp_path: Path) -> None:
    path = tmp_path / "found.db"
    for run in ("one", "one", "two"):
        stage = opened(path, run)
        for seq in range(3):
            stage.consume(frame(seq, detections=FOUND))
        stage.close()
    assert ask(path, "SELECT run, count(*) FROM frames GROUP BY run") == [("one", 3), ("two", 3)]
    assert ask(path, "SELECT count(*) FROM detections") == [(12,)]


WRITER = """
import sys
from ovpipe.frame import Frame
from ovpipe.detections import Detections
from ovpipe.stages.sqlite import Sqlite
found = Detections.of([[1, 2, 3, 4]] * 3, [0.5] * 3, [0] * 3)
stage = Sqlite(path=sys.argv[1])
stage.open()
for seq in range(1_000_000):
    stage.consume(Frame(stream="cam", seq=seq, detections=found))
    print(seq, flush=True)
"""


def test_F05_sigkill_costs_no_frame_that_was_taken(tmp_path: Path) -> None:
    path = tmp_path / "found.db"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(200):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    said = 200 + len(process.stdout.read().splitlines())
    process.wait()
    process.stdout.close()
    there = seqs(path)
    assert there == list(range(len(there)))
    assert said <= len(there) <= said + 1
    assert ask(path, "SELECT count(*) FROM detections") == [(3 * len(there),)]
    stage = opened(path)
    stage.consume(frame(0))
    stage.close()
    assert len(seqs(path)) == len(there) + 1


@pytest.fixture
def room() -> Iterator[Any]:
    """Sets how large a file may become."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size or soft, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_F01_without_room_frames_fail_whole_and_later_ones_go_on(tmp_path: Path, room: Any) -> None:
    path = tmp_path / "found.db"
    stage = opened(path, meta=True)
    written: list[int] = []
    failed = []
    for seq in range(120):
        if seq == 10:
            room(100_000)  # the log is larger already, and is folded into the database first
        if seq == 90:
            room(0)
        try:
            stage.consume(frame(seq, detections=FOUND, meta={"long": "x" * 2000}))
            written.append(seq)
        except FrameError as error:
            assert error.reason == "disk_full"
            failed.append(seq)
    stage.close()
    assert 12 < failed[0] < failed[-1] == 89
    assert not set(range(90, 120)) & set(failed)
    assert seqs(path) == written
    assert ask(path, "SELECT count(*) FROM detections") == [(2 * len(written),)]
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]


def test_readers_stop_nobody(tmp_path: Path) -> None:
    path = tmp_path / "found.db"
    stage = opened(path)
    stage.consume(frame(0))
    reader = sqlite3.connect(path)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM frames").fetchone() == (1,)
    for seq in range(1, 50):
        stage.consume(frame(seq))
    assert reader.execute("SELECT count(*) FROM frames").fetchone() == (1,)  # its own moment
    reader.close()
    stage.close()
    assert seqs(path) == list(range(50))


def test_another_writer_is_waited_for_and_no_longer_than_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "found.db"
    stage = opened(path, lock_timeout=0.3)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    for seq in (0, 1):
        with pytest.raises(FrameError) as caught:
            stage.consume(frame(seq))
        assert caught.value.reason == "link_lost"
    assert caplog.text.count("locks") == 1
    stage.lock_timeout = 60.0
    waits = threading.Event()
    stage.context.waiting = waits.set  # type: ignore[method-assign]
    unlock = threading.Thread(target=lambda: waits.wait(30) and other.execute("COMMIT"))
    unlock.start()
    stage.consume(frame(2))
    unlock.join()
    other.close()
    stage.close()
    assert seqs(path) == [2]


def test_the_oldest_go_where_there_are_too_many(tmp_path: Path) -> None:
    path = tmp_path / "found.db"
    stage = opened(path, max_frames=50)
    for seq in range(1000):
        stage.consume(frame(seq, detections=FOUND))
    stage.close()
    there = seqs(path)
    assert 50 <= len(there) <= 150
    assert there == list(range(1000))[-len(there) :]
    assert ask(path, "SELECT count(*) FROM detections") == [(2 * len(there),)]


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    path = tmp_path / "found.db"
    stage = opened(path, run="old")
    for seq in range(1000):
        stage.consume(frame(seq, detections=FOUND))
    stage.close()
    aged = sqlite3.connect(path)
    aged.execute("UPDATE frames SET written = ?", (time.time() - 7200,))
    aged.commit()
    aged.close()
    stage = opened(path, run="new", max_age=3600.0)
    for seq in range(5):
        stage.consume(frame(seq))
    stage.close()
    assert ask(path, "SELECT run, count(*) FROM frames GROUP BY run") == [("new", 5)]
    assert ask(path, "SELECT count(*) FROM detections") == [(0,)]


# -- a database that is moved or deleted meanwhile ----------------------------------------------


def whole(path: Path) -> list[int]:
    """The frames of a database of which nothing but its own file is needed."""
    alone = path.with_name("alone.db")
    shutil.copy(path, alone)
    assert ask(alone, "PRAGMA integrity_check") == [("ok",)]
    return seqs(alone)


@pytest.mark.parametrize("how", ["renamed", "with log", "folder renamed", "deleted", "all deleted"])
def test_a_database_that_is_moved_or_deleted_is_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    path, kept = tmp_path / "out" / "found.db", tmp_path / "kept" / "found.db"
    stage = opened(path, durable=True)
    (tmp_path / "kept").mkdir()
    for seq in range(6):
        if seq == 3:
            match how:
                case "renamed":
                    path.rename(kept)
                case "with log":
                    for end in ("", "-wal", "-shm"):
                        Path(f"{path}{end}").rename(f"{kept}{end}")
                case "folder renamed":
                    kept.parent.rmdir()
                    path.parent.rename(kept.parent)
                case "deleted":
                    path.unlink()
                case "all deleted":
                    shutil.rmtree(path.parent)
        stage.consume(frame(seq, detections=FOUND))
        assert seq in seqs(path)
    stage.close()
    assert [one.name for one in path.parent.iterdir()] == ["found.db"]
    assert whole(path) == [3, 4, 5]
    assert ask(path, "PRAGMA user_version") == [(VERSION,)]
    if "deleted" not in how:
        assert whole(kept) == [0, 1, 2]
    assert [one.getMessage() for one in caplog.records] == [
        f"table: '{path}' was moved or deleted; it is made anew"
    ]


def test_one_that_is_moved_after_the_last_frame_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "found.db"
    stage = opened(path)
    stage.consume(frame(0))
    path.rename(tmp_path / "kept.db")
    stage.close()
    assert whole(tmp_path / "kept.db") == [0]
    assert not list(tmp_path.glob("found.db*"))


def test_one_that_is_put_in_its_place_is_gone_on_with(tmp_path: Path) -> None:
    path, other = tmp_path / "found.db", tmp_path / "other.db"
    before = opened(other, "before")
    before.consume(frame(7))
    before.close()
    stage = opened(path)
    stage.consume(frame(0))
    path.rename(tmp_path / "kept.db")
    other.rename(path)
    stage.consume(frame(1))
    stage.close()
    assert whole(path) == [7, 1]
    assert whole(tmp_path / "kept.db") == [0]


def test_the_log_of_a_moved_database_that_is_read_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, kept = tmp_path / "found.db", tmp_path / "kept.db"
    stage = opened(path)
    stage.consume(frame(0))
    reader = sqlite3.connect(path)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM frames").fetchone()
    stage.consume(frame(1))
    path.rename(kept)
    stage.consume(frame(2))
    assert reader.execute("SELECT seq FROM frames").fetchall() == [(0,)]
    reader.close()
    stage.close()
    log = tmp_path / "found.db-wal.moved-1"
    assert f"are in '{log}'" in caplog.text
    log.rename(f"{kept}-wal")
    assert seqs(kept) == [0, 1]
    assert whole(path) == [2]


def test_what_cannot_be_made_anew_is_said(tmp_path: Path) -> None:
    path = tmp_path / "out" / "found.db"
    stage = opened(path)
    stage.consume(frame(0))
    path.parent.rename(tmp_path / "kept")
    path.parent.touch()
    with pytest.raises(PreflightError, match="cannot write to"):
        stage.consume(frame(1))
    path.parent.unlink()
    path.parent.mkdir()
    other_database(path)
    with pytest.raises(PreflightError, match="is a database of something else"):
        stage.consume(frame(2))
    stage.close()
    assert whole(tmp_path / "kept" / "found.db") == [0]


def test_without_room_for_another_frames_fail_and_later_ones_go_on(
    tmp_path: Path, room: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "found.db"
    stage = opened(path)
    stage.consume(frame(0))
    path.rename(tmp_path / "kept.db")
    room(20_000)
    for seq in (1, 2):
        with pytest.raises(FrameError) as caught:
            stage.consume(frame(seq))
        assert caught.value.reason == "disk_full"
    room(0)
    stage.consume(frame(3))
    stage.close()
    assert seqs(path) == [3]
    assert caplog.text.count("made anew") == 1


def other_database(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE mine (x)")
    database.commit()
    database.close()


def later_version(path: Path) -> None:
    opened(path).close()
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {VERSION + 1}")
    database.close()


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("x.db", other_database, "is a database of something else"),
        ("x.db", later_version, f"has tables of version {VERSION + 1}"),
        ("x.db", lambda path: path.write_bytes(os.urandom(5000)), "cannot be used"),
        ("x.db", lambda path: path.mkdir(), "is a folder"),
        ("{stream}.db", lambda path: None, "a database holds all streams"),
        ("none/", lambda path: None, "names no file"),
    ],
)
def test_what_is_not_ours_is_left_alone(tmp_path: Path, name: str, make: Any, says: str) -> None:
    path = tmp_path / name
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(PreflightError) as caught:
        Sqlite(path=f"{tmp_path}/{name}").open()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not path.is_file() or before[100:] == path.read_bytes()[100:]
