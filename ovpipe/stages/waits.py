"""Waits: how long to leave alone what comes and goes, a camera or a server. Pure.

Law: waits double from the first to the longest, for ever, and begin anew once a connection has
lasted longer than the wait before it. Each is shortened at random, by a quarter at most, so that
those who lost something together do not come back together. Who was refused waits the same long
time always, or up to a quarter more.
"""

from __future__ import annotations

from collections.abc import Callable

_SPREAD = 0.25


class Waits:
    """Seconds, all of them. `random()` gives numbers from 0 to 1."""

    def __init__(
        self, first_s: float, longest_s: float, denied_s: float, random: Callable[[], float]
    ) -> None:
        self._first_s, self._longest_s, self._denied_s = first_s, longest_s, denied_s
        self._random = random
        self._wait_s = 0.0

    def lasted(self, seconds: float) -> None:
        """A connection has, for so long."""
        if seconds > self._wait_s:
            self._wait_s = 0.0

    def after_loss(self) -> float:
        """How long to wait after an attempt that failed, or a connection that broke."""
        self._wait_s = min(2 * self._wait_s, self._longest_s) or self._first_s
        return self._wait_s * (1 - _SPREAD * self._random())

    def after_refusal(self) -> float:
        """How long to wait after name or password was refused."""
        return self._denied_s * (1 + _SPREAD * self._random())
