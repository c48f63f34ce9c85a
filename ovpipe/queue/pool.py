"""A pool of infer requests with the API of openvino.AsyncInferQueue and none of its faults.

One thread waits for each request: `start_async` sets the inputs and starts the request on the
submitter's thread; the request's own thread waits for it, runs the callback, and gives the slot
back. So a failed inference is an ordinary exception there, no Python runs on a thread of
OpenVINO, and callbacks of different slots run beside each other.

Law: a slot is taken and paired with its userdata under one lock, and always comes back,
whatever fails. `start_async` either starts exactly one inference or raises and leaks nothing.
Each started job ends once: in `then`, else in the callback or in an error. An error that
nobody was there to take (a failed inference, or an exception in a callback) is raised once, by
the next `wait_all`, `start_async` or `get_idle_request_id`; after that the pool goes on.
Inputs, outputs and userdata are held until their job has ended, and not longer.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import numpy as np
import openvino as ov
from openvino.utils.data_helpers.data_dispatcher import _data_dispatch

# The first use of Tensor.data from two threads at once can dead-lock the process.
_ = ov.Tensor(np.zeros(1, np.float32)).data

Callback = Callable[[ov.InferRequest, Any], None]
Then = Callable[[ov.InferRequest, Any, BaseException | None], None]


class InferenceError(RuntimeError):
    """An inference failed, or its callback raised; the cause is `__cause__`.

    `request_id` and `userdata` say which job it was.
    """

    def __init__(self, message: str, request_id: int, userdata: Any) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.userdata = userdata


class _Slot:
    """One request and what belongs to its present job."""

    __slots__ = (
        "callback",
        "home",
        "inputs",
        "number",
        "request",
        "shared",
        "start",
        "then",
        "userdata",
    )

    def __init__(self, number: int, request: ov.InferRequest) -> None:
        self.number = number
        self.request = request
        self.home = [request.get_input_tensor(i) for i in range(len(request.model_inputs))]
        self.shared = False  # inputs of the last job were the user's own memory
        self.start = threading.Semaphore(0)
        self.inputs: Any = None
        self.userdata: Any = None
        self.callback: Callback | None = None
        self.then: Then | None = None


class _State:
    """What the threads share with the queue, so that they do not keep the queue itself alive.

    No callback here, but with each job: it may refer to the queue, which must not keep itself.
    """

    def __init__(self, slots: list[_Slot]) -> None:
        self.slots = slots
        self.news = threading.Condition()
        self.idle = deque(slots)
        self.busy = 0  # jobs whose callback has not returned
        self.errors: deque[BaseException] = deque()
        self.stuck = 0  # callbacks that wait for a request to become free
        self.closed = False


class AsyncInferQueue:
    """A pool of `jobs` infer requests of a compiled model; as openvino.AsyncInferQueue.

    model: openvino.CompiledModel. jobs: number of requests; 0 = the device's optimal number.

    Differences, each the documented better one: any number of threads may submit; errors are
    raised once and the pool goes on; a bad input leaks no request; an index out of range raises
    IndexError; inputs live until their job has ended; `close()`, `with` and `del` wait for what
    is under way. From inside of a callback `wait_all` raises RuntimeError instead of waiting
    for itself, and so does `start_async` where every request waits for such a call.
    """

    def __init__(self, model: ov.CompiledModel, jobs: int = 0) -> None:
        if jobs < 0:
            raise ValueError(f"jobs must be 0 or more, not {jobs}")
        count = jobs or int(model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._state = _State([_Slot(i, model.create_infer_request()) for i in range(count)])
        self._userdata: list[Any] = [None] * count
        self._callback: Callback | None = None
        self._threads = [
            threading.Thread(
                target=_serve, args=(self._state, slot), name=f"infer-{slot.number}", daemon=True
            )
            for slot in self._state.slots
        ]
        for thread in self._threads:
            thread.start()
        self._finalizer = weakref.finalize(self, _close, self._state, self._threads)

    # -- the API of openvino.AsyncInferQueue ---------------------------------------------

    def __len__(self) -> int:
        return len(self._state.slots)

    def __iter__(self) -> Iterator[ov.InferRequest]:
        return iter([slot.request for slot in self._state.slots])

    def __getitem__(self, index: int) -> ov.InferRequest:
        return self._state.slots[index].request

    @property
    def userdata(self) -> list[Any]:
        """The userdata of the job that each request has or had last; None where none was given."""
        return list(self._userdata)

    def set_callback(self, callback: Callback) -> None:
        """`callback(request, userdata)` is called for each job started hereafter that succeeds."""
        self._callback = callback

    def is_ready(self) -> bool:
        """True where a request is free: start_async would not wait."""
        return bool(self._state.idle)

    def get_idle_request_id(self, timeout_s: float | None = None) -> int:
        """Wait until a request is free, and return its index; the GIL is released meanwhile.

        Raises TimeoutError, or an error that nobody took yet.
        """
        state = self._state
        with state.news:
            self._wait(lambda: state.idle, timeout_s)
            return state.idle[0].number

    def start_async(
        self,
        inputs: Any = None,
        userdata: Any = None,
        share_inputs: bool = False,
        *,
        then: Then | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Start one inference on the next free request; waits for one where there is none.

        inputs, share_inputs: as for openvino.AsyncInferQueue.start_async. With `share_inputs`
        an array that fits is read in place; it is kept alive until the job has ended.
        then: `then(request, userdata, error)` is called instead of the callback, also for a
        job that failed (error is None for one that did not).
        Raises TimeoutError; what the inputs are refused for; an error nobody took yet.
        """
        state = self._state
        with state.news:
            self._wait(lambda: state.idle, timeout_s)
            slot = state.idle.popleft()
            state.busy += 1
            slot.userdata = userdata
            slot.then = then
            slot.callback = self._callback
            self._userdata[slot.number] = userdata
        try:
            if slot.shared:  # else a copy would land in the memory of an earlier job's owner
                for i, tensor in enumerate(slot.home):
                    slot.request.set_input_tensor(i, tensor)
            slot.shared = share_inputs or not _copies(inputs)
            slot.inputs = (inputs, _data_dispatch(slot.request, inputs, is_shared=share_inputs))
            super(ov.InferRequest, slot.request).start_async(slot.inputs[1], None)  # type: ignore[misc]
        except BaseException:
            _give_back(state, slot)
            raise
        slot.start.release()

    def wait_all(self, timeout_s: float | None = None) -> None:
        """Return when every job has ended and every callback has returned.

        Raises TimeoutError, or the first error that nobody took yet, with its traceback.
        """
        if threading.current_thread() in self._threads:
            raise RuntimeError("wait_all() in a callback would wait for itself")
        state = self._state
        with state.news:
            done = state.news.wait_for(lambda: not state.busy, timeout_s)
            if not done:
                raise TimeoutError(f"{state.busy} jobs did not end within {timeout_s} s")
            if state.errors:
                raise state.errors.popleft()

    # -- beyond it -----------------------------------------------------------------------

    def close(self) -> None:
        """Wait for what is under way and end the threads. Idempotent."""
        self._finalizer()

    def __enter__(self) -> AsyncInferQueue:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _wait(self, condition: Callable[[], object], timeout_s: float | None) -> None:
        """With the lock held: until `condition`, an error, or the time."""
        state = self._state
        inside = threading.current_thread() in self._threads
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        state.stuck += inside
        try:
            while not state.closed:
                if state.errors and not inside:
                    raise state.errors.popleft()
                if condition():
                    return
                if inside and state.stuck >= state.busy:
                    raise RuntimeError("no request is free, and every callback waits for one")
                left = None if deadline is None else deadline - time.monotonic()
                if (left is not None and left <= 0) or not state.news.wait(left):
                    raise TimeoutError(f"no request was free within {timeout_s} s")
        finally:
            state.stuck -= inside
        raise RuntimeError("the queue is closed")


def _copies(inputs: Any) -> bool:
    """True where no part of `inputs` is a Tensor, which is used as it is."""
    values = inputs.values() if isinstance(inputs, dict) else inputs
    if isinstance(values, ov.Tensor):
        return False
    if isinstance(inputs, dict | list | tuple):
        return not any(isinstance(v, ov.Tensor) for v in values)
    return True


def _give_back(state: _State, slot: _Slot) -> None:
    """The slot's job has ended: forget what belonged to it, and let others have the slot."""
    slot.inputs = slot.userdata = slot.then = slot.callback = None
    with state.news:
        state.idle.append(slot)
        state.busy -= 1
        state.news.notify_all()


def _serve(state: _State, slot: _Slot) -> None:
    """The life of a slot's thread."""
    while True:
        slot.start.acquire()
        if state.closed and slot.inputs is None:
            return
        error: BaseException | None = None
        try:
            slot.request.wait()
        except BaseException as failure:  # noqa: BLE001 - of native code, handed on whole
            error = failure
        try:
            if slot.then is not None:
                slot.then(slot.request, slot.userdata, error)
                error = None
            elif error is None and slot.callback is not None:
                slot.callback(slot.request, slot.userdata)
        except BaseException as failure:  # noqa: BLE001 - of the user's code, handed on whole
            _keep(state, slot, failure, "the callback raised")
        else:
            if error is not None:
                _keep(state, slot, error, "the inference failed")
        error = None
        _give_back(state, slot)


def _keep(state: _State, slot: _Slot, cause: BaseException, what: str) -> None:
    message = f"request {slot.number}, userdata {slot.userdata!r}: {what}: {cause}"
    error = InferenceError(message, slot.number, slot.userdata)
    error.__cause__ = cause
    with state.news:
        state.errors.append(error)
        state.news.notify_all()


def _close(state: _State, threads: list[threading.Thread]) -> None:
    with state.news:
        state.closed = True
        state.news.notify_all()
    for slot in state.slots:
        slot.start.release()
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join()
