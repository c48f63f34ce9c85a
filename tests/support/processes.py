"""Looking at processes from outside: what is alive, and waiting for it to change."""

import os
import time
from pathlib import Path

import psutil

WATCHDOG_S = 60.0


def wait_for(condition, what="the condition", timeout_s=WATCHDOG_S):
    """Return the first true value of `condition()`; a watchdog, not a measurement."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come about within {timeout_s} s")


def family(pid=None):
    """All descendants of a process (default: this one), zombies included."""
    try:
        return psutil.Process(pid or os.getpid()).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def workers_of(pid):
    """The live worker processes below `pid`, by pid."""
    found = {}
    for process in family(pid):
        try:
            if "ovpipe.worker" in process.cmdline():
                found[process.pid] = process
        except psutil.Error:
            pass
    return found


def relays(pid=None):
    """The live processes below `pid` that send what is published."""
    found = []
    for process in family(pid):
        try:
            if "ovpipe.stages.relay" in process.cmdline():
                found.append(process)
        except psutil.Error:
            pass
    return found


def worker_of(pid, name):
    """The live process that holds a stage's post now, below `pid`."""
    (found,) = [p for p in workers_of(pid).values() if p.cmdline()[-1] == name]
    return found


def gone(processes):
    """True when none of them is running any more."""
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def open_fds():
    """What this process's descriptors refer to, by number."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass
    return found


def run_folders(base):
    """The folders of runs below a runtime directory."""
    return [p for p in Path(base).glob("ovpipe-*/*") if p.is_dir()]
