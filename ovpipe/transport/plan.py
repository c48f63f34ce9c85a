"""What a worker is told about the links around it: plain values that travel as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ovpipe.spec import WhenFull


@dataclass(frozen=True)
class Link:
    """One sender worker, of the stage `source` -> one receiver worker, as a part of `edge`.

    `records`: frames that may be in flight (depth + what the receiver works on at a time).
    `max_age_ns`: 0 = no limit. `when_full`: what the sender does without a credit.
    `resend`: the receiver may be restarted, so its sender keeps what was not taken yet.
    `wake_after`: how many frames the receiver ends before it wakes a sender that waits.
    `streams`: indices of those that may come along here. `by_call`: the receiver lives in the
    sender's process and is called with each frame.
    """

    index: int
    edge: int
    sender: int
    source: str
    receiver: int
    records: int
    when_full: WhenFull
    max_age_ns: int
    resend: bool
    wake_after: int
    streams: tuple[int, ...]
    by_call: bool = False

    @property
    def revocable(self) -> bool:
        """True where the sender may take back what was not taken yet."""
        return self.when_full == "drop_oldest"

    def to_json(self) -> dict[str, Any]:
        """As a plain dict."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Link:
        """From a plain dict; raises TypeError where it is none of ours."""
        return cls(**{**values, "streams": tuple(values["streams"])})
