"""Who has which request, who waits for one, and what ended how: the pool's state machine.

    idle --take--> inferring --inference ends--> calling back --callback returns--> idle

Law: one lock guards it all. A slot is handed to one job at a time, in the order of asking, and
always comes back. At most `jobs` inferences are under way, and at most `jobs` callbacks run.

A callback holds its request, whose outputs it reads. The device is not left idle for a slow one:
where somebody waits and a callback has run for GRACE_S, a spare request takes the next job, and
that job's callback waits its turn. There are at most as many spares as jobs, made when first
needed; so callbacks that never keep up hold back the submitters, not the memory.

Nothing here knows OpenVINO, and nobody else's code runs with the lock held, but for `make`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from ovpipe.queue.job import Claim, Job, Slot, Starts

GRACE_S = 0.005
_LONGEST_SLICE_S = 0.064


class Slots:
    """The slots of one pool.

    make(number, spare): a slot, and its thread. start(slot, job): start the inference, or raise.
    `inside`, of many methods: called by a callback of this pool.
    """

    def __init__(
        self,
        jobs: int,
        make: Callable[[int, bool], Slot],
        start: Callable[[Slot, Job], None],
    ) -> None:
        self.jobs = jobs
        self.lock = threading.Lock()
        self.closed = False
        self.visible = [make(i, False) for i in range(jobs)]
        self.all = list(self.visible)
        self.busy = 0  # jobs that were accepted and have not ended
        self._make = make
        self._start = start
        self._idle = deque(self.visible)
        self._spares: list[Slot] = []
        self._line: deque[Claim] = deque()
        self._taken = 0
        self._calling = 0
        self._stuck = 0  # callbacks that stand in the line
        self._turns: list[int] = []  # numbers of the jobs whose callbacks wait for their turn
        self._turn = threading.Condition(self.lock)
        self._news = threading.Condition(self.lock)
        self._watchers = 0  # threads that wait for news
        self._errors: deque[BaseException] = deque()
        self._number = 0
        self._timer: threading.Timer | None = None

    # -- readings, without the lock -------------------------------------------------------

    @property
    def ready(self) -> bool:
        """True where a job would not have to wait."""
        return bool(self._idle) and not self._line and self.inferring < self.jobs

    @property
    def waiting(self) -> int:
        """Jobs in the line."""
        return len(self._line)

    @property
    def inferring(self) -> int:
        """Slots whose inference has not ended."""
        return self._taken - self._calling - len(self._turns)

    # -- asking ---------------------------------------------------------------------------

    def take(self, job: Job, timeout_s: float | None, inside: bool) -> Slot:
        """A slot for `job`; waits in the line for one.

        Raises TimeoutError, an error that nobody took yet, and RuntimeError where the pool is
        closed, or where only callbacks that stand here themselves could free a slot.
        """
        with self.lock:
            self._check(inside)
            if self.ready:
                self.busy += 1
                return self._hand(self._idle.popleft(), job)
            claim = Claim(job, True, inside)
            self._line.append(claim)
            self._stuck += inside
            starts = self._match(spares=inside)
        self.start_all(starts)
        try:
            return self._stand(claim, timeout_s)
        finally:
            if inside:
                with self.lock:
                    self._stuck -= 1

    def _stand(self, claim: Claim, timeout_s: float | None) -> Slot:
        assert claim.gate is not None
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        slice_s = 0.0 if claim.inside else GRACE_S
        while True:
            left = slice_s if deadline is None else min(slice_s, deadline - time.monotonic())
            if claim.gate.acquire(timeout=max(0.0, left)):
                break
            starts: Starts = []
            with self.lock:
                if claim.slot is None and claim.error is None:
                    starts = self._match(spares=claim.inside or self._slow())
                    self._give_up(claim, deadline, timeout_s)
            self.start_all(starts)
            slice_s = min(max(2 * slice_s, GRACE_S), _LONGEST_SLICE_S)
        if claim.error is not None:
            raise claim.error
        assert claim.slot is not None
        return claim.slot

    def _give_up(self, claim: Claim, deadline: float | None, timeout_s: float | None) -> None:
        """Raise where waiting is of no use any more."""
        if claim.slot is not None:
            return
        if claim.inside and self.inferring == 0 and self._calling == self._stuck:
            self._line.remove(claim)
            raise RuntimeError("no request is free, and every callback waits for one")
        if deadline is not None and time.monotonic() >= deadline:
            self._line.remove(claim)
            raise TimeoutError(f"no request was free within {timeout_s} s")

    def queue(self, job: Job, may_wait: bool) -> Starts | None:
        """Accept a job that has a future or a `then`; it waits in the line alone.

        None where it would have to wait and may not. Raises RuntimeError where closed.
        """
        with self.lock:
            if self.closed:
                raise _closed()
            if self.ready:
                self.busy += 1
                if job.future is not None:
                    job.future.set_running_or_notify_cancel()
                return [(self._hand(self._idle.popleft(), job), job)]
            if not may_wait:
                return None
            self.busy += 1
            self._line.append(Claim(job, False, False))
            self._arm()
            return []

    def wait_idle(self, timeout_s: float | None, inside: bool) -> int:
        """The number of a slot that is idle, which take() would give next."""
        with self.lock:
            self._check(inside)
            self._stuck += inside
            try:
                if inside and not self.ready and not self.inferring:
                    raise RuntimeError("no request is free, and this callback holds one")
                if not self._watch(
                    lambda: self.ready or self.closed or (self._errors and not inside), timeout_s
                ):
                    raise TimeoutError(f"no request was free within {timeout_s} s")
            finally:
                self._stuck -= inside
            self._check(inside)
            return self._idle[0].number

    def wait_all(self, timeout_s: float | None) -> None:
        """Until no job is left. Raises TimeoutError, or the first error nobody took yet."""
        with self.lock:
            if not self._watch(lambda: not self.busy, timeout_s):
                raise TimeoutError(f"{self.busy} jobs did not end within {timeout_s} s")
            if self._errors:
                raise self._errors.popleft()

    def _watch(self, condition: Callable[[], object], timeout_s: float | None) -> bool:
        self._watchers += 1
        try:
            return bool(self._news.wait_for(condition, timeout_s))
        finally:
            self._watchers -= 1

    def _check(self, inside: bool) -> None:
        if self._errors and not inside:
            raise self._errors.popleft()
        if self.closed:
            raise _closed()

    # -- what a slot's thread says, in this order -----------------------------------------

    def begin_call(self, slot: Slot, job: Job) -> None:
        """The inference has ended and its callback is next: wait for its turn."""
        with self.lock:
            self._turns.append(job.number)
            starts = self._call(slot, job) if self._may_call(job) else self._after_inference()
        self.start_all(starts)
        if slot.called_ns:
            return
        with self.lock:
            while not self._may_call(job):
                self._turn.wait()
            starts = self._call(slot, job)
        self.start_all(starts)

    def _may_call(self, job: Job) -> bool:
        return self.closed or (self._calling < self.jobs and min(self._turns) == job.number)

    def _call(self, slot: Slot, job: Job) -> Starts:
        self._turns.remove(job.number)
        self._calling += 1
        slot.called_ns = time.monotonic_ns()
        if self._turns:
            self._turn.notify_all()
        self._arm()
        return self._after_inference()

    def _after_inference(self) -> Starts:
        if self._watchers:
            self._news.notify_all()
        return self._match() if self._line else []

    def free(self, slot: Slot) -> None:
        """The slot's job needs it no longer."""
        self.start_all(self._free(slot))

    def _free(self, slot: Slot) -> Starts:
        with self.lock:
            slot.job = None
            slot.running = False
            if slot.called_ns:
                slot.called_ns = 0
                self._calling -= 1
                if self._turns:
                    self._turn.notify_all()
            self._taken -= 1
            (self._spares if slot.spare else self._idle).append(slot)
            if self.closed:
                slot.start.put(None)
            starts = self._match(spares=slot.spare) if self._line else []
            if self._watchers:
                self._news.notify_all()
        return starts

    def end(self) -> None:
        """A job has ended, and whatever it called has returned."""
        with self.lock:
            self.busy -= 1
            if not self.busy:
                self._news.notify_all()

    def fail(self, error: BaseException) -> None:
        """An error that is nobody's: for the first who waits, else for the next who asks."""
        with self.lock:
            for claim in self._line:
                if claim.gate is not None and not claim.inside:
                    self._line.remove(claim)
                    claim.error = error
                    claim.gate.release()
                    return
            self._errors.append(error)
            self._news.notify_all()

    def close(self) -> None:
        """No new jobs; those that wait in the line end: futures cancelled, the others told."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
            alone = []
            for claim in self._line:
                if claim.gate is None:
                    alone.append(claim.job)
                else:
                    claim.error = _closed()
                    claim.gate.release()
            self._line.clear()
            self._turn.notify_all()
            self._news.notify_all()
            for slot in self.all:
                slot.start.put(None)
        for job in alone:
            if job.future is None:
                self.reject(job, _closed())
            else:
                job.future.cancel()
                job.future.set_running_or_notify_cancel()
                self.end()

    def start_all(self, starts: Starts) -> None:
        """Start each job on its slot; one that cannot be started ends with what it raised."""
        pending = deque(starts)
        while pending:
            slot, job = pending.popleft()
            try:
                self._start(slot, job)
            except BaseException as error:  # noqa: BLE001 - belongs to the job
                pending.extend(self._free(slot))
                self.reject(job, error)

    def reject(self, job: Job, error: BaseException) -> None:
        """A job that waited alone was not started; it is told."""
        try:
            if job.future is not None:
                job.future.set_exception(error)
            elif job.then is not None:
                job.then(None, job.userdata, error)
        except BaseException as failure:  # noqa: BLE001 - of the user's code, handed on whole
            self.fail(failure)
        self.end()

    # -- matching, with the lock held -------------------------------------------------------

    def _hand(self, slot: Slot, job: Job) -> Slot:
        self._taken += 1
        self._number += 1
        job.number = self._number
        slot.job = job
        return slot

    def _match(self, spares: bool = False) -> Starts:
        """Give free slots to who stands first in the line."""
        starts: Starts = []
        while self._line and self.inferring < self.jobs:
            claim = self._line[0]
            future = claim.job.future if claim.gate is None else None
            if future is not None and future.cancelled():
                self._line.popleft()
                self.busy -= 1
                continue
            if self._idle:
                slot = self._idle.popleft()
            elif spares and (self._spares or len(self.all) < 2 * self.jobs):
                slot = self._spares.pop() if self._spares else self._one_more()
            else:
                break
            self._line.popleft()
            if claim.gate is not None:
                self.busy += 1
                claim.slot = self._hand(slot, claim.job)
                claim.gate.release()
            elif future is None or future.set_running_or_notify_cancel():
                starts.append((self._hand(slot, claim.job), claim.job))
            else:  # cancelled just now
                self.busy -= 1
                (self._spares if slot.spare else self._idle).append(slot)
        return starts

    def _one_more(self) -> Slot:
        slot = self._make(len(self.all), True)
        self.all.append(slot)
        return slot

    def _slow(self) -> bool:
        """True where some callback has run for longer than the grace."""
        before = time.monotonic_ns() - int(GRACE_S * 1e9)
        return any(0 < slot.called_ns <= before for slot in self.all)

    def _arm(self) -> None:
        """Who stands in the line alone cannot look at the clock: a timer does it for him."""
        if self._timer is None and self._calling and self._line and self._line[0].gate is None:
            self._timer = threading.Timer(2 * GRACE_S, self._relieve)
            self._timer.daemon = True
            self._timer.start()

    def _relieve(self) -> None:
        with self.lock:
            self._timer = None
            starts = self._match(spares=self._slow())
            self._arm()
        self.start_all(starts)


def _closed() -> RuntimeError:
    return RuntimeError("the queue is closed")
