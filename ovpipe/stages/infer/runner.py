"""Runners: what carries fed frames to the device, and their outputs back.

    Pool     one compiled model, one frame an inference
    Pools    the same for pictures of any pixels: one compiled model for each kind of them
    Ahead    one of these, with a few frames more that stand in its line, ready to go in
    Batches  several frames an inference (batch.py)

Law: each `start` that returns calls `then(outputs, error)` once, from a slot's thread; one that
raises never does. Outputs are copies: the slot is free again when `then` has returned. `start`
does not wait while no more than `len()` frames are under way.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from numpy.typing import NDArray

from ovpipe.errors import FrameError, PreflightError
from ovpipe.stages.infer.feed import Fed

Outputs = dict[str, NDArray[Any]]
Then = Callable[[Outputs, BaseException | None], None]

_log = logging.getLogger(__name__)


class Runner(Protocol):
    """See the law above; `close` waits for what is under way, and is idempotent."""

    def __len__(self) -> int: ...

    def start(self, fed: Fed, then: Then) -> None: ...

    def close(self) -> None: ...


class Pool:
    """The infer requests of one compiled model. `names`: of its outputs, in their order."""

    def __init__(self, compiled: Any, jobs: int, names: Sequence[str], blank: Any) -> None:
        from ovpipe.queue import AsyncInferQueue

        self._names = names
        self._queue = AsyncInferQueue(compiled, jobs)
        try:
            self._warm_up(blank)
        except BaseException:
            self._queue.close()
            raise

    def __len__(self) -> int:
        return len(self._queue)

    def start(self, fed: Fed, then: Then) -> None:
        ended = partial(self._ended, then)
        self._queue.start_async(fed.inputs, share_inputs=True, then=ended, wait=False)

    def wait_idle(self) -> None:
        """Return when a request is free."""
        self._queue.get_idle_request_id()

    def close(self) -> None:
        self._queue.close()

    def _ended(
        self, then: Then, request: Any, _: Any, error: BaseException | None
    ) -> Callable[[], None]:
        """In the slot's thread: take the outputs out; tell once the slot has its next frame."""
        outputs: Outputs = {}
        try:
            if error is None:
                outputs = {
                    name: request.get_output_tensor(i).data.copy()
                    for i, name in enumerate(self._names)
                }
        except Exception as failure:  # noqa: BLE001 - raised on the stage's own thread
            error = failure
        return partial(then, outputs, error)

    def _warm_up(self, blank: Any) -> None:
        """One inference in each slot, one after the other: the first one of a slot is slow."""
        if blank is not None:
            for request in self._queue:
                request.infer(blank)


class Ahead:
    """Takes `frames` frames beside those that are inferred: the next one stands in the line.

    Resizing and colour take time in the stage's own thread, and so do decoding and sending. Without
    a frame at hand the device would stand still meanwhile.
    """

    def __init__(self, runner: Pool | Pools, frames: int) -> None:
        self._runner, self._frames = runner, frames

    def __len__(self) -> int:
        return len(self._runner) + self._frames

    def start(self, fed: Fed, then: Then) -> None:
        self._runner.start(fed, then)

    def close(self) -> None:
        self._runner.close()


def start_or_tell(runner: Runner, fed: Fed, then: Then) -> None:
    """As runner.start, on a thread where nobody is there to take what it raises."""
    try:
        runner.start(fed, then)
    except Exception as error:  # noqa: BLE001 - told to the frame
        then({}, error)


class Pools:
    """A pool for each kind of pixels that frames have; made when the first such frame comes.

    make: compiles for one kind; PreflightError where that cannot be. first: made at once.
    """

    def __init__(self, make: Callable[[str], Pool], first: str) -> None:
        self._make = make
        self._pools: dict[str, Pool | PreflightError] = {}
        self._jobs = len(self._pool(first))

    def __len__(self) -> int:
        return self._jobs

    def start(self, fed: Fed, then: Then) -> None:
        try:
            pool = self._pool(fed.pixels)
        except PreflightError as error:  # known by now only, and to those frames alone
            raise FrameError(str(error)) from error
        pool.start(fed, then)

    def close(self) -> None:
        for pool in self._pools.values():
            if isinstance(pool, Pool):
                pool.close()

    def _pool(self, pixels: str) -> Pool:
        if pixels not in self._pools:
            began = time.monotonic()
            try:
                self._pools[pixels] = self._make(pixels)
            except PreflightError as error:
                self._pools[pixels] = error
            took = time.monotonic() - began
            _log.info("compiled for %s pictures in %.1f s", pixels, took)
        pool = self._pools[pixels]
        if isinstance(pool, PreflightError):
            raise pool
        return pool
