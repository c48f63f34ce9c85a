"""What this machine says of itself: /proc, /sys and the limits of this process. Reads only.

Law: what is not there, not permitted or not understood is None; nothing is raised.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_NO_LIMIT = 1 << 60


@dataclass(frozen=True)
class Host:
    """The machine below `root`; another one than `/` in tests."""

    root: Path = field(default=Path("/"))

    def text(self, path: str) -> str | None:
        """A small file's text, without what surrounds it."""
        try:
            return (self.root / path.lstrip("/")).read_text(errors="replace")[: 1 << 20].strip()
        except OSError:
            return None

    def number(self, path: str) -> int | None:
        """A file's one number; `max` and the like are none."""
        with suppress(TypeError, ValueError):
            return int(self.text(path))  # type: ignore[arg-type]
        return None

    def entries(self, pattern: str) -> list[Path]:
        """What there is of that pattern."""
        with suppress(OSError, ValueError):
            return sorted(self.root.glob(pattern.lstrip("/")))
        return []

    def memory_bytes(self) -> tuple[int | None, int | None]:
        """(all, available), by /proc/meminfo."""
        found: dict[str, int] = {}
        for line in (self.text("/proc/meminfo") or "").splitlines():
            with suppress(ValueError, IndexError):
                found[line.split(":")[0]] = int(line.split()[1]) * 1024
        return found.get("MemTotal"), found.get("MemAvailable")

    def memory_limit(self) -> tuple[int | None, int | None]:
        """(limit, used) of the closest cgroup that has a limit."""
        for folder in self._groups("memory"):
            for limit, used in (
                ("memory.max", "memory.current"),
                ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            ):
                value = self.number(f"{folder}/{limit}")
                if value is not None and value < _NO_LIMIT:
                    return value, self.number(f"{folder}/{used}")
        return None, None

    def processor_quota(self) -> float | None:
        """Processors' worth of time that the cgroups allow: the least of them."""
        found = []
        for folder in self._groups("cpu"):
            with suppress(ValueError, AttributeError, ZeroDivisionError):
                quota, period = self.text(f"{folder}/cpu.max").split()  # type: ignore[union-attr]
                found.append(int(quota) / int(period))
            quota_us = self.number(f"{folder}/cpu.cfs_quota_us")
            period_us = self.number(f"{folder}/cpu.cfs_period_us")
            if quota_us and quota_us > 0 and period_us:
                found.append(quota_us / period_us)
        return min(found, default=None)

    def process_limit(self) -> int | None:
        """Processes and threads that the closest cgroup with a limit still has room for."""
        for folder in self._groups("pids"):
            most, now = self.number(f"{folder}/pids.max"), self.number(f"{folder}/pids.current")
            if most is not None:
                return most - (now or 0)
        return None

    def _groups(self, controller: str) -> list[str]:
        """The folders of this process's cgroups, the closest first; of both versions."""
        found = []
        for line in (self.text("/proc/self/cgroup") or "0::/").splitlines():
            _, _, rest = line.partition(":")
            names, _, path = rest.partition(":")
            if names and controller not in names.split(","):
                continue
            base = f"/sys/fs/cgroup/{controller}" if names else "/sys/fs/cgroup"
            parts = [p for p in path.split("/") if p and p != ".."]
            found += ["/".join([base, *parts[:n]]) for n in range(len(parts), -1, -1)]
        return found


def may_use(path: Path) -> bool:
    """Whether this process may read and write it."""
    return os.access(path, os.R_OK | os.W_OK)


def group_of(path: Path) -> str:
    """The group that it is of, by name where it has one."""
    try:
        return path.group()
    except (OSError, KeyError):
        with suppress(OSError):
            return str(path.stat().st_gid)
    return "video"
