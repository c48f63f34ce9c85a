"""A pool of infer requests with the API of openvino.AsyncInferQueue and none of its faults.

One thread waits for each request: `start_async` sets the tensors and starts the request on the
submitter's thread; the request's own thread waits for it, runs the callback, and gives the slot
back. So a failed inference is an ordinary exception there, no Python runs on a thread of
OpenVINO, and callbacks of different slots run beside each other.

Law: `start_async` either starts exactly one inference or raises and leaks nothing. Each job
ends once: in its `then` or its future, else in the callback or in an error. An error that is
nobody's (a failed inference, or an exception in a callback) is raised once, by who waits or by
the next `wait_all`, `start_async` or `get_idle_request_id`; after that the pool goes on.
Inputs, outputs and userdata are held until their job has ended, and not longer.
"""

from __future__ import annotations

import asyncio
import reprlib
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any

import numpy as np
import openvino as ov

from ovpipe.queue.job import Job, Slot
from ovpipe.queue.results import Results
from ovpipe.queue.slots import Slots
from ovpipe.queue.statistics import LATENCIES, Statistics
from ovpipe.queue.tensors import Ports, copied

# The first use of Tensor.data from two threads at once can dead-lock the process.
_ = ov.Tensor(np.zeros(1, np.float32)).data

Callback = Callable[[ov.InferRequest, Any], None]
Then = Callable[[ov.InferRequest | None, Any, BaseException | None], object]


class InferenceError(RuntimeError):
    """An inference failed; `__cause__` is what OpenVINO said.

    `request_id` and `userdata` say which job it was.
    """

    def __init__(self, message: str, request_id: int, userdata: Any) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.userdata = userdata


class AsyncInferQueue:
    """A pool of `jobs` infer requests of a compiled model; as openvino.AsyncInferQueue.

    model: openvino.CompiledModel. jobs: number of requests; 0 = the device's optimal number.

    Differences, each the documented better one:

    - Any number of threads may submit.
    - A failed inference (as InferenceError), and an exception in a callback (itself, with a
      note that names the request and the userdata), is raised once, by who waits or asks next;
      then the pool goes on. A bad input leaks no request.
    - An index out of range raises IndexError.
    - What a job was given lives until the job has ended, and is forgotten then: `userdata`
      shows those of jobs under way. A shared input is never written to.
    - While a callback is slow, a spare request serves in place of its own: so as many
      inferences as ever are under way, and at most `jobs` callbacks.
    - `close()`, `with` and `del` wait for what is under way. Within a callback `wait_all` raises
      RuntimeError instead of waiting for itself; so does `start_async` where every request
      waits for such a call.
    """

    def __init__(self, model: ov.CompiledModel, jobs: int = 0) -> None:
        if jobs < 0:
            raise ValueError(f"jobs must be 0 or more, not {jobs}")
        count = jobs or int(model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._slots, self._latencies = _make_slots(model, count)
        self._callback: Callback | None = None
        self._since_ns = time.monotonic_ns()
        self._finalizer = weakref.finalize(self, _close, self._slots)

    # -- the API of openvino.AsyncInferQueue ---------------------------------------------

    def __len__(self) -> int:
        return self._slots.jobs

    def __iter__(self) -> Iterator[ov.InferRequest]:
        return iter([slot.ports.request for slot in self._slots.visible])

    def __getitem__(self, index: int) -> ov.InferRequest:
        return self._slots.visible[index].ports.request

    @property
    def userdata(self) -> list[Any]:
        """The userdata of each request's present job; None where there is none."""
        jobs = [slot.job for slot in self._slots.visible]
        return [None if job is None else job.userdata for job in jobs]

    def set_callback(self, callback: Callback | None) -> None:
        """`callback(request, userdata)` is called for each job started hereafter that succeeds."""
        self._callback = callback

    def is_ready(self) -> bool:
        """True where a request is free: start_async would not wait."""
        return self._slots.ready

    def get_idle_request_id(self, timeout_s: float | None = None) -> int:
        """Wait until a request is free, and return its index; the GIL is released meanwhile.

        Raises TimeoutError, or an error that nobody took yet.
        """
        return self._slots.wait_idle(timeout_s, self._inside())

    def start_async(
        self,
        inputs: Any = None,
        userdata: Any = None,
        share_inputs: bool = False,
        *,
        outputs: Any = None,
        then: Then | None = None,
        timeout_s: float | None = None,
        wait: bool = True,
    ) -> None:
        """Start one inference on the next free request; waits for one where there is none.

        inputs, share_inputs: as for openvino.AsyncInferQueue.start_async. With `share_inputs`
        an array that fits is read in place, also one that is read-only, and is kept alive until
        the job has ended.
        outputs: memory that the device writes this job's results to: an array or Tensor for a
        model of one output, a list, or a dict by index, name or port. Arrays are writable,
        C-contiguous and of the output's dtype and shape (for a dynamic output: as large as any).
        then: `then(request, userdata, error)` is called instead of the callback, also for a
        job that failed (error is None for one that did not). Where it returns a function, that
        is called once the request is free again, and so has its next job.
        wait: False needs a `then`; where no request is free, the job stands in a line in place
        of this call, and its inputs must not change. One that cannot be started then, or that
        waits while the queue is closed, is told so by `then`, with None for a request.
        Raises TimeoutError; what inputs or outputs are refused for; an error nobody took yet.
        """
        job = Job(
            inputs,
            userdata=userdata,
            share=share_inputs,
            outputs=outputs,
            callback=None if then is not None else self._callback,
            then=then,
        )
        if wait:
            self._begin(job, timeout_s)
        elif then is None:
            raise TypeError("start_async(wait=False) needs a `then`")
        else:
            self._slots.start_all(self._slots.queue(job, may_wait=True) or [])

    def wait_all(self, timeout_s: float | None = None) -> None:
        """Return when every job has ended and every callback has returned.

        Raises TimeoutError, or the first error that nobody took yet, with its traceback.
        """
        if self._inside():
            raise RuntimeError("wait_all() in a callback would wait for itself")
        self._slots.wait_all(timeout_s)

    # -- beyond it -----------------------------------------------------------------------

    def submit(
        self, inputs: Any, *, share_inputs: bool = False, outputs: Any = None
    ) -> Future[Any]:
        """Ask for one inference; the future's result is its outputs, as of CompiledModel().

        Never waits: where no request is free, the job stands in a line, in order, and copies of
        its inputs with it (not with `share_inputs`); `future.cancel()` takes it out again. The
        line has no bound: use `start_async` or `map` to be held back.
        The result is keyed by port, index or name; its arrays are copies, or views of `outputs`.
        The future raises InferenceError, or what the inputs were refused for. Callbacks are not
        called.
        """
        future: Future[Any] = Future()
        job = Job(inputs, share=share_inputs, outputs=outputs, future=future)
        starts = self._slots.queue(job, may_wait=share_inputs)
        if starts is None:
            job.inputs = copied(inputs)
            starts = self._slots.queue(job, may_wait=True)
        self._slots.start_all(starts or [])
        return future

    async def infer(self, inputs: Any, *, share_inputs: bool = False, outputs: Any = None) -> Any:
        """As submit, awaited; a task that is cancelled before its job began leaves the line."""
        future = self.submit(inputs, share_inputs=share_inputs, outputs=outputs)
        return await asyncio.wrap_future(future)

    def map(
        self,
        iterable: Iterable[Any] | AsyncIterable[Any],
        *,
        ordered: bool = True,
        share_inputs: bool = False,
    ) -> Results:
        """The outputs of each of `iterable`, lazily: `for` or `async for` them.

        Keeps the pool full while somebody waits for a result, and takes at most 2 * len(self)
        items ahead. ordered: in the order of the items, else as they come.
        An inference that fails raises InferenceError in its place and ends the iteration.
        """
        return Results(
            self._submit_blocking, self.submit, self._slots, iterable, ordered, share_inputs
        )

    def statistics(self) -> Statistics:
        """Figures of the pool's life until now."""
        return Statistics.of(self._slots, self._latencies, self._since_ns)

    def close(self) -> None:
        """Wait for what is under way and end the threads. Idempotent.

        Futures that wait in the line are cancelled. Within a callback it does not wait for that.
        """
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

    def _inside(self) -> bool:
        return getattr(threading.current_thread(), "serves", None) is self._slots

    def _begin(self, job: Job, timeout_s: float | None) -> None:
        slot = self._slots.take(job, timeout_s, self._inside())
        try:
            _start(slot, job)
        except BaseException:
            self._slots.free(slot)
            self._slots.end()
            raise

    def _submit_blocking(self, inputs: Any, share_inputs: bool) -> Future[Any]:
        """As submit, but waits until the job has begun."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        self._begin(Job(inputs, share=share_inputs, future=future), None)
        return future


class _Thread(threading.Thread):
    """A slot's thread."""

    serves: Slots


def _make_slots(model: ov.CompiledModel, jobs: int) -> tuple[Slots, deque[int]]:
    """The slots, whose threads know them, but not the queue: so that it can be let go."""
    latencies: deque[int] = deque(maxlen=LATENCIES)
    ready = threading.Event()

    def make(number: int, spare: bool) -> Slot:
        slot = Slot(number, Ports(model.create_infer_request()), spare)
        thread = _Thread(target=serve, args=(slot,), name=f"infer-{number}", daemon=True)
        slot.thread = thread
        thread.start()
        return slot

    def serve(slot: Slot) -> None:
        ready.wait()
        slot.thread.serves = slots  # type: ignore[attr-defined]
        _serve(slots, slot, latencies)

    slots = Slots(jobs, make, _start)
    ready.set()
    return slots, latencies


def _start(slot: Slot, job: Job) -> None:
    """Set the job's tensors and start its inference; raises with nothing left behind."""
    ports = slot.ports
    try:
        ports.give(job.outputs)
        tensors = ports.feed(job.inputs, job.share)
        slot.started_ns = time.monotonic_ns()
        slot.running = True
        super(ov.InferRequest, ports.request).start_async(tensors, None)
    except BaseException:
        slot.running = False
        ports.restore()
        raise
    slot.start.put(None)


def _serve(slots: Slots, slot: Slot, latencies: deque[int]) -> None:
    """The life of a slot's thread."""
    request, restore = slot.ports.request, slot.ports.restore
    while True:
        slot.start.get()
        job = slot.job
        if job is None or not slot.running:
            if slots.closed and job is None:
                return
            continue
        error: BaseException | None = None
        try:
            request.wait()
        except BaseException as failure:  # noqa: BLE001 - of native code, handed on whole
            error = failure
        took_ns = time.monotonic_ns() - slot.started_ns
        latencies.append(took_ns)
        slot.infer_ns += took_ns
        slot.finished += 1
        slot.failed += error is not None
        if job.future is not None:
            _settle(slots, slot, job, error)
        else:
            after = _call_back(slots, slot, job, error)
            restore()
            slots.free(slot)
            if callable(after):
                _call_after(slots, slot, job, after)
            after = None
        del job
        error = None
        slots.end()


def _settle(slots: Slots, slot: Slot, job: Job, error: BaseException | None) -> None:
    """Take the results out of the slot, let others have it, then tell the future."""
    results = None
    if error is None:
        try:
            results = slot.ports.results()
        except Exception as failure:  # noqa: BLE001 - e.g. no memory for the copies
            error = failure
    slot.ports.restore()
    slots.free(slot)
    assert job.future is not None
    if error is None:
        job.future.set_result(results)
    else:
        job.future.set_exception(_error(slot, job, error))


def _call_back(slots: Slots, slot: Slot, job: Job, error: BaseException | None) -> object:
    """Returns what `then` returned."""
    request = slot.ports.request
    try:
        if job.then is not None:
            slots.begin_call(slot, job)
            return job.then(request, job.userdata, error)
        if error is not None:
            slots.fail(_error(slot, job, error))
        elif job.callback is not None:
            slots.begin_call(slot, job)
            job.callback(request, job.userdata)
    except BaseException as failure:  # noqa: BLE001 - of the user's code, handed on whole
        failure.add_note(f"raised by the callback of {_name(slot, job)}")
        slots.fail(failure)
    return None


def _call_after(slots: Slots, slot: Slot, job: Job, after: Callable[[], object]) -> None:
    try:
        after()
    except BaseException as failure:  # noqa: BLE001 - of the user's code, handed on whole
        failure.add_note(f"raised after the callback of {_name(slot, job)}")
        slots.fail(failure)


def _name(slot: Slot, job: Job) -> str:
    return f"request {slot.number}, userdata {reprlib.repr(job.userdata)}"  # never raises


def _error(slot: Slot, job: Job, cause: BaseException) -> InferenceError:
    message = f"{_name(slot, job)}: the inference failed: {cause}"
    error = InferenceError(message, slot.number, job.userdata)
    error.__cause__ = cause
    return error


def _close(slots: Slots) -> None:
    slots.close()
    for slot in slots.all:
        if slot.thread is not threading.current_thread():
            slot.thread.join()
