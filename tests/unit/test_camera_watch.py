"""What keeps a live source alive, with connections that are lists: whatever they do, it goes on."""

import itertools

import pytest

from ovpipe.stages import watch as module
from ovpipe.stages.base import LocalContext
from ovpipe.stages.camera import Timing
from ovpipe.stages.feed import Denied, Disconnected, Over
from ovpipe.stages.watch import Watch

SILENCE = object()


class Clock:
    """Time that passes where somebody waits."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


class Played:
    """A connection that gives what is on its list, and knows whether it was closed."""

    def __init__(self, clock, events):
        self.clock, self.events = clock, iter(events)
        self.errors = 0
        self.closed = []

    def read(self, timeout_s):
        event = next(self.events, SILENCE)
        if event is SILENCE:
            self.clock.now += timeout_s
            return None
        if event == "broken":
            self.errors += 1
            return None
        if isinstance(event, Exception):
            raise event
        return event

    def close(self, wait=True):
        self.closed.append(wait)


class Waits(LocalContext):
    def __init__(self):
        super().__init__("cam")
        self.turns = 0

    def waiting(self):
        self.turns += 1


def watching(clock, *lives):
    """(watch, its connections); after the last life the source ends."""
    made = []

    def connect():
        assert all(c.closed == [True] for c in made), "two connections at a time"
        made.append(Played(clock, (*lives, [Over("the end")])[len(made)]))
        return made[-1]

    return Watch(Waits(), "rtsp://there", connect, Timing(spread_s=0.0)), made


def test_frames_of_many_lives_one_after_the_other(clock, caplog):
    watch, made = watching(
        clock,
        [Disconnected("Connection refused")],
        ["a", "b", Disconnected("reset")],
        [Denied("401")],
        ["c", "broken", "d", "broken", Disconnected("reset")],
        ["e"],  # and then silence
        ["f", Disconnected("reset")],
    )
    assert list(watch.frames()) == list("abcdef")
    assert len(made) == 7
    assert watch.camera.state == "ended"
    assert watch._context.failed == {"decode_error": 2}
    told = [record.message.split(": ", 2)[1] for record in caplog.records]
    assert told == [
        "camera connecting", "camera connecting", "camera streaming", "camera reconnecting",
        "camera auth_failed", "camera streaming", "camera reconnecting", "camera streaming",
        "camera stalled", "camera reconnecting", "camera streaming", "camera reconnecting",
        "camera ended",
    ]  # fmt: skip
    assert "1000.0" not in caplog.text


def test_D01_retries_for_ever_and_says_so_while_it_waits(clock):
    watch, made = watching(clock, *([Disconnected("refused")] for _ in range(50)))
    assert list(watch.frames()) == []
    assert len(made) == 51
    assert clock.now - 1000 > 40 * 22
    assert watch._context.turns > (clock.now - 1000) / 0.1


def test_stopping_leaves_the_connection_to_itself(clock):
    watch, made = watching(clock, list("abc"))
    seen = []
    for frame in watch.frames():
        seen.append(frame)
        watch._context.stopping = len(seen) == 2
    assert seen == ["a", "b"]
    assert made[0].closed == [False]


def test_D03_a_native_call_that_never_ends_is_not_called_waiting(clock):
    """The supervisor kills what hangs: so nobody may say that it merely waits."""
    watch, made = watching(clock, ["a"])
    frames = watch.frames()
    assert next(frames) == "a"

    class Hangs(Exception):
        pass

    def close(wait=True):
        if wait:
            turns.append(watch._context.turns)
            raise Hangs

    made[0].close, turns = close, []
    with pytest.raises(Hangs):
        next(frames)
    assert watch.camera.state == "stalled"
    assert turns == [watch._context.turns]


def test_attempts_are_spread(clock, monkeypatch):
    at = []
    for part in (0.0, 0.5, 1.0):
        monkeypatch.setattr(module.random, "random", lambda part=part: part)
        watch = Watch(LocalContext("cam"), "x", lambda: Played(clock, [Over("end")]), Timing())
        began = clock.now
        assert list(watch.frames()) == []
        at.append(round(clock.now - began, 3))
    assert at == sorted(set(at))
    assert list(itertools.pairwise(at)) == [(0.0, 0.25), (0.25, 0.5)]
