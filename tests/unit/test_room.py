"""Room before a claim, and where frames are: what `push` and its answers rest on."""

import numpy as np
import pytest

from ovpipe.frame import Frame
from ovpipe.transport.ledger import CODE
from ovpipe.transport.whereabouts import Whereabouts
from tests.support.link import OneLink


@pytest.fixture
def link():
    made = []

    def make(**options):
        made.append(OneLink(**options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def publish(one, seq, stream=0):
    frame = Frame(arrays={"x": np.zeros(4)}, stream="ab"[stream], seq=seq, captured_ns=0)
    one.sender.publish(frame, stream)


def test_room_claims_nothing_and_stays_until_the_frame(link):
    one = link(depth=1, capacity=1)
    for seq in range(2):
        assert one.sender.room(0, lambda: True)
        assert one.sender.room(0, lambda: True)
        assert one.rows()[0].claimed == seq
        publish(one, seq)
    assert not one.sender.room(0, lambda: True)
    assert one.rows()[0].claimed == 2


def test_room_waits_for_a_credit_as_long_as_nobody_gives_up(link):
    waits = []

    def pump(timeout_ms):
        waits.append(timeout_ms)
        if len(waits) == 3:
            _, lease = one.take()
            lease.finish(CODE["delivered"])

    one = link(depth=1, capacity=1, pump=pump)
    for seq in range(2):
        publish(one, seq)
    assert one.sender.room(0, lambda: False)
    assert len(waits) == 3
    publish(one, 2)
    waits.clear()
    assert not one.sender.room(0, lambda: len(waits) == 2)
    assert one.rows()[0].claimed == 3


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_where_nothing_waits_there_is_always_room(link, policy):
    one = link(when_full=policy, depth=1, capacity=1)
    for seq in range(10):
        assert one.sender.room(0, lambda: True)
        publish(one, seq)


def test_where_nobody_reads_any_more_there_is_room_and_the_frame_is_lost(link):
    one = link(depth=1, capacity=1)
    for seq in range(2):
        publish(one, seq)
    one.peers.leave(1, 0, returns=False)
    assert one.sender.room(0, lambda: False)
    publish(one, 2)
    assert one.rows()[0].failed["link_lost"] == 1


def test_a_frame_is_somewhere_until_it_has_ended_and_then_it_is_known_how(link):
    one = link(depth=2, capacity=2)
    way = Whereabouts(one.ours, [one.link])
    before = way.losses(0)
    for seq in (5, 6, 7):
        publish(one, seq)
    publish(one, 6, stream=1)
    assert (way.flying(0), way.flying(1)) == ({5, 6, 7}, {6})
    leases = [one.take()[1] for _ in range(3)]
    assert way.flying(0) == {5, 6, 7}
    leases[0].finish(CODE["infer_error"])
    leases[1].finish(CODE["delivered"])
    assert way.flying(0) == {7}
    assert (way.fate(0, 5), way.fate(0, 6)) == ("infer_error", "")
    assert one.sender.room(0, lambda: True)  # which counts what has ended
    assert (way.fate(0, 5), way.fate(0, 6), way.fate(0, 8)) == ("infer_error", "", "")
    assert way.grown(0, before) == "1 infer_error"
    publish(one, 9)
    publish(one, 10)
    assert (way.flying(0), way.fate(0, 5)) == ({7, 9, 10}, "")  # its record was used again
