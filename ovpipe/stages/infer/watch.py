"""A model's files may change while it runs: nothing breaks, and it does not go unnoticed.

Law: what runs is what was read at the start. Files are looked at when a frame passes, every few
seconds at most; each that is no longer the one that was read is named in one warning.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

Seen = Mapping[Path, tuple[int, ...] | None]
"""What identified each file when it was read."""

EVERY_NS = 5_000_000_000

_log = logging.getLogger(__name__)


def see(model: Path) -> Seen:
    """The files of a model as they are now; to be called before they are read."""
    files = [model, model.with_suffix(".bin")] if model.suffix.lower() == ".xml" else [model]
    return {file: _mark(file) for file in files}


class Watch:
    """Compares files with what was `seen` of them. `stage`: whom a log line speaks of."""

    def __init__(
        self, seen: Seen, stage: str, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._seen = dict(seen)
        self._stage = stage
        self._clock = clock
        self._next = clock() + EVERY_NS

    def look(self) -> None:
        """Warn of what has changed, where it is time to look again."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + EVERY_NS
        for file, mark in list(self._seen.items()):
            found = _mark(file)
            if found != mark:
                del self._seen[file]
                _log.warning(
                    "%s: the model's file '%s' %s since it was read; this run goes on with what "
                    "it read: restart it to use the file as it is now",
                    self._stage,
                    file,
                    "has changed" if found else "has gone",
                )


def _mark(file: Path) -> tuple[int, ...] | None:
    """What tells a file from another of its name; None where there is none."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
