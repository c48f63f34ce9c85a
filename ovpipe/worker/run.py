"""One stage, run from open to close between the links that enter and leave it.

Law: each frame taken ends as exactly one outcome. What a stage raises reaches the supervisor
with its traceback. The end of a stream travels behind the stream's last frame. A frame's input
is finished after its outputs are claimed, so that a slot passed on is never seen free between.
Replicas keep results until it is their turn, and take other frames meanwhile.
A producer's frame has the number of frames of its stream that were claimed before it, so that
a successor knows where to go on.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from numpy.typing import DTypeLike, NDArray

from ovpipe.errors import FrameError, OvpipeError, PipelineClosed, PreflightError, WireError
from ovpipe.frame import UNSET, Frame
from ovpipe.stages.base import AsyncTransform, Consumer, Producer, Result, Stage, Transform
from ovpipe.stages.facts import Fact, Facts
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
from ovpipe.worker.ends import Left, SourceEnded
from ovpipe.worker.jobs import Job, Submit, at_once

_TICK_MS = 500
_TURN_MS = 20  # somebody else's frame may end without a word
_MAX_TRACEBACK = 16_000


class _Context:
    """What the stage sees of its worker (stages.base.Context)."""

    def __init__(self, worker: Worker, assignment: Mapping[str, Any]) -> None:
        self.stage: str = assignment["stage"]
        self.stream: str = assignment["stream"]
        self.run: str = assignment["run"]
        self.first_seq: int = assignment["first_seq"]
        inputs: dict[str, list[str]] = assignment["inputs"]
        self.inputs: Mapping[str, tuple[str, ...]] = {k: tuple(v) for k, v in inputs.items()}
        self._worker = worker

    @property
    def stopping(self) -> bool:
        return self._worker.member.draining or self._worker.member.leaving

    def loan(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        return self._worker.sender.loan(shape, dtype)

    def count_failed(self, reason: str, frames: int = 1, stream: str = "") -> None:
        self._worker.count_failed(stream or self.stream, CODE[reason], frames)

    def end_run(self, why: str) -> None:
        self._worker.member.say("enough", why=why)

    def waiting(self) -> None:
        self._worker.member.shared.set_state(IDLE, time.monotonic_ns())
        self._worker.facts.catch_up()

    def report(self, facts: Mapping[str, Fact | None]) -> None:
        self._worker.facts.report(facts)


class Worker:
    """Runs one stage from open to close."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.facts = Facts(lambda facts: member.say("facts", facts=facts))
        self.stream_index = {name: i for i, name in enumerate(member.streams)}
        self._words = member.shared.words
        self._me = member.shared.me
        self._seq: int = member.assignment["first_seq"]
        most: int = member.assignment["max_frames"]
        self._left = max(0, most - self._seq) if most else sys.maxsize
        self.receiver: Receiver
        self.sender: Sender
        self._mail: Mail
        self._turns: Turns | None = None

    def run(self) -> None:
        """The whole life of the stage. Raises whatever ends it early."""
        member, now = self.member, time.monotonic_ns
        member.shared.set_state(LOADING, now())
        stage = self._make()
        try:
            stage.open()
            capacity = 1
            if isinstance(stage, AsyncTransform):
                capacity = stage.capacity
            elif isinstance(stage, Transform):
                capacity += stage.frames_held
            frame_bytes = stage.frame_bytes if isinstance(stage, Producer) else 0
            member.say("ready", capacity=capacity, frame_bytes=frame_bytes)
            self.receiver, self.sender, self._mail = member.wait_for_start()
            self._turns = member.turns
            member.shared.set_state(IDLE, now())
            for stream in self.receiver.over:
                self.sender.end_of_stream(stream)  # the one before may have died in saying it
            if isinstance(stage, Producer):
                self._produce(stage)
            elif isinstance(stage, AsyncTransform):
                self._overlap(stage, stage.submit, capacity)
            elif isinstance(stage, Transform) and self._turns is not None:
                self._overlap(stage, at_once(stage), capacity)
            else:
                self._work(stage)
            member.shared.set_state(DRAINING, now())
            self.sender.linger()
        except BaseException:
            with suppress(Exception):  # the first cause is the one to tell
                stage.close()
            raise
        stage.close()
        member.shared.set_state(ENDED, now())

    def _make(self) -> Stage:
        assignment = self.member.assignment
        sys.path.insert(0, assignment["folder"])
        stage = stage_class(assignment["kind"])(**assignment["options"])
        stage.bind(_Context(self, assignment))
        return stage

    # -- the three loops ----------------------------------------------------------------

    def _produce(self, stage: Producer) -> None:
        member = self.member
        stream = stage.context.stream
        index = self.stream_index[stream]
        first = self._seq
        frames = iter(stage.frames())
        words, me = self._words, self._me
        while not (member.draining or member.leaving) and self._left:
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
            if self.facts.late:
                self.facts.catch_up()
        del frames
        if member.leaving and not member.draining and self._left:
            raise Left("the producer")
        if member.assignment["endless"] and not member.draining and self._left:
            raise SourceEnded("its frames ended")
        self.sender.end_of_stream(index)

    def count_failed(self, stream: str, outcome: int, frames: int) -> None:
        """Frames that a producer lost: each takes a number."""
        frames = min(frames, self._left)
        self._seq += frames
        self._left -= frames
        self.sender.count_failed(self.stream_index[stream], outcome, frames)

    def _work(self, stage: Stage) -> None:
        while not self.receiver.finished:
            if self.member.leaving:
                raise Left("between two frames")
            message = self._next()
            if message is None:
                if isinstance(stage, Transform):
                    self._publish_all(stage.tick())
                continue
            if isinstance(message, Departed) or message.kind == wire.EOS:
                for stream in self._ends(message):
                    self._end_of_stream(stage, stream)
                continue
            taken = self.receiver.take(message)
            if taken is not None:
                self._one(stage, *taken)
                del taken  # or its views would keep the slot until the next frame

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
        waiting: deque[wire.Message | Departed] = deque()

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
            while waiting and not leaving and (unfinished < capacity or _is_end(waiting[0])):
                message = waiting.popleft()
                if isinstance(message, Departed) or message.kind == wire.EOS:
                    for stream in self._ends(message):
                        last = turns.last(stream) if turns is not None else ()
                        pending.setdefault(stream, deque()).append(Job(None, None, last))
                    continue
                taken = self._take_job(message)
                if taken is None or not self._submitted(taken, submit, done):
                    continue
                pending.setdefault(message.stream, deque()).append(taken)
                unfinished += not taken.done or turns is None
            if any(leaves(jobs[0]) for jobs in pending.values()):
                continue
            if not pending and not waiting and self.receiver.finished:
                return
            if leaving and not pending:
                raise Left("between two frames")
            working = any(not job.done for jobs in pending.values() for job in jobs)
            next_message = self._next(
                idle=not working,
                starving=not waiting,
                timeout_ms=_TICK_MS if turns is None or not pending else _TURN_MS,
            )
            if next_message is not None:
                waiting.append(next_message)
            elif isinstance(stage, Transform):
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
        self, idle: bool = True, starving: bool = True, timeout_ms: int = _TICK_MS
    ) -> wire.Message | Departed | None:
        """What has come in, in order; None after a nudge or a while."""
        self.sender.sync()
        if self._mail:
            return self._mail.next(0, starving)
        self.sender.prepare()
        if self.facts.late:
            self.facts.catch_up()
        began = time.monotonic_ns()
        self._words[self._me + W_BEAT] += 1
        if idle:
            self.member.shared.set_state(IDLE, began)
        message = self._mail.next(timeout_ms, starving)
        # With frames at hand that there is no room for, it waits for its own work, not for frames.
        self._words[self._me + (W_IDLE_NS if starving else W_BUSY_NS)] += (
            time.monotonic_ns() - began
        )
        return message

    def _ends(self, message: wire.Message | Departed) -> list[int]:
        """The streams that have ended with a message, or a death."""
        if isinstance(message, Departed):
            return self.receiver.bury(message)
        return self.receiver.ended(message)

    def _end_of_stream(self, stage: Stage, stream: int) -> None:
        if isinstance(stage, Consumer):
            self.member.shared.set_state(WORKING, time.monotonic_ns())
            stage.end_of_stream(self.member.streams[stream])
        elif isinstance(stage, Transform):
            self._publish_all(stage.end_of_stream(self.member.streams[stream]))
        self.sender.end_of_stream(stream)
        self.receiver.close_stream(stream)


def _is_end(message: wire.Message | Departed) -> bool:
    return isinstance(message, Departed) or message.kind == wire.EOS


def _run(member: Member) -> int:
    """Run the stage; tell the supervisor how it ended. The exit code of the process."""
    try:
        Worker(member).run()
    except PipelineClosed:
        return 1
    except Left:
        return 0
    except SourceEnded as error:
        member.say("failed", what="ended", cause=str(error), traceback="")
        return 1
    except PreflightError as error:
        member.say("failed", what="preflight", cause=str(error), traceback="")
        return 1
    except BaseException as error:  # noqa: BLE001 - SystemExit too: an early exit is a failure
        text = "".join(traceback.format_exception(error))[-_MAX_TRACEBACK:]
        cause = f"{type(error).__name__}: {error}".strip().removesuffix(":")
        member.say("failed", what="crash", cause=cause[:2000], traceback=text)
        return 1
    member.say("finished")
    return 0


def main(fd: int) -> None:
    """Join the run whose control channel is descriptor `fd`; does not return."""
    member = Member.join(socket.socket(fileno=fd))
    member.listen(on_lost=lambda: os._exit(1))
    code = _run(member)
    with suppress(ValueError, OSError):
        sys.stdout.flush()
    member.close()
    # Not a normal exit: threads of native libraries may still run, and a crash of theirs while
    # the interpreter is taken down would turn a clean end into a failure.
    sys.stderr.flush()
    os._exit(code)
