"""Batches: frames of any streams are gathered and inferred as one.

A batch leaves when it is full, or `wait` after its first frame came, and not before a request of
the device is free: while the device is busy the batch grows. A full one, or one that is more
than half full, goes through the model of that batch size (the rows that are left hold old
pixels, and their results are thrown away); fewer frames go one by one through a model of batch
size 1, which costs less than the empty rows would.

Law: each frame ends exactly once, and the order of a stream is kept. Streams take turns: of those
that wait, each gives one frame before any gives the next. Nothing waits for a stream that is
away. A frame that does not fit was refused before it came here. After `close` nothing waits.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypedDict

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from ovpipe.errors import PreflightError
from ovpipe.options import Duration
from ovpipe.stages.infer.feed import Fed
from ovpipe.stages.infer.model import Source, outputs_of, set_batch
from ovpipe.stages.infer.runner import Outputs, Pool, Then, start_or_tell

WAIT_S = 0.02

Array = NDArray[Any]
Split = Callable[[Array, int], Array]
"""(an output of the batch, number of the frame in it) -> that frame's output."""


class Batch(TypedDict, total=False):
    """The option `batch`."""

    size: Annotated[int, Ge(0), "frames of a batch; 0: as many as the model says"]
    wait: Annotated[Duration, Ge(0), "how long a frame waits for others"]


class Batches:
    """Gathers what is started, and starts it on `many` (a pool of that batch size) or `one`.

    rows: an array like those of one frame, (1, ...), for each input. splits: for each output, by
    its name. wrap: makes of an array what the device reads in place.
    """

    def __init__(
        self,
        many: Pool,
        one: Pool,
        size: int,
        wait_s: float,
        rows: Sequence[Array],
        splits: Mapping[str, Split],
        wrap: Callable[[Array], Any],
    ) -> None:
        self._many, self._one = many, one
        self._size, self._wait_s = size, wait_s
        self._splits = splits
        self._news = threading.Condition()
        self._waiting: dict[str, deque[tuple[Fed, Then, float]]] = {}
        self._count = 0
        self._closed = False
        self._rows: deque[tuple[list[Array], dict[int, Any]]] = deque()
        for _ in range(len(many)):
            arrays = [np.zeros((size, *row.shape[1:]), row.dtype) for row in rows]
            self._rows.append((arrays, {i: wrap(array) for i, array in enumerate(arrays)}))
        self._thread = threading.Thread(target=self._serve, name="infer-batch", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._many) * self._size

    def start(self, fed: Fed, then: Then) -> None:
        with self._news:
            stream = self._waiting.setdefault(fed.info.frame.stream, deque())
            stream.append((fed, then, time.monotonic()))
            self._count += 1
            self._news.notify()

    def close(self) -> None:
        with self._news:
            self._closed = True
            self._news.notify()
        self._thread.join()
        self._many.close()
        self._one.close()

    def _serve(self) -> None:
        """The life of the thread: gather, wait for the device, send."""
        while self._gathered():
            self._many.wait_idle()
            with self._news:
                taken = self._take()
            if 2 * len(taken) > self._size:
                self._send(taken)
            else:
                for fed, then in taken:
                    start_or_tell(self._one, fed, then)
                    del fed, then
            del taken  # or the thread would hold these frames' memory until the next ones come

    def _gathered(self) -> bool:
        """Wait for a batch, or for the first frame's time; False where nothing more will come."""
        with self._news:
            self._news.wait_for(lambda: self._count or self._closed)
            if not self._count:
                return False
            first = min(frames[0][2] for frames in self._waiting.values())
            left = first + self._wait_s - time.monotonic()
            self._news.wait_for(lambda: self._count >= self._size or self._closed, left)
        return True

    def _take(self) -> list[tuple[Fed, Then]]:
        """Up to a batch of frames, of each stream in turn."""
        taken: list[tuple[Fed, Then]] = []
        while self._waiting and len(taken) < self._size:
            stream = next(iter(self._waiting))
            frames = self._waiting.pop(stream)
            fed, then, _ = frames.popleft()
            taken.append((fed, then))
            if frames:
                self._waiting[stream] = frames  # behind the others
        self._count -= len(taken)
        return taken

    def _send(self, taken: list[tuple[Fed, Then]]) -> None:
        rows = self._rows.popleft()
        arrays, tensors = rows
        for row, (fed, _) in enumerate(taken):
            for array, given in zip(arrays, arrays_of(fed.inputs), strict=True):
                array[row] = given[0]

        def ended(outputs: Outputs, error: BaseException | None) -> None:
            self._rows.append(rows)
            for row, (_, then) in enumerate(taken):
                own = {name: self._splits[name](out, row) for name, out in outputs.items()}
                then(own, error)

        start_or_tell(self._many, Fed(tensors, taken[0][0].info), ended)


def arrays_of(inputs: Any) -> list[Array]:
    """What goes into each input of the model, in their order, of a feed without wrapping."""
    return list(inputs.values()) if isinstance(inputs, dict) else [inputs]


def splits_of(source: Source, size: int) -> dict[str, Split]:
    """How each output of a batch is taken apart; PreflightError where that is not known."""
    model = source.model.clone()
    set_batch(model, size)
    splits: dict[str, Split] = {}
    for one, many in zip(source.facts.outputs, outputs_of(model), strict=True):
        if one.shape[:1] == (1,) and many.shape == (size, *one.shape[1:]):
            splits[one.name] = _row
        elif one.op == "DetectionOutput" and one.shape[3:] == (7,):
            splits[one.name] = _detections
        else:
            raise PreflightError(
                f"batch: the model's output {one} becomes {list(many.shape)} for {size} frames, "
                "which cannot be told apart; leave `batch` out"
            )
    return splits


def _row(output: Array, frame: int) -> Array:
    return output[frame : frame + 1]


def _detections(output: Array, frame: int) -> Array:
    """DetectionOutput [1, 1, N, 7]: all frames' rows in one list, which an image_id < 0 ends."""
    rows = output.reshape(-1, 7)
    ends = np.flatnonzero(rows[:, 0] < 0)
    rows = rows[: ends[0]] if len(ends) else rows
    mine = rows[:, 0] == frame
    own: Array = np.where(mine[:, None] & (np.arange(7) == 0), 0, rows)
    own = own[mine | np.isnan(rows[:, 0])]  # what is NaN is everybody's, to be noticed
    return own.reshape(1, 1, -1, 7)
