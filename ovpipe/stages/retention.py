"""Retention: which recordings may stay, and the deletion of the others, oldest first.

    age    how long a recording stays
    size   how much all of them may take
    free   how much of the disk is to stay free

Law: only files whose whole path is one that the pattern gives are ever deleted, never one that is
being written, never through a symbolic link; folders only below the pattern's own, and empty. No
jump of the wall clock deletes anything: a file's age is counted by a clock that only runs forward,
from the moment that this process first saw it, and by the wall clock only what it had then. So a
clock that is set ahead by a year makes nothing old while we run; what was recorded under a clock
that was wrong, and is found at the next start, is as old as its date says (one of the future is
new).
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from bisect import insort
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypedDict

from annotated_types import Gt

from ovpipe.options import Bytes, Duration
from ovpipe.stages.naming import Pattern

_LOOK_S = 20.0
_SCAN_S = 600.0


class Keep(TypedDict, total=False):
    """How much of what was recorded stays; what is left out has no bound."""

    age: Annotated[Duration, Gt(0), "how long a file stays"]
    size: Annotated[Bytes, Gt(0), "how much all files of this stage may take"]
    free: Annotated[Bytes, Gt(0), "how much of the disk is to stay free"]


@dataclass(frozen=True, order=True)
class Entry:
    """A finished file; `born_s` by the clock that only runs forward."""

    born_s: float
    path: Path
    size: int = field(compare=False)


class Shelf:
    """The finished files, oldest first. Pure."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._entries: list[Entry] = []
        self._known: set[Path] = set()
        self.bytes = 0

    def __contains__(self, path: Path) -> bool:
        return path in self._known

    def put(self, path: Path, size: int, born_s: float) -> None:
        """A file more."""
        if path not in self._known:
            insort(self._entries, Entry(born_s, path, size))
            self._known.add(path)
            self.bytes += size

    def forget(self, gone: set[Path]) -> None:
        """Files that are there no more."""
        self.bytes -= sum(entry.size for entry in self._entries if entry.path in gone)
        self._entries = [entry for entry in self._entries if entry.path not in gone]
        self._known -= gone

    def paths(self) -> set[Path]:
        """All that are known."""
        return set(self._known)

    def overdue(
        self, now_s: float, writing_bytes: int, free_bytes: int, room: int = 0, least: int = 0
    ) -> list[Entry]:
        """Those to delete now, oldest first.

        `room`: how many bytes must be free whatever is kept; `least`: how many files must go.
        """
        age_s = self._keep.get("age", float("inf"))
        limit = self._keep.get("size", float("inf"))
        least_free = max(self._keep.get("free", 0), room)
        total = self.bytes + writing_bytes
        chosen: list[Entry] = []
        for entry in self._entries:
            if (
                len(chosen) >= least
                and now_s - entry.born_s <= age_s
                and total <= limit
                and free_bytes >= least_free
            ):
                break
            chosen.append(entry)
            total -= entry.size
            free_bytes += entry.size
        return chosen


def running_s() -> float:
    """Seconds on a clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Keeper:
    """Keeps a pattern's files within bounds, now and then, in a thread of its own.

    `lock`: held by whoever makes a folder and the file in it, so that none is removed in between.
    """

    def __init__(
        self,
        stage: str,
        pattern: Pattern,
        keep: Keep,
        wall_s: Callable[[], float] = time.time,
        clock_s: Callable[[], float] = running_s,
    ) -> None:
        self.lock = threading.RLock()
        self._log = logging.getLogger(f"ovpipe.{stage}")
        self._pattern = pattern
        self._wall_s, self._clock_s = wall_s, clock_s
        self._shelf = Shelf(keep)
        self._writing: set[Path] = set()
        self._undeletable: set[Path] = set()
        self._looked_s = 0.0
        self._free_bytes = keep.get("free", 0)
        self._warned = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        """Look for what there is, and delete what is too much already."""
        self.look()
        self._thread.start()

    def close(self) -> None:
        """End the thread; the files stay."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def begun(self, path: Path) -> None:
        """A file is being written from now on."""
        with self.lock:
            self._writing.add(path)

    def ended(self, path: Path) -> None:
        """It is finished; or there is nothing of it."""
        with self.lock, suppress(OSError):
            self._writing.discard(path)
            self._shelf.put(path, path.stat().st_size, self._clock_s())

    def look(self) -> None:
        """Bring what is known up to date with what there is, and apply it.

        The folders are read without the lock: whoever writes does not wait for that.
        """
        self._looked_s, wall_s = self._clock_s(), self._wall_s()
        with self.lock:
            known = self._shelf.paths()
        found: dict[Path, os.stat_result | None] = dict.fromkeys(matching(self._pattern))
        for path in found.keys() - known:
            with suppress(OSError):
                found[path] = path.stat(follow_symlinks=False)
        with self.lock:
            for path, state in found.items():
                if state is not None and path not in self._writing:
                    age_s = max(0.0, wall_s - state.st_mtime)
                    self._shelf.put(path, state.st_size, self._looked_s - age_s)
            self._shelf.forget(known - found.keys())
        self.apply()

    def apply(self, room: int = 0, least: int = 0) -> bool:
        """Delete what is overdue; whether anything was deleted."""
        with self.lock:
            now_s = self._clock_s()
            try:
                free = shutil.disk_usage(self._pattern.root).free
            except OSError:
                return False
            writing = 0
            for path in self._writing:
                with suppress(OSError):
                    writing += path.stat().st_size
            gone: set[Path] = set()
            for entry in self._shelf.overdue(now_s, writing, free, room, least):
                if self._delete(entry.path):
                    gone.add(entry.path)
            if gone:
                self._shelf.forget(gone)
            self._warn()
            return bool(gone)

    def _warn(self) -> None:
        """Once, where all that may be deleted is not enough."""
        free = shutil.disk_usage(self._pattern.root).free
        if free < self._free_bytes and not self._shelf.bytes and not self._warned:
            self._warned = True
            self._log.warning(
                "keep: only %.1f GB of the disk of '%s' are free, %.1f GB are to be, and nothing "
                "that is recorded is left to delete",
                free / 1e9, self._pattern.root, self._free_bytes / 1e9,
            )  # fmt: skip

    def make_room(self, wanted: int) -> bool:
        """The disk is full: delete the oldest, one at least; False where there is none to go."""
        return self.apply(wanted, 1)

    def _run(self) -> None:
        while not self._closing.wait(_LOOK_S):
            try:
                if self._clock_s() - self._looked_s >= _SCAN_S:
                    self.look()
                else:
                    self.apply()
            except Exception:  # noqa: BLE001 - it must go on, and nobody else would say why
                self._log.exception("retention failed; it is tried again")

    def _delete(self, path: Path) -> bool:
        """Delete a file, and its folder where that is empty; whether it is gone."""
        try:
            path.unlink()
        except FileNotFoundError:
            return True
        except OSError as error:
            if path not in self._undeletable:
                self._undeletable.add(path)
                self._log.warning("cannot delete '%s': %s", path, error.strerror)
            return False
        self._log.info("deleted '%s'", path)
        root = self._pattern.root
        for folder in path.parents:
            if folder == root or root not in folder.parents:
                break
            try:
                folder.rmdir()
            except OSError:
                break
        return True


def matching(pattern: Pattern) -> Iterator[Path]:
    """The files that there are of a pattern."""
    yield from _below(pattern.root, pattern, 0)


def _below(folder: Path, pattern: Pattern, depth: int) -> Iterator[Path]:
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except OSError:
        return
    last = depth == len(pattern.parts) - 1
    for entry in entries:
        if pattern.parts[depth].fullmatch(entry.name) is None:
            continue
        path = folder / entry.name
        if last and entry.is_file(follow_symlinks=False):
            yield path
        elif not last and entry.is_dir(follow_symlinks=False):
            yield from _below(path, pattern, depth + 1)
