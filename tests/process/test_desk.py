"""The socket of a run: what can be asked at it, and that nobody who asks is felt."""

import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress

import numpy as np
import psutil
import pytest

import ovpipe
from ovpipe.errors import ConfigError, OvpipeError, PipelineClosed
from ovpipe.stages.synthetic import verify
from ovpipe.supervisor.bulletin import runs
from ovpipe.supervisor.contact import Contact
from ovpipe.supervisor.desk import MAX_REQUEST, MAX_VISITORS, SOCKET
from tests.process.conftest import S
from tests.support.processes import wait_for, worker_of, workers_of
from tests.support.stages import number

ENDLESS = {"kind": S + "Endless"}
SINK = {"kind": S + "Check"}
CAM = {"kind": "synthetic", "size": "320x240", "fps": 50}


@pytest.fixture
def begin(ovpipe_run):
    """A run under way, and a contact with it."""

    def start(stages):
        process = ovpipe_run.start(stages)
        wait_for(
            lambda: any(run.pid == process.pid and run.phase == "running" for run in runs()),
            "that it runs",
        )
        (run,) = (run for run in runs() if run.pid == process.pid)
        return process, Contact(run.folder)

    return start


def connect(contact):
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel.connect(os.fspath(contact._folder / SOCKET))
    channel.settimeout(30)
    return channel


def hung_up(channel):
    """Whether the other side hangs up without a word."""
    try:
        return channel.recv(1 << 16) == b""
    except ConnectionError:
        return True


def ask_in_vain(channel):
    """Whether there is an answer to a request that cannot be done."""
    channel.send(b'{"ask":"restart","stage":"nobody"}')
    return channel.recv(1 << 16)


def goes_on(contact):
    """Wait until the run's figures are new, and frames have come on."""
    before = contact.status().reading
    wait_for(
        lambda: (
            contact.status().reading.at_ns > before.at_ns
            and sum(a.delivered for a in contact.status().reading.accounts)
            > sum(a.delivered for a in before.accounts)
        ),
        "that the run goes on",
    )


def end(ovpipe_run, process, contact):
    contact.drain()
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    assert "Error" not in ended.err
    return ended


# -- looking at edges -------------------------------------------------------------------------


def test_a_look_shows_exactly_the_frame_of_the_stream_that_is_wanted(ovpipe_run, begin):
    """By a producer of several streams, a replicated stage, an edge that drops, a dead end."""
    slow = {"from": "both", "when_full": "drop_oldest", "depth": 1}
    process, contact = begin(
        {
            "cam": {**CAM, "for_each": {"gate": {}, "dock": {"format": "i420"}}},
            "both": {"kind": S + "tag", "inputs": "cam", "run": {"replicas": 2}},
            "slow": {"kind": S + "Check", "pause_s": 1000, "inputs": slow},
            "none": {"kind": S + "Never", "inputs": "both"},
            "log": {"kind": "log", "inputs": "none"},
        }
    )
    seen = []
    for stream in ("cam/gate", "cam/dock"):
        for edge in ("cam -> both", "both->slow", "both -> none", "cam", "both"):
            frame = contact.peek(edge, stream, timeout=30)
            verify(frame)
            assert frame.stream == stream
            assert frame.source == edge.partition("->")[0].strip()
            assert ("tag" in frame.meta) == (frame.source == "both")
            assert frame.image.format == ("bgr" if stream == "cam/gate" else "i420")
            seen.append(frame)
        seqs = [f.seq for f in seen if f.stream == stream and f.source == "cam"]
        assert seqs == sorted(set(seqs)), "each look shows a new frame"
    verify(contact.peek("cam", timeout=30))
    for frame in seen:  # a copy stays what it was
        verify(frame)
    with pytest.raises(TimeoutError, match="within 0"):
        contact.peek("none", timeout=0.1)
    with pytest.raises(ConfigError, match="did you mean 'cam -> both"):
        contact.peek("cam -> boht")
    contact.kill()  # `slow` sleeps
    assert ovpipe_run.finish(process).balanced().summary["error"] is None
    with pytest.raises(PipelineClosed):
        contact.peek("cam")
    with pytest.raises(PipelineClosed):
        contact.status()


def test_looks_of_many_at_once_leave_nothing_behind(ovpipe_run, begin):
    process, contact = begin({"cam": CAM, "mid": {"kind": S + "tag"}, "sink": {"kind": S + "Never"},
                              "log": {"kind": "log"}})  # fmt: skip
    contact.peek("cam", timeout=30)
    contact.peek("mid", timeout=30)
    members = [psutil.Process(pid) for pid in (process.pid, *workers_of(process.pid))]
    before, ours = {p.pid: p.num_fds() for p in members}, psutil.Process().num_fds()
    wrong = []

    def look(edge):
        for _ in range(50):
            try:
                verify(contact.peek(edge, timeout=30))
            except (OvpipeError, ValueError, OSError) as error:
                wrong.append(error)

    threads = [threading.Thread(target=look, args=(e,)) for e in ("cam", "mid", "cam", "mid")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    for _ in range(10):  # viewers that die while they wait, and such as never take their frame
        with connect(contact) as channel:
            channel.send(b'{"ask":"peek","edge":"cam","timeout_s":30}')
    deaf = [connect(contact) for _ in range(5)]
    for channel in deaf:
        channel.send(b'{"ask":"peek","edge":"cam","timeout_s":30}')
    goes_on(contact)
    for channel in deaf:
        channel.close()
    # The socket that wakes a sender is made when one waits for the first time; of a leak there
    # would be one for each look.
    wait_for(lambda: all(p.num_fds() <= before[p.pid] + 4 for p in members), "no more descriptors")
    assert psutil.Process().num_fds() == ours
    ended = end(ovpipe_run, process, contact)
    assert ended.ledger["cam", "mid"]["dropped"] == {}


def test_an_edge_into_an_application_can_be_looked_at(nothing_left):
    pipeline = ovpipe.Pipeline("embedded")
    pipeline.add("src", S + "Endless")
    with pipeline:
        frames = pipeline.read("src", when_full="block")
        first = [next(frames) for _ in range(3)]
        assert [frame.seq for frame in first] == [0, 1, 2]
        (run,) = wait_for(runs, "its first word")
        target = run.reading.accounts[0].target
        seen = []
        looker = threading.Thread(
            target=lambda: seen.append(Contact(run.folder).peek(f"src -> {target}", timeout=30))
        )
        looker.start()
        while looker.is_alive():
            number(next(frames))
        looker.join()
        assert number(seen[0]) == seen[0].seq


def test_a_look_outlives_the_death_of_the_one_that_was_asked(ovpipe_run, begin):
    process, contact = begin({"src": {"kind": S + "Count", "count": 10**9}, "sink": SINK})
    worker = worker_of(process.pid, "src")
    worker.suspend()
    seen = []
    looker = threading.Thread(target=lambda: seen.append(contact.peek("src", timeout=60)))
    looker.start()
    goes_on_without = contact.status().reading.at_ns
    wait_for(lambda: contact.status().reading.at_ns > goes_on_without, "the next reading")
    worker.kill()
    looker.join()
    assert number(seen[0]) == seen[0].seq
    end(ovpipe_run, process, contact)


# -- who does not behave ----------------------------------------------------------------------


GARBAGE = [
    b"x", b"\0" * MAX_REQUEST, b"GET / HTTP/1.1\r\n\r\n", b"[" * MAX_REQUEST, b"{}", b"null", b"1",
    b"x" * (MAX_REQUEST + 1), b'{"ask":"exec"}', b'{"ask":["drain"]}', b'{"ask":"peek"}',
    b'{"ask":"peek","edge":5,"timeout_s":1}', b'{"ask":"peek","edge":"src","timeout_s":NaN}',
    b'{"ask":"peek","edge":"src","timeout_s":1e99}', b'{"ask":"peek","edge":"src","timeout_s":-1}',
    b'{"ask":"peek","edge":"src","timeout_s":1,"stream":[]}', b'{"ask":"restart"}',
    b'{"ask":"restart","stage":"' + b"x" * 2000 + b'"}', b'{"ask":"logs"}', b"\xff\xfe",
    b'{"ask":"peek","edge":"src","timeout_s":1e400}', b'{"ask":"logs","follow":1}',
]  # fmt: skip


def test_garbage_is_hung_up_on_and_not_felt(ovpipe_run, begin):
    process, contact = begin({"src": ENDLESS, "sink": SINK})
    assert contact.peek("src").stream == "src"  # by now it has all that it needs
    before = psutil.Process(process.pid).num_fds()
    for words in GARBAGE:
        with connect(contact) as channel:
            channel.send(words)
            assert hung_up(channel), words
    with connect(contact) as channel, open(os.devnull) as null:  # descriptors that nobody wants
        socket.send_fds(channel, [b'{"ask":"logs","follow":true}'], [null.fileno()] * 10)
        assert hung_up(channel)
    with connect(contact) as channel:  # a second request while the first is under way
        channel.send(b'{"ask":"peek","edge":"sink-","timeout_s":30}')
        assert "no stage or edge" in json.loads(channel.recv(9999))["error"]
        channel.send(b'{"ask":"logs","follow":true}')
        channel.send(b'{"ask":"drain"}')
        while json.loads(channel.recv(1 << 18) or b"null") is not None:
            pass
    with connect(contact) as channel:  # too many, as fast as they are taken
        answered = 0
        with suppress(ConnectionError):
            while answered < 10**5 and ask_in_vain(channel):
                answered += 1
        assert 100 < answered < 10**5
    for _ in range(1000):
        with connect(contact):
            pass
    wait_for(lambda: psutil.Process(process.pid).num_fds() <= before, "its descriptors")
    goes_on(contact)
    end(ovpipe_run, process, contact)


def test_who_never_reads_is_neither_waited_for_nor_remembered(ovpipe_run, begin):
    """Followers of a flood of lines, and visitors too many; others are served all the time."""
    process, contact = begin(
        {"src": ENDLESS, "loud": {"kind": S + "Floods", "lines": 50}, "sink": SINK}
    )
    memory = psutil.Process(process.pid)
    wait_for(lambda: sum(1 for _ in contact.logs()) >= 900, "a full book")
    deaf = []
    held = memory.memory_info().rss
    for _ in range(2 * MAX_VISITORS):
        deaf.append(connect(contact))
        deaf[-1].send(b'{"ask":"logs","follow":true}')
        goes = contact.status().reading.at_ns
    wait_for(lambda: contact.status().reading.at_ns > goes, "the next reading")
    lines = list(contact.logs())
    numbers = [line.number for line in lines]
    assert all(b > a for a, b in itertools.pairwise(numbers))
    assert {line.worker for line in lines} >= {"loud"}
    goes_on(contact)
    assert memory.memory_info().rss - held < 50 * 2**20
    gone = sum(hung_up_by_now(channel) for channel in deaf)
    assert gone >= MAX_VISITORS
    for channel in deaf:
        channel.close()
    end(ovpipe_run, process, contact)


def hung_up_by_now(channel):
    """Whether, behind what it has sent, the other side has hung up."""
    channel.setblocking(False)
    try:
        while channel.recv(1 << 18):
            pass
        return True
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_who_follows_is_told_everything_from_then_on(ovpipe_run, begin):
    process, contact = begin({"src": ENDLESS, "sink": SINK})
    lines = contact.logs(follow=True)
    ovpipe_run.until(process, "under way")
    assert next(lines).text == "under way"
    contact.restart("sink")
    assert next(lines).text == "stage 'sink' is to be restarted, as asked for"
    assert "stage 'sink' is back after" in next(lines).text
    contact.drain()
    assert [line.text for line in lines] == [
        "draining, as asked for: what is in flight is finished"
    ]
    assert ovpipe_run.finish(process).balanced().code == 0
    with pytest.raises(PipelineClosed):
        next(contact.logs())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_another_user_is_hung_up_on(ovpipe_run, begin):
    """J10. Even where the folder were open to all."""
    process, contact = begin({"src": ENDLESS, "sink": SINK})
    path = contact._folder / SOCKET
    script = (
        "import os, socket, sys\n"
        "channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "os.chdir(sys.argv[1])\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "channel.connect('control')\n"
        "try:\n"
        '    channel.send(b\'{"ask":"kill"}\')\n'
        "    print(channel.recv(100))\n"
        "except ConnectionError:\n"
        "    print(b'')\n"
    )

    def stranger():
        return subprocess.run(
            [sys.executable, "-c", script, os.fspath(path.parent)],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    refused = stranger()
    assert "PermissionError" in refused.stderr
    path.parent.chmod(0o755)
    path.chmod(0o666)
    assert stranger().stdout == "b''\n"
    goes_on(contact)
    end(ovpipe_run, process, contact)


# -- orders -----------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["src", "mid", "sink"])
def test_a_restart_that_is_asked_for_loses_nothing_and_uses_up_no_restart(
    ovpipe_run, begin, tmp_path, which
):
    run = {"run": {"max_restarts": 1}}
    process, contact = begin(
        {
            "src": {**ENDLESS, **run},
            "mid": {"kind": S + "tag", **run},
            "sink": {**SINK, **run, "path": str(tmp_path / "seen")},
        }
    )
    for count in (1, 2, 3):
        pid = worker_of(process.pid, which).pid
        contact.restart(which)
        wait_for(
            lambda n=count: sum("is back after" in line.text for line in contact.logs()) == n,
            "its return",
        )
        assert worker_of(process.pid, which).pid != pid
        goes_on(contact)
    ended = end(ovpipe_run, process, contact)
    assert ended.err.count(f"stage '{which}' is to be restarted, as asked for") == 3
    assert "restart 1/1" not in ended.err
    assert {s["name"]: s["restarts"] for s in ended.summary["stages"]}[which] == 3
    rows = list(ended.ledger.values())
    if which == "src":  # what a dead sender had on its way may be lost, and is counted
        assert all(set(row["failed"]) <= {"lost_in_transit"} for row in rows)
    elif which == "sink":
        assert [row["failed"] for row in rows] == [{}, {}]
    assert all(row["dropped"] == {} for row in rows)
    assert all(row["failed"].get("lost_in_transit", 0) <= 15 for row in rows)


def test_one_that_does_not_leave_is_killed_and_one_stream_alone_restarted(ovpipe_run, begin):
    process, contact = begin(
        {
            "cam": {**CAM, "for_each": {"gate": {}, "dock": {}}},
            "mid": {
                "kind": S + "Deaf",
                "inputs": {"from": "cam", "when_full": "drop_oldest"},
                "run": {"stall_timeout": "1h"},
            },
            "log": {"kind": "log", "inputs": "cam", "every": 1000},
        }
    )
    ovpipe_run.until(process, "[mid] deaf")
    before = workers_of(process.pid)
    contact.restart("cam/gate")
    contact.restart("mid")
    contact.restart("mid")
    wait_for(lambda: sum("is back" in line.text for line in contact.logs()) == 2, "both returns")
    assert len(set(before) & set(workers_of(process.pid))) == 2
    for name, said in (("mit", "did you mean 'mid'?"), ("cam/gte", "did you mean 'cam/gate'?")):
        with pytest.raises(ConfigError, match="no stage") as error:
            contact.restart(name)
        assert said in str(error.value)
    contact.kill()
    ended = ovpipe_run.finish(process).balanced()
    rows = [r for r in ended.summary["ledger"] if r["target"] == "mid"]
    assert sum(r["failed"].get("stage_crash", 0) for r in rows) == 1, "the frame in its hands"
    lost = [
        r for r in ended.summary["ledger"] if r["target"] == "log" and r["stream"] == "cam/dock"
    ]
    assert not (lost[0]["failed"].keys() - {"drain_timeout"}), "the other stream felt nothing"


def test_what_cannot_be_restarted_says_why(ovpipe_run, begin):
    process, contact = begin({"src": ENDLESS, "sink": {**SINK, "run": {"restart": "never"}}})
    with pytest.raises(OvpipeError, match="restart: never"):
        contact.restart("sink")
    contact.kill()
    ended = ovpipe_run.finish(process).balanced()
    assert ended.summary["error"] is None
    assert np.isin(ended.code, [0, 143])


def test_stages_that_live_together_are_looked_at_one_by_one_and_restarted_together(
    ovpipe_run, begin
):
    inline = {"run": {"placement": "inline"}}
    process, contact = begin(
        {
            "src": ENDLESS,
            "mid": {"kind": S + "tag"},
            "next": {"kind": S + "Reports", **inline},
            "sink": {**SINK, **inline},
        }
    )
    assert len(workers_of(process.pid)) == 2
    for edge in ("src -> mid", "mid -> next", "next -> sink"):
        frame = contact.peek(edge, timeout=30)
        assert number(frame) == frame.seq
        assert frame.meta.keys() == {"src": set(), "mid": {"tag"}, "next": {"tag"}}[frame.source]

    def facts():
        return {w.name: w.facts for w in contact.status().reading.workers}

    wait_for(lambda: facts()["next"].get("frames", 0) > 0, "what it says of itself")
    assert facts()["mid"] == facts()["sink"] == {}
    before = set(workers_of(process.pid))
    contact.restart("next")
    wait_for(lambda: sum("is back" in line.text for line in contact.logs()) == 3, "their return")
    assert len(before & set(workers_of(process.pid))) == 1
    goes_on(contact)
    contact.peek("next", timeout=30)
    ended = end(ovpipe_run, process, contact)
    assert [row["failed"] for row in ended.ledger.values()] == [{}, {}, {}]
