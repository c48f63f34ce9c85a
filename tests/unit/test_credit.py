"""Credit: what is in flight never exceeds a link's records, and ends as one outcome each.

One link, both ends real; a receiver that takes and finishes as it likes. What a death between any
two stores leaves behind is test_ledger's.
"""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ovpipe.frame import Frame
from ovpipe.transport.ledger import CODE, OUTCOMES
from tests.support.link import OneLink

STREAMS = ("a", "b")


class Credit(RuleBasedStateMachine):
    """All three policies; with `block` the machine makes room when the sender waits for it."""

    one = None

    @initialize(
        policy=st.sampled_from(["block", "drop_oldest", "drop_newest"]),
        depth=st.integers(1, 4),
        capacity=st.integers(1, 3),
    )
    def start(self, policy, depth, capacity):
        self.policy = policy
        self.one = OneLink(policy, depth=depth, capacity=capacity, pump=self.room)
        self.most = depth + capacity
        self.given = 0
        self.taken = []  # leases
        self.last = dict.fromkeys(STREAMS, -1)
        self.finished = []

    def room(self, timeout_ms):
        """The sender waits: it must be because all records are in use."""
        assert self.policy == "block"
        assert sum(row.in_flight for row in self.one.rows()) == self.most
        if not self.taken:
            self.take()
        self.finish(0, "delivered")

    @rule(stream=st.integers(0, 1))
    def publish(self, stream):
        array = np.full(8, self.given % 256, np.uint8)
        frame = Frame(arrays={"x": array}, stream=STREAMS[stream], seq=self.given, captured_ns=0)
        self.one.sender.publish(frame, stream)
        self.given += 1

    @rule()
    @precondition(lambda self: self.one.post.messages)
    def take(self):
        taken = self.one.take()
        if taken is not None:
            frame, lease = taken
            assert frame.seq > self.last[frame.stream], "in order, and none twice"
            assert (frame.arrays["x"] == frame.seq % 256).all()
            self.last[frame.stream] = frame.seq
            self.taken.append(lease)
        else:
            assert self.policy == "drop_oldest", "only a frame that was dropped is not there"

    @rule(which=st.integers(0, 9), outcome=st.sampled_from(OUTCOMES))
    @precondition(lambda self: self.taken)
    def finish(self, which, outcome):
        self.taken.pop(which % len(self.taken)).finish(CODE[outcome])
        self.finished.append(outcome)

    @rule(stream=st.integers(0, 1))
    def the_sender_itself_loses_one(self, stream):
        self.one.sender.count_failed(stream, CODE["decode_error"])
        self.given += 1
        self.finished.append("decode_error")

    @invariant()
    def law(self):
        rows = self.one.rows()
        assert all(row.balanced for row in rows)
        assert sum(row.claimed for row in rows) == self.given
        assert sum(row.in_flight for row in rows) <= self.most

    @invariant()
    def outcomes_are_those_given(self):
        rows = self.one.rows()
        wanted = {name: self.finished.count(name) for name in OUTCOMES}
        for name in OUTCOMES:
            found = sum(
                row.delivered
                if name == "delivered"
                else row.dropped.get(name, 0) + row.failed.get(name, 0)
                for row in rows
            )
            if name == "queue_full" and self.policy != "block":
                assert found >= wanted[name]
            else:
                assert found == wanted[name]

    def teardown(self):
        if self.one is not None:
            self.one.close()


TestCredit = Credit.TestCase
TestCredit.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
