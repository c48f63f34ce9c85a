"""When a worker that died gets a successor. Pure: deaths and the time in, a decision out.

    always      also after a producer's frames have ended
    on-failure  after every death before the work was done
    never       the first death ends the run

The first restart comes after 0.1 s, each further one of the same trouble after twice the time, up
to 30 s, and up to a quarter more by chance, so that stages that fail together do not start
together. A death is forgotten `within_s` after it happened, unless no process of the worker has
become ready since: a worker that never comes to work does not try for ever, however long each
attempt takes.

Law: there are never more than `max_restarts` restarts for deaths that are not forgotten. Whoever
gives up names the first of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 30.0
JITTER = 0.25

Cause = TypeVar("Cause")
When = Literal["always", "on-failure", "never"]


@dataclass(frozen=True)
class Policy:
    """The `run:` keys that say it."""

    restart: When
    max_restarts: int
    within_s: float


@dataclass(frozen=True)
class Again:
    """Start a successor after `delay_s`: restart `number` of at most `of`."""

    delay_s: float
    number: int
    of: int


@dataclass(frozen=True)
class GiveUp(Generic[Cause]):
    """No successor. `restarts` were tried in vain since `cause`."""

    cause: Cause
    restarts: int


class Restarts(Generic[Cause]):
    """The deaths of one worker. `now_s`: any clock that never goes back."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._deaths: list[tuple[float, Cause]] = []
        self._ready_s = -1.0

    def ready(self, now_s: float) -> None:
        """A process of the worker has come to work."""
        self._ready_s = now_s

    def died(
        self, now_s: float, cause: Cause, *, permanent: bool = False, chance: float = 0.0
    ) -> Again | GiveUp[Cause]:
        """A process of the worker is dead. `permanent`: another one would die of the same.

        `chance`: a random number from 0 to 1.
        """
        self._deaths = [
            (at, why)
            for at, why in self._deaths
            if at > now_s - self.policy.within_s or at > self._ready_s
        ]
        tried = len(self._deaths)
        self._deaths.append((now_s, cause))
        if permanent:
            return GiveUp(cause, tried)
        if self.policy.restart == "never" or tried >= self.policy.max_restarts:
            return GiveUp(self._deaths[0][1], tried)
        delay_s = min(FIRST_DELAY_S * 2.0 ** min(tried, 20), LONGEST_DELAY_S)
        return Again(delay_s * (1 + JITTER * chance), tried + 1, self.policy.max_restarts)
