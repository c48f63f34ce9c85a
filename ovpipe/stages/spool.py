"""Spool: messages that wait for a broker, oldest first, in memory or in a file.

    put       a new message; where it finds no room, `when_full` says who goes
    take      the oldest ones, which are under way from then on and not given up for new ones
    put_back  none is under way any more
    done      so many of those under way are confirmed or refused: they are gone

Law: put = done + dropped + len(spool), with what was found in the file on the side of put. Neither
the number of messages nor the bytes of their bodies exceed their bounds. Messages leave in the
order in which they came. In a file, what `put` took survives SIGKILL (and `done` may be forgotten
by a crash: the message then comes again, with the same id); a file that is damaged is put aside,
and said to be. A file has one owner at a time.

The file is an SQLite database in WAL mode: its checksums cut off a write that was interrupted.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol

from ovpipe.errors import PreflightError
from ovpipe.stages.paths import prepare
from ovpipe.stages.sqlite_errors import BROKEN, LOCKED, NO_ROOM, code_of

WhenFull = Literal["drop_oldest", "drop_newest", "block"]

_APPLICATION = 0x4F565053  # "OVPS"


class NoRoom(Exception):
    """The spool is full, and its owner does not want to lose an older message."""


class TooLarge(NoRoom):
    """The message is larger than the whole spool: it need not wait for room."""


class DiskFull(Exception):
    """The file system has no room for the message."""


@dataclass(frozen=True)
class Message:
    """What is sent: `id` is the same each time it is."""

    id: str
    stream: str
    body: bytes


class Store(Protocol):
    """Where messages lie, by rising numbers."""

    def load(self) -> list[tuple[int, int]]:
        """(number, bytes of the body) of what is there from earlier."""

    def add(self, number: int, message: Message) -> None:
        """Keep a message. Raises DiskFull."""

    def read(self, first: int, last: int) -> list[Message]:
        """The messages of these numbers that there are."""

    def remove(self, first: int, last: int) -> None:
        """Forget the messages of these numbers. Raises DiskFull."""

    def close(self) -> None:
        """Idempotent."""


class InMemory:
    """Lost with the process."""

    def __init__(self) -> None:
        self._messages: dict[int, Message] = {}

    def load(self) -> list[tuple[int, int]]:
        return []

    def add(self, number: int, message: Message) -> None:
        self._messages[number] = message

    def read(self, first: int, last: int) -> list[Message]:
        messages = (self._messages.get(n) for n in range(first, last + 1))
        return [message for message in messages if message is not None]

    def remove(self, first: int, last: int) -> None:
        for number in range(first, last + 1):
            self._messages.pop(number, None)

    def close(self) -> None:
        self._messages.clear()


class OnDisk:
    """A file. `put_aside`: the name that a damaged file was given, or None."""

    def __init__(self, path: Path) -> None:
        self.put_aside: Path | None = None
        self._path = path
        prepare(str(path))
        try:
            self._database = self._open()
        except sqlite3.DatabaseError as error:
            if code_of(error) not in BROKEN:
                raise self._unusable(error) from None
            self.put_aside = self._aside()
            try:
                self._database = self._open()
            except sqlite3.Error as again:
                raise self._unusable(again) from None

    def _open(self) -> sqlite3.Connection:
        # One thread at a time, as the spool's lock sees to; not always the same one.
        database = sqlite3.connect(
            self._path, timeout=1, isolation_level=None, check_same_thread=False
        )
        try:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("PRAGMA wal_autocheckpoint = 250")
            database.execute("BEGIN EXCLUSIVE")
            (owner,) = database.execute("PRAGMA application_id").fetchone()
            (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if owner != _APPLICATION and tables:
                raise PreflightError(
                    f"'{self._path}' is a database of something else; give the spool another path"
                )
            database.execute(f"PRAGMA application_id = {_APPLICATION}")
            database.execute(
                "CREATE TABLE IF NOT EXISTS messages "
                "(number INTEGER PRIMARY KEY, id TEXT, stream TEXT, body BLOB)"
            )
            database.execute("COMMIT")
            (healthy,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if healthy != "ok":
                damaged = sqlite3.DatabaseError(healthy)
                damaged.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise damaged
        except BaseException:
            database.close()
            raise
        return database

    def _unusable(self, error: sqlite3.Error) -> PreflightError:
        if code_of(error) in LOCKED:
            return PreflightError(
                f"the spool '{self._path}' is in use by another stage or run; give each its own"
            )
        return PreflightError(f"the spool '{self._path}' cannot be used: {error}")

    def _aside(self) -> Path:
        for n in range(1, 10_000):
            aside = self._path.with_name(f"{self._path.name}.damaged-{n}")
            if not aside.exists():
                break
        self._path.rename(aside)
        for end in ("-wal", "-shm"):
            with suppress(OSError):
                self._path.with_name(self._path.name + end).rename(f"{aside}{end}")
        return aside

    def load(self) -> list[tuple[int, int]]:
        rows = self._database.execute("SELECT number, length(body) FROM messages ORDER BY number")
        return rows.fetchall()

    def add(self, number: int, message: Message) -> None:
        self._do(
            "INSERT INTO messages VALUES (?, ?, ?, ?)",
            number, message.id, message.stream, message.body,
        )  # fmt: skip

    def read(self, first: int, last: int) -> list[Message]:
        rows = self._database.execute(
            "SELECT id, stream, body FROM messages WHERE number BETWEEN ? AND ? ORDER BY number",
            (first, last),
        )
        return [Message(*row) for row in rows]

    def remove(self, first: int, last: int) -> None:
        self._do("DELETE FROM messages WHERE number BETWEEN ? AND ?", first, last)

    def _do(self, statement: str, *values: object) -> None:
        try:
            self._database.execute(statement, values)
        except sqlite3.OperationalError as error:
            if code_of(error) not in NO_ROOM:
                raise
            try:  # what the log holds twice may be room enough
                self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                self._database.execute(statement, values)
            except sqlite3.OperationalError:
                raise DiskFull(str(error)) from error

    def close(self) -> None:
        self._database.close()


class Spool:
    """Bounded. One thread puts, another takes; `len` is what waits, with what is under way."""

    def __init__(
        self, store: Store, max_messages: int, max_bytes: int, when_full: WhenFull
    ) -> None:
        self._store = store
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._when_full = when_full
        self._changed = threading.Condition()
        self._rows: deque[tuple[int, int]] = deque(store.load())  # guarded by _changed, as all
        self._next = self._rows[-1][0] + 1 if self._rows else 1
        self._bytes = sum(size for _, size in self._rows)
        self._under_way = 0
        self._undeleted = 0
        self._closed = False
        self.found = len(self._rows)
        """How many were there from earlier."""
        self.dropped = 0
        """How many were given up for newer ones."""

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def bytes(self) -> int:
        """Of the bodies."""
        return self._bytes

    def put(self, message: Message) -> None:
        """Take a message. Raises NoRoom where it finds none, DiskFull where the disk has none."""
        size = len(message.body)
        with self._changed:
            if size > self._max_bytes:
                raise TooLarge(f"a message of {size} bytes is larger than the whole spool")
            while not self._fits(size):
                if self._when_full != "drop_oldest" or len(self._rows) == self._under_way:
                    raise NoRoom(f"{len(self._rows)} messages wait for the broker")
                self._drop()
            self._store.add(self._next, message)
            self._rows.append((self._next, size))
            self._bytes += size
            self._next += 1

    def wait_for_room(self, body_bytes: int, timeout_s: float) -> bool:
        """Whether there is room for such a message, within the time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._fits(body_bytes), timeout_s)

    def take(self, most: int) -> list[Message]:
        """The oldest messages, at most half of what fits; they are under way."""
        with self._changed:
            if self._closed or not self._rows:
                return []
            numbers: list[int] = []
            left = self._max_bytes // 2
            for number, size in islice(self._rows, max(1, min(most, self._max_messages // 2))):
                left -= size
                if numbers and left < 0:
                    break
                numbers.append(number)
            self._under_way = len(numbers)
            return self._store.read(numbers[0], numbers[-1])

    def put_back(self) -> None:
        """What is under way just waits again."""
        with self._changed:
            self._under_way = 0

    def done(self, count: int) -> None:
        """The first so many of those that are under way need not be sent again."""
        with self._changed:
            if self._closed or not count:
                return
            assert count <= self._under_way
            rows = [self._rows.popleft() for _ in range(count)]
            self._bytes -= sum(size for _, size in rows)
            self._under_way -= count
            first = self._undeleted or rows[0][0]
            try:
                self._store.remove(first, rows[-1][0])
                self._undeleted = 0
            except DiskFull:  # with the next ones; at worst, after a crash, they come again
                self._undeleted = first
            self._changed.notify_all()

    def close(self) -> None:
        """Whoever still takes gets nothing. Idempotent."""
        with self._changed:
            self._closed = True
            self._store.close()

    def _fits(self, size: int) -> bool:
        return len(self._rows) < self._max_messages and self._bytes + size <= self._max_bytes

    def _drop(self) -> None:
        number, size = self._rows[self._under_way]
        self._store.remove(number, number)
        del self._rows[self._under_way]
        self._bytes -= size
        self.dropped += 1
