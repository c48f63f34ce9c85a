"""The uplink: when it tries, when it waits, and what cannot be."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovpipe.stages.uplink import Timing, Uplink, UplinkError


def failing(uplink, times, at=0.0, asked=0.0):
    """Attempts that all fail as soon as they are due; the waits between them."""
    waits = []
    for _ in range(times):
        at = max(at, uplink.connect_at_s)
        uplink.begin(at)
        uplink.lost(at, "no route", asked)
        waits.append(uplink.connect_at_s - at)
    return waits


def test_waits_double_and_stay_within_bounds():
    assert failing(Uplink(0.0, lambda: 0.0), 8) == [1, 2, 4, 8, 16, 30, 30, 30]
    assert failing(Uplink(0.0, lambda: 1.0), 3) == [0.75, 1.5, 3.0]


def test_a_connection_that_lasted_begins_anew_and_one_that_did_not_does_not():
    uplink = Uplink(0.0, lambda: 0.0)
    failing(uplink, 4)
    now = uplink.connect_at_s
    uplink.begin(now)
    uplink.up(now)
    uplink.lost(now + 1.0, "it broke")
    assert uplink.connect_at_s == now + 1.0 + 16
    now = uplink.connect_at_s
    uplink.begin(now)
    uplink.up(now)
    uplink.lost(now + 17.0, "it broke")
    assert uplink.connect_at_s == now + 17.0 + 1


def test_a_broker_that_asks_for_time_gets_it_but_not_for_ever():
    assert failing(Uplink(0.0, lambda: 0.0), 1, asked=20.0) == [20.0]
    assert failing(Uplink(0.0, lambda: 0.0), 1, asked=1e9) == [Timing().longest_asked_wait_s]


def test_who_is_denied_waits_long_and_hurries_for_nobody():
    uplink = Uplink(0.0, lambda: 0.5)
    uplink.begin(0.0)
    uplink.denied(1.0, "wrong password")
    assert (uplink.state, uplink.why) == ("denied", "wrong password")
    due = uplink.connect_at_s
    assert due == 1.0 + 60 * 1.125
    uplink.hurry(2.0)
    assert uplink.connect_at_s == due
    uplink.begin(due)
    uplink.up(due)
    assert (uplink.state, uplink.since_s) == ("connected", due)


def test_hurry():
    uplink = Uplink(0.0, lambda: 0.0)
    failing(uplink, 5)
    uplink.hurry(3.5)
    assert uplink.connect_at_s == 3.5
    uplink.begin(3.5)
    uplink.hurry(3.6)
    assert uplink.connect_at_s is None


EVENTS = {
    "begin": lambda u, now: u.begin(now),
    "up": lambda u, now: u.up(now),
    "lost": lambda u, now: u.lost(now, "x"),
    "denied": lambda u, now: u.denied(now, "y"),
    "hurry": lambda u, now: u.hurry(now),
    "close": lambda u, now: u.close(now),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), st.floats(0, 50))))
def test_the_law(steps):
    uplink, now = Uplink(0.0, itertools.cycle([0.0, 0.9]).__next__), 0.0
    attempt = False
    for event, passed in steps:
        now += passed
        before = dict(vars(uplink))
        due = uplink.connect_at_s is not None and now >= uplink.connect_at_s
        legal = {
            "begin": due,
            "up": attempt,
            "lost": attempt or uplink.state == "connected",
            "denied": attempt or uplink.state == "connected",
            "hurry": True,
            "close": uplink.state != "closed",
        }[event]
        if not legal:
            with pytest.raises(UplinkError):
                EVENTS[event](uplink, now)
            assert vars(uplink) == before
            continue
        EVENTS[event](uplink, now)
        attempt = event == "begin" or (attempt and event == "hurry")
        assert (uplink.connect_at_s is None) == (attempt or uplink.state in ("connected", "closed"))
