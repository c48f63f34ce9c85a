"""The contract between a stage and whoever runs it.

A stage is a class with typed options and `open`, one working method, and `close`. The same
object runs in a worker, inline, or alone in a test:

    open()     once, before any frame. Load models, open files here; never in __init__.
               PreflightError ends the run with exit code 3 and no traceback; any other
               exception is a crash.
    work       Producer.frames() yields frames; Transform.process(frame) returns a frame, an
               iterable of frames, or None; Consumer.consume(frame) returns nothing.
               Raising FrameError(reason) fails that frame only; any other exception ends
               the stage.
    close()    once, after the last frame or after a failure of open() or work.

Law: arrays of a frame that came in are read-only views of shared memory, valid while
anything refers to them. A frame that goes out may hold arrays that came in (they are passed
on by reference, never copied), arrays from `self.loan()` (written once, never copied), or
any other array (copied once into shared memory).
"""

from __future__ import annotations

import inspect
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field
from typing import ClassVar, Literal, Protocol, dataclass_transform

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ovpipe.frame import Frame
from ovpipe.stages.facts import Fact, merged

Role = Literal["producer", "transform", "consumer"]
Result = Frame | Iterable[Frame] | None


class Context(Protocol):
    """What a stage may ask of whoever runs it."""

    stage: str
    """Name of the stage in the pipeline."""
    stream: str
    """Key of the stream that this producer makes, as `cam` or `cam/gate`."""
    run: str
    """A name of this run that no other run has, whatever machine it is on; the same after a
    restart of the stage."""
    first_seq: int
    """Number of the first frame to make: 0, or where a process that died had come to. A source
    that can begin there does; of one that numbers its frames itself the earlier ones are left
    out; any other just goes on, with numbers that rise."""
    restarted: bool
    """True where a process before this one has done a part of this run's work in its place: what
    it has written is of this run, and is gone on with."""
    inputs: Mapping[str, tuple[str, ...]]
    """The stages that this one reads, as written, and the streams that can come from each."""

    @property
    def stopping(self) -> bool:
        """True once a drain was asked for: a producer ends at the next frame."""

    def loan(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.generic]:
        """A writable, C-contiguous array in shared memory; its contents are undefined."""

    def count_failed(self, reason: str, frames: int = 1, stream: str = "") -> None:
        """Account for frames that this stage will not give: a producer lost them, a transform
        gave them up. `stream`: a producer's own where it is left out."""

    def end_run(self, why: str) -> None:
        """Ask for the whole run to be drained, and say why; the stage goes on until its end comes.

        For a consumer that has all that it wants, or that nobody listens to any more.
        """

    def waiting(self) -> None:
        """Say, at each turn of a wait for its source, that a producer is idle and not hung."""

    def getting_on(self) -> None:
        """Say, at each turn of work that gives no frame for long, that the stage is not hung."""

    def report(self, facts: Mapping[str, Fact | None]) -> None:
        """Say small things about this stage, as `{"device": "GPU"}`: they are seen wherever the
        run is looked at, so there is no secret in them. None takes one away. Raises ValueError
        for what is no fact."""


class LocalContext:
    """The context of a stage that runs alone: loans are ordinary arrays."""

    def __init__(
        self,
        stage: str = "stage",
        stream: str = "",
        inputs: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.stage = stage
        self.stream = stream or stage
        self.run = secrets.token_hex(8)
        self.first_seq = 0
        self.restarted = False
        self.inputs = inputs or {}
        self.stopping = False
        self.failed: dict[str, int] = {}
        self.facts: dict[str, Fact] = {}

    def loan(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.generic]:
        return np.empty(shape, dtype)

    def count_failed(self, reason: str, frames: int = 1, stream: str = "") -> None:
        self.failed[reason] = self.failed.get(reason, 0) + frames

    def end_run(self, why: str) -> None:
        self.stopping = True

    def waiting(self) -> None:
        pass

    def getting_on(self) -> None:
        pass

    def report(self, facts: Mapping[str, Fact | None]) -> None:
        self.facts = merged(self.facts, facts)


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(field,))
class Stage(ABC):
    """Base of all stages. Annotated class attributes are options: `Crowd(limit=3)`.

    Annotations that start with an underscore declare private state, not options.
    """

    role: ClassVar[Role]
    requires: ClassVar[dict[str, str]] = {}
    """Importable module -> the extra of ovpipe that installs it; checked before a run."""

    one_process: ClassVar[bool] = False
    """True where one process must see all of the stage's frames: it cannot have replicas."""

    context: ClassVar[Context] = LocalContext()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in inspect.get_annotations(cls):
            if name.startswith("_"):  # private state: never a parameter of __init__
                default = cls.__dict__.get(name, MISSING)
                if isinstance(default, Field):
                    default.init = False
                else:
                    setattr(cls, name, field(default=default, init=False))
        dataclass(kw_only=True, eq=False, repr=False)(cls)

    def bind(self, context: Context) -> None:
        """Called by whoever runs the stage, before open()."""
        self.__dict__["context"] = context

    def open(self) -> None:
        """Acquire what the stage needs. Called once, in the process that does the work."""

    def close(self) -> None:
        """Release it. Called once; must not fail because open() did."""

    def loan(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.generic]:
        """A writable array that goes out without a copy when it is part of a yielded frame."""
        return self.context.loan(shape, dtype)


class Producer(Stage):
    """Makes frames. `stream`, `seq` and `captured_ns` are filled in where it leaves them unset."""

    role: ClassVar[Role] = "producer"

    @property
    def live(self) -> bool:
        """True where frames come whether or not anybody takes them (a camera)."""
        return False

    @property
    def frame_bytes(self) -> int:
        """Bytes of the arrays of one of its frames; 0 where it cannot tell. Known after open().

        Before frames flow it is checked that there is memory for all that may be in flight.
        """
        return 0

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
        """Yield frames until the source ends. Check `self.context.stopping` in long waits."""


class Transform(Stage):
    """Turns each frame into one, several or none."""

    role: ClassVar[Role] = "transform"

    @abstractmethod
    def process(self, frame: Frame) -> Result:
        """The frame(s) to pass on; None ends this frame here."""

    @property
    def frames_held(self) -> int:
        """How many frames of an input it may keep beside the one it works on; known after open().

        A stage that keeps more takes the credits that its next frames need.
        """
        return 0

    def tick(self) -> Result:
        """Called when no frame has come for a moment (half a second at most): what has become
        due. Such frames carry a stream and seq of their own."""
        return None

    def end_of_stream(self, stream: str) -> Result:
        """Called once per stream, after its last frame: what it still gives, as for tick()."""
        return None


class AsyncTransform(Stage):
    """A transform that works on several frames at a time (infer)."""

    role: ClassVar[Role] = "transform"

    @property
    @abstractmethod
    def capacity(self) -> int:
        """How many frames it works on at a time; known after open()."""

    @abstractmethod
    def submit(self, frame: Frame, done: Callable[[], None]) -> Callable[[], Result]:
        """Start the work on `frame` and return at once.

        Called on one thread, never with more than `capacity` frames for which `done` was not
        called; that must be done once, from any thread, when the work has ended, well or badly.
        The returned function is called on the first thread, in stream order, after that: among
        replicas it may be long after. It gives the result or raises FrameError.
        """


class Consumer(Stage):
    """Takes frames and gives none."""

    role: ClassVar[Role] = "consumer"

    @abstractmethod
    def consume(self, frame: Frame) -> None:
        """Use the frame."""

    def end_of_stream(self, stream: str) -> None:
        """Called once per stream, after its last frame."""
