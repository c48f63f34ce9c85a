"""Outbox: the thread that brings messages from a spool to a broker, as `Uplink` says when.

Law: a message leaves the spool when the broker has confirmed it, or has refused this one message
for good (`refused`, counted and told). After any other failure the connection is closed, a new one
made, and all that was not confirmed sent again, in order: at least once, with the same id. Nothing
that a client library raises gets out; what the spool raises is kept in `error`, for the stage.
Each change of the uplink's state is one line in the log, with the reason, and without a secret.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ovpipe.stages.spool import Message, Spool
from ovpipe.stages.uplink import Timing, Uplink

_TICK_S = 0.5
_TELL_REFUSED_S = 60.0
_MIN_CALL_S = 0.05
_GRACE_S = 2.0  # for a call of the client that ends late

Settled = Callable[[str], None]
"""Called for each message of a batch, in order: "" is confirmed, else why it was refused."""


class Away(Exception):
    """The broker is not there, or cannot take anything now. `wait_s`: how long it asked for."""

    def __init__(self, why: str, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class Denied(Exception):
    """The broker refuses who we are: only its owner, or ours, can change that."""


class Client(Protocol):
    """One kind of broker, used by one thread. Raises Away or Denied, or what its library raises."""

    batch: int
    """How many messages it sends at a time, at most."""

    def connect(self, timeout_s: float) -> None:
        """A new connection; what there was before is closed."""

    def send(self, messages: Sequence[Message], settled: Settled, timeout_s: float) -> None:
        """Send them, in order, and call `settled` for each, in order, once its fate is known."""

    def fault(self) -> str:
        """Why the connection is no more, as far as one can tell without sending; "" if it is."""

    def close(self) -> None:
        """Idempotent, also where nothing is connected."""


@dataclass(frozen=True)
class Counts:
    """What became of the messages. taken + found = confirmed + refused + dropped + waiting.

    found      were in the spool when it was opened
    taken      came from frames
    confirmed  the broker has them
    refused    the broker did not want this one message, ever
    dropped    given up for newer ones, as `when_full: drop_oldest` says
    waiting    still in the spool; lost at the end where that is in memory
    """

    found: int
    taken: int
    confirmed: int
    refused: int
    dropped: int
    waiting: int


class Outbox:
    """`shown`: the broker in the log. `secrets`: what must not be in there."""

    def __init__(
        self,
        spool: Spool,
        client: Client,
        *,
        stage: str,
        shown: str,
        secrets: Sequence[str] = (),
        timeout_s: float,
        timing: Timing | None = None,
    ) -> None:
        self.error: BaseException | None = None
        self._spool = spool
        self._client = client
        self._stage = stage
        self._shown = shown
        self._secrets = secrets
        self._timeout_s = timeout_s
        self._uplink = Uplink(time.monotonic(), random.random, timing)
        self._log = logging.getLogger(f"ovpipe.{stage}")
        self._taken = self._confirmed = self._refused = 0
        self._refused_told_s = float("-inf")
        self._told: tuple[str, str] | None = None
        self._news = threading.Event()
        self._closing = threading.Event()
        self._deadline_s = float("inf")
        self._patience_s = 0.0
        self._stopping: Callable[[], bool] = bool
        self._thread = threading.Thread(target=self._run, name=f"outbox-{stage}", daemon=True)

    @property
    def counts(self) -> Counts:
        """As they are now; between two steps of the thread they add up."""
        spool = self._spool
        return Counts(
            spool.found, self._taken, self._confirmed, self._refused, spool.dropped, len(spool)
        )

    @property
    def state(self) -> str:
        """Of the uplink, and why."""
        return f"{self._uplink.state}: {self._scrubbed(self._uplink.why)}"

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def put(self, message: Message) -> None:
        """Into the spool; raises what Spool.put raises, and what has ended the thread."""
        if self.error is not None:
            raise self.error
        self._spool.put(message)
        self._taken += 1
        self._news.set()

    def wait_for_room(self, body_bytes: int, timeout_s: float) -> bool:
        """Whether the spool has room for such a message, within the time."""
        return self._spool.wait_for_room(body_bytes, timeout_s)

    def close(
        self, deadline_s: float, patience_s: float = 0.0, stopping: Callable[[], bool] = bool
    ) -> Counts:
        """Send what can be sent until then (monotonic), and close all. The last counts.

        While the broker takes messages, and nobody is `stopping` the run, it is given another
        `patience_s` after each of them.
        """
        self._patience_s = patience_s
        self._stopping = stopping
        self._deadline_s = deadline_s
        self._closing.set()
        self._news.set()
        if self._thread.ident is not None:
            while self._thread.is_alive() and time.monotonic() < self._deadline_s + _GRACE_S:
                self._thread.join(_TICK_S)
        counts = self.counts
        self._spool.close()
        self._client.close()
        return counts

    # -- the thread ----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            hurried = False
            while True:
                if self._closing.is_set():
                    if not hurried:
                        hurried = True
                        self._uplink.hurry(time.monotonic())
                    if self._over():
                        break
                self._step()
                self._tell()
        except BaseException as error:  # noqa: BLE001 - it belongs to the stage, which raises it
            self.error = error

    def _over(self) -> bool:
        """Nothing is left to do, or can be done in time."""
        next_s = max(time.monotonic(), self._uplink.connect_at_s or 0.0)
        return not len(self._spool) or next_s >= self._deadline_s

    def _step(self) -> None:
        uplink, now = self._uplink, time.monotonic()
        if uplink.state == "connected":
            self._send()
        elif uplink.connect_at_s is None or now >= uplink.connect_at_s:
            uplink.begin(now)
            if self._try(lambda: self._client.connect(self._call_s())):
                uplink.up(time.monotonic())
        else:
            wait_s = min(uplink.connect_at_s, self._deadline_s) - now
            if self._closing.is_set():
                time.sleep(max(0.0, min(wait_s, _TICK_S)))
            else:
                self._closing.wait(wait_s)

    def _send(self) -> None:
        # Cleared before the spool is looked at: what comes after that sets it again.
        self._news.clear()
        messages = self._spool.take(self._client.batch)
        if not messages:
            if not self._closing.is_set() and not self._news.wait(_TICK_S):
                fault = self._client.fault()
                if fault:
                    self._lost(fault)
            return
        fates: list[str] = []
        self._try(lambda: self._client.send(messages, fates.append, self._call_s()))
        self._spool.done(len(fates))
        self._spool.put_back()
        if fates and self._closing.is_set() and not self._stopping():
            self._deadline_s = max(self._deadline_s, time.monotonic() + self._patience_s)
        refused = [why for why in fates if why]
        self._confirmed += len(fates) - len(refused)
        if refused:
            self._refused += len(refused)
            self._tell_refused(refused[-1])

    def _call_s(self) -> float:
        """How long a call of the client may take."""
        left_s = self._deadline_s - time.monotonic()
        return max(_MIN_CALL_S, min(self._timeout_s, left_s))

    def _try(self, call: Callable[[], None]) -> bool:
        try:
            call()
        except Denied as error:
            self._client.close()
            self._uplink.denied(time.monotonic(), str(error))
        except Away as error:
            self._lost(str(error), error.wait_s)
        except Exception as error:  # noqa: BLE001 - a library's own; what it means, it says itself
            self._lost(f"{type(error).__name__}: {error}")
        else:
            return True
        return False

    def _lost(self, why: str, wait_s: float = 0.0) -> None:
        self._client.close()
        self._uplink.lost(time.monotonic(), why, wait_s)

    # -- what is said --------------------------------------------------------------------

    def _tell(self) -> None:
        uplink = self._uplink
        told = uplink.state, uplink.why
        if told == self._told or uplink.state == "connecting":
            return
        first, self._told = self._told is None, told
        if uplink.state == "connected":
            # A broker that is there from the start is no news.
            level = logging.INFO if first else logging.WARNING
            self._log.log(
                level, "%s: connected to %s; %d messages wait",
                self._stage, self._shown, len(self._spool),
            )  # fmt: skip
            return
        now = time.monotonic()
        wait_s = max(0.0, (uplink.connect_at_s or now) - now)
        self._log.warning(
            "%s: broker %s: %s (%s); %d messages wait, %d dropped so far; next attempt in %.1f s",
            self._stage, uplink.state, self._scrubbed(uplink.why), self._shown,
            len(self._spool), self._spool.dropped, wait_s,
        )  # fmt: skip

    def _tell_refused(self, why: str) -> None:
        now = time.monotonic()
        if now - self._refused_told_s >= _TELL_REFUSED_S:
            self._refused_told_s = now
            self._log.warning(
                "%s: %s refused a message: %s; %d refused so far (told once a minute)",
                self._stage, self._shown, self._scrubbed(why), self._refused,
            )  # fmt: skip

    def _scrubbed(self, text: str) -> str:
        return " ".join(scrubbed(text, self._secrets).split())[:500]


def scrubbed(text: str, secrets: Sequence[str]) -> str:
    """The text without the secrets; of one that holds another, nothing is left over."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text
