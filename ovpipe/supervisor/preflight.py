"""What the machine must have before anything is started.

Law: a limit that can be raised is raised, for this process and its children; one that cannot
raises PreflightError with the need, the limit, and the way out. How much memory frames take is
known with the first of them: see pools.py.
"""

from __future__ import annotations

import resource

from ovpipe.errors import PreflightError

_FILES = 64
_FILES_PER_WORKER = 8


def check_open_files(workers: int) -> None:
    """Room for the channels, logs and pools of so many workers."""
    need = _FILES + _FILES_PER_WORKER * workers
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < need:
        if hard != resource.RLIM_INFINITY and hard < need:
            raise PreflightError(
                f"{workers} workers need about {need} open files, and no more than {hard} are "
                f"allowed here; raise the limit (`ulimit -n {need}`, or LimitNOFILE of the service)"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
