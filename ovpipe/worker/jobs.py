"""Jobs: frames on their way through a stage that has several in work."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ovpipe.frame import Frame
from ovpipe.stages.base import Result, Transform
from ovpipe.transport import wire
from ovpipe.transport.lease import Lease
from ovpipe.transport.peers import Departed
from ovpipe.transport.turns import Turn

Submit = Callable[[Frame, Callable[[], None]], Callable[[], Result]]
"""(frame, done) -> what gives the result, once done was called."""


class Job:
    """One frame, or one end of stream, on its way through a stage that has several in work.

    `turns`: those that must have come before it leaves; none but for replicas.
    """

    __slots__ = ("done", "finish", "frame", "lease", "turns")

    def __init__(self, frame: Frame | None, lease: Lease | None, turns: Sequence[Turn]) -> None:
        self.frame = frame
        self.lease = lease
        self.turns = turns
        self.done = frame is None
        self.finish: Callable[[], Result] = lambda: None


def at_once(stage: Transform) -> Submit:
    """A stage that works on one frame after the other, for the loop of those that have several."""

    def submit(frame: Frame, done: Callable[[], None]) -> Callable[[], Result]:
        result = stage.process(frame)
        if result is not None and not isinstance(result, Frame):
            result = list(result)
        done()
        return lambda: result

    return submit


def is_end(message: wire.Message | Departed) -> bool:
    """Whether it ends streams, rather than brings a frame."""
    return isinstance(message, Departed) or message.kind == wire.EOS
