"""Sqlite: what was found as tables of an SQLite database, to be asked while it is written.

    frames       id, run, stream, seq, pts, width, height, written, classes, meta
    detections   frame (an id of frames), n, label, class_id, score, x1, y1, x2, y2, track_id
    found        a view: the detections, each with run, stream, seq, pts, written of its frame

`pts` is in seconds, `written` in seconds since 1970, boxes in pixels; `classes` and `meta` are
JSON. What is unknown is NULL.

Law: a frame is one transaction: all of its rows are there, or none. It is delivered when that is
committed, so SIGKILL loses no frame that was delivered (a power cut may cost the last ones, unless
`durable`). (run, stream, seq) is there once. Readers never stop the writer (WAL). Without room the
frame fails with `disk_full`, and the next one tries again. A database that was moved or deleted is
left whole (`ovpipe.stages.sqlite_place`) and another one made at its path; the log says so.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Ge

from ovpipe.errors import FrameError, PreflightError
from ovpipe.frame import Frame
from ovpipe.options import Duration
from ovpipe.stages.jsonl import record
from ovpipe.stages.paths import FULL, STREAM, in_folder, prepare, unwritable
from ovpipe.stages.selective import Selective
from ovpipe.stages.sqlite_errors import LOCKED, NO_ROOM, code_of
from ovpipe.stages.sqlite_place import Place, fold

VERSION = 1
"""Of the tables; stands in the database as `user_version`."""
APPLICATION = 0x4F565044  # "OVPD"
_TABLES = """
CREATE TABLE frames (
    id INTEGER PRIMARY KEY,
    run TEXT NOT NULL,
    stream TEXT NOT NULL,
    seq INTEGER NOT NULL,
    pts REAL,
    width INTEGER,
    height INTEGER,
    written REAL NOT NULL,
    classes TEXT,
    meta TEXT,
    UNIQUE (run, stream, seq)
);
CREATE TABLE detections (
    frame INTEGER NOT NULL REFERENCES frames (id) ON DELETE CASCADE,
    n INTEGER NOT NULL,
    label TEXT NOT NULL,
    class_id INTEGER NOT NULL,
    score REAL NOT NULL,
    x1 REAL NOT NULL, y1 REAL NOT NULL, x2 REAL NOT NULL, y2 REAL NOT NULL,
    track_id INTEGER,
    PRIMARY KEY (frame, n)
) WITHOUT ROWID;
CREATE INDEX detections_label ON detections (label);
CREATE VIEW found AS
    SELECT run, stream, seq, pts, written, detections.*
    FROM detections JOIN frames ON frames.id = detections.frame;
"""
_TURN_S = 0.2
_OPEN_S = 3.0
_LOG_PAGES = 250  # a megabyte of log
_PRUNE_EVERY = 100
_PRUNE_ROWS = 400
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class Sqlite(Selective):
    """Writes what was found into an SQLite database."""

    one_process: ClassVar[bool] = True

    path: Annotated[str, "the database; it is made where there is none, and added to"]
    meta: Annotated[bool, "write the frame's metadata too"] = False
    max_age: Annotated[Duration, Ge(0), "frames that are older are deleted; 0: none"] = 0.0
    max_frames: Annotated[int, Ge(0), "of more frames the oldest are deleted; 0: none"] = 0
    durable: Annotated[bool, "wait for the disk at each frame: survives a power cut"] = False
    lock_timeout: Annotated[
        Duration, Ge(0), "how long a frame waits while another program locks the database"
    ] = 10.0

    _database: Any = None
    _place: Any = None
    _log: Any = None
    _until_prune: int = 0
    _told_locked: bool = False

    def open(self) -> None:
        """Open or make the database. PreflightError where it is not one of ours."""
        self._log = logging.getLogger(f"ovpipe.{self.context.stage}")
        if STREAM in self.path:
            raise PreflightError(
                f"path '{self.path}': a database holds all streams; leave {STREAM} out"
            )
        prepare(self.path)
        try:
            self._begin()
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def consume(self, frame: Frame) -> None:
        """Write the frame's rows, all or none."""
        something = self.select(frame, self.found)
        if something is None:
            return
        frame = replace(frame, detections=something)
        deadline_s = time.monotonic() + self.lock_timeout
        folded = False
        while True:
            self._follow()
            try:
                self._write(frame)
                return
            except sqlite3.OperationalError as error:
                self._undo()
                if self._place.left:
                    continue
                code = code_of(error)
                if code in NO_ROOM:
                    if not folded and fold(self._database):
                        folded = True
                        continue
                    raise self._no_space() from error
                if code not in LOCKED:
                    raise
                self._tell_locked()
                if self.context.stopping or time.monotonic() >= deadline_s:
                    raise self._locked() from error
                self.context.waiting()

    def close(self) -> None:
        """Fold the log into the database, where no reader is in the way, and close it."""
        if self._database is not None and self._place.left:
            self._leave()
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _begin(self) -> None:
        path = Path(self.path).expanduser()
        self._database = self._opened(path)
        self._place = Place(path)

    def _follow(self) -> None:
        """Make the database anew where it was moved or deleted. FrameError without room."""
        if self._database is not None and not self._place.left:
            return
        try:
            if self._database is not None:
                self._log.warning(
                    "%s: '%s' was moved or deleted; it is made anew", self.context.stage, self.path
                )
                self._leave()
            path = Path(self.path).expanduser()
            in_folder(path, path.touch)  # SQLite would not say why it cannot
            self._begin()
        except OSError as error:
            if error.errno in FULL:
                raise self._no_space() from error
            raise unwritable(Path(self.path), error) from None
        except sqlite3.Error as error:
            code = code_of(error)
            if code in NO_ROOM:
                raise self._no_space() from error
            if code in LOCKED:
                raise self._locked() from error
            raise self._unusable(error) from None

    def _leave(self) -> None:
        database, self._database = self._database, None
        kept = self._place.leave(database)
        if kept is not None:
            self._log.warning(
                "%s: the last rows of the database that was moved are in '%s', since a reader or "
                "a full disk was in the way; put it beside that database, named as it with -wal",
                self.context.stage, kept,
            )  # fmt: skip

    def _no_space(self) -> FrameError:
        return FrameError(f"no space for '{self.path}'", "disk_full")

    def _locked(self) -> FrameError:
        return FrameError(f"'{self.path}' is locked", "link_lost")

    def _unusable(self, error: sqlite3.Error) -> PreflightError:
        hint = "it is locked" if code_of(error) in LOCKED else str(error)
        return PreflightError(
            f"'{self.path}' cannot be used: {hint}; give the path of a database that ovpipe "
            "made, or of a new file"
        )

    def _opened(self, path: Path) -> sqlite3.Connection:
        database = sqlite3.connect(path.absolute(), timeout=_OPEN_S, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute(f"PRAGMA synchronous = {'FULL' if self.durable else 'NORMAL'}")
            database.execute("PRAGMA foreign_keys = ON")
            database.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
            database.execute("BEGIN IMMEDIATE")
            (application,) = database.execute("PRAGMA application_id").fetchone()
            (version,) = database.execute("PRAGMA user_version").fetchone()
            (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if not tables:
                for statement in _TABLES.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA application_id = {APPLICATION}")
                database.execute(f"PRAGMA user_version = {VERSION}")
            elif application != APPLICATION:
                raise PreflightError(f"'{path}' is a database of something else; give another path")
            elif version != VERSION:
                raise PreflightError(
                    f"'{path}' has tables of version {version}, and this ovpipe writes {VERSION}; "
                    "give another path"
                )
            database.execute("COMMIT")
            # From now on a lock is waited for in turns, so that the wait can be seen.
            database.execute(f"PRAGMA busy_timeout = {round(_TURN_S * 1000)}")
        except BaseException:
            database.close()
            raise
        return database

    def _write(self, frame: Frame) -> None:
        line = record(frame, self.meta)
        classes = line.get("classes")
        execute = self._database.execute
        execute("BEGIN IMMEDIATE")
        key = execute(
            "INSERT INTO frames (run, stream, seq, pts, width, height, written, classes, meta) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING id",
            (
                self.context.run, _text(frame.stream), frame.seq, line["pts"], line["width"],
                line["height"], time.time(), None if classes is None else _text(_encode(classes)),
                _text(_encode(line["meta"])) if self.meta else None,
            ),
        ).fetchone()  # fmt: skip
        if key is not None:
            self._database.executemany(
                "INSERT INTO detections VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (*key, n, _text(d["label"]), d["class_id"], d["score"], *d["box"],
                     d.get("track_id"))
                    for n, d in enumerate(line["detections"])
                ],
            )  # fmt: skip
        self._prune()
        execute("COMMIT")
        self._told_locked = False

    def _prune(self) -> None:
        """Delete what is too old or too much, a little at a time: no frame waits long for it."""
        self._until_prune -= 1
        if self._until_prune > 0 or not (self.max_age or self.max_frames):
            return
        execute, gone = self._database.execute, 0
        if self.max_age:
            gone = execute(
                "DELETE FROM frames WHERE written < ? AND id IN "
                "(SELECT id FROM frames ORDER BY id LIMIT ?)",
                (time.time() - self.max_age, _PRUNE_ROWS),
            ).rowcount
        if self.max_frames:
            gone = max(gone, execute(
                "DELETE FROM frames WHERE id IN (SELECT id FROM frames WHERE id <= "
                "(SELECT id FROM frames ORDER BY id DESC LIMIT 1 OFFSET ?) ORDER BY id LIMIT ?)",
                (self.max_frames, _PRUNE_ROWS),
            ).rowcount)  # fmt: skip
        # With more than that to delete it goes on at the next frame.
        self._until_prune = 0 if gone == _PRUNE_ROWS else _PRUNE_EVERY

    def _undo(self) -> None:
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")

    def _tell_locked(self) -> None:
        if not self._told_locked:
            self._told_locked = True
            self._log.warning(
                "%s: another program locks '%s'; waiting up to %g s a frame",
                self.context.stage, self.path, self.lock_timeout,
            )  # fmt: skip


def _text(text: str) -> str:
    """SQLite keeps UTF-8 only."""
    return text.encode("utf-8", "backslashreplace").decode()
