"""Slots: none is handed out while a record or a view of it lives; pools stay few."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ovpipe.frame import Frame
from tests.support.link import OneLink

SIZES = (1, 100, 5000, 9000, 70_000)


class Slots(RuleBasedStateMachine):
    """One link; arrays are loaned, published, dropped, read, kept, released, in any order.

    A slot is free, loaned (an array of the sender lives), published (a record is INFLIGHT) or
    held (a record is HELD: the stage or a view of it); the same one may be several of these.
    """

    def __init__(self):
        super().__init__()
        self.one = None
        self.number = 0
        self.loans = []  # (value, array): ours to write
        self.kept = []  # (value, array): views that a reader has
        self.leases = []

    @rule(policy=st.sampled_from(["drop_oldest", "drop_newest"]), depth=st.integers(1, 3))
    @precondition(lambda self: self.one is None)
    def start(self, policy, depth):
        self.one = OneLink(policy, depth=depth)

    @rule(size=st.sampled_from(SIZES))
    @precondition(lambda self: self.one is not None and len(self.loans) < 12)
    def loan(self, size):
        array = self.one.sender.loan((size,), np.uint8)
        self.number += 1
        value = self.number % 251
        array[:] = value  # whatever else lies in this slot shows it now
        self.loans.append((value, array))

    @rule(which=st.integers(0, 99))
    @precondition(lambda self: self.loans)
    def drop_a_loan(self, which):
        self.loans.pop(which % len(self.loans))

    @rule(which=st.integers(0, 99), keep=st.booleans())
    @precondition(lambda self: self.loans)
    def publish(self, which, keep):
        value, array = self.loans[which % len(self.loans)]
        frame = Frame(
            arrays={"x": array}, meta={"v": value}, stream="a", seq=self.number, captured_ns=0
        )
        self.one.sender.publish(frame, 0)
        if not keep:
            del self.loans[which % len(self.loans)]

    @rule(keep=st.booleans(), release=st.booleans())
    @precondition(lambda self: self.one is not None and self.one.post.messages)
    def take(self, keep, release):
        taken = self.one.take()
        if taken is None:
            return
        frame, lease = taken
        value, array = frame.meta["v"], frame.arrays["x"]
        assert (array == value).all()
        if keep:
            self.kept.append((value, array[len(array) // 2 :]))
        if release:
            lease.finish(0)
        else:
            self.leases.append(lease)

    @rule(which=st.integers(0, 99))
    @precondition(lambda self: self.leases)
    def finish(self, which):
        self.leases.pop(which % len(self.leases)).finish(0)

    @rule(which=st.integers(0, 99))
    @precondition(lambda self: self.kept)
    def forget(self, which):
        self.kept.pop(which % len(self.kept))

    @invariant()
    def nobody_sees_pixels_that_are_not_his(self):
        for value, array in (*self.loans, *self.kept):
            assert (array == value).all()

    @invariant()
    def the_law(self):
        if self.one is not None:
            row = self.one.rows()[0]
            assert row.balanced
            assert row.in_flight <= self.one.link.records
            assert row.in_flight >= len(self.leases)

    @invariant()
    def pools_are_few(self):
        if self.one is not None:
            # At most 12 loans and a handful of records: no size ever needs more than 8 + 8 + 16.
            assert len(self.one.pools) <= 3 * len(SIZES)

    def teardown(self):
        if self.one is not None:
            self.one.close()


TestSlots = Slots.TestCase
TestSlots.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)


def test_any_number_of_sizes_needs_memory_by_the_largest():
    one, largest = OneLink("drop_newest"), 1 << 22
    for size in range(1 << 16, largest + 1, 1 << 16):
        one.sender.loan((size,), np.uint8)
    assert sum(slots * size for slots, size in one.pools) <= 8 * 4 * largest
    one.close()


def test_an_array_that_goes_out_twice_lies_in_one_slot():
    one = OneLink("drop_newest")
    array = one.sender.loan((10,), np.uint8)
    for seq in range(2):
        frame = Frame(arrays={"x": array}, stream="a", seq=seq, captured_ns=0)
        one.sender.publish(frame, 0)
    a, b = (message.arrays[0] for message in one.post.messages)
    assert (a.pool, a.slot) == (b.pool, b.slot)
    assert not array.flags.writeable, "published pixels do not change"
    one.close()
