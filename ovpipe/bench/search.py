"""Which way to turn the knobs, and whether it was any good. Pure: it measures nothing.

One knob after the other is turned up and down for as long as that helps; again, until none does.

    search = Search(knobs)
    while (setting := search.next()) is not None:
        search.tell(measure(setting))       # more is better; None: it does not work
    search.best

Law: the first setting asked for is the one that was given, {}. One that seems better is asked for
once more before it is taken, right after the best so far: of many that are as good, noise makes one
look better, and a machine may have become faster meanwhile. No other is asked for twice. Whether
`best` is better than what was given is not for the search to say: see `is_better`.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Setting = Mapping[str, Any]
"""What differs from what was given: path -> value."""

_PATIENCE = 2  # steps one way that do not help, before the other way is tried


@dataclass(frozen=True)
class Knob:
    """Something to turn: its values in order, and which of them was given."""

    path: str
    values: tuple[Any, ...]
    given: int

    def __post_init__(self) -> None:
        if not 0 <= self.given < len(self.values):
            raise ValueError(f"{self.path}: value {self.given} of {len(self.values)}")


class Search:
    """One search. `gain`: how much better is better, as a share."""

    def __init__(self, knobs: Sequence[Knob], gain: float = 0.03) -> None:
        self._knobs = tuple(knobs)
        self._gain = gain
        self._best = tuple(knob.given for knob in knobs)
        self._score: float | None = None
        self._known: dict[tuple[int, ...], float | None] = {}
        self._walk = self._steps()
        self._asked: tuple[int, ...] | None = None
        self._over = False
        self._begun = False
        self._answer: float | None = None

    @property
    def best(self) -> Setting:
        """The best so far, as it differs from what was given."""
        return self._setting(self._best)

    @property
    def score(self) -> float | None:
        """Of the best, when it was measured last; None where nothing worked."""
        return self._score

    def next(self) -> Setting | None:
        """What to measure; None when no knob helps any more."""
        if self._asked is None and not self._over:
            try:
                if self._begun:
                    self._asked = self._walk.send(self._answer)
                else:
                    self._begun = True
                    self._asked = next(self._walk)
            except StopIteration:
                self._over = True
        return None if self._asked is None else self._setting(self._asked)

    def tell(self, score: float | None) -> None:
        """How the setting did that was asked for."""
        if self._asked is None:
            raise ValueError("nothing was asked for")
        self._answer, self._asked = score, None

    def _setting(self, at: tuple[int, ...]) -> Setting:
        return {
            knob.path: knob.values[i]
            for knob, i in zip(self._knobs, at, strict=True)
            if i != knob.given
        }

    def _steps(self) -> Generator[tuple[int, ...], float | None, None]:
        self._score = self._known[self._best] = yield self._best
        improved = True
        while improved:
            improved = False
            for number in range(len(self._knobs)):
                for way in (1, -1):
                    if (yield from self._turn(number, way)):
                        improved = True
                        break

    def _turn(self, number: int, way: int) -> Generator[tuple[int, ...], float | None, bool]:
        """Turn one knob one way for as long as that helps; whether it did."""
        helped, failures, at = False, 0, self._best[number]
        while failures < _PATIENCE and 0 <= (at := at + way) < len(self._knobs[number].values):
            there = (*self._best[:number], at, *self._best[number + 1 :])
            if there in self._known:
                failures += 1
                continue
            self._known[there] = score = yield there
            if self._is_better(score):
                self._score = yield self._best
                score = yield there
            if self._is_better(score):
                self._best, self._score = there, score
                helped, failures = True, 0
            else:
                failures += 1
        return helped

    def _is_better(self, score: float | None) -> bool:
        if score is None:
            return False
        return self._score is None or score > self._score * (1 + self._gain)


def is_better(given: Sequence[float], found: Sequence[float], gain: float = 0.01) -> bool:
    """Whether what was found is better than what was given, both measured alternately.

    It is where it was in two of three pairs at least, and by `gain` in the middle one.
    """
    pairs = list(zip(given, found, strict=True))
    if not pairs:
        return False
    wins = sum(b > a for a, b in pairs)
    ratio = median(b / a if a > 0 else (2.0 if b > 0 else 1.0) for a, b in pairs)
    return 3 * wins >= 2 * len(pairs) and ratio > 1 + gain
