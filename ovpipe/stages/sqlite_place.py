"""Where the file of an open database is: that it was moved is noticed, and it is left whole.

SQLite writes on into a file that was renamed or deleted, and says nothing; its log stays behind
under the old name, with the last rows in it, and would be taken for that of the next database.

Law: a database that is left has all of its rows, in its own file or in a log that is kept and told.
Nothing of it stays at the path where the next one is made.
"""

from __future__ import annotations

import sqlite3
from itertools import count
from pathlib import Path

from ovpipe.stages.paths import astray


def fold(database: sqlite3.Connection) -> bool:
    """Move the log into the database, and so make room; whether that was possible."""
    try:
        (busy, _, _) = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error:
        return False
    return not busy


class Place:
    """Of a database that has just been opened at `path`, and its log made. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state = path.stat()
        real = path.resolve()
        self._log, self._index = (real.with_name(real.name + end) for end in ("-wal", "-shm"))
        self._beside = {p: p.stat() for p in (self._log, self._index) if p.exists()}

    @property
    def left(self) -> bool:
        """Whether the database is there no more."""
        return astray(self._path, self._state)

    def leave(self, database: sqlite3.Connection) -> Path | None:
        """Close a database that was moved. A log that a reader kept from being folded is returned.

        Raises OSError.
        """
        folded = fold(database)
        database.close()
        kept = None
        for path, state in self._beside.items():
            if astray(path, state):
                continue
            if path == self._log and not folded:
                kept = next(p for n in count(1) if not (p := Path(f"{path}.moved-{n}")).exists())
                path.rename(kept)
            else:
                path.unlink()
        return kept
