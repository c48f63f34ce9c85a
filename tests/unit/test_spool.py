"""The spool: bounds, order, and what survives, in memory and in a file alike."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovpipe.errors import PreflightError
from ovpipe.stages.spool import DiskFull, InMemory, Message, NoRoom, OnDisk, Spool


def message(n, size=10):
    return Message(f"run/cam/{n}", "cam", b"x" * size)


def names(messages):
    return [int(m.id.rpartition("/")[2]) for m in messages]


@pytest.fixture(params=["memory", "disk"])
def store(request, tmp_path):
    made = InMemory() if request.param == "memory" else OnDisk(tmp_path / "spool.db")
    yield made
    made.close()


def filled(store, count, when_full="drop_oldest", max_messages=10, max_bytes=1000, size=10):
    spool = Spool(store, max_messages, max_bytes, when_full)
    for n in range(count):
        spool.put(message(n, size))
    return spool


def everything(spool):
    out = []
    while taken := spool.take(100):
        out += names(taken)
        spool.done(len(taken))
    return out


def test_first_in_first_out(store):
    spool = filled(store, 7)
    assert names(spool.take(3)) == [0, 1, 2]
    spool.done(2)
    spool.put_back()
    assert len(spool) == 5
    assert names(spool.take(2)) == [2, 3]
    spool.put(message(7))
    spool.done(2)
    assert everything(spool) == [4, 5, 6, 7]
    assert (len(spool), spool.bytes, spool.take(1)) == (0, 0, [])


def test_the_oldest_go_but_not_those_under_way(store):
    spool = filled(store, 10)
    assert names(spool.take(100)) == [0, 1, 2, 3, 4]  # half of what fits
    for n in range(10, 14):
        spool.put(message(n))
    assert spool.dropped == 4
    spool.put_back()
    assert everything(spool) == [0, 1, 2, 3, 4, 9, 10, 11, 12, 13]


def test_bytes_are_bounded_too(store):
    spool = filled(store, 3, max_bytes=100, size=40)
    assert (names(spool.take(10)), spool.bytes, spool.dropped) == ([1], 80, 1)
    with pytest.raises(NoRoom):
        spool.put(message(9, 101))
    with pytest.raises(NoRoom):  # the one that could go is under way
        Spool(store, 10, 40, "drop_oldest").put(message(9, 41))


@pytest.mark.parametrize("when_full", ["drop_newest", "block"])
def test_who_is_not_to_lose_old_ones_is_told(store, when_full):
    spool = filled(store, 10, when_full)
    with pytest.raises(NoRoom):
        spool.put(message(10))
    assert not spool.wait_for_room(10, 0.0)
    spool.take(1)
    spool.done(1)
    assert spool.wait_for_room(10, 0.0)
    spool.put(message(10))
    assert everything(spool) == [*range(1, 11)]
    assert spool.dropped == 0


ops = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 60)),
        st.tuples(st.just("take"), st.integers(1, 6)),
        st.tuples(st.just("done"), st.integers(0, 6)),
        st.tuples(st.just("put_back"), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(ops, st.sampled_from(["drop_oldest", "drop_newest"]))
def test_the_law(steps, when_full):
    spool, put, done, under_way, out = Spool(InMemory(), 6, 150, when_full), 0, 0, 0, []
    for what, n in steps:
        if what == "put":
            try:
                spool.put(message(put, n))
                put += 1
            except NoRoom:
                pass
        elif what == "take":
            taken = names(spool.take(n))
            under_way = len(taken)
        elif what == "done":
            n = min(n, under_way)
            out += taken[:n] if n else []
            taken = taken[n:] if n else taken if under_way else []
            spool.done(n)
            done, under_way = done + n, under_way - n
        else:
            spool.put_back()
            under_way, taken = 0, []
        assert put == done + spool.dropped + len(spool)
        assert len(spool) <= 6
        assert spool.bytes <= 150
    spool.put_back()
    out += everything(spool)
    assert out == sorted(set(out))
    assert len(out) == put - spool.dropped


# -- in a file ---------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from ovpipe.stages.spool import Message, OnDisk, Spool
spool = Spool(OnDisk(Path(sys.argv[1])), 10**6, 10**9, "block")
for n in range(10**6):
    spool.put(Message(f"run/cam/{n}", "cam", b"x" * 100))
    print(n, flush=True)
"""


def test_what_was_taken_survives_sigkill(tmp_path):
    path = tmp_path / "spool.db"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    for _ in range(200):
        writer.stdout.readline()
    with pytest.raises(PreflightError, match="in use by another stage or run"):
        OnDisk(path)
    writer.send_signal(signal.SIGKILL)
    said = 200 + len(writer.stdout.read().splitlines())
    writer.wait()
    writer.stdout.close()
    store = OnDisk(path)
    spool = Spool(store, 10**6, 10**9, "block")
    assert store.put_aside is None
    assert said <= spool.found <= said + 1
    spool.put(message(spool.found))
    assert everything(spool) == [*range(spool.found + 1)]
    spool.close()


@pytest.mark.parametrize("damage", ["noise", "no database"])
def test_a_damaged_file_is_put_aside(tmp_path, damage):
    path = tmp_path / "spool.db"
    spool = filled(OnDisk(path), 100, max_messages=1000, max_bytes=10**6, size=500)
    spool.close()
    data = bytearray(path.read_bytes())
    if damage == "noise":
        data[4096:-4096] = os.urandom(len(data) - 8192)
    else:
        data[:100] = b"\0" + os.urandom(99)
    path.write_bytes(data)
    store = OnDisk(path)
    assert store.put_aside == tmp_path / "spool.db.damaged-1"
    assert store.put_aside.read_bytes()[4096:] == bytes(data)[4096:]
    spool = filled(store, 3)
    assert (spool.found, everything(spool)) == (0, [0, 1, 2])
    spool.close()


def test_an_interrupted_write_is_cut_off(tmp_path):
    path, copy = tmp_path / "spool.db", tmp_path / "copy.db"
    spool = filled(OnDisk(path), 20, max_messages=1000, size=40)
    # As a machine that lost its power would leave it: the last write is half there.
    log = (tmp_path / "spool.db-wal").read_bytes()
    copy.write_bytes(path.read_bytes())
    (tmp_path / "copy.db-wal").write_bytes(log[:-100])
    spool.close()
    store = OnDisk(copy)
    spool = Spool(store, 1000, 10**6, "block")
    assert store.put_aside is None
    assert everything(spool) == [*range(19)]
    spool.close()


def test_a_database_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "theirs.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE mine (x)")
    database.commit()
    database.close()
    with pytest.raises(PreflightError, match="a database of something else"):
        OnDisk(path)


def test_a_full_disk_fails_one_message_and_not_the_next(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    store = OnDisk(tmp_path / "spool.db")
    spool = filled(store, 5, "block", 1000, 10**7, 2000)
    kept, full = [*range(5)], []
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        for n in range(5, 80):
            try:
                spool.put(message(n, 2000))
                kept.append(n)
            except DiskFull:
                full.append(n)
        assert names(spool.take(2)) == [0, 1]
        spool.done(2)  # whether or not the disk has room to forget them
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(full) > 20
    spool.put(message(80, 2000))
    assert everything(spool) == [*kept[2:], 80]
    spool.close()
    assert Spool(OnDisk(tmp_path / "spool.db"), 10, 1000, "block").found == 0
