"""One stage, run from open to close between the links that enter and leave it.

Law: each frame taken ends as exactly one outcome. What a stage raises reaches the supervisor
with its traceback. The end of a stream travels behind the stream's last frame. A frame's input
is finished after its outputs are claimed, so that a slot passed on is never seen free between.
"""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from numpy.typing import DTypeLike, NDArray

from ovpipe.errors import FrameError, OvpipeError, PipelineClosed, PreflightError, WireError
from ovpipe.frame import UNSET, Frame
from ovpipe.stages.base import AsyncTransform, Consumer, Producer, Result, Stage, Transform
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
    W_BUSY_NS,
    W_IDLE_NS,
    WORKING,
)
from ovpipe.transport.member import Member
from ovpipe.transport.receiver import Receiver
from ovpipe.transport.sender import Sender

_TICK_MS = 500
_MAX_TRACEBACK = 16_000


class _Context:
    """What the stage sees of its worker (stages.base.Context)."""

    def __init__(self, worker: Worker, stage: str, stream: str) -> None:
        self.stage = stage
        self.stream = stream
        self._worker = worker

    @property
    def stopping(self) -> bool:
        return self._worker.member.draining

    def loan(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        return self._worker.sender.loan(shape, dtype)

    def count_failed(self, reason: str, frames: int = 1) -> None:
        self._worker.sender.count_failed(
            self._worker.stream_index[self.stream], CODE[reason], frames
        )


class _Job:
    """One frame, or one end of stream, on its way through an AsyncTransform."""

    __slots__ = ("done", "finish", "frame", "lease")

    def __init__(self, frame: Frame | None, lease: Lease | None) -> None:
        self.frame = frame
        self.lease = lease
        self.done = frame is None
        self.finish: Callable[[], Result] = lambda: None


class Worker:
    """Runs one stage from open to close."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.stream_index = {name: i for i, name in enumerate(member.streams)}
        self._words = member.shared.words
        self._me = member.shared.me
        self._backlog: deque[wire.Message] = deque()
        self._mourned: set[int] = set()
        self.receiver: Receiver
        self.sender: Sender

    def run(self) -> None:
        """The whole life of the stage. Raises whatever ends it early."""
        member, now = self.member, time.monotonic_ns
        member.shared.set_state(LOADING, now())
        stage = self._make()
        try:
            stage.open()
            capacity = stage.capacity if isinstance(stage, AsyncTransform) else 1
            member.say("ready", capacity=capacity)
            self.receiver, self.sender = member.wait_for_start(self._pump)
            member.shared.set_state(IDLE, now())
            if isinstance(stage, Producer):
                self._produce(stage)
            elif isinstance(stage, AsyncTransform):
                self._overlap(stage, capacity)
            else:
                self._work(stage)
            member.shared.set_state(DRAINING, now())
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
        stage.bind(_Context(self, assignment["stage"], assignment["stream"]))
        return stage

    # -- the three loops ----------------------------------------------------------------

    def _produce(self, stage: Producer) -> None:
        member = self.member
        stream = stage.context.stream
        index = self.stream_index[stream]
        seq = 0
        frames = iter(stage.frames())
        words, me = self._words, self._me
        while not member.draining:
            began = time.monotonic_ns()
            member.shared.set_state(WORKING, began)
            frame = next(frames, None)
            if frame is None:
                break
            now = time.monotonic_ns()
            words[me + W_BUSY_NS] += now - began
            frame = replace(
                frame,
                stream=stream,
                seq=seq if frame.seq == UNSET else frame.seq,
                captured_ns=now if frame.captured_ns == UNSET else frame.captured_ns,
            )
            seq = frame.seq + 1
            self._publish(frame, index)
        del frames
        self.sender.end_of_stream(index)

    def _work(self, stage: Stage) -> None:
        while not self.receiver.finished:
            message = self._next()
            if message is None:
                continue
            if message.kind == wire.EOS:
                if self.receiver.ended(message):
                    self._end_of_stream(stage, message.stream)
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

    def _overlap(self, stage: AsyncTransform, capacity: int) -> None:
        """Keep up to `capacity` frames in work; let results out in the order of their stream."""
        pending: dict[int, deque[_Job]] = {}
        unfinished = 0
        waiting: deque[wire.Message] = deque()

        def done(job: _Job) -> None:
            job.done = True
            self.member.inbox.nudge()

        while True:
            for stream, jobs in list(pending.items()):
                while jobs and jobs[0].done:
                    job = jobs.popleft()
                    if job.frame is None:
                        self.sender.end_of_stream(stream)
                    else:
                        self._finish(job, stream)
                        unfinished -= 1
                if not jobs:
                    del pending[stream]
            while waiting and (unfinished < capacity or waiting[0].kind == wire.EOS):
                message = waiting.popleft()
                if message.kind == wire.EOS:
                    if self.receiver.ended(message):
                        pending.setdefault(message.stream, deque()).append(_Job(None, None))
                    continue
                taken = self.receiver.take(message)
                if taken is None:
                    continue
                job = _Job(*taken)
                del taken
                assert job.frame is not None
                assert job.lease is not None
                began = time.monotonic_ns()
                self.member.shared.set_state(WORKING, began)
                try:
                    job.finish = stage.submit(job.frame, lambda job=job: done(job))  # type: ignore[misc]
                except FrameError as error:
                    job.frame = None
                    job.lease.finish(CODE.get(error.reason, CODE["infer_error"]))
                    continue
                self._words[self._me + W_BUSY_NS] += time.monotonic_ns() - began
                pending.setdefault(message.stream, deque()).append(job)
                unfinished += 1
            if any(jobs[0].done for jobs in pending.values()):
                continue
            if not pending and not waiting and self.receiver.finished:
                return
            next_message = self._next(idle=not pending)
            if next_message is not None:
                waiting.append(next_message)

    def _finish(self, job: _Job, stream: int) -> None:
        assert job.frame is not None
        assert job.lease is not None
        began = time.monotonic_ns()
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
        job.lease.finish(outcome)

    # -- frames out, messages in --------------------------------------------------------

    def _publish_all(self, result: Result, origin: Frame) -> None:
        if result is None:
            return
        for frame in (result,) if isinstance(result, Frame) else result:
            if frame.seq == UNSET or not frame.stream:
                frame = replace(
                    frame,
                    stream=frame.stream or origin.stream,
                    seq=origin.seq if frame.seq == UNSET else frame.seq,
                    pts_ns=origin.pts_ns if frame.pts_ns is None else frame.pts_ns,
                    captured_ns=origin.captured_ns,
                )
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

    def _pump(self, timeout_ms: int) -> None:
        """Wait while blocked on output; what comes in meanwhile is kept in order."""
        data = self.member.inbox.receive(timeout_ms)
        if data:
            self._keep(data)

    def _keep(self, data: bytes) -> None:
        try:
            message = wire.decode(data)
        except WireError:
            self.receiver.count_malformed()
            return
        if message.kind != wire.WAKE:
            self._backlog.append(message)

    def _next(self, idle: bool = True) -> wire.Message | None:
        """The next frame or end of stream; None after a nudge or a while."""
        if not self._backlog:
            began = time.monotonic_ns()
            if idle:
                self.member.shared.set_state(IDLE, began)
            data = self.member.inbox.receive(_TICK_MS)
            self._words[self._me + W_IDLE_NS] += time.monotonic_ns() - began
            if data:
                self._keep(data)
            elif self.member.gone - self._mourned:
                self._mourn()
        return self._backlog.popleft() if self._backlog else None

    def _mourn(self) -> None:
        """Workers have died: what they sent is read first, then their streams end."""
        while (data := self.member.inbox.receive(0)) is not None:
            if data:
                self._keep(data)
        for worker in self.member.gone - self._mourned:
            self._mourned.add(worker)
            self._backlog.extend(self.receiver.eos_of(worker))

    def _end_of_stream(self, stage: Stage, stream: int) -> None:
        if isinstance(stage, Consumer):
            stage.end_of_stream(self.member.streams[stream])
        self.sender.end_of_stream(stream)


def _run(member: Member) -> int:
    """Run the stage; tell the supervisor how it ended. The exit code of the process."""
    try:
        Worker(member).run()
    except PipelineClosed:
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
    faulthandler.enable()
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
