"""A source: the application as a member of the run that makes the frames of one stream.

Law: all work on shared memory is done by a thread of ours, never by the caller's: an exception
that a signal handler raises in the caller (KeyboardInterrupt) can end its wait, and never a step
of the ledger. A call that raises has claimed nothing. With `block` it waits until there is room on
every edge, and only then claims; calls are served in the order in which they came. The end of the
stream travels behind the last frame that was pushed.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ovpipe.errors import PipelineClosed, together
from ovpipe.frame import UNSET, Frame
from ovpipe.image import Image
from ovpipe.pipeline.tap import TICK_MS
from ovpipe.transport.ledger import (
    DRAINING,
    ENDED,
    IDLE,
    W_BUSY_NS,
    W_IDLE_NS,
    WORKING,
)
from ovpipe.transport.mail import Mail
from ovpipe.transport.member import Member
from ovpipe.transport.sender import Sender
from ovpipe.transport.whereabouts import Whereabouts

Pushed = NDArray[Any] | Image | Frame | Mapping[str, NDArray[Any]]
"""What can be pushed: see `as_frame`."""

ARRAY = "array"
"""The name of an array that is pushed alone and is no picture."""

_MAX_INT = 1 << 63
T = TypeVar("T")


class Witness(Protocol):
    """Told of a frame before it sets out, and whether it did."""

    def sets_out(self, seq: int) -> None: ...
    def is_claimed(self) -> None: ...


class Source:
    """One stream of an `app` stage, once `join` and `wait_for_start` have returned."""

    def __init__(self, stage: str, stream: str) -> None:
        self.stage = stage
        self.stream = stream
        self.index = 0
        self._member: Member | None = None
        self._sender: Sender
        self._mail: Mail
        self._seq = 0
        self._lock = threading.Lock()
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._ending = False
        self._refusal: Exception | None = None
        self._thread: threading.Thread | None = None

    def join(self, channel: socket.socket) -> None:
        """Become a member of the run."""
        self._member = Member.join(channel)
        self._member.listen(on_lost=lambda: None)
        self._member.say("ready", capacity=1)

    def wait_for_start(self) -> None:
        """Return when all stages are ready; frames are taken from now on."""
        member = self._member
        assert member is not None
        _, self._sender, self._mail = member.wait_for_start()
        self.index = member.streams.index(self.stream)
        self._thread = threading.Thread(
            target=self._serve, args=(member,), name=f"ovpipe-push-{self.stream}", daemon=True
        )
        self._thread.start()

    # -- any thread ----------------------------------------------------------------------

    def push(self, frame: Frame, timeout: float | None, witness: Witness | None = None) -> int:
        """Claim a frame on every edge; its seq. Raises TimeoutError where there is no room."""
        return self._wait(self.begin(frame, timeout, witness), timeout)

    def begin(
        self, frame: Frame, timeout: float | None, witness: Witness | None = None
    ) -> Future[int]:
        """The same, without waiting for it; the frame must not change meanwhile."""
        until = float("inf") if timeout is None else time.monotonic() + timeout
        if frame.captured_ns == UNSET:
            frame = frame.stamped(frame.stream, frame.seq, time.monotonic_ns())
        return self._call(lambda: self._publish(frame, until, timeout, witness))

    def loan(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A writable array in a free slot; pushed, it is not copied."""
        return self._wait(self._call(lambda: self._sender.loan(shape, dtype)), None)

    def end(self) -> None:
        """No more frames: the stream ends behind those pushed before. Idempotent."""
        with self._lock:
            self._ending = True
            if self._refusal is None:
                self._refusal = PipelineClosed(f"the end of stream '{self.stream}' was said")
        self._nudge()

    def whereabouts(self, edges: frozenset[int]) -> Whereabouts:
        """Where frames of this source are, on these edges."""
        if self._member is None:
            raise PipelineClosed("the pipeline has ended")
        links = [link for link in self._member.beyond if link.edge in edges]
        return Whereabouts(self._member.shared, links)

    def close(self) -> None:
        """Once the run is over: wait for the thread. Idempotent."""
        self.end()
        if self._thread is not None:
            self._thread.join()
            self.__dict__.pop("_sender", None)  # they would hold on to the memory
            self.__dict__.pop("_mail", None)
        elif self._member is not None:
            self._member.close()
        self._member = None

    def _nudge(self) -> None:
        if self._member is not None:
            with suppress(RuntimeError):
                self._member.inbox.nudge()

    def _call(self, work: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            if self._refusal is not None:
                raise _again(self._refusal)
            self._calls.append((future, work))
        self._nudge()
        return future

    def _wait(self, future: Future[T], timeout: float | None) -> T:
        try:
            return future.result(timeout)
        except TimeoutError:
            if future.cancel():
                raise self._late(timeout) from None
            return future.result()  # it is being done; and knows of the time limit itself
        except BaseException:
            future.cancel()
            raise

    def _late(self, timeout: float | None) -> TimeoutError:
        return TimeoutError(f"no room for a frame of stream '{self.stream}' within {timeout} s")

    # -- our thread ----------------------------------------------------------------------

    def _serve(self, member: Member) -> None:
        try:
            self._work(member)
        except Exception as error:  # noqa: BLE001 - or those who wait would wait for ever
            self._refuse(member, error)
            member.close()
            return
        self._refuse(member, together(member.errors))
        if not member.lost:
            member.shared.set_state(DRAINING, time.monotonic_ns())
            self._sender.end_of_stream(self.index)
            self._sender.linger(lambda: member.lost)
        if not member.lost:
            member.shared.set_state(ENDED, time.monotonic_ns())
            with suppress(OSError):
                member.say("finished")
        member.close()

    def _work(self, member: Member) -> None:
        """Serve calls until the end of the stream, or of the run."""
        words, me = member.shared.words, member.shared.me
        while not (member.lost or member.draining):
            self._sender.sync()
            call = self._calls.popleft() if self._calls else None
            began = time.monotonic_ns()
            if call is not None:
                member.shared.set_state(WORKING, began)
                if call[0].set_running_or_notify_cancel():
                    _do(*call)
                del call
                self._sender.prepare()
                words[me + W_BUSY_NS] += time.monotonic_ns() - began
            elif self._ending:
                break
            else:
                member.shared.set_state(IDLE, began)
                self._mail.next(TICK_MS)
                words[me + W_IDLE_NS] += time.monotonic_ns() - began

    def _refuse(self, member: Member, failure: Exception | None) -> None:
        """Whoever waits, and whoever comes later, is told why."""
        why = "is draining" if member.draining else "has ended"
        with self._lock:
            if failure is not None or self._refusal is None:
                self._refusal = failure or PipelineClosed(f"the pipeline {why}")
            left = list(self._calls)
            self._calls.clear()
        for future, _ in left:
            if future.set_running_or_notify_cancel():
                future.set_exception(_again(self._refusal))

    def _publish(
        self, frame: Frame, until: float, timeout: float | None, witness: Witness | None
    ) -> int:
        member = self._member
        assert member is not None
        seq = self._seq if frame.seq == UNSET else frame.seq
        if seq < self._seq:
            raise ValueError(
                f"frame {seq} of stream '{self.stream}' after frame {self._seq - 1}: seq rises"
            )
        if not self._sender.room(
            self.index, lambda: member.draining or member.lost or time.monotonic() >= until
        ):
            if member.draining or member.lost:
                raise together(member.errors) or PipelineClosed("the pipeline ends")
            raise self._late(timeout)
        if witness is not None:
            witness.sets_out(seq)
        self._sender.publish(frame.stamped(self.stream, seq, frame.captured_ns), self.index)
        if witness is not None:
            witness.is_claimed()
        self._seq = seq + 1
        return seq


def _do(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001 - it is the caller's to deal with
        future.set_exception(error)


def _again(error: Exception) -> Exception:
    """The error for one more caller: a traceback belongs to one."""
    return PipelineClosed(str(error)) if isinstance(error, PipelineClosed) else error


def as_frame(
    data: Pushed, stream: str, pts_ns: int | None, meta: Mapping[str, Any] | None
) -> Frame:
    """What was pushed, as a frame of `stream`.

    An ndarray of uint8 with shape (height, width, 3) is a BGR picture, with (height, width) a gray
    one; any other is the array `array`. A mapping names its arrays. An Image or a Frame is itself.
    """
    if isinstance(data, Frame):
        frame = data
    elif isinstance(data, Image):
        frame = Frame(image=data)
    elif isinstance(data, np.ndarray):
        picture = data.dtype == np.uint8 and (
            data.ndim == 2 or (data.ndim == 3 and data.shape[2] == 3)
        )
        if picture:
            frame = Frame(image=Image(data, "gray" if data.ndim == 2 else "bgr"))
        else:
            frame = Frame(arrays={ARRAY: data})
    elif isinstance(data, Mapping) and all(isinstance(a, np.ndarray) for a in data.values()):
        frame = Frame(arrays=dict(data))
    else:
        raise TypeError(
            f"cannot push a {type(data).__name__}: push an ndarray, an ovpipe.Image, an "
            f"ovpipe.Frame, or a mapping of names to ndarrays"
        )
    if meta is not None:
        frame = frame.with_(meta=meta)
    pts_ns = frame.pts_ns if pts_ns is None else pts_ns
    for name, value, least in (
        ("pts_ns", pts_ns or 0, 1 - _MAX_INT),
        ("seq", frame.seq, UNSET),
        ("captured_ns", frame.captured_ns, UNSET),
    ):
        if type(value) is not int or not least <= value < _MAX_INT:
            raise ValueError(f"{name} must be a whole number of 64 bits, not {value!r}")
    return replace(frame, stream=stream, pts_ns=pts_ns)
