"""Stages that do what they are told: a source from a script, a transform and a sink with a fault.

Law: each frame of a Script is painted (`ovpipe.testing.check`) with its own seq, and differs
from its neighbours; nothing random is in it but the number of the run.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from ovpipe.errors import PreflightError
from ovpipe.frame import Frame, Image
from ovpipe.options import Size
from ovpipe.stages.base import Consumer, Producer, Stage, Transform
from ovpipe.stages.pace import wait_until
from ovpipe.testing.misbehave import How, misbehave
from ovpipe.testing.paint import check, paint

_WORDS = ("frame", "nan", "drop", "slow", "end", *get_args(How))


class Script(Producer):
    """A source that follows a script.

    An item is a word, or a mapping of one word to its argument (`- frame: 20`, `- exit: 1`);
    after a restart it plays again from its beginning, with numbers that go on:

    frame  that many painted pictures (1); may have `size` and `value` beside it
    nan    that many frames with an array "x", float32 [4], of NaN
    drop   that many frames that the source failed to read: counted `decode_error`
    slow   wait that many seconds
    end    the end of the stream, whatever follows
    or a word of `misbehave`: crash, exit, segfault, abort, hang, ...
    """

    items: Annotated[list[str | dict[str, Any]], "what to do, one after the other"]
    size: Annotated[Size, "width and height of the pictures"] = (64, 48)
    fps: Annotated[float, Ge(0), "frames per second; 0: as fast as they are taken"] = 0.0
    repeat: Annotated[bool, "begin again at the end of the script"] = False
    live: Annotated[bool, "behave as a camera: edges drop rather than wait"] = False

    _steps: Any = None
    _run: int = 0
    _seq: int = 0
    _due_ns: int = 0

    def open(self) -> None:
        """Read the script. Raises PreflightError for a word that there is not."""
        self._steps = [_step(item) for item in self.items]
        self._run = secrets.randbits(63)
        self._seq = getattr(self.context, "first_seq", 0)  # after a restart, go on

    def frames(self) -> Iterator[Frame]:
        """What the script says."""
        self._due_ns = time.monotonic_ns()
        while not self.context.stopping:
            for word, argument, more in self._steps:
                if word == "end":
                    return
                yield from self._play(word, argument, more)
            if not self.repeat:
                return

    def _play(self, word: str, argument: Any, more: dict[str, Any]) -> Iterator[Frame]:
        match word:
            case "frame":
                for _ in range(int(argument or 1)):
                    self._wait()
                    yield self._picture(_size(more.get("size")) or self.size, more.get("value"))
            case "nan":
                for _ in range(int(argument or 1)):
                    self._wait()
                    yield Frame(arrays={"x": np.full(4, np.nan, np.float32)}, seq=self._next())
            case "drop":
                self.context.count_failed("decode_error", int(argument or 1))
                self._seq += int(argument or 1)
            case "slow":
                time.sleep(float(argument or 0))
            case _:
                misbehave(word, argument)  # type: ignore[arg-type]

    def _picture(self, size: tuple[int, int], value: int | None) -> Frame:
        seq = self._next()
        array: NDArray[Any] = self.loan((size[1], size[0]), np.uint8)
        array[:] = (seq if value is None else value) % 256
        paint(array, run=self._run, stream=self.context.stream, seq=seq)
        return Frame(image=Image(array, "gray"), seq=seq)

    def _next(self) -> int:
        self._seq += 1
        return self._seq - 1

    def _wait(self) -> None:
        if self.fps:
            self._due_ns += round(1e9 / self.fps)
            wait_until(self._due_ns, self.context)


def _step(item: str | dict[str, Any]) -> tuple[str, Any, dict[str, Any]]:
    """(word, argument, what stands beside it)."""
    values = {item: None} if isinstance(item, str) else dict(item)
    words = [word for word in values if word in _WORDS]
    more = {key: value for key, value in values.items() if key not in words}
    if len(words) != 1 or (more and words != ["frame"]) or more.keys() - {"size", "value"}:
        raise PreflightError(f"script: {item!r} is none of {', '.join(_WORDS)}")
    try:
        _size(more.get("size"))
    except ValueError:
        raise PreflightError(f"script: {more['size']!r} is no size; write 64x48") from None
    return words[0], values[words[0]], more


def _size(given: str | list[int] | None) -> tuple[int, int] | None:
    if given is None:
        return None
    width, height = given.split("x") if isinstance(given, str) else given
    return int(width), int(height)


When = Literal["open", "work", "close"]


class _Scripted(Stage):
    """What both have: one fault, at one moment, and views that are kept."""

    how: Annotated[How | Literal["keep", "none"], "what happens; keep: a view is never let go"] = (
        "none"
    )
    argument: Annotated[str | int, "exit code, message or reason"] = ""
    when: Annotated[When, "where it happens"] = "work"
    at: Annotated[int, "with the frame of this seq"] = 0
    every: Annotated[int, Ge(0), "and with each that many frames after it; 0: once"] = 0
    pause_s: Annotated[float, Ge(0), "what the work on a frame takes"] = 0.0

    _kept: Any = None

    def open(self) -> None:
        """Go wrong here, if so told."""
        self._kept = []
        self._fault("open")

    def close(self) -> None:
        """The same."""
        self._kept = None
        self._fault("close")

    def _fault(self, moment: When) -> None:
        if self.when == moment and self.how != "none" and self.how != "keep":
            misbehave(self.how, self.argument)

    def _see(self, frame: Frame) -> None:
        """The work on a frame. Raises ValueError where a kept view has changed."""
        for view, was in self._kept:
            if check(view) != was:
                raise ValueError(f"a kept view of frame {was.seq} has changed")
        if self.pause_s:
            time.sleep(self.pause_s)
        behind = frame.seq - self.at
        if behind == 0 or (self.every and behind > 0 and behind % self.every == 0):
            if self.how == "keep" and frame.image is not None:
                self._kept.append((frame.image.data, check(frame.image.data)))
            self._fault("work")


class ScriptedTransform(_Scripted, Transform):
    """Passes frames on, until it does what it was told."""

    def process(self, frame: Frame) -> Frame:
        """The frame that came in."""
        self._see(frame)
        return frame


class ScriptedSink(_Scripted, Consumer):
    """Takes frames, until it does what it was told."""

    def consume(self, frame: Frame) -> None:
        """Look at it."""
        self._see(frame)
