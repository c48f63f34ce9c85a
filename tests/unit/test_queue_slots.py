"""The request pool's state machine, without OpenVINO and without threads."""

from concurrent.futures import Future

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ovpipe.queue.job import Job, Slot
from ovpipe.queue.slots import Slots


class Untimed(Slots):
    """The clock is the test's: `time_passes`."""

    def _arm(self):
        pass


class Fake:
    """A pool whose inferences end when the test says so."""

    def __init__(self, jobs):
        self.started = []
        self.bad = set()
        self.slots = Untimed(jobs, lambda number, spare: Slot(number, None, spare), self.start)

    def start(self, slot, job):
        if job.inputs in self.bad:
            raise ValueError(job.inputs)
        slot.running = True
        self.started.append((slot, job))

    def submit(self, name):
        job = Job(name, future=Future())
        self.slots.start_all(self.slots.queue(job, may_wait=True))
        return job.future


class Machine(RuleBasedStateMachine):
    """Futures, callbacks, spares, cancellations and bad inputs in any order."""

    def __init__(self):
        super().__init__()
        self.fake = Fake(2)
        self.slots = self.fake.slots
        self.futures = {}
        self.inferring = []  # (slot, job) of which the inference has not ended
        self.calling = []
        self.number = 0
        self.order = []

    def look(self):
        while len(self.order) < len(self.fake.started):
            slot, job = self.fake.started[len(self.order)]
            self.order.append(job.inputs)
            self.inferring.append((slot, job))

    @rule(bad=st.booleans())
    def submit(self, bad):
        self.number += 1
        if bad:
            self.fake.bad.add(self.number)
        self.futures[self.number] = self.fake.submit(self.number)
        self.look()

    @precondition(lambda self: self.slots.ready)
    @rule()
    def start_with_callback(self):
        self.number += 1
        job = Job(self.number, callback=print)
        self.fake.start(self.slots.take(job, 0, False), job)
        self.look()

    @precondition(lambda self: self.futures)
    @rule(data=st.data())
    def cancel(self, data):
        name = data.draw(st.sampled_from(sorted(self.futures)))
        began = name in self.order or self.futures[name].done()
        assert self.futures[name].cancel() is not began
        if not began:
            self.futures.pop(name)

    @precondition(lambda self: self.inferring)
    @rule(data=st.data())
    def inference_ends(self, data):
        slot, job = self.inferring.pop(data.draw(st.integers(0, len(self.inferring) - 1)))
        if job.future is not None:
            self.slots.free(slot)
            job.future.set_result(job.inputs)
            self.slots.end()
        elif len(self.calling) < self.slots.jobs:
            self.slots.begin_call(slot, job)
            self.calling.append((slot, job))
        else:  # its thread would wait for its turn
            self.inferring.append((slot, job))
        self.look()

    @precondition(lambda self: self.calling)
    @rule(data=st.data())
    def callback_returns(self, data):
        slot, _ = self.calling.pop(data.draw(st.integers(0, len(self.calling) - 1)))
        self.slots.free(slot)
        self.slots.end()
        self.look()

    @rule()
    def time_passes(self):
        for slot, _ in self.calling:
            slot.called_ns = 1  # long ago
        self.slots._relieve()
        self.look()

    @invariant()
    def no_slot_twice(self):
        held = [slot.number for slot, _ in self.inferring + self.calling]
        assert len(held) == len(set(held))
        assert len(self.slots.all) <= 2 * self.slots.jobs

    @invariant()
    def no_more_than_jobs(self):
        assert len(self.inferring) == self.slots.inferring <= self.slots.jobs
        assert len(self.calling) <= self.slots.jobs

    @invariant()
    def nobody_waits_beside_a_free_slot(self):
        waiting = [f for n, f in self.futures.items() if not f.done() and n not in self.order]
        if self.slots._idle and self.slots.inferring < self.slots.jobs:
            assert not waiting

    @invariant()
    def in_the_order_of_asking(self):
        assert self.order == sorted(self.order)

    @invariant()
    def every_job_is_counted(self):
        flying = len(self.inferring) + len(self.calling)
        assert flying <= self.slots.busy <= flying + self.slots.waiting

    def teardown(self):
        while self.inferring or self.calling:
            for slot, job in self.inferring + self.calling:
                self.slots.free(slot)
                if job.future is not None:
                    job.future.set_result(job.inputs)
                self.slots.end()
            self.inferring, self.calling = [], []
            self.look()
        self.slots.wait_all(0)
        for name, future in self.futures.items():
            assert future.done()
            assert (future.exception() is not None) == (name in self.fake.bad)


TestMachine = Machine.TestCase


def test_an_error_that_is_nobodys_is_raised_once():
    slots = Fake(1).slots
    slots.fail(KeyError("x"))
    with pytest.raises(KeyError):
        slots.take(Job(None), 0, False)
    slots.take(Job(None), 0, False)


def test_close_tells_what_waits():
    fake = Fake(1)
    first, second = fake.submit(1), fake.submit(2)
    told = []
    job = Job(3, then=lambda request, data, error: told.append(str(error)))
    fake.slots.start_all(fake.slots.queue(job, may_wait=True))
    fake.slots.close()
    fake.slots.close()
    assert second.cancelled()
    assert told == ["the queue is closed"]
    assert not first.done()
    with pytest.raises(RuntimeError, match="closed"):
        fake.submit(3)
