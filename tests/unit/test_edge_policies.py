"""What a sender does without a credit, on both ends of one link in one process."""

import time
from dataclasses import replace

import numpy as np
import pytest

from ovpipe.frame import Frame
from ovpipe.transport.fair import Fair
from tests.support.link import OneLink


@pytest.fixture
def link():
    made = []

    def make(*args, **kwargs):
        made.append(OneLink(*args, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.close()


def frame(seq, stream="a"):
    return Frame(arrays={"x": np.full(16, seq, np.uint8)}, stream=stream, seq=seq, captured_ns=0)


def drain(one):
    seen = []
    while one.post.messages:
        taken = one.take()
        if taken is not None:
            got, lease = taken
            assert (got.arrays["x"] == got.seq).all()
            seen.append(got.seq)
            del got, taken
            lease.finish(0)
    return seen


def test_drop_newest_refuses_the_new_frame(link):
    one = link("drop_newest")
    for seq in range(8):
        one.sender.publish(frame(seq), 0)
    row = one.rows()[0]
    assert (row.claimed, row.in_flight, row.dropped) == (8, 3, {"queue_full": 5})
    assert drain(one) == [0, 1, 2]


def test_drop_newest_takes_frames_again_once_there_is_room(link):
    one = link("drop_newest")
    for seq in range(4):
        one.sender.publish(frame(seq), 0)
    got, lease = one.take()
    del got
    lease.finish(0)
    for seq in range(4, 8):
        one.sender.publish(frame(seq), 0)
    assert drain(one) == [1, 2, 4]
    assert one.rows()[0].dropped == {"queue_full": 4}


def test_drop_oldest_leaves_what_was_taken(link):
    one = link("drop_oldest")
    one.sender.publish(frame(0), 0)
    got, lease = one.take()
    for seq in range(1, 8):
        one.sender.publish(frame(seq), 0)
    del got
    lease.finish(0)
    assert drain(one) == [6, 7]
    row = one.rows()[0]
    assert (row.claimed, row.delivered, row.dropped) == (8, 3, {"queue_full": 5})


def test_a_slow_stream_gets_through_beside_a_fast_one(link):
    one = link("drop_oldest", depth=3)
    seq = {"a": 0, "b": 0}
    came = {"a": [], "b": []}
    for turn in range(200):  # ten of a for each of b; one in four of all can be taken
        stream = "b" if turn % 11 == 10 else "a"
        one.sender.publish(frame(seq[stream], stream), "ab".index(stream))
        seq[stream] += 1
        while turn % 4 == 0 and one.post.messages:
            taken = one.take()
            if taken is not None:
                got, lease = taken
                came[got.stream].append(got.seq)
                del got, taken
                lease.finish(0)
                break
    rows = one.rows()
    assert rows[1].dropped == {}
    assert len(came["b"]) >= seq["b"] - 4  # but for what still waits
    assert came["a"] == sorted(came["a"])
    assert came["b"] == sorted(came["b"])
    assert len(came["a"]) + len(came["b"]) == 50
    assert rows[0].claimed == seq["a"]


def test_streams_that_come_a_moment_later_each_time_get_no_more_than_others(link):
    one, fair = link("drop_oldest", depth=1, capacity=1), Fair()
    shares = {"a": 0, "b": 0}
    for turn in range(120):
        for stream in (0, 1):
            one.sender.publish(frame(turn, "ab"[stream]), stream)
        if turn % 3 == 0:
            while one.post.messages:
                fair.add(one.post.messages.popleft())
            got, lease = one.receiver.take(fair.next(one.receiver.passes_over))
            assert got.seq >= turn - 1  # what waits is the newest of each
            shares[got.stream] += 1
            del got
            lease.finish(0)
    assert shares == {"a": 20, "b": 20}


def test_block_waits_for_a_credit_and_loses_nothing(link):
    one = link("block", pump=lambda timeout_ms: seen.extend(drain(one)))
    seen = []
    for seq in range(8):
        one.sender.publish(frame(seq), 0)
    assert seen + drain(one) == list(range(8))
    assert one.rows()[0].delivered == 8


def test_nobody_waits_for_a_receiver_that_is_gone(link):
    one = link("block")
    one.peers.leave(one.link.receiver, 0, returns=False)
    one.sender.publish(frame(0), 0)
    assert one.rows()[0].failed == {"link_lost": 1}


def test_what_is_too_old_when_the_receiver_comes_to_it_is_stale(link):
    one = link("block", depth=4, max_age_ns=10**9)
    now = time.monotonic_ns()
    for seq, age_s in enumerate([0, 5, 0, 2]):
        captured = now - age_s * 10**9 + 60 * 10**9 * (age_s == 0)  # or it would grow old here
        one.sender.publish(replace(frame(seq), captured_ns=captured), 0)
    assert drain(one) == [0, 2]
    row = one.rows()[0]
    assert (row.claimed, row.delivered, row.dropped) == (4, 2, {"stale": 2})
