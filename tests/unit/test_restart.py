"""The restart policy, driven by any history of deaths."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from ovpipe.supervisor.launch import WorkerPlan
from ovpipe.supervisor.post import Post
from ovpipe.supervisor.restart import (
    FIRST_DELAY_S,
    JITTER,
    LONGEST_DELAY_S,
    Again,
    GiveUp,
    Policy,
    Restarts,
)


class Worker(RuleBasedStateMachine):
    """A worker that dies and lives at random; an account of it is kept in the plainest way."""

    @initialize(
        restart=st.sampled_from(["always", "on-failure", "never"]),
        limit=st.integers(0, 6),
        within_s=st.floats(0.5, 100),
    )
    def begin(self, restart, limit, within_s):
        self.policy = Policy(restart, limit, within_s)
        self.restarts = Restarts(self.policy)
        self.now = 0.0
        self.number = 0
        self.ready_s = -1.0
        self.deaths = []  # those that count: (when, which)
        self.over = False

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds):
        self.now += seconds

    @rule()
    def comes_to_work(self):
        self.ready_s = self.now
        self.restarts.ready(self.now)

    @rule(permanent=st.booleans() | st.just(False), chance=st.floats(0, 1))
    def dies(self, permanent, chance):
        if self.over:
            return
        self.number += 1
        edge = self.now - self.policy.within_s
        self.deaths = [d for d in self.deaths if d[0] > edge or d[0] > self.ready_s]
        decision = self.restarts.died(self.now, self.number, permanent=permanent, chance=chance)
        before = len(self.deaths)
        self.deaths.append((self.now, self.number))
        gives_up = permanent or self.policy.restart == "never"
        if gives_up or before >= self.policy.max_restarts:
            first = self.number if permanent else self.deaths[0][1]
            assert decision == GiveUp(first, before)
            self.over = True
            return
        assert isinstance(decision, Again)
        assert decision.number == before + 1 <= decision.of == self.policy.max_restarts
        least = min(FIRST_DELAY_S * 2**before, LONGEST_DELAY_S)
        assert least <= decision.delay_s <= least * (1 + JITTER) * 1.000001


TestWorker = Worker.TestCase
TestWorker.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_one_that_never_comes_to_work_gives_up_however_slowly_it_fails():
    restarts = Restarts(Policy("on-failure", 5, 60.0))
    decisions = [restarts.died(100.0 * i, f"death {i}") for i in range(6)]
    assert [d.number for d in decisions[:5]] == [1, 2, 3, 4, 5]
    assert decisions[5] == GiveUp("death 0", 5)


def test_one_that_works_in_between_starts_with_a_clean_slate():
    restarts = Restarts(Policy("on-failure", 1, 60.0))
    for i in range(10):
        assert restarts.died(100.0 * i, "again").number == 1
        restarts.ready(100.0 * i + 1)


def test_the_delay_is_bounded():
    restarts = Restarts(Policy("on-failure", 10**6, 1e9))
    delays = [restarts.died(float(i), "again").delay_s for i in range(50)]
    assert delays[:3] == [0.1, 0.2, 0.4]
    assert max(delays) == LONGEST_DELAY_S


def test_a_post_changes_only_in_the_ways_it_may():
    plan = WorkerPlan(0, "s", "k", {}, "", False, None, False, 1, 1, Policy("never", 0, 1))
    ways = {
        "new": {"starting"},
        "starting": {"up", "away", "gone"},
        "up": {"done", "away", "gone"},
        "away": {"starting", "gone"},
        "done": set(),
        "gone": set(),
    }
    for state, following in ways.items():
        for wanted in ways:
            post = Post(plan)
            post.state = state
            if wanted in following:
                post.become(wanted)
                assert post.state == wanted
            else:
                with pytest.raises(ValueError, match=f"{state} -> {wanted}"):
                    post.become(wanted)
                assert post.state == state
