"""A pipe's command goes when its stage goes, however that goes."""

import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.process.conftest import S
from tests.support.processes import wait_for, worker_of

CODE = (
    "import os, sys\n"
    "with open(sys.argv[1], 'a') as file: file.write(f'{os.getpid()}\\n')\n"
    "while True: os.write(1, bytes(64 * 48 * 3))\n"
)


def commands(path: Path):
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def alive(pid):
    """Whether it runs; a dead one may be waiting for whoever inherited it."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def yard(ovpipe_run, path):
    command = [sys.executable, "-c", CODE, str(path)]
    process = ovpipe_run.start(
        {
            "src": {"kind": "pipe", "command": command, "size": "64x48"},
            "sink": {"kind": "tests.support.slow:SlowSink"},
        }
    )
    wait_for(lambda: commands(path), "a command")
    return process


@pytest.mark.parametrize("how", ["drained", "worker killed", "supervisor killed"])
def test_no_command_is_left_behind(ovpipe_run, tmp_path, how):
    path = tmp_path / "pids"
    process = yard(ovpipe_run, path)
    (first,) = commands(path)
    if how == "worker killed":
        worker_of(process.pid, "src").kill()
        ovpipe_run.until(process, "stage 'src' is back after")
        wait_for(lambda: len(commands(path)) == 2, "a second command")
        assert not alive(first)
    if how == "supervisor killed":
        process.kill()
        process.wait()
    else:
        process.send_signal(signal.SIGINT)
        ended = ovpipe_run.finish(process).balanced()
        assert ended.code == 0, ended.err
    for pid in commands(path):
        wait_for(lambda pid=pid: not alive(pid), "the end of the command")
    if how == "supervisor killed":  # what it left is cleared by the next run
        assert ovpipe_run({"src": {"kind": S + "Count"}, "sink": {"kind": S + "Check"}}).code == 0
