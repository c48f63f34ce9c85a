"""Replicas in turn: whatever they do, results leave in the order of the frames, and never stall."""

from types import SimpleNamespace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ovpipe.transport.inbox import Inbox
from ovpipe.transport.ledger import CODE, FREE, INFLIGHT, W_TURN, Layout, LinkLedger
from ovpipe.transport.turns import Turns

REPLICAS, RECORDS, STREAMS = 3, 3, 2
LAYOUT = Layout(workers=1 + REPLICAS, links=REPLICAS, streams=STREAMS)


class Replica:
    """What one replica has: frames in work, by record, with the turns of those it has taken."""

    def __init__(self, words, index, waked):
        links = [
            SimpleNamespace(index=i, edge=5, receiver=1 + i, records=RECORDS)
            for i in range(REPLICAS)
        ]
        shared = SimpleNamespace(
            words=words,
            worker=1 + index,
            me=LAYOUT.worker(1 + index),
            layout=LAYOUT,
            link=lambda i: LinkLedger(words, LAYOUT, i),
        )
        peers = [SimpleNamespace(state="here", endpoint=i) for i in range(1 + REPLICAS)]
        inbox = SimpleNamespace(wake=waked.append)
        assert hasattr(Inbox, "wake")
        self.index = index
        self.ledger = shared.link(index)
        self.turns = Turns(shared, inbox, peers, links)
        self.taken = []


class Machine(RuleBasedStateMachine):
    """One sender, several replicas. Frames are (stream, number); `left` is what was passed on."""

    def __init__(self):
        super().__init__()
        self.words = [0] * LAYOUT.words
        self.waked = []
        self.replicas = [Replica(self.words, i, self.waked) for i in range(REPLICAS)]
        self.now = 0
        self.claimed = [[] for _ in range(STREAMS)]
        self.lost = [set() for _ in range(STREAMS)]
        self.left = [[] for _ in range(STREAMS)]

    def state(self, replica, record):
        at = replica.ledger.records + record * 16
        return self.words[at] & 0xFF

    def free(self):
        return [(r, i) for r in self.replicas for i in range(RECORDS) if self.state(r, i) == FREE]

    def inflight(self):
        return [
            (r, i) for r in self.replicas for i in range(RECORDS) if self.state(r, i) == INFLIGHT
        ]

    def due(self):
        return [(r, job) for r in self.replicas for job in r.taken if r.turns.has_come(job[1])]

    @precondition(lambda self: self.free())
    @rule(stream=st.integers(0, STREAMS - 1), data=st.data())
    def claim(self, stream, data):
        replica, record = data.draw(st.sampled_from(self.free()))
        self.now += 1
        replica.ledger.claim(record, stream, self.now, [], self.now)
        self.claimed[stream].append(self.now)

    @precondition(lambda self: self.inflight())
    @rule(data=st.data())
    def take(self, data):
        replica, record = data.draw(st.sampled_from(self.inflight()))
        at = replica.ledger.records + record * 16
        generation, stream = self.words[at] >> 16, self.words[at + 1]
        replica.ledger.hold(record, generation)
        message = SimpleNamespace(link=replica.index, stream=stream, record=record)
        message.generation = generation
        replica.taken.append((self.words[at + 2], replica.turns.of(message, replica.ledger)))

    @precondition(lambda self: self.due())
    @rule(data=st.data(), keeps=st.booleans())
    def pass_on(self, data, keeps):
        replica, job = data.draw(st.sampled_from(self.due()))
        replica.taken.remove(job)
        seq, turn = job
        replica.turns.pass_on(turn)
        self.left[turn.stream].append(seq)
        if not keeps:  # else its slot is still read, and stands in nobody's way
            replica.ledger.finish(turn.record, turn.generation, CODE["delivered"])
            replica.ledger.settle(turn.record, CODE["delivered"])

    @precondition(lambda self: any(r.taken for r in self.replicas))
    @rule(data=st.data())
    def die(self, data):
        replica = data.draw(st.sampled_from([r for r in self.replicas if r.taken]))
        for seq, turn in replica.taken:
            self.lost[turn.stream].add(seq)
        replica.taken.clear()
        replica.ledger.abandon(None, CODE["stage_crash"])
        for record in range(RECORDS):
            if self.state(replica, record) not in (FREE, INFLIGHT):
                replica.ledger.settle(record, CODE["stage_crash"])

    @rule(index=st.integers(0, REPLICAS - 1), waits=st.booleans())
    def waiting(self, index, waits):
        self.replicas[index].turns.waiting(waits)
        word = self.words[LAYOUT.worker(1 + index) + W_TURN]
        assert word == waits

    @rule(index=st.integers(0, REPLICAS - 1))
    def whoever_waits_is_waked_once(self, index):
        self.waked.clear()
        others = [r.index + 1 for r in self.replicas if r.index != index]
        waiting = [w for w in others if self.words[LAYOUT.worker(w) + W_TURN]]
        self.replicas[index].turns.pass_on()
        self.replicas[index].turns.pass_on()
        assert sorted(self.waked) == waiting

    @invariant()
    def in_order(self):
        for stream in range(STREAMS):
            left = set(self.left[stream])
            assert self.left[stream] == [n for n in self.claimed[stream] if n in left]

    @invariant()
    def somebody_gets_on(self):
        """A frame is not taken yet, or may leave, wherever there is one on its way."""
        taken = any(r.taken for r in self.replicas)
        assert not taken or self.inflight() or self.due()

    @invariant()
    def the_end_comes_last(self):
        for stream in range(STREAMS):
            gone = len(self.left[stream]) + len(self.lost[stream])
            ended = all(
                self.replicas[0].turns.has_come(t) for t in self.replicas[0].turns.last(stream)
            )
            assert ended == (gone == len(self.claimed[stream]))


TestTurns = Machine.TestCase
TestTurns.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
