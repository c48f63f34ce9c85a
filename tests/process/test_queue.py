"""AsyncInferQueue: OpenVINO's API, and each fault of the native class by name."""

import gc
import subprocess
import sys
import threading
import traceback
import weakref

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op

from ovpipe.queue import AsyncInferQueue, InferenceError
from tests.support.models import core
from tests.support.processes import wait_for

SHAPE = (1, 4)


def compiled(shape=SHAPE, dtype=np.float32, inputs=1):
    """x + x (of several inputs: their sum)."""
    parameters = [op.parameter(shape, dtype, name=f"in{i}") for i in range(inputs)]
    result = parameters[0]
    for other in parameters[1:] or parameters:
        result = op.add(result, other)
    return core().compile_model(ov.Model([result], parameters), "CPU")


def fragile():
    """The sum of two vectors of any length; an inference with BAD fails while it runs."""
    return compiled([-1], inputs=2)


BAD = [np.ones(2, np.float32), np.ones(3, np.float32)]


@pytest.fixture
def queue():
    with AsyncInferQueue(compiled(), 3) as queue:
        yield queue


def collect(queue):
    results = {}
    queue.set_callback(
        lambda request, i: results.__setitem__(i, request.get_output_tensor().data.copy())
    )
    return results


def ones(value):
    return np.full(SHAPE, value, np.float32)


# -- the API -----------------------------------------------------------------------------


def test_len_iteration_and_indexing(queue):
    assert len(queue) == 3
    assert [type(r) for r in queue] == [ov.InferRequest] * 3
    assert queue[0].get_input_tensor().shape == list(SHAPE)
    assert queue[-1] is queue[2]


def test_jobs_0_is_the_devices_optimum():
    model = compiled()
    with AsyncInferQueue(model) as queue:
        assert len(queue) == model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    with pytest.raises(ValueError, match="jobs"):
        AsyncInferQueue(model, -1)


@pytest.mark.parametrize("share", [False, True])
def test_results_belong_to_their_userdata(queue, share):
    results = collect(queue)
    for i in range(200):
        queue.start_async(ones(i), i, share)
    queue.wait_all()
    assert {i: float(r[0, 0]) for i, r in results.items()} == {i: 2.0 * i for i in range(200)}


@pytest.mark.parametrize(
    "make",
    [
        lambda m, a, b: {0: a, 1: b},
        lambda m, a, b: {"in0": a, "in1": b},
        lambda m, a, b: {m.input(0): a, m.input(1): b},
        lambda m, a, b: [a, b],
        lambda m, a, b: (a, b),
        lambda m, a, b: [ov.Tensor(a), b],
        lambda m, a, b: [a.astype(np.int32), b.astype(np.float64)],
        lambda m, a, b: [a[:, ::-1], b.tolist() and b],
    ],
)
@pytest.mark.parametrize("share", [False, True])
def test_kinds_of_inputs(make, share):
    model = compiled(inputs=2)
    with AsyncInferQueue(model, 2) as queue:
        results = collect(queue)
        queue.start_async(make(model, ones(3), ones(4)), 0, share)
        queue.wait_all()
    assert (results[0] == 7).all()


@pytest.mark.parametrize("share", [False, True])
def test_dynamic_inputs_are_resized(share):
    with AsyncInferQueue(compiled([-1, 4]), 1) as queue:
        results = collect(queue)
        for rows in (2, 5, 1):
            queue.start_async(np.ones((rows, 4), np.float32), rows, share)
        queue.wait_all()
    assert {rows: r.shape for rows, r in results.items()} == {n: (n, 4) for n in (2, 5, 1)}


def test_is_ready_idle_id_and_userdata(queue):
    assert queue.is_ready()
    assert queue.get_idle_request_id() in range(3)
    assert queue.userdata == [None] * 3
    hold = threading.Event()
    queue.set_callback(lambda request, data: hold.wait())
    for i in range(3):
        queue.start_async(ones(0), i)
    assert not queue.is_ready()
    assert sorted(queue.userdata) == [0, 1, 2]
    with pytest.raises(TimeoutError):
        queue.get_idle_request_id(timeout_s=0.01)
    for i in range(3):  # in place of requests whose callbacks are slow
        queue.start_async(ones(0), i)
    with pytest.raises(TimeoutError):
        queue.start_async(ones(0), timeout_s=0.01)
    with pytest.raises(TimeoutError):
        queue.wait_all(timeout_s=0.01)
    hold.set()
    queue.wait_all()
    assert queue.is_ready()
    assert queue.userdata == [None] * 3


# -- the faults of the native class ------------------------------------------------------


def test_1_a_failed_inference_is_told_and_the_pool_goes_on():
    with AsyncInferQueue(fragile(), 2) as queue:
        done = []
        queue.set_callback(lambda request, data: done.append(data))
        queue.start_async(BAD, "bad")
        with pytest.raises(InferenceError, match="'bad': the inference failed") as error:
            queue.wait_all()
        assert error.value.userdata == "bad"
        queue.wait_all()  # once
        for _ in range(20):
            queue.start_async(BAD, "bad")
            with pytest.raises(InferenceError):
                queue.wait_all()
        assert not done
        assert queue.is_ready()


def test_1_then_is_told_of_failures_instead():
    with AsyncInferQueue(fragile(), 2) as queue:
        told = []
        for i in range(5):
            queue.start_async(BAD, i, then=lambda request, data, error: told.append((data, error)))
        queue.wait_all()
    assert sorted(data for data, _ in told) == [0, 1, 2, 3, 4]
    assert all(isinstance(error, RuntimeError) for _, error in told)


def test_2_an_exception_in_a_callback_is_raised_once_with_its_traceback(queue):
    def bad(request, data):
        raise KeyError("mine")

    queue.set_callback(bad)
    queue.start_async(ones(1), "job")
    with pytest.raises(KeyError, match="mine") as error:
        queue.wait_all()
    said = "".join(traceback.format_exception(error.value))
    assert "raised by the callback of request 0, userdata 'job'" in said
    assert ", in bad\n" in said
    queue.wait_all()  # once
    results = collect(queue)
    for i in range(10):
        queue.start_async(ones(i), i)
    queue.wait_all()
    assert len(results) == 10


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize(
    "bad",
    [
        np.ones((2, 3), np.float32),
        {"nobody": np.ones(SHAPE, np.float32)},
        {7: np.ones(SHAPE, np.float32)},
        object(),
        {0: object()},
        ov.Tensor(np.ones((2, 3), np.float32)),
        ov.Tensor(np.ones(SHAPE, np.int8)),
    ],
    ids=["shape", "name", "index", "object", "object-in-dict", "tensor-shape", "tensor-type"],
)
def test_3_a_bad_input_raises_and_leaks_no_request(queue, bad, share):
    results = collect(queue)
    for _ in range(100):
        with pytest.raises((RuntimeError, ValueError, TypeError, IndexError)):
            queue.start_async(bad, None, share)
    for i in range(9):
        queue.start_async(ones(i), i)
    queue.wait_all()
    assert {i: float(r[0, 0]) for i, r in results.items()} == {i: 2.0 * i for i in range(9)}


def test_4_any_number_of_threads_may_submit(queue):
    results = collect(queue)

    def submit(first):
        for i in range(first, first + 200):
            queue.start_async(ones(i), i)

    threads = [threading.Thread(target=submit, args=(1000 * t,)) for t in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queue.wait_all()
    assert len(results) == 1200
    assert all(r[0, 0] == 2 * i for i, r in results.items())


def test_5_a_shared_temporary_lives_until_its_inference_is_done():
    with AsyncInferQueue(compiled([1, 100_000]), 4) as queue:
        results = collect(queue)
        for i in range(200):
            queue.start_async(np.full((1, 100_000), i, np.float32), i, share_inputs=True)
        queue.wait_all()
    assert all((r == 2 * i).all() for i, r in results.items())


def test_6_waiting_for_oneself_in_a_callback_raises(queue):
    queue.set_callback(lambda request, data: queue.wait_all())
    queue.start_async(ones(0))
    with pytest.raises(RuntimeError, match="wait for itself"):
        queue.wait_all()


def test_6_start_async_in_callbacks_works_or_raises():
    with AsyncInferQueue(compiled(), 2) as queue:
        seen = []

        def again(request, left):
            seen.append(left)
            if left:
                queue.start_async(ones(left), left - 1)

        queue.set_callback(again)
        queue.start_async(ones(0), 10)
        queue.wait_all()
        assert seen == list(range(10, -1, -1))
    with AsyncInferQueue(compiled(), 1) as queue:
        seen.clear()
        queue.set_callback(again)
        queue.start_async(ones(0), 10)
        queue.wait_all()
        assert seen == list(range(10, -1, -1))
        queue.set_callback(lambda request, n: [queue.start_async(ones(0), 0) for _ in range(n)])
        queue.start_async(ones(0), 3)
        with pytest.raises(RuntimeError, match="every callback waits"):
            queue.wait_all()


def test_6_a_slow_callback_does_not_hold_up_the_device():
    with AsyncInferQueue(compiled(), 1) as queue:
        hold, first = threading.Event(), threading.Event()
        order, outputs = [], []

        def slow(request, data):
            first.set()
            hold.wait(30)
            outputs.append(request.get_output_tensor().data.copy())
            order.append(data)

        queue.set_callback(slow)
        queue.start_async(ones(1), 1)
        assert first.wait(10)
        queue.start_async(ones(2), 2)  # a spare request's
        wait_for(lambda: queue.statistics().completed == 2)
        assert not order
        hold.set()
        queue.wait_all()
        assert order == [1, 2]  # with one job, callbacks never run beside each other
        assert [int(o.flat[0]) for o in outputs] == [2, 4]  # each its own


def test_6_a_slow_callback_does_not_hold_up_futures():
    with AsyncInferQueue(compiled(), 1) as queue:
        hold = threading.Event()
        queue.start_async(ones(1), then=lambda request, data, error: hold.wait(30))
        assert queue.submit(ones(3)).result(timeout=10)[0][0, 0] == 6
        hold.set()


def test_6_slow_callbacks_run_side_by_side_as_many_as_jobs():
    with AsyncInferQueue(compiled(), 2) as queue:
        hold, running, most, lock = threading.Event(), [], [0], threading.Lock()

        def slow(request, data):
            with lock:
                running.append(data)
                most[0] = max(most[0], len(running))
            hold.wait(30)
            with lock:
                running.remove(data)

        queue.set_callback(slow)
        for i in range(4):
            queue.start_async(ones(i), i)
        wait_for(lambda: len(running) == 2)
        hold.set()
        for i in range(50):
            queue.start_async(ones(i), i + 4)
        queue.wait_all()
        assert most[0] == 2


def test_6_close_in_a_callback(queue):
    queue.set_callback(lambda request, data: queue.close())
    queue.start_async(ones(0))
    queue.wait_all()
    with pytest.raises(RuntimeError, match="closed"):
        queue.start_async(ones(0))


def test_7_an_index_out_of_range(queue):
    for index in (3, -4, 10**6):
        with pytest.raises(IndexError):
            queue[index]


def test_8_a_copied_input_never_lands_in_the_users_array():
    with AsyncInferQueue(compiled(), 1) as queue:
        mine = ones(7)
        queue.start_async(mine, share_inputs=True)
        queue.start_async({0: ov.Tensor(mine, shared_memory=True)})
        queue.wait_all()
        queue.start_async(ones(1))
        queue.wait_all()
    assert (mine == 7).all()


def test_9_del_with_jobs_in_flight_waits_for_them():
    queue = AsyncInferQueue(compiled(), 3)
    results = collect(queue)
    for i in range(3):
        queue.start_async(ones(i), i)
    del queue
    gc.collect()
    assert len(results) == 3


def test_9_a_cycle_through_the_callback_is_collected():
    queue = AsyncInferQueue(compiled(), 1)
    queue.set_callback(lambda request, data, itself=queue: None)
    queue.start_async(ones(0))
    queue.wait_all()
    seen = weakref.ref(queue)
    del queue
    gc.collect()
    assert seen() is None


def test_9_inputs_are_released_when_their_job_is_done(queue):
    class Mine(np.ndarray):
        pass

    array = ones(1).view(Mine)
    seen = weakref.ref(array)
    queue.start_async(array, share_inputs=True)
    queue.wait_all()
    for slot in queue:  # what OpenVINO itself keeps of the last job
        slot._inputs_data = None
        slot.set_input_tensor(ov.Tensor(ones(0)))
    del array
    gc.collect()
    assert seen() is None


EXIT = """
import numpy as np, openvino as ov, sys
from openvino import opset13 as op
from ovpipe.queue import AsyncInferQueue
x = op.parameter([1, 200_000], np.float32)
queue = AsyncInferQueue(ov.Core().compile_model(ov.Model([op.exp(x)], [x]), "CPU"), 4)
queue.set_callback(lambda request, data: request.get_output_tensor().data.sum())
for i in range(20):
    queue.start_async(np.ones((1, 200_000), np.float32))
{end}
"""


@pytest.mark.parametrize("end", ["", "queue.wait_all()", "sys.exit(0)", "del queue"])
def test_9_leaving_the_interpreter_is_clean(end):
    for _ in range(3):
        ended = subprocess.run(
            [sys.executable, "-c", EXIT.format(end=end)], capture_output=True, timeout=60
        )
        assert (ended.returncode, ended.stderr) == (0, b"")


def test_close_is_idempotent_and_ends_the_threads():
    before = threading.active_count()
    queue = AsyncInferQueue(compiled(), 4)
    assert threading.active_count() == before + 4
    queue.close()
    queue.close()
    assert threading.active_count() == before
