"""Which frames of several inputs belong together: the sets of one stream, pure.

Law: sets end in the order of their keys, each once, complete or not. A set is complete when
each input has given to it. It is hopeless when an input that has not is already past it: what
an input gives comes in order. The first set ends as soon as it is either; `expire`, `end_with`
and `flush` end sets earlier, and always those before them too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


class TooLate(Exception):
    """The set that this would belong to has ended, or has one from this input already."""


@dataclass
class Match(Generic[T]):
    """What belongs together, by input. `since`: when the first part came."""

    key: int
    since: float
    parts: dict[str, T] = field(default_factory=dict)


class Matcher(Generic[T]):
    """The open sets of one stream. Keys of two inputs match where they differ by `tolerance`
    or less; of several sets the nearest is meant."""

    def __init__(self, inputs: Sequence[str], tolerance: int = 0) -> None:
        self.inputs = tuple(inputs)
        self._tolerance = tolerance
        self._open: list[Match[T]] = []  # by key
        self._past: dict[str, int] = {}  # the last key of each input
        self._ended: int | None = None  # the last key that has ended

    def put(self, source: str, key: int, part: T, now: float) -> list[Match[T]]:
        """Add what `source` gave; returns the sets that end by it. Raises TooLate."""
        near = [
            match
            for match in self._open
            if source not in match.parts and abs(match.key - key) <= self._tolerance
        ]
        if near:
            match = min(near, key=lambda match: abs(match.key - key))
        elif (self._ended is not None and key <= self._ended) or any(
            match.key == key for match in self._open
        ):
            raise TooLate
        else:
            match = Match(key, now)
            self._open.append(match)
            self._open.sort(key=lambda match: match.key)
        match.parts[source] = part
        self._past[source] = max(key, self._past.get(source, key))
        ready = 0
        while ready < len(self._open) and self._is_final(self._open[ready]):
            ready += 1
        return self._end(ready)

    def expire(self, since: float) -> list[Match[T]]:
        """End the sets that began at `since` or before."""
        return self._end_last(lambda match: match.since <= since)

    def oldest(self, source: str) -> Match[T] | None:
        """The first set that `source` has given to."""
        return next((match for match in self._open if source in match.parts), None)

    def end_with(self, match: Match[T]) -> list[Match[T]]:
        """End `match`."""
        return self._end_last(lambda other: other is match)

    def flush(self) -> list[Match[T]]:
        """End all."""
        return self._end(len(self._open))

    def complete(self, match: Match[T]) -> bool:
        """True where every input has given."""
        return len(match.parts) == len(self.inputs)

    def _is_final(self, match: Match[T]) -> bool:
        return self.complete(match) or any(
            self._past.get(source, match.key) > match.key + self._tolerance
            for source in self.inputs
            if source not in match.parts
        )

    def _end_last(self, which: Callable[[Match[T]], bool]) -> list[Match[T]]:
        last = max((i for i, match in enumerate(self._open) if which(match)), default=-1)
        return self._end(last + 1)

    def _end(self, count: int) -> list[Match[T]]:
        ended, self._open = self._open[:count], self._open[count:]
        if ended:
            self._ended = ended[-1].key
        return ended
