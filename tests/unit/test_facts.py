"""What a stage says of itself: bounded, told on change, the last word never lost."""

from __future__ import annotations

from typing import Any

import pytest

from ovpipe.stages.facts import EVERY_S, MAX_FACTS, MAX_TEXT, Facts, merged


class Listener:
    def __init__(self) -> None:
        self.now = 0.0
        self.heard: list[dict[str, Any]] = []
        self.facts = Facts(self.heard.append, lambda: self.now)


def test_only_a_change_is_told() -> None:
    it = Listener()
    it.facts.report({"camera": "connecting"})
    it.now = 10.0
    it.facts.report({"camera": "connecting"})
    it.facts.catch_up()
    assert it.heard == [{"camera": "connecting"}]
    it.facts.report({"camera": None, "device": "GPU"})
    assert it.heard[-1] == {"device": "GPU"}


def test_of_a_burst_the_first_is_told_at_once_and_the_last_a_little_later() -> None:
    it = Listener()
    for number in range(100):
        it.facts.report({"n": number})
    assert it.heard == [{"n": 0}]
    assert it.facts.late
    it.facts.catch_up()
    assert it.heard == [{"n": 0}]
    it.now = EVERY_S
    it.facts.catch_up()
    assert it.heard == [{"n": 0}, {"n": 99}]
    assert not it.facts.late


@pytest.mark.parametrize(
    "news",
    [
        {"": 1}, {"x" * 41: 1}, {1: 1}, {"x": [1]}, {"x": {}}, {"x": b"y"}, {"x": float("nan")},
        {"x": float("inf")}, {str(i): i for i in range(MAX_FACTS + 1)},
    ],
)  # fmt: skip
def test_what_is_no_fact_is_refused_and_changes_nothing(news: Any) -> None:
    it = Listener()
    it.facts.report({"a": 1})
    it.now = 1.0
    with pytest.raises(ValueError):
        it.facts.report(news)
    it.facts.catch_up()
    assert it.heard == [{"a": 1}]


def test_texts_are_cut_and_do_nothing_to_a_terminal() -> None:
    assert merged({}, {"why": "x" * 1000}) == {"why": "x" * MAX_TEXT}
    assert merged({}, {"why": "\x1b[2J a\nb \u202e ä"}) == {"why": " [2J a b   ä"}
