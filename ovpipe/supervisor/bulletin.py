"""The bulletin: how a run is doing, in a file of its folder, for whoever wants to look.

Law: the run never waits for a reader, and no reader can do anything to it: the file is replaced as
a whole, twice a second, and lies where only its owner may read. Where it cannot be written the run
goes on without. What `runs` gives was alive when it was looked at: its folder's lock is held.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ovpipe.graph import Graph
from ovpipe.supervisor.accountant import Account, Flow, Reading, WorkerReading
from ovpipe.supervisor.outlook import Outlook
from ovpipe.supervisor.rundir import LOCK, base_folder

_FILE = "status.json"
_VERSION = 2


@dataclass(frozen=True)
class Run:
    """A run as its bulletin says. `pid`: its supervisor's; `started_s`: by the wall's clock.

    `verdict`: what can be said of its last seconds (outlook.py), the most important first.
    """

    name: str
    pid: int
    phase: str
    started_s: float
    folder: Path
    reading: Reading
    verdict: tuple[str, ...] = ()

    @property
    def here(self) -> bool:
        """Whether it lives still."""
        return _held(self.folder / LOCK)


class Bulletin:
    """Writes the bulletin of one run."""

    def __init__(self, graph: Graph, folder: Path) -> None:
        self._path = folder / _FILE
        self._outlook = Outlook(graph)
        self._head = {"v": _VERSION, "name": graph.name, "pid": os.getpid(),
                      "started_s": time.time()}  # fmt: skip

    def post(self, phase: str, reading: Reading) -> None:
        """Say how things are now."""
        now = {"phase": phase, "reading": asdict(reading), "verdict": self._outlook.add(reading)}
        text = json.dumps({**self._head, **now})
        new = self._path.with_suffix(".new")
        with suppress(OSError):
            new.write_text(text)
            os.replace(new, self._path)


def runs() -> list[Run]:
    """All runs of this user that are alive, by name. Raises PreflightError."""
    found = filter(None, map(read_run, base_folder().iterdir()))
    return sorted(found, key=lambda run: (run.name, run.pid))


def read_run(folder: Path) -> Run | None:
    """The run of that folder; None where it is not alive, has said nothing yet, or in other words
    than ours."""
    if folder.is_dir() and _held(folder / LOCK):
        with suppress(OSError, ValueError, KeyError, TypeError):
            return _run(folder, json.loads((folder / _FILE).read_text()))
    return None


def _held(lock: Path) -> bool:
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _run(folder: Path, said: dict[str, Any]) -> Run:
    if said["v"] != _VERSION:
        raise ValueError(said["v"])
    reading = said["reading"]
    return Run(
        said["name"], said["pid"], said["phase"], said["started_s"], folder,
        Reading(
            reading["at_ns"],
            tuple(Account(**account) for account in reading["accounts"]),
            tuple(WorkerReading(**worker) for worker in reading["workers"]),
            tuple(Flow(**{**flow, "ages": tuple(flow["ages"])}) for flow in reading["flows"]),
        ),
        tuple(said["verdict"]),
    )  # fmt: skip
