"""Runs a stage in this process, as its worker does.

Law: frames go in one after the other, their arrays read-only; never more than `capacity` of an
asynchronous stage are unfinished, and its results are taken in the order of submission, each
after its `done`. A frame that fails gives its FrameError in its place; anything else that the
stage raises comes out of `run_stage`, after `close`.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ovpipe.errors import FrameError
from ovpipe.frame import UNSET, Frame
from ovpipe.stages.base import (
    AsyncTransform,
    Consumer,
    LocalContext,
    Producer,
    Stage,
    Transform,
)
from ovpipe.stages.base import Result as Given

WATCHDOG_S = 60.0
_DType = TypeVar("_DType", bound=np.generic)


@dataclass(frozen=True)
class Result:
    """What a stage made of its frames.

    results   frames that came out and errors of frames that failed, in this order
    failed    frames that failed, by reason; with those that a producer counted itself
    ended     streams whose end the stage was told, in this order; of a producer, its own
    """

    results: tuple[Frame | FrameError, ...]
    failed: dict[str, int]
    ended: tuple[str, ...]

    @property
    def outputs(self) -> list[Frame]:
        """The frames that came out."""
        return [out for out in self.results if isinstance(out, Frame)]

    @property
    def errors(self) -> list[FrameError]:
        """The errors of the frames that failed."""
        return [out for out in self.results if isinstance(out, FrameError)]


def run_stage(
    stage: Stage,
    frames: Iterable[Frame] = (),
    *,
    streams: Sequence[str] = (),
    limit: int | None = None,
    first_seq: int = 0,
) -> Result:
    """Open the stage, put all frames through it, end its streams, close it.

    streams: those that end; default: those of the frames, or "cam". Frames without a stream are
    of the first one, frames without a seq are numbered. A producer takes no frames: it makes
    those of the first stream, at most `limit`, as one that is restarted does from `first_seq` on.
    Raises what the stage raises, but for FrameError, which is a result.
    """
    context = LocalContext("stage", streams[0] if streams else "cam")
    context.first_seq = first_seq
    stage.bind(context)
    try:
        stage.open()
        seen: dict[str, int] = dict.fromkeys(streams, 0)
        if isinstance(stage, Producer):
            results: list[Frame | FrameError] = list(_produced(stage, context, limit))
            seen = {context.stream: 0}
        else:
            results = list(push(stage, _numbered(frames, context.stream, seen)))
            if isinstance(stage, Consumer):
                for stream in seen:
                    stage.end_of_stream(stream)
    except BaseException:
        _close_quietly(stage)  # the first cause is the one to tell
        raise
    stage.close()
    failed = Counter(context.failed)
    failed.update(out.reason for out in results if isinstance(out, FrameError))
    return Result(tuple(results), dict(failed), tuple(seen))


def _close_quietly(stage: Stage) -> None:
    try:
        stage.close()
    except Exception:  # noqa: BLE001, S110 - whatever it is, something else came first
        pass


def push(stage: Stage, frames: Iterable[Frame]) -> Iterator[Frame | FrameError]:
    """Frames through a stage that is open, and stays so: what comes out, and what failed."""
    if isinstance(stage, AsyncTransform):
        yield from _overlapped(stage, frames)
        return
    for frame in frames:
        frame = _read_only(frame)
        try:
            if isinstance(stage, Consumer):
                stage.consume(frame)
            elif isinstance(stage, Transform):
                yield from _given(stage.process(frame), frame)
            else:
                raise TypeError(f"frames cannot be pushed into a {type(stage).__name__}")
        except FrameError as error:
            yield error


def _produced(stage: Producer, context: LocalContext, limit: int | None) -> Iterator[Frame]:
    seq = context.first_seq
    for count, frame in enumerate(stage.frames(), 1):
        frame = replace(
            frame,
            stream=frame.stream or context.stream,
            seq=seq if frame.seq == UNSET else frame.seq,
        )
        seq = frame.seq + 1
        yield frame
        if count == limit:
            context.stopping = True
            return


def _overlapped(stage: AsyncTransform, frames: Iterable[Frame]) -> Iterator[Frame | FrameError]:
    under_way: deque[tuple[Frame, threading.Event, Callable[[], Given]]] = deque()
    for frame in frames:
        frame = _read_only(frame)
        if len(under_way) == stage.capacity:
            yield from _finish(*under_way.popleft())
        done = threading.Event()
        try:
            under_way.append((frame, done, stage.submit(frame, done.set)))
        except FrameError as error:
            while under_way:
                yield from _finish(*under_way.popleft())
            yield error
    while under_way:
        yield from _finish(*under_way.popleft())


def _finish(
    frame: Frame, done: threading.Event, finish: Callable[[], Given]
) -> Iterator[Frame | FrameError]:
    if not done.wait(WATCHDOG_S):
        raise AssertionError(f"the stage did not say within {WATCHDOG_S} s that a frame is done")
    try:
        yield from _given(finish(), frame)
    except FrameError as error:
        yield error


def _given(result: Given, origin: Frame) -> Iterator[Frame]:
    """The frames of a result; what they leave unset is that of the frame that came in."""
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
        yield frame


def _numbered(frames: Iterable[Frame], stream: str, seen: dict[str, int]) -> Iterator[Frame]:
    for frame in frames:
        name = frame.stream or stream
        seq = seen.get(name, 0) if frame.seq == UNSET else frame.seq
        seen[name] = seq + 1
        yield replace(frame, stream=name, seq=seq)


def _read_only(frame: Frame) -> Frame:
    """The frame as a worker would hand it over: nothing in it can be written."""
    image = frame.image and replace(frame.image, data=_locked(frame.image.data))
    arrays: dict[str, NDArray[Any]] = {k: _locked(a) for k, a in frame.arrays.items()}
    return replace(frame, image=image, arrays=arrays)


def _locked(array: NDArray[_DType]) -> NDArray[_DType]:
    if not array.flags.writeable:
        return array
    view = array.view()
    view.flags.writeable = False
    return view
