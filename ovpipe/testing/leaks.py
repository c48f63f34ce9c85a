"""What this process and its children hold now, to be compared with what they held before.

Law: read from /proc and the file system only; nothing is collected, closed or removed here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Holdings:
    """processes: descendants, zombies too, pid -> command line. fds: number -> what it is.

    mappings: memfds of ovpipe that are mapped here. names: in /dev/shm. run_folders: of runs,
    below the folder asked for.
    """

    processes: dict[int, str] = field(default_factory=dict)
    fds: dict[int, str] = field(default_factory=dict)
    mappings: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    run_folders: frozenset[str] = frozenset()

    def beyond(self, before: Holdings) -> list[str]:
        """What is held now and was not before, a line each."""
        lines = [
            f"process {pid}: {command}"
            for pid, command in self.processes.items()
            if pid not in before.processes
        ]
        lines += [
            f"descriptor {fd}: {what}" for fd, what in self.fds.items() if fd not in before.fds
        ]
        lines += [f"shared memory mapped: {x}" for x in sorted(self.mappings - before.mappings)]
        names = sorted(self.names - before.names)
        lines += [f"/dev/shm/{x}" for x in names if not _of_others(x, self.processes)]
        lines += [f"run folder {x}" for x in sorted(self.run_folders - before.run_folders)]
        return lines


def holdings(runtime: Path | None = None) -> Holdings:
    """What is held now; run folders below `runtime` (an XDG_RUNTIME_DIR)."""
    folders = runtime.glob("ovpipe-*/*") if runtime else ()
    return Holdings(
        processes={pid: command_line(pid) or "(ended)" for pid in descendants(os.getpid())},
        fds=dict(_descriptors()),
        mappings=_mappings(),
        names=frozenset(os.listdir("/dev/shm")),
        run_folders=frozenset(str(p) for p in folders if p.is_dir()),
    )


def descendants(pid: int) -> Iterator[int]:
    """All processes below `pid`, parents first, zombies included."""
    parents = _parents()
    found = [pid]
    for ancestor in found:
        for child, parent in parents.items():
            if parent == ancestor:
                found.append(child)
                yield child


def command_line(pid: int) -> str:
    """How a process was called; "" where it is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _of_others(name: str, ours: dict[int, str]) -> bool:
    """True where a process that is none of ours has the shared memory of that name mapped."""
    for pid in _parents():
        if pid in ours or pid == os.getpid():
            continue
        try:
            if f"/dev/shm/{name}" in Path(f"/proc/{pid}/maps").read_text(errors="replace"):
                return True
        except OSError:  # it has ended, or is not ours to look at
            continue
    return False


def _parents() -> dict[int, int]:
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                stat = Path(f"/proc/{name}/stat").read_text(errors="replace")
            except OSError:  # it has just ended
                continue
            parents[int(name)] = int(stat.rpartition(")")[2].split()[1])
    return parents


def _descriptors() -> Iterator[tuple[int, str]]:
    for name in os.listdir("/proc/self/fd"):
        try:
            yield int(name), os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # that of the listing itself
            continue


def _mappings() -> frozenset[str]:
    lines = Path("/proc/self/maps").read_text(errors="replace").splitlines()
    return frozenset(
        f"{line.split()[0]} {line.split()[5]}" for line in lines if "/memfd:ovpipe" in line
    )
