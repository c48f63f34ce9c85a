"""One stage, run from open to close between the links that enter and leave it.

Law: each frame taken ends as exactly one outcome. What a stage raises reaches the supervisor
with its traceback. The end of a stream travels behind the stream's last frame. A frame's input
is finished after its outputs are claimed, so that a slot passed on is never seen free between.
Replicas keep results until it is their turn, and take other frames meanwhile.
A producer's frame has the number of frames of its stream that were claimed before it, so that
a successor knows where to go on.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ovpipe.errors import FrameError, OvpipeError, PipelineClosed, WireError
from ovpipe.frame import UNSET, Frame
from ovpipe.stages.base import AsyncTransform, Consumer, Producer, Result, Stage, Transform
from ovpipe.stages.facts import Facts
from ovpipe.stages.registry import stage_class
from ovpipe.transport import wire
from ovpipe.transport.lease import Lease
from ovpipe.transport.ledger import (
    CODE,
    DELIVERED,
    DRAINING,
    ENDED,
    IDLE,
    LOADING,
    W_BEAT,
    W_BUSY_NS,
    W_IDLE_NS,
    WORKING,
)
from ovpipe.transport.mail import Mail
from ovpipe.transport.member import Member
from ovpipe.transport.peers import Departed
from ovpipe.transport.receiver import Receiver
from ovpipe.transport.sender import Sender
from ovpipe.transport.turns import Turns
from ovpipe.worker.context import WorkerContext
from ovpipe.worker.jobs import Job, Submit, at_once
from ovpipe.worker.sweep import Sweep

if TYPE_CHECKING:
    from ovpipe.worker.guest import Guest

TICK_MS = 500
_TURN_MS = 20  # somebody else's frame may end without a word


class SourceEnded(OvpipeError):
    """A producer that is to be restarted always has no more frames."""


class Left(OvpipeError):
    """Another process is to take this one's place, as somebody asked for; nothing is in work."""


class Worker:
    """Runs one stage. `guests`: those that read it and live in its process.

    Whoever owns the process calls `open`, `ready`, `join`, `begin`, `work`, `leave`, `end`, and
    `close` in any case.
    """

    def __init__(self, member: Member) -> None:
        self.member = member
        self.guests: list[Guest] = []
        self.facts = Facts(lambda facts: member.say("facts", facts=facts))
        self.stream_index = {name: i for i, name in enumerate(member.streams)}
        self._words = member.shared.words
        self._me = member.shared.me
        self._seq: int = member.assignment["first_seq"]
        most: int = member.assignment["max_frames"]
        self._left = max(0, most - self._seq) if most else sys.maxsize
        self._stage: Stage | None = None
        self._sweep = Sweep(lambda: bool(len(member.roots) or self.guests))
        self._capacity = 1
        self._frame_bytes = 0
        self._thread = threading.get_ident()
        self.free_ns = 0  # since when it has nothing to do, for a guest
        self.receiver: Receiver
        self.sender: Sender
        self.mail: Mail
        self._turns: Turns | None = None

    def open(self) -> None:
        """Make the stage and open it."""
        assignment = self.member.assignment
        self.member.shared.set_state(LOADING, time.monotonic_ns())
        if sys.path[:1] != [assignment["folder"]]:
            sys.path.insert(0, assignment["folder"])
        stage = stage_class(assignment["kind"])(**assignment["options"])
        stage.bind(WorkerContext(self, assignment))
        self._stage = stage
        stage.open()
        if isinstance(stage, AsyncTransform):
            self._capacity = stage.capacity
        elif isinstance(stage, Transform):
            self._capacity += stage.frames_held
        elif isinstance(stage, Producer):
            self._frame_bytes = stage.frame_bytes

    def join(self, mail: Mail | None) -> None:
        """Wait until all stages of the run are open. `mail`: the host's, for a guest."""
        calls = {guest.member.index: guest.deliver for guest in self.guests}
        self.receiver, self.sender, own = self.member.wait_for_start(calls, self._pump)
        self.mail = own if mail is None else mail
        self._turns = self.member.turns

    def ready(self) -> None:
        """Say that the stage is open."""
        self.member.say("ready", capacity=self._capacity, frame_bytes=self._frame_bytes)

    def begin(self) -> None:
        """Before any frame: what the process before this one may have left undone."""
        self.free_ns = time.monotonic_ns()
        self.member.shared.set_state(IDLE, self.free_ns)
        for stream in self.receiver.over:
            self.sender.end_of_stream(stream)  # the one before may have died in saying it

    def work(self) -> None:
        """All frames, to the end of all streams. Raises whatever ends it early."""
        stage = self._stage
        if isinstance(stage, Producer):
            self._produce(stage)
        elif isinstance(stage, AsyncTransform):
            self._overlap(stage, stage.submit, self._capacity)
        elif isinstance(stage, Transform) and self._turns is not None:
            self._overlap(stage, at_once(stage), self._capacity)
        else:
            self._work()

    def leave(self) -> None:
        """Stay until what was sent was taken."""
        self.member.shared.set_state(DRAINING, time.monotonic_ns())
        self.sender.linger()

    def close(self) -> None:
        """Close the stage, whatever it has come to, and let go of what it keeps."""
        stage, self._stage = self._stage, None
        if stage is not None:
            stage.close()
            del stage
            self._sweep.end()

    def end(self) -> None:
        """All is done."""
        self.member.shared.set_state(ENDED, time.monotonic_ns())

    # -- those that live here, too ------------------------------------------------------

    def at_turn(self, state: int) -> None:
        """The stage is at a turn of a wait (IDLE), or of work that gives no frame (WORKING)."""
        self.member.shared.set_state(state, time.monotonic_ns())
        self.facts.catch_up()
        if self.guests and threading.get_ident() == self._thread:
            self._attend_guests()

    def _attend_guests(self) -> None:
        for guest in self.guests:
            guest.attend(self.sender)

    def _pump(self, timeout_ms: int) -> None:
        """While this one waits for a credit: keep what comes, and see to the guests."""
        self._look_up()
        self.mail.pump(timeout_ms)
        self._attend_guests()

    # -- the three loops ----------------------------------------------------------------

    def _produce(self, stage: Producer) -> None:
        member = self.member
        stream = stage.context.stream
        index = self.stream_index[stream]
        first = self._seq
        frames = iter(stage.frames())
        words, me = self._words, self._me
        while not (member.draining or member.leaving) and self._left:
            self._look_up()
            began, cpu = time.monotonic_ns(), time.process_time_ns()
            member.shared.set_state(WORKING, began)
            frame = next(frames, None)
            if frame is None or not self._left:  # it may have counted the last ones as failed
                break
            now = time.monotonic_ns()
            # Part of that may be a wait for the time of a frame, or for a camera.
            busy = min(now - began, time.process_time_ns() - cpu)
            words[me + W_BUSY_NS] += busy
            words[me + W_IDLE_NS] += now - began - busy
            if frame.seq != UNSET and frame.seq < first:
                continue  # the process before this one has claimed it
            frame = frame.stamped(
                stream,
                self._seq if frame.seq == UNSET else frame.seq,
                now if frame.captured_ns == UNSET else frame.captured_ns,
            )
            self._seq = frame.seq + 1
            self._left -= 1
            self._publish(frame, index)
            self.sender.prepare()
            self._attend_guests()
            if self.facts.late:
                self.facts.catch_up()
        del frames
        if member.leaving and not member.draining and self._left:
            raise Left("between two frames")
        if member.assignment["endless"] and not member.draining and self._left:
            raise SourceEnded("its frames ended")
        self.sender.end_of_stream(index)

    def count_failed(self, stream: str, outcome: int, frames: int) -> None:
        """Frames that a producer lost: each takes a number."""
        frames = min(frames, self._left)
        self._seq += frames
        self._left -= frames
        self.sender.count_failed(self.stream_index[stream], outcome, frames)

    def _work(self) -> None:
        while not self.receiver.finished:
            if self.member.leaving:
                raise Left("between two frames")
            message = self._next()
            if message is not None:
                self._handle(message)
            elif isinstance(self._stage, Transform):
                self._publish_all(self._stage.tick())

    def _handle(self, message: wire.Message | Departed) -> None:
        assert self._stage is not None
        if isinstance(message, Departed) or message.kind == wire.EOS:
            for stream in self._ends(message):
                self._end_of_stream(self._stage, stream)
            return
        taken = self.receiver.take(message)
        if taken is not None:
            frame, lease = taken
            del taken  # or its views would keep the slot until the next frame
            self._one(self._stage, frame, lease)

    def _one(self, stage: Stage, frame: Frame, lease: Lease) -> None:
        began = time.monotonic_ns()
        self.member.shared.set_state(WORKING, began)
        outcome = DELIVERED
        try:
            if isinstance(stage, Consumer):
                stage.consume(frame)
                self._words[self._me + W_BUSY_NS] += time.monotonic_ns() - began
            elif isinstance(stage, Transform):
                result = stage.process(frame)
                self._words[self._me + W_BUSY_NS] += time.monotonic_ns() - began
                self._publish_all(result, frame)
        except FrameError as error:
            outcome = CODE.get(error.reason, CODE["infer_error"])
        del frame
        lease.finish(outcome)

    def _overlap(self, stage: Transform | AsyncTransform, submit: Submit, capacity: int) -> None:
        """Keep up to `capacity` frames in work; let results out in the order of their stream."""
        pending: dict[int, deque[Job]] = {}
        turns = self._turns
        message: wire.Message | Departed | None = None

        def done(job: Job) -> None:
            job.done = True
            self.member.inbox.nudge()

        def leaves(job: Job) -> bool:
            return job.done and all(turns is None or turns.has_come(t) for t in job.turns)

        while True:
            unfinished = 0
            if turns is not None:
                turns.waiting(any(jobs[0].done for jobs in pending.values()))
            for stream, jobs in list(pending.items()):
                while jobs and leaves(jobs[0]):
                    job = jobs.popleft()
                    if job.frame is None:
                        self._end_of_stream(stage, stream)
                    else:
                        self._finish(job)
                if not jobs:
                    del pending[stream]
                elif turns is None:
                    unfinished += sum(job.frame is not None for job in jobs)
                else:  # what only waits for its turn must not keep out the frame that has it
                    unfinished += sum(not job.done for job in jobs)
            leaving = self.member.leaving  # nothing new, then; what waits is sent to a successor
            if message is not None and not leaving:
                if isinstance(message, Departed) or message.kind == wire.EOS:
                    for stream in self._ends(message):
                        last = turns.last(stream) if turns is not None else ()
                        pending.setdefault(stream, deque()).append(Job(None, None, last))
                else:
                    taken = self._take_job(message)
                    if taken is not None and self._submitted(taken, submit, done):
                        pending.setdefault(message.stream, deque()).append(taken)
                        unfinished += not taken.done or turns is None
                message = None
            if any(leaves(jobs[0]) for jobs in pending.values()):
                continue
            if not pending and self.receiver.finished:
                return
            if leaving and not pending:
                raise Left("between two frames")
            room = (
                unfinished < capacity
            )  # without it nothing is taken: the newest is, when it comes
            message = self._next(
                idle=all(job.done for jobs in pending.values() for job in jobs),
                starving=room,
                timeout_ms=TICK_MS if turns is None or not pending else _TURN_MS,
            )
            if message is None and room and isinstance(stage, Transform):
                self._publish_all(stage.tick())

    def _take_job(self, message: wire.Message) -> Job | None:
        taken = self.receiver.take(message)
        if taken is not None:
            if self._turns is None:
                return Job(*taken, ())
            turn = self._turns.of(message, self.receiver.ledger(message.link))
            return Job(*taken, (turn,))
        if self._turns is not None:
            self._turns.pass_on()  # it may have been too old
        return None

    def _submitted(self, job: Job, submit: Submit, done: Callable[[Job], None]) -> bool:
        """Start the work on a frame; False where the stage would not have it."""
        assert job.frame is not None
        assert job.lease is not None
        began = time.monotonic_ns()
        self.member.shared.set_state(WORKING, began)
        try:
            job.finish = submit(job.frame, lambda: done(job))
        except FrameError as error:
            job.frame = None
            self._ended(job, CODE.get(error.reason, CODE["infer_error"]))
            return False
        self._words[self._me + W_BUSY_NS] += time.monotonic_ns() - began
        return True

    def _ended(self, job: Job, outcome: int) -> None:
        """Everything that a frame gave is sent."""
        assert job.lease is not None
        if self._turns is not None:
            self._turns.pass_on(*job.turns)
        job.lease.finish(outcome)

    def _finish(self, job: Job) -> None:
        assert job.frame is not None
        assert job.lease is not None
        began = time.monotonic_ns()
        self.member.shared.set_state(WORKING, began)
        outcome = DELIVERED
        try:
            result = job.finish()
            self._words[self._me + W_BUSY_NS] += time.monotonic_ns() - began
            self._publish_all(result, job.frame)
            del result
        except FrameError as error:
            outcome = CODE.get(error.reason, CODE["infer_error"])
        job.frame = None
        job.finish = lambda: None
        self._ended(job, outcome)

    # -- frames out, messages in --------------------------------------------------------

    def _publish_all(self, result: Result, origin: Frame | None = None) -> None:
        """Send what a stage gave; `origin` fills in what its frames leave unset."""
        if result is None:
            return
        for frame in (result,) if isinstance(result, Frame) else result:
            if origin is not None and (frame.seq == UNSET or not frame.stream):
                frame = frame.stamped(
                    frame.stream or origin.stream,
                    origin.seq if frame.seq == UNSET else frame.seq,
                    origin.captured_ns,
                    origin.pts_ns,
                )
            if frame.seq == UNSET:
                raise OvpipeError("a frame of tick() or end_of_stream() must have a seq of its own")
            index = self.stream_index.get(frame.stream)
            if index is None:
                raise OvpipeError(
                    f"a frame of stream '{frame.stream}' came out, which no producer of this "
                    f"pipeline makes; streams are {', '.join(self.stream_index)}"
                )
            self._publish(frame, index)

    def _publish(self, frame: Frame, index: int) -> None:
        try:
            self.sender.publish(frame, index)
        except (FrameError, WireError):
            self.sender.count_failed(index, CODE["malformed"])

    def _next(
        self, idle: bool = True, starving: bool = True, timeout_ms: int = TICK_MS
    ) -> wire.Message | Departed | None:
        """What has come in, in order; None after a nudge or a while."""
        self._look_up()
        self.sender.sync()
        self._attend_guests()
        if self.mail and starving:
            return self.mail.next(0)
        self.sender.prepare()
        if self.facts.late:
            self.facts.catch_up()
        began = time.monotonic_ns()
        self._words[self._me + W_BEAT] += 1
        if idle:
            self.member.shared.set_state(IDLE, began)
            timeout_ms = self._sweep.patience_ms(timeout_ms)
        # With frames at hand that there is no room for, it waits for its own work, not for frames.
        at_hand = bool(self.mail)
        message = self.mail.next(timeout_ms, starving)
        now = time.monotonic_ns()
        self._words[self._me + (W_BUSY_NS if at_hand else W_IDLE_NS)] += now - began
        self._sweep.waited(message is not None or not idle, now)
        return message

    def _look_up(self) -> None:
        """Raises PipelineClosed where the supervisor does not want it to go on any more.

        A process would have ended by then; a thread has to see for itself.
        """
        if self.member.lost:
            raise PipelineClosed("the supervisor is gone")

    def _ends(self, message: wire.Message | Departed) -> list[int]:
        """The streams that have ended with a message, or a death."""
        if isinstance(message, Departed):
            return self.receiver.bury(message)
        return self.receiver.ended(message)

    def _end_of_stream(self, stage: Stage, stream: int) -> None:
        self.member.shared.set_state(WORKING, time.monotonic_ns())
        if isinstance(stage, Consumer):
            stage.end_of_stream(self.member.streams[stream])
        elif isinstance(stage, Transform):
            self._publish_all(stage.end_of_stream(self.member.streams[stream]))
        self.sender.end_of_stream(stream)
        self.receiver.close_stream(stream)
