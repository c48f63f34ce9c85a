"""What a sender does without a credit, on both ends of one link in one process."""

import time
from dataclasses import replace

import numpy as np
import pytest

from ovpipe.frame import Frame
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


def frame(seq):
    return Frame(arrays={"x": np.full(16, seq, np.uint8)}, stream="a", seq=seq, captured_ns=0)


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
