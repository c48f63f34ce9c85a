"""Uplink: what is known of a broker that comes and goes, and when to try again. Pure.

    connecting  no attempt has come to its end yet
    connected   messages can be sent
    away        an attempt is under way after a failure, or the wait before the next
    denied      the broker refused who we are; tried again about once a minute
    closed      no more attempts

    begin    an attempt begins              connecting, away, denied; when it is due
    up       it has led to a connection     any with an attempt under way
    lost     it has failed, or the connection broke      the same, connected
    denied   the same, because of name or password       the same, connected
    hurry    nobody has time to wait        any; of no effect where one is under way, or denied
    close    no more                        any but closed

Law: an event that the state does not know raises UplinkError and changes nothing. There is never
more than one attempt under way, none before `connect_at_s`, and always a next one until `closed`.
Waits are those of `ovpipe.stages.waits`, from 1 s to 30 s. A broker that says how long it wants to
be left alone is left alone so long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ovpipe.stages.waits import Waits

State = Literal["connecting", "connected", "away", "denied", "closed"]


class UplinkError(Exception):
    """An event that cannot be in this state."""


@dataclass(frozen=True)
class Timing:
    """Seconds. `longest_asked_wait_s`: what a broker may ask for at most."""

    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    denied_wait_s: float = 60.0
    longest_asked_wait_s: float = 600.0


class Uplink:
    """The way to one broker. `random()` gives numbers from 0 to 1; times come with the events."""

    def __init__(
        self, now_s: float, random: Callable[[], float], timing: Timing | None = None
    ) -> None:
        self.timing = t = timing or Timing()
        self._waits = Waits(t.first_wait_s, t.longest_wait_s, t.denied_wait_s, random)
        self.state: State = "connecting"
        self.since_s = now_s
        self.why = "at the start"
        self.connect_at_s: float | None = now_s
        """When the next attempt is due; None while one is under way, connected, and closed."""

    def begin(self, now_s: float) -> None:
        """An attempt begins."""
        if self.connect_at_s is None or now_s < self.connect_at_s:
            raise UplinkError(f"no attempt is due while {self.state}")
        self.connect_at_s = None

    def up(self, now_s: float) -> None:
        """The attempt has led to a connection."""
        self._under_way("up")
        self._turn("connected", now_s, "it answers")

    def lost(self, now_s: float, why: str, asked_wait_s: float = 0.0) -> None:
        """The attempt failed, or the connection broke."""
        self._under_way("lost", "connected")
        if self.state == "connected":
            self._waits.lasted(now_s - self.since_s)
        asked_wait_s = min(asked_wait_s, self.timing.longest_asked_wait_s)
        self.connect_at_s = now_s + max(self._waits.after_loss(), asked_wait_s)
        self._turn("away", now_s, why)

    def denied(self, now_s: float, why: str) -> None:
        """The broker refused name or password."""
        self._under_way("denied", "connected")
        self.connect_at_s = now_s + self._waits.after_refusal()
        self._turn("denied", now_s, why)

    def hurry(self, now_s: float) -> None:
        """The next attempt is due now."""
        if self.connect_at_s is not None and self.state != "denied":
            self.connect_at_s = min(self.connect_at_s, now_s)

    def close(self, now_s: float) -> None:
        """No more attempts."""
        if self.state == "closed":
            raise UplinkError("closed twice")
        self.connect_at_s = None
        self._turn("closed", now_s, "at the end")

    def _under_way(self, event: str, *besides: State) -> None:
        attempt = self.connect_at_s is None and self.state not in ("connected", "closed")
        if not attempt and self.state not in besides:
            raise UplinkError(f"{event} while {self.state}, and no attempt is under way")

    def _turn(self, state: State, now_s: float, why: str) -> None:
        if state != self.state:
            self.since_s = now_s
        self.state, self.why = state, why
