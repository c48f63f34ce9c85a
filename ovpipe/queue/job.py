"""What the pool's state machine handles: jobs, slots, and places in the line."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any


class Job:
    """One inference that was asked for. `future` is None for one of start_async."""

    __slots__ = (
        "callback", "future", "inputs", "number", "outputs", "share", "then", "userdata",
    )  # fmt: skip

    def __init__(
        self,
        inputs: Any,
        *,
        userdata: Any = None,
        share: bool = False,
        outputs: Any = None,
        callback: Callable[[Any, Any], None] | None = None,
        then: Callable[[Any, Any, BaseException | None], object] | None = None,
        future: Future[Any] | None = None,
    ) -> None:
        self.inputs = inputs
        self.userdata = userdata
        self.share = share
        self.outputs = outputs
        self.callback = callback
        self.then = then
        self.future = future
        self.number = 0


class Slot:
    """One request and its present job; its thread waits at `start`.

    running: its inference was started. called_ns: when its callback began, 0 where none runs.
    """

    __slots__ = (
        "called_ns", "failed", "finished", "infer_ns", "job", "number", "ports", "running",
        "spare", "start", "started_ns", "thread",
    )  # fmt: skip

    def __init__(self, number: int, ports: Any, spare: bool) -> None:
        self.number = number
        self.ports = ports
        self.spare = spare
        self.start: SimpleQueue[None] = SimpleQueue()  # of C, unlike threading's semaphore
        self.job: Job | None = None
        self.running = False
        self.started_ns = 0
        self.called_ns = 0
        self.thread: threading.Thread
        # Statistics, written by the slot's own thread only.
        self.infer_ns = 0
        self.finished = 0
        self.failed = 0


Starts = list[tuple[Slot, Job]]
"""Jobs that stood in the line alone, and their slots: for whoever gets this to start."""


class Claim:
    """A place in the line. `gate` opens for the thread that stands there, if one does."""

    __slots__ = ("error", "gate", "inside", "job", "slot")

    def __init__(self, job: Job, thread: bool, inside: bool) -> None:
        self.job = job
        self.inside = inside
        self.slot: Slot | None = None
        self.error: BaseException | None = None
        self.gate = threading.Lock() if thread else None
        if self.gate is not None:
            self.gate.acquire()
