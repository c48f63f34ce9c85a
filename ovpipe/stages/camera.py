"""Camera: what is known of a source that comes and goes, and when to try again. Pure.

    connecting    no frame has come yet: an attempt is under way, or the wait before the next
    streaming     frames come
    stalled       connected, and silent for too long; what is connected is to be closed
    reconnecting  frames came once: an attempt is under way, or the wait before the next
    auth_failed   the source refused name or password; tried again once a minute at most
    ended         for ever, by the wish of the user or because the source has an end

    begin    an attempt to connect begins       connecting, reconnecting, auth_failed
    frame    a frame has come                   any of these with an attempt under way
    look     time passes: silence is a stall    any
    lost     what was connected is closed       any with an attempt under way, stalled
    denied   the same, because of the password  the same
    end      no more                            any but ended

Law: an event that the state does not know raises CameraError and changes nothing. There is never
more than one attempt under way, none before `connect_at_s`, and always a next one until `ended`.
Waits are those of `ovpipe.stages.waits`, from 1 s to 30 s; the first attempt comes after a random
part of a second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ovpipe.stages.waits import Waits

State = Literal["connecting", "streaming", "stalled", "reconnecting", "auth_failed", "ended"]


class CameraError(Exception):
    """An event that cannot be in this state."""


@dataclass(frozen=True)
class Timing:
    """Seconds. `patience_s`: how long an attempt may take to its first frame."""

    silence_s: float = 5.0
    patience_s: float = 15.0
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    denied_wait_s: float = 60.0
    spread_s: float = 0.5


class Camera:
    """One camera. `random()` gives numbers from 0 to 1; the time comes in with each event."""

    def __init__(
        self, now_s: float, random: Callable[[], float], timing: Timing | None = None
    ) -> None:
        self.timing = t = timing or Timing()
        self._waits = Waits(t.first_wait_s, t.longest_wait_s, t.denied_wait_s, random)
        self.state: State = "connecting"
        self.since_s = now_s
        self.why = "at the start"
        self.attempts = 0
        """How many attempts to connect have begun."""
        self.connect_at_s: float | None = now_s + random() * self.timing.spread_s
        """When the next attempt is due; None while one is under way, and at the end."""
        self._sign_s = now_s
        self._seen = False

    @property
    def connected(self) -> bool:
        """Whether an attempt is under way or has led to frames."""
        return self.connect_at_s is None and self.state != "ended"

    def begin(self, now_s: float) -> None:
        """An attempt begins."""
        if self.connect_at_s is None or now_s < self.connect_at_s:
            raise CameraError(f"no attempt is due while {self.state}")
        self.connect_at_s = None
        self.attempts += 1
        self._sign_s = now_s

    def frame(self, now_s: float) -> None:
        """A frame has come."""
        if not self.connected or self.state == "stalled":
            raise CameraError(f"a frame while {self.state}, and not connected")
        self._sign_s = now_s
        self._seen = True
        if self.state != "streaming":
            self._turn("streaming", now_s, "frames come")

    def look(self, now_s: float) -> None:
        """Time passes; a connection that is silent for too long is stalled."""
        if not self.connected or self.state == "stalled":
            return
        streaming = self.state == "streaming"
        limit_s = self.timing.silence_s if streaming else self.timing.patience_s
        if now_s - self._sign_s >= limit_s:
            self._lasted(now_s)
            self._turn("stalled", now_s, f"no frame for {limit_s:g} s")

    def lost(self, now_s: float, why: str) -> None:
        """What was connected is closed, or could not be."""
        self._closed("lost", now_s)
        self.connect_at_s = now_s + self._waits.after_loss()
        self._turn("reconnecting" if self._seen else "connecting", now_s, why)

    def denied(self, now_s: float, why: str) -> None:
        """The source refused name or password."""
        self._closed("denied", now_s)
        self.connect_at_s = now_s + self._waits.after_refusal()
        self._turn("auth_failed", now_s, why)

    def end(self, now_s: float, why: str) -> None:
        """No more frames, no more attempts."""
        if self.state == "ended":
            raise CameraError("ended twice")
        self.connect_at_s = None
        self._turn("ended", now_s, why)

    def _closed(self, event: str, now_s: float) -> None:
        if not self.connected:
            raise CameraError(f"{event} while {self.state}, and not connected")
        self._lasted(now_s)

    def _lasted(self, now_s: float) -> None:
        if self.state == "streaming":
            self._waits.lasted(now_s - self.since_s)

    def _turn(self, state: State, now_s: float, why: str) -> None:
        if state != self.state:
            self.since_s = now_s
        self.state, self.why = state, why
