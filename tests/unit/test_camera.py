"""The camera's state machine: each wait, each state, and that no order of events breaks it."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ovpipe.stages.camera import Camera, CameraError, Timing

T = Timing()


def camera(now_s=100.0, random=lambda: 0.0):
    return Camera(now_s, random)


def begun(**kwargs):
    one = camera(**kwargs)
    one.begin(one.connect_at_s)
    return one


def test_a_good_life():
    one = camera()
    assert (one.state, one.connect_at_s) == ("connecting", 100.0)
    one.begin(100.0)
    one.frame(101.0)
    assert (one.state, one.since_s, one.connect_at_s) == ("streaming", 101.0, None)
    one.frame(102.0)
    assert one.since_s == 101.0
    one.end(103.0, "asked to")
    assert (one.state, one.since_s, one.why, one.connect_at_s) == ("ended", 103.0, "asked to", None)


def test_D01_waits_double_to_half_a_minute_for_ever():
    one, now, waits = begun(), 100.0, []
    for _ in range(9):
        one.lost(now, "refused")
        assert one.state == "connecting"
        waits.append(one.connect_at_s - now)
        now = one.connect_at_s
        one.begin(now)
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert one.attempts == 10


def test_a_wait_is_shortened_at_random_and_the_first_attempt_spread():
    assert camera(random=lambda: 1.0).connect_at_s == 100.0 + T.spread_s
    one = begun(random=lambda: 1.0)
    one.lost(200.0, "refused")
    assert one.connect_at_s == 200.75


def test_waits_begin_anew_after_a_connection_that_lasted():
    one, now = begun(), 100.0
    for _ in range(4):
        one.lost(now, "refused")
        now = one.connect_at_s
        one.begin(now)
    one.frame(now)
    one.lost(now + 1, "flaps")
    assert (one.state, one.connect_at_s) == ("reconnecting", now + 1 + 16)
    one.begin(now + 17)
    one.frame(now + 17)
    one.lost(now + 17 + 17, "reset")
    assert one.connect_at_s == now + 34 + 1


def test_D01_silence_is_a_stall_and_what_is_connected_is_closed_before_the_next_attempt():
    one = begun()
    one.frame(100.0)
    one.look(104.9)
    assert one.state == "streaming"
    one.look(105.0)
    assert (one.state, one.why, one.connect_at_s) == ("stalled", "no frame for 5 s", None)
    with pytest.raises(CameraError):
        one.frame(105.0)
    one.lost(105.5, "closed")
    assert (one.state, one.since_s, one.connect_at_s) == ("reconnecting", 105.5, 106.5)


def test_D01_an_attempt_without_a_frame_stalls_too():
    one = begun()
    one.look(100.0 + T.patience_s)
    assert one.state == "stalled"
    one.lost(116.0, "closed")
    assert one.state == "connecting"


def test_D05_a_wrong_password_is_tried_once_a_minute_and_no_more():
    one, now = begun(), 100.0
    for _ in range(3):
        one.denied(now, "401")
        assert (one.state, one.since_s) == ("auth_failed", 100.0)
        assert one.connect_at_s - now >= 60
        with pytest.raises(CameraError):
            one.begin(now + 59)
        now = one.connect_at_s
        one.begin(now)
    one.frame(now)
    assert one.state == "streaming"


@settings(max_examples=50, stateful_step_count=30, deadline=None)
class Machine(RuleBasedStateMachine):
    """Any events at any times: illegal ones change nothing, and the law holds."""

    @initialize(random=st.floats(0, 1))
    def start(self, random):
        self.now = 1000.0
        self.camera = Camera(self.now, lambda: random)
        self.under_way = False
        self.denied_at = float("-inf")
        self.seen = False

    def attempt(self, event, *arguments, legal):
        one = self.camera
        before = dict(vars(one))
        if legal:
            getattr(one, event)(self.now, *arguments)
        else:
            with pytest.raises(CameraError):
                getattr(one, event)(self.now, *arguments)
            assert dict(vars(one)) == before
        return legal

    @rule(passed=st.one_of(st.floats(0, 2), st.floats(0, 100)))
    def time(self, passed):
        self.now += passed
        before = self.camera.state
        silent = self.under_way and self.now - self.camera._sign_s >= (
            T.silence_s if self.camera.state == "streaming" else T.patience_s
        )
        self.camera.look(self.now)
        assert self.camera.state == ("stalled" if silent else before)

    @precondition(lambda self: self.camera.connect_at_s is not None)
    @rule()
    def wait(self):
        self.now = max(self.now, self.camera.connect_at_s)

    @rule()
    def begin(self):
        due = self.camera.connect_at_s
        if self.attempt("begin", legal=due is not None and self.now >= due):
            assert not self.under_way
            assert self.now - self.denied_at >= 60
            self.under_way = True

    @rule()
    def frame(self):
        legal = self.under_way and self.camera.state != "stalled"
        if self.attempt("frame", legal=legal):
            assert self.camera.state == "streaming"
            self.seen = True

    @rule()
    def lost(self):
        if self.attempt("lost", "gone", legal=self.under_way):
            self.under_way = False
            assert self.camera.state == ("reconnecting" if self.seen else "connecting")
            assert 0.75 <= self.camera.connect_at_s - self.now <= 30

    @rule()
    def denied(self):
        if self.attempt("denied", "401", legal=self.under_way):
            self.under_way = False
            self.denied_at = self.now

    @rule(meant=st.integers(0, 30))
    def end(self, meant):
        if meant == 0 and self.attempt("end", "over", legal=self.camera.state != "ended"):
            self.under_way = False

    @invariant()
    def holds(self):
        if not hasattr(self, "camera"):
            return
        one = self.camera
        assert one.connected == self.under_way
        assert (one.connect_at_s is None) == (self.under_way or one.state == "ended")
        assert one.since_s <= self.now
        assert one.why
        if one.state in ("streaming", "stalled"):
            assert self.under_way


TestMachine = Machine.TestCase
