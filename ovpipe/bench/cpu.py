"""Processor time of other processes, by the kernel's own account.

Law: seconds of user and system time since the process began, with all of its threads, without its
children. Resolution: one tick, 10 ms mostly.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PARENT, _USER, _SYSTEM = 1, 11, 12  # of the fields behind the name, which may hold anything


def of_process(pid: int) -> float:
    """Of one process. Raises OSError where it is gone."""
    return _spent_s(_fields(str(pid)))


def of_workers() -> dict[str, float]:
    """Of each worker process below this one, by the names of the workers that live there."""
    me = str(os.getpid())
    found: dict[str, float] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with suppress(OSError):  # it may have just ended
            fields = _fields(entry)
            if fields[_PARENT] != me:
                continue
            words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            if b"ovpipe.worker" in words:
                found[words[-2].decode(errors="replace")] = _spent_s(fields)
    return found


def _fields(pid: str) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def _spent_s(fields: list[str]) -> float:
    return (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS
