"""What the machine must have before anything is started.

Law: a limit that can be raised is raised, for this process and its children; one that cannot
raises PreflightError with the need, the limit, and the way out. Frames whose size is not known
before the first of them are asked for then: see pools.py.
"""

from __future__ import annotations

import resource
from collections.abc import Container, Sequence
from dataclasses import dataclass

from ovpipe.errors import ConfigError, PreflightError
from ovpipe.supervisor.launch import Plan
from ovpipe.transport.pool import available_bytes, slot_size

_NAMED = 3
_MIB = 2**20
_FILES = 64
_FILES_PER_WORKER = 8


def open_files_needed(workers: int) -> int:
    """For the channels, logs and pools of so many workers."""
    return _FILES + _FILES_PER_WORKER * workers


def check_open_files(workers: int) -> None:
    """Room for the channels, logs and pools of so many workers."""
    need = open_files_needed(workers)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < need:
        if hard != resource.RLIM_INFINITY and hard < need:
            raise PreflightError(
                f"{workers} workers need about {need} open files, and no more than {hard} are "
                f"allowed here; raise the limit (`ulimit -n {need}`, or LimitNOFILE of the service)"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


def check_application(plan: Plan, channels: Container[str]) -> None:
    """Raise ConfigError where a stage lives in an application and there is none."""
    alone = [w.stage for w in plan.workers if w.external and w.name not in channels]
    if alone:
        raise ConfigError(
            f"stage '{alone[0]}' gets its frames from an application, and none runs this: embed it "
            f"(ovpipe.Pipeline.from_yaml, then pipeline.push('{alone[0]}', ...)), or give the "
            f"stage a `kind` that has a source of its own"
        )


@dataclass(frozen=True)
class Need:
    """`frames` of so many bytes that may be in flight on an edge, of one producer's stream."""

    edge: str
    frames: int
    frame_bytes: int

    @property
    def nbytes(self) -> int:
        """Of all of them."""
        return self.frames * slot_size(self.frame_bytes)

    def __str__(self) -> str:
        each = self.frame_bytes / _MIB
        return f"'{self.edge}' {self.nbytes / _MIB:.1f} MiB ({self.frames} of {each:.1f} MiB)"


def check_memory(needs: Sequence[Need]) -> None:
    """Room for all frames that may be in flight at a time, were every edge full."""
    need, available = sum(n.nbytes for n in needs), available_bytes()
    if need > available:
        largest = sorted(needs, key=lambda n: -n.nbytes)[:_NAMED]
        raise PreflightError(
            f"not enough memory for the frames in flight: {need / _MIB:.1f} MiB are needed, "
            f"{available / _MIB:.1f} MiB are available; the largest edges are "
            f"{', '.join(map(str, largest))}; use smaller frames, a smaller `depth`, or raise the "
            f"memory limit"
        )
