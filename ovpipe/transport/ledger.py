"""The ledger: memory in which each frame in flight stands, and the counters it ends in.

Memory map. One sealed memfd per run, made by the supervisor, mapped by every worker, read and
written as aligned 64-bit words:

    worker blocks   WORKER_WORDS each: state, heartbeat, metrics (see `W_*`)
    link blocks     one per link (sender worker -> receiver worker):
        step number, journal (two addresses, two values), taken, ...    LINK_HEADER words
        records     MAX_RECORDS x RECORD_WORDS: one per frame that may be in flight
        rows        one per stream: claimed, one counter per outcome, and whether its
                    receiver is through with the whole stream
    ages            a histogram per link and stream (ages.py), written by the receiver alone;
                    no part of the law

States of a record, and who may store the next one:

    FREE --sender--> INFLIGHT --receiver--> HELD --receiver--> DONE(outcome) --accountant--> FREE
                         \\--receiver (stale) ------------------^
                         \\--sender, holding the token (drop_oldest): straight to FREE, counted

Law: per link and stream, claimed = sum of the outcome counters + records that are not FREE,
at every reading, also after SIGKILL of any process between any two stores. It holds because
each change that touches two words (a counter and a record, or two counters) is a step: written
to the journal first, announced by an odd step number, applied, closed by an even one. A step
found open after its writer has died is applied again: it stores values, not differences, so
doing it twice is doing it once. Receivers store one word only and never change a sum.

The accountant of a link is its sender; after the sender's proven death, the supervisor.
A generation in each record counts its uses, so that a late message or release is harmless.

A FREE record's outcome byte says how the frame before ended, for whoever asks about that one.
A HELD record's outcome byte is PASSED once a replica has sent on what the frame gave: it then
stands in nobody's way, though its slot may still be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from ovpipe.transport.ages import BUCKETS

DELIVERED = 0
DROPPED = ("no_slot", "queue_full", "stale", "policy_skip", "paused", "draining")
FAILED = (
    "stage_crash",
    "stage_hang",
    "lost_in_transit",
    "malformed",
    "shape_changed",
    "decode_error",
    "infer_error",
    "nan_output",
    "link_lost",
    "drain_timeout",
    "disk_full",
)
OUTCOMES = ("delivered", *DROPPED, *FAILED)
"""The closed list of how a frame ends on a link; its index is the outcome's code."""
CODE = {name: code for code, name in enumerate(OUTCOMES)}

FREE, INFLIGHT, HELD, DONE = range(4)
PASSED = 1

# A record's first word: generation << 16 | outcome << 8 | state.
RECORD_WORDS = 16
R_STATE, R_STREAM, R_SEQ, R_SINCE, R_TOKEN, R_EPOCH, R_NREFS, R_REFS = range(8)
MAX_REFS = RECORD_WORDS - R_REFS
"""Arrays per frame at most (image and others together)."""
MAX_RECORDS = 256

LINK_HEADER = 8
L_ADDRESS_0, L_VALUE_0, L_ADDRESS_1, L_VALUE_1, L_TAKEN, L_WAKE = range(1, 7)  # 0: the step number
ROW_ENDED = 1 + len(OUTCOMES)
ROW_WORDS = ROW_ENDED + 1

WORKER_WORDS = 16
(
    W_STATE,
    W_SINCE,
    W_WAITING,
    W_FRAMES_IN,
    W_FRAMES_OUT,
    W_BUSY_NS,
    W_BLOCKED_NS,
    W_IDLE_NS,
    W_MALFORMED,
    W_AGE_NS,
    W_BEAT,
    W_RESTARTS,
    W_TURN,
) = range(13)
"""Words of a worker block. W_WAITING: 1 + the link that the worker waits for a credit of, or 0.
W_AGE_NS: capture-to-here age of the last frame. W_BEAT: changes at each turn of a wait.
W_TURN: 1 where a replica has results that may not go out before those of another."""

STARTING, LOADING, IDLE, WORKING, BLOCKED_OUT, DRAINING, ENDED, AWAY = range(8)
PROGRESS = ("starting", "loading", "idle", "working", "blocked", "draining", "ended", "away")
"""What a worker does; AWAY is the supervisor's word for one that waits for its restart."""

Words: TypeAlias = "memoryview[int]"
"""The mapped memory, cast to "Q"."""


@dataclass(frozen=True)
class Layout:
    """Where things stand in the ledger, from three numbers."""

    workers: int
    links: int
    streams: int

    @property
    def link_words(self) -> int:
        """Words of one link block."""
        return LINK_HEADER + MAX_RECORDS * RECORD_WORDS + self.streams * ROW_WORDS

    @property
    def words(self) -> int:
        """Words of the whole ledger."""
        return self.ages(self.links)

    def worker(self, index: int) -> int:
        """Address of a worker block."""
        return index * WORKER_WORDS

    def link(self, index: int) -> int:
        """Address of a link block."""
        return self.workers * WORKER_WORDS + index * self.link_words

    def ages(self, link: int) -> int:
        """Address of the histograms of a link, one per stream."""
        return self.link(self.links) + link * self.streams * BUCKETS


@dataclass(frozen=True)
class Row:
    """A consistent reading of one link and stream; `claimed` equals the sum of the rest."""

    claimed: int
    delivered: int
    dropped: dict[str, int]
    failed: dict[str, int]
    in_flight: int

    @property
    def balanced(self) -> bool:
        """The law, for this row."""
        ended = self.delivered + sum(self.dropped.values()) + sum(self.failed.values())
        return self.claimed == ended + self.in_flight


class LinkLedger:
    """One link block: the accountant's steps and the receiver's stores."""

    def __init__(self, words: Words, layout: Layout, index: int) -> None:
        self.words = words
        self.base = layout.link(index)
        self.streams = layout.streams
        self.records = self.base + LINK_HEADER
        self._rows = self.records + MAX_RECORDS * RECORD_WORDS
        self._ages = layout.ages(index)

    # -- steps: only the accountant ------------------------------------------------------

    def _step(self, address_0: int, value_0: int, address_1: int, value_1: int) -> None:
        words, base = self.words, self.base
        words[base + L_ADDRESS_0] = address_0
        words[base + L_VALUE_0] = value_0
        words[base + L_ADDRESS_1] = address_1
        words[base + L_VALUE_1] = value_1
        number = words[base]
        words[base] = number + 1
        words[address_0] = value_0
        words[address_1] = value_1
        words[base] = number + 2

    def repair(self) -> None:
        """Finish the step in which the accountant died, if it did."""
        words, base = self.words, self.base
        if words[base] & 1:
            words[words[base + L_ADDRESS_0]] = words[base + L_VALUE_0]
            words[words[base + L_ADDRESS_1]] = words[base + L_VALUE_1]
            words[base] += 1

    def claim(
        self, record: int, stream: int, seq: int, refs: list[int], now_ns: int, epoch: int = 0
    ) -> int:
        """Put a frame into a FREE record; returns its generation. Claimed goes up by one.

        `epoch`: which process of the sender this is, of those that held its place.
        """
        words = self.words
        at = self.records + record * RECORD_WORDS
        generation = (words[at] >> 16) + 1
        words[at + R_STREAM] = stream
        words[at + R_SEQ] = seq
        words[at + R_SINCE] = now_ns
        words[at + R_EPOCH] = epoch
        words[at + R_NREFS] = len(refs)
        for i, ref in enumerate(refs, at + R_REFS):
            words[i] = ref
        row = self._rows + stream * ROW_WORDS
        self._step(row, words[row] + 1, at, generation << 16 | INFLIGHT)
        return generation

    def settle(self, record: int, outcome: int) -> None:
        """Count a record that ended, and free it; how it ended stays there until it is used."""
        words = self.words
        at = self.records + record * RECORD_WORDS
        counter = self._rows + words[at + R_STREAM] * ROW_WORDS + 1 + outcome
        free = words[at] >> 16 << 16 | outcome << 8 | FREE
        self._step(counter, words[counter] + 1, at, free)

    def refuse(self, stream: int, outcome: int) -> None:
        """Claim a frame and count it as ended at once: it never got a record."""
        row = self._rows + stream * ROW_WORDS
        counter = row + 1 + outcome
        self._step(row, self.words[row] + 1, counter, self.words[counter] + 1)

    def collect(self, used: list[int]) -> list[int]:
        """Settle the records of `used` that are DONE, remove them from it, and return them."""
        words, first = self.words, self.records
        done = [r for r in used if words[first + r * RECORD_WORDS] & 0xFF == DONE]
        for record in done:
            self.settle(record, words[first + record * RECORD_WORDS] >> 8 & 0xFF)
            used.remove(record)
        return done

    # -- single stores: only the receiver (or the supervisor, for a dead one) -------------

    def hold(self, record: int, generation: int) -> None:
        """INFLIGHT -> HELD."""
        self.words[self.records + record * RECORD_WORDS] = generation << 16 | HELD

    def pass_on(self, record: int, generation: int) -> None:
        """HELD, and what it gave is sent."""
        at = self.records + record * RECORD_WORDS
        self.words[at] = generation << 16 | PASSED << 8 | HELD

    def finish(self, record: int, generation: int, outcome: int) -> None:
        """INFLIGHT or HELD -> DONE(outcome)."""
        self.words[self.records + record * RECORD_WORDS] = generation << 16 | outcome << 8 | DONE

    def is_inflight(self, record: int, generation: int) -> bool:
        """True where the record still is the frame that a message speaks of, and not taken."""
        at = self.records + record * RECORD_WORDS
        return self.words[at] == generation << 16 | INFLIGHT

    def lose(self, records: int, epoch: int, outcome: int) -> int:
        """End the INFLIGHT frames that a sender claimed in `epoch` or before; how many.

        Only for a receiver, once it has all of their messages that will ever come. No token is
        asked for: a sender leaves alone what was claimed before it came.
        """
        words, count = self.words, 0
        for record in range(records):
            at = self.records + record * RECORD_WORDS
            if words[at] & 0xFF == INFLIGHT and words[at + R_EPOCH] <= epoch:
                self.finish(record, words[at] >> 16, outcome)
                count += 1
        return count

    def count_age(self, stream: int, bucket: int) -> None:
        """A frame was taken whose age falls into that bucket."""
        self.words[self._ages + stream * BUCKETS + bucket] += 1

    def set_ended(self, stream: int) -> None:
        """The receiver is through with the whole stream, and has passed its end on."""
        self.words[self._rows + stream * ROW_WORDS + ROW_ENDED] = 1

    def has_ended(self, stream: int) -> bool:
        """Whether the receiver, or one before it, was through with the whole stream."""
        return bool(self.words[self._rows + stream * ROW_WORDS + ROW_ENDED])

    def token(self, record: int) -> int:
        """Address, in bytes, of the word that arbitrates between taking and revoking."""
        return (self.records + record * RECORD_WORDS + R_TOKEN) * 8

    def abandon(
        self,
        inflight: int | None,
        held: int | None,
        may: Callable[[int], bool] | None = None,
    ) -> int:
        """End the frames of a link whose receiver is gone; returns how many.

        `inflight`, `held`: the outcomes of those that were not taken and of those that were;
        None leaves them. `may(record)`: asked for each that was not taken, where the sender
        still lives and could be dropping it at this moment; True gives it to us alone.
        """
        words, count = self.words, 0
        for record in range(MAX_RECORDS):
            at = self.records + record * RECORD_WORDS
            state = words[at] & 0xFF
            outcome = {INFLIGHT: inflight, HELD: held}.get(state)
            if outcome is None or (state == INFLIGHT and may is not None and not may(record)):
                continue
            words[at] = words[at] >> 16 << 16 | outcome << 8 | DONE
            count += 1
        return count

    # -- readings: anybody ----------------------------------------------------------------

    def ages(self, stream: int) -> list[int]:
        """The histogram of a stream."""
        at = self._ages + stream * BUCKETS
        return list(self.words[at : at + BUCKETS])

    def claimed(self, stream: int) -> int:
        """How many frames of a stream were ever claimed."""
        return self.words[self._rows + stream * ROW_WORDS]

    def in_use(self, records: int) -> list[int]:
        """The records that are not FREE, oldest first."""
        words, first = self.words, self.records
        used = [r for r in range(records) if words[first + r * RECORD_WORDS] & 0xFF != FREE]
        return sorted(used, key=lambda r: words[first + r * RECORD_WORDS + R_SINCE])

    def since(self, record: int) -> int:
        """When the frame in a record was claimed, monotonic ns: earlier frames come first."""
        return self.words[self.records + record * RECORD_WORDS + R_SINCE]

    def waits_before(self, records: int, stream: int, since_ns: float, inflight_only: bool) -> bool:
        """Whether a frame of `stream` claimed before `since_ns` is still on its way here.

        That is: not taken yet or, unless `inflight_only`, what it gives was not sent on.
        """
        words, first = self.words, self.records
        for at in range(first, first + records * RECORD_WORDS, RECORD_WORDS):
            state = words[at] & 0xFFFF
            if (
                (state == INFLIGHT or (state == HELD and not inflight_only))
                and words[at + R_STREAM] == stream
                and words[at + R_SINCE] < since_ns
            ):
                return True
        return False

    def live_refs(self, records: int) -> Iterator[int]:
        """The refs of all frames that somebody may still read; `records` in use on this link."""
        words, first = self.words, self.records
        for at in range(first, first + records * RECORD_WORDS, RECORD_WORDS):
            if words[at] & 0xFF in (INFLIGHT, HELD):
                for ref in range(at + R_REFS, at + R_REFS + words[at + R_NREFS]):
                    yield words[ref]

    def flying(self, records: int, stream: int) -> Iterator[int]:
        """The seqs of a stream's frames that have not ended here."""
        words, first = self.words, self.records
        for at in range(first, first + records * RECORD_WORDS, RECORD_WORDS):
            if words[at] & 0xFF in (INFLIGHT, HELD) and words[at + R_STREAM] == stream:
                yield words[at + R_SEQ]

    def ended(self, records: int, stream: int, seq: int) -> int | None:
        """How a frame ended here; None where it did not, or its record was used again."""
        words, first = self.words, self.records
        for at in range(first, first + records * RECORD_WORDS, RECORD_WORDS):
            word = words[at]
            if (
                word & 0xFF in (DONE, FREE)
                and (words[at + R_STREAM], words[at + R_SEQ]) == (stream, seq)
                and word >> 16  # it was used at all
            ):
                return word >> 8 & 0xFF
        return None

    def counted(self, stream: int) -> list[int]:
        """How many frames of a stream have ended here, by outcome."""
        row = self._rows + stream * ROW_WORDS
        return [self.words[row + 1 + i] for i in range(len(OUTCOMES))]

    def read(self, copy: Words) -> list[Row]:
        """A row per stream, from a consistent copy of this link's block."""
        first = LINK_HEADER
        rows_at = self._rows - self.base
        flying = [0] * self.streams
        ended = [[0] * len(OUTCOMES) for _ in range(self.streams)]
        for at in range(first, rows_at, RECORD_WORDS):
            word = copy[at]
            if word & 0xFF in (INFLIGHT, HELD):
                flying[copy[at + R_STREAM]] += 1
            elif word & 0xFF == DONE:  # ended, and about to be counted by the accountant
                ended[copy[at + R_STREAM]][word >> 8 & 0xFF] += 1
        rows = []
        for stream in range(self.streams):
            row = rows_at + stream * ROW_WORDS
            counts = [copy[row + 1 + i] + ended[stream][i] for i in range(len(OUTCOMES))]
            named = dict(zip(OUTCOMES, counts, strict=True))
            rows.append(
                Row(
                    claimed=copy[row],
                    delivered=counts[DELIVERED],
                    dropped={k: named[k] for k in DROPPED if named[k]},
                    failed={k: named[k] for k in FAILED if named[k]},
                    in_flight=flying[stream],
                )
            )
        return rows
