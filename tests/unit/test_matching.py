"""The sets of a join: complete ones always, in order, each part once, whatever is lost."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ovpipe.stages.matching import Matcher, TooLate

INPUTS = ("a", "b", "c")


class Sets(RuleBasedStateMachine):
    """Three inputs that give rising numbers, with gaps; sets are ended early now and then."""

    def __init__(self):
        super().__init__()
        self.matcher = Matcher(INPUTS)
        self.next = dict.fromkeys(INPUTS, 0)
        self.now = 0.0
        self.given = set()
        self.late = set()
        self.ended = []
        self.cut = -1  # the last key that was ended before its time

    def take(self, ended, early=False):
        for match in ended:
            assert match.parts
            self.ended.append(match)
            if early:
                self.cut = match.key

    @rule(source=st.sampled_from(INPUTS), gap=st.integers(0, 3))
    def put(self, source, gap):
        key = self.next[source] = self.next[source] + 1 + gap
        self.given.add((source, key))
        self.now += 1
        try:
            self.take(self.matcher.put(source, key, (source, key), self.now))
        except TooLate:
            passed = any(
                at >= key and (other, key) not in self.given for other, at in self.next.items()
            )
            assert passed or key <= self.cut, "a set that could come about was not waited for"
            self.late.add((source, key))

    @rule(source=st.sampled_from(INPUTS))
    @precondition(lambda self: self.matcher.oldest("a") is not None)
    def make_room(self, source):
        match = self.matcher.oldest(source)
        if match is not None:
            self.take(self.matcher.end_with(match), early=True)
            assert self.ended[-1] is match

    @rule(age=st.integers(2, 9))
    def expire(self, age):
        self.take(self.matcher.expire(self.now - age), early=True)

    @rule()
    def flush(self):
        self.take(self.matcher.flush(), early=True)
        assert self.parts() | self.late == self.given

    def parts(self):
        return {part for match in self.ended for part in match.parts.values()}

    @invariant()
    def sets_end_in_order_and_hold_what_belongs_together(self):
        keys = [match.key for match in self.ended]
        assert keys == sorted(set(keys))
        for match in self.ended:
            assert all(part == (source, match.key) for source, part in match.parts.items())

    @invariant()
    def nothing_is_in_two_places(self):
        parts = [part for match in self.ended for part in match.parts.values()]
        assert len(parts) == len(set(parts))
        assert not set(parts) & self.late

    @invariant()
    def nobody_waits_for_what_cannot_come(self):
        first = next((m for s in INPUTS if (m := self.matcher.oldest(s)) is not None), None)
        if first is not None:
            open_keys = [m.key for s in INPUTS if (m := self.matcher.oldest(s)) is not None]
            key = min(open_keys)
            assert any(
                (source, key) not in self.given and self.next[source] < key for source in INPUTS
            )


TestSets = Sets.TestCase
TestSets.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(st.lists(st.sampled_from("ab"), max_size=40), st.randoms())
def test_whatever_the_order_of_arrival_nothing_is_lost(turns, random):
    matcher, ended, next_of = Matcher(("a", "b")), [], {"a": 0, "b": 0}
    for source in turns:
        ended += matcher.put(source, next_of[source], source, 0.0)
        next_of[source] += 1
    assert [m.key for m in ended] == list(range(min(next_of.values())))
    assert all(matcher.complete(m) for m in ended)


def test_a_set_that_an_input_has_passed_ends_at_once():
    matcher = Matcher(("a", "b"))
    assert matcher.put("a", 1, "a1", 0) == []
    (match,) = matcher.put("b", 2, "b2", 0)
    assert match.parts == {"a": "a1"}
    with pytest.raises(TooLate):
        matcher.put("b", 1, "b1", 0)


def test_one_input_gives_to_a_set_once():
    matcher = Matcher(("a", "b"))
    matcher.put("a", 1, "first", 0)
    with pytest.raises(TooLate):
        matcher.put("a", 1, "second", 0)
    assert matcher.put("b", 1, "b", 0)[0].parts == {"a": "first", "b": "b"}


def test_times_match_within_the_tolerance_and_the_nearest_wins():
    matcher = Matcher(("a", "b"), tolerance=20)
    matcher.put("a", 0, "a0", 0)
    matcher.put("a", 33, "a33", 0)
    first, second = matcher.put("b", 30, "b30", 0)
    assert first.parts == {"a": "a0"}, "b is past it"
    assert second.parts == {"a": "a33", "b": "b30"}
    assert matcher.put("a", 66, "a66", 0) == []
    ended = matcher.put("b", 87, "b87", 0)
    assert [m.parts for m in ended] == [{"a": "a66"}], "21 apart do not match"


def test_what_waits_behind_a_set_that_can_still_come_about_waits_too():
    matcher = Matcher(("a", "b"), tolerance=20)
    matcher.put("a", 0, "a0", 0)
    matcher.put("a", 15, "a15", 0)
    assert matcher.put("b", 14, "b14", 0) == [], "b may still give something near 0"
    ended = matcher.put("b", 40, "b40", 0)
    assert [m.parts for m in ended] == [{"a": "a0"}, {"a": "a15", "b": "b14"}]
