"""The law of the ledger, also for a sender that is killed between any two of its stores."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ovpipe.transport import ledger as l
from ovpipe.transport.ledger import CODE, OUTCOMES, Layout, LinkLedger

RECORDS = 4
LAYOUT = Layout(workers=2, links=2, streams=2)


class Killed(BaseException):
    """The process is gone."""


class Memory(list):
    """Words whose writer dies just before its n-th store."""

    stores_left = -1

    def __setitem__(self, at, value):
        if self.stores_left == 0:
            raise Killed
        self.stores_left -= 1
        assert 0 <= value < 1 << 64
        super().__setitem__(at, value)


class Link(RuleBasedStateMachine):
    """One link, a sender that may die at any store and is followed by another, a receiver."""

    def __init__(self):
        super().__init__()
        self.words = Memory([0] * LAYOUT.words)
        self.link = LinkLedger(self.words, LAYOUT, 1)
        self.seq = 0
        self.claims = 0  # those that returned
        self.in_doubt = 0  # those in which the sender died: claimed or not, never half

    def states(self):
        first = self.link.records
        return [self.words[first + r * l.RECORD_WORDS] for r in range(RECORDS)]

    def records(self, *wanted):
        return [r for r, word in enumerate(self.states()) if word & 0xFF in wanted]

    def dies(self, stores, act):
        self.words.stores_left = stores
        try:
            act()
        except Killed:
            self.words.stores_left = -1
            self.link.repair()
            return True
        finally:
            self.words.stores_left = -1
        return False

    kill_at = st.integers(-1, 14)

    @rule(stores=kill_at, stream=st.integers(0, 1), epoch=st.integers(0, 3))
    def claim(self, stores, stream, epoch):
        free = self.records(l.FREE)
        if not free:
            return
        self.seq += 1
        if self.dies(stores, lambda: self.link.claim(free[0], stream, self.seq, [7, 9], 1, epoch)):
            self.in_doubt += 1
        else:
            self.claims += 1

    @rule(stores=kill_at, stream=st.integers(0, 1), outcome=st.sampled_from(OUTCOMES[1:]))
    def refuse(self, stores, stream, outcome):
        if self.dies(stores, lambda: self.link.refuse(stream, CODE[outcome])):
            self.in_doubt += 1
        else:
            self.claims += 1

    @rule(stores=kill_at)
    def collect(self, stores):
        used = self.records(l.INFLIGHT, l.HELD, l.DONE)
        self.dies(stores, lambda: self.link.collect(used))

    @rule(stores=kill_at)
    @precondition(lambda self: self.records(l.INFLIGHT))
    def revoke(self, stores):
        record = self.records(l.INFLIGHT)[0]
        self.dies(stores, lambda: self.link.settle(record, CODE["queue_full"]))

    @rule()
    @precondition(lambda self: self.records(l.INFLIGHT))
    def take(self):
        record = self.records(l.INFLIGHT)[0]
        self.link.hold(record, self.states()[record] >> 16)

    @rule(outcome=st.sampled_from(OUTCOMES))
    @precondition(lambda self: self.records(l.INFLIGHT, l.HELD))
    def finish(self, outcome):
        record = self.records(l.INFLIGHT, l.HELD)[0]
        self.link.finish(record, self.states()[record] >> 16, CODE[outcome])

    @rule()
    def receiver_dies(self):
        self.link.abandon(CODE["lost_in_transit"], CODE["stage_crash"])

    @rule(epoch=st.integers(0, 3))
    def what_a_dead_sender_had_on_its_way_is_lost(self, epoch):
        late = [
            r
            for r in self.records(l.INFLIGHT)
            if self.words[self.link.records + r * l.RECORD_WORDS + l.R_EPOCH] <= epoch
        ]
        assert self.link.lose(RECORDS, epoch, CODE["lost_in_transit"]) == len(late)
        assert set(late) <= set(self.records(l.DONE))

    @invariant()
    def law(self):
        rows = self.link.read(self.words[self.link.base : self.link.base + LAYOUT.link_words])
        assert all(row.balanced for row in rows)
        claimed = sum(row.claimed for row in rows)
        assert self.claims <= claimed <= self.claims + self.in_doubt
        assert sum(row.in_flight for row in rows) == len(self.records(l.INFLIGHT, l.HELD))

    @invariant()
    def neighbours_untouched(self):
        assert not any(self.words[: self.link.base])


TestLink = Link.TestCase
TestLink.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def test_a_step_found_open_is_finished_once():
    words = Memory([0] * LAYOUT.words)
    link = LinkLedger(words, LAYOUT, 0)
    words.stores_left = 3 + 3 + 5 + 1  # the record's fields, the journal and its announcement
    with pytest.raises(Killed):
        link.claim(0, 0, 1, [1, 2], 5)
    words.stores_left = -1
    link.repair()
    link.repair()
    assert link.read(words[link.base : link.base + LAYOUT.link_words])[0].claimed == 1


def test_generation_makes_a_late_release_harmless_to_is_inflight():
    words = Memory([0] * LAYOUT.words)
    link = LinkLedger(words, LAYOUT, 0)
    first = link.claim(0, 0, 1, [], 0)
    link.settle(0, CODE["queue_full"])
    second = link.claim(0, 0, 2, [], 0)
    assert second == first + 1
    assert not link.is_inflight(0, first)
    assert link.is_inflight(0, second)


def test_live_refs_are_those_of_frames_not_yet_done():
    words = Memory([0] * LAYOUT.words)
    link = LinkLedger(words, LAYOUT, 0)
    link.claim(0, 0, 1, [11], 0)
    g = link.claim(1, 0, 2, [12, 13], 0)
    link.hold(1, g)
    assert sorted(link.live_refs(RECORDS)) == [11, 12, 13]
    link.finish(1, g, 0)
    assert sorted(link.live_refs(RECORDS)) == [11]


def test_abandon_leaves_what_it_may_not_touch():
    words = Memory([0] * LAYOUT.words)
    link = LinkLedger(words, LAYOUT, 0)
    for record in range(3):
        link.claim(record, 0, record, [], 0)
    assert link.abandon(CODE["lost_in_transit"], None, may=lambda record: record != 1) == 2
    row = link.read(words[link.base : link.base + LAYOUT.link_words])[0]
    assert row.failed == {"lost_in_transit": 2}
    assert row.in_flight == 1


def test_a_successor_finds_what_is_in_use_oldest_first():
    words = Memory([0] * LAYOUT.words)
    link = LinkLedger(words, LAYOUT, 0)
    for record, since in ((2, 5), (0, 7), (3, 6)):
        link.claim(record, 1, 0, [], since)
    assert link.in_use(RECORDS) == [2, 3, 0]
    assert (link.claimed(0), link.claimed(1)) == (0, 3)
    link.set_ended(1)
    assert [link.has_ended(stream) for stream in (0, 1)] == [False, True]
    assert link.read(words[link.base : link.base + LAYOUT.link_words])[1].in_flight == 3
