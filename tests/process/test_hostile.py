"""J: what comes over a worker's socket that no worker of ours sent; who may reach it at all."""

import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import zmq

from ovpipe.transport import wire
from ovpipe.transport.ledger import W_MALFORMED, Layout
from tests.process.conftest import S, T
from tests.support.processes import run_folders, wait_for, workers_of
from tests.unit.test_wire import frame

GARBAGE = 10_000
SOURCE = {"kind": T + "Script", "items": ["frame"], "repeat": True}
HTTP = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def malformed(process, layout, worker):
    """The count of a worker, read from the ledger as anybody of the same user could."""
    for fd in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            if os.readlink(fd).startswith("/memfd:ovpipe-ledger"):
                with open(fd, "rb") as ledger:
                    ledger.seek(8 * (layout.worker(worker) + W_MALFORMED))
                    return int.from_bytes(ledger.read(8), "little")
        except FileNotFoundError:
            continue
    return 0


def garbage(rng):
    """One message: noise, HTTP, pickles, or a true one with another magic, link or record."""
    good = bytearray(frame([], {"m": {}}, link=5, record=3, generation=2**62))
    pickle = b"cos\nsystem\n(S'touch pickled'\ntR."
    return rng.choice(
        [
            rng.randbytes(rng.randint(1, 300)),
            HTTP,
            pickle,
            bytes(good),
            bytes(good[: rng.randint(1, len(good) - 1)]),
            bytes(good) + pickle,
            frame([], {"d": pickle, "i": pickle}, link=7, generation=2**63),
            wire.encode_eos(9, 0, 77),
            wire.encode_eos(2**32 - 1, 0, 0),
        ]
    )


@pytest.fixture
def push(nothing_left):
    context = zmq.Context()
    push = context.socket(zmq.PUSH)
    push.set(zmq.SNDHWM, 0)
    yield push
    context.destroy(linger=0)


def test_J03_J09_garbage_on_a_socket_is_counted_and_runs_nothing(
    ovpipe_run, nothing_left, tmp_path, push
):
    seen, audit = tmp_path / "seen", tmp_path / "audit"
    stages = {
        "src": SOURCE,
        "sink": {"kind": S + "Audited", "path": str(seen), "audit": str(audit)},
    }
    process = ovpipe_run.start(stages)
    wait_for(audit.exists, "the first frame")
    (folder,) = run_folders(nothing_left)
    rng = random.Random(1)
    (address,) = folder.glob("w1*")
    push.connect(f"ipc://{address}")
    for _ in range(GARBAGE):
        push.send(garbage(rng))
    layout = Layout(workers=2, links=1, streams=1)
    wait_for(lambda: malformed(process, layout, 1) >= GARBAGE, "the last of the garbage", 30)
    assert malformed(process, layout, 1) == GARBAGE
    with socket.socket(socket.AF_UNIX) as raw:  # ZeroMQ reads it as a peer of its first version
        raw.connect(str(address))
        raw.sendall(HTTP + rng.randbytes(4000))
    process.send_signal(signal.SIGINT)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    row = ended.ledger["src", "sink"]
    assert row["claimed"] == row["delivered"] > 0
    assert ended.stages["sink"]["malformed"] >= GARBAGE
    lines = [json.loads(line) for line in seen.read_text().splitlines()]
    assert [x["seq"] for x in lines[:-1]] == list(range(row["delivered"]))
    assert all(x["ok"] for x in lines[:-1])
    assert audit.read_text() == "begun\n"  # and no event of those that run code


def test_J09_the_audit_sees_what_it_looks_for(tmp_path):
    """Or the test above proves nothing."""
    script = (
        "import pickle, marshal, sys\n"
        "from tests.support.stages import audit_to\n"
        f"audit_to({str(tmp_path / 'audit')!r})\n"
        "pickle.loads(pickle.dumps(print)); marshal.loads(marshal.dumps(1)); exec('1')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    events = set((tmp_path / "audit").read_text().split())
    assert {"begun", "pickle.find_class", "marshal.loads", "exec", "compile"} <= events


def test_J10_another_user_reaches_neither_sockets_nor_memory(ovpipe_run, monkeypatch):
    with tempfile.TemporaryDirectory() as runtime:
        os.chmod(runtime, 0o755)
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        process = ovpipe_run.start({"src": SOURCE, "sink": {"kind": T + "ScriptedSink"}}, umask=0)
        wait_for(lambda: len(workers_of(process.pid)) == 2 and sockets(runtime), "both workers")
        (base,) = Path(runtime).iterdir()
        (folder,) = run_folders(runtime)
        for path in (base, folder):
            assert stat.S_IMODE(path.lstat().st_mode) == 0o700
            assert path.lstat().st_uid == os.getuid()
        assert stat.S_IMODE((folder / "lock").lstat().st_mode) & 0o077 == 0
        assert not [name for name in os.listdir("/dev/shm") if "ovpipe" in name]
        if os.getuid() == 0:
            told = as_nobody(sockets(runtime)[0], process.pid)
            assert told == ["None", "PermissionError", "PermissionError"]
        process.send_signal(signal.SIGINT)
        assert ovpipe_run.finish(process).balanced().code == 0


def sockets(runtime):
    return [str(path) for folder in run_folders(runtime) for path in folder.glob("w*")]


def as_nobody(address, pid):
    """What another user gets at a worker's socket and at a process's descriptors."""
    told, tell = os.pipe()
    child = os.fork()  # and no program: nobody may read ours
    if child == 0:
        for reach in (
            lambda: os.setgroups([]) or os.setgid(65534) or os.setuid(65534),
            lambda: socket.socket(socket.AF_UNIX).connect(address),
            lambda: os.listdir(f"/proc/{pid}/fd"),
        ):
            try:
                what = str(reach())
            except OSError as error:
                what = type(error).__name__
            os.write(tell, f"{what}\n".encode())
        os._exit(0)
    os.close(tell)
    os.waitpid(child, 0)
    with open(told) as answers:
        return answers.read().split()


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_J10_memory_is_for_its_owner_only(umask):
    from ovpipe.transport.pool import make_memfd

    before = os.umask(umask)
    try:
        fd = make_memfd("test", 4096)
    finally:
        os.umask(before)
    try:
        assert not os.get_inheritable(fd)
        assert os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:")
    finally:
        os.close(fd)
