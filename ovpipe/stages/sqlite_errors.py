"""What an error of SQLite means, for the stages that keep a database."""

from __future__ import annotations

import sqlite3

NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)
LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def code_of(error: sqlite3.Error) -> int:
    """SQLite's number of an error; the extended one only where it is in NO_ROOM."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code if code in NO_ROOM else code & 0xFF
