"""AsyncInferQueue beyond OpenVINO's: futures, asyncio, map, outputs, shared memory, statistics."""

import asyncio
import gc
import mmap
import os
import threading
import weakref

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op

from ovpipe.queue import AsyncInferQueue, InferenceError, tensor_over
from tests.process.test_queue import BAD, SHAPE, compiled, fragile, ones
from tests.support.models import core
from tests.support.processes import wait_for


@pytest.fixture
def queue():
    with AsyncInferQueue(compiled(), 2) as queue:
        yield queue


def first(outputs):
    return int(outputs[0].flat[0])


class Held:
    """Keeps all requests of a queue, spares too, busy with callbacks until it is let go."""

    def __init__(self, queue):
        self.go = threading.Event()
        for _ in range(2 * len(queue)):
            queue.start_async(ones(0), then=lambda request, data, error: self.go.wait(30))


# -- futures -----------------------------------------------------------------------------


def test_submit_never_waits_and_keeps_order(queue):
    held = Held(queue)
    futures = [queue.submit(ones(i)) for i in range(50)]
    assert queue.statistics().waiting == 50
    assert not any(f.done() for f in futures)
    held.go.set()
    assert [first(f.result(10)) for f in futures] == [2 * i for i in range(50)]
    queue.wait_all()


def test_results_are_keyed_like_a_compiled_models(queue):
    port = queue[0].model_outputs[0]
    outputs = queue.submit(ones(3)).result(10)
    assert outputs[0] is outputs[port]
    kept = outputs[0].copy()
    queue.submit(ones(9)).result(10)
    queue.submit(ones(9)).result(10)
    assert (outputs[0] == kept).all()  # a copy, not a view of the request


def test_what_has_not_started_can_be_cancelled(queue):
    held = Held(queue)
    futures = [queue.submit(ones(i)) for i in range(6)]
    assert futures[2].cancel()
    assert futures[4].cancel()
    held.go.set()
    assert [first(f.result(10)) for i, f in enumerate(futures) if i not in (2, 4)] == [0, 2, 6, 10]
    queue.wait_all()
    assert queue.is_ready()
    assert not futures[0].cancel()  # it is done


def test_a_copied_input_may_be_changed_at_once(queue):
    held = Held(queue)
    mine = ones(5)
    future = queue.submit(mine)
    mine[:] = 100
    held.go.set()
    assert first(future.result(10)) == 10


def test_errors_are_the_futures_own(queue):
    bad = queue.submit(np.ones((3, 3, 3), np.float32))
    with pytest.raises((RuntimeError, ValueError)):
        bad.result(10)
    queue.wait_all()  # nothing is left for it
    assert queue.is_ready()
    with AsyncInferQueue(fragile(), 1) as other:
        for _ in range(3):
            with pytest.raises(InferenceError, match="the inference failed"):
                other.submit(BAD).result(10)
        other.wait_all()


def test_close_cancels_what_waits():
    queue = AsyncInferQueue(compiled(), 1)
    held = Held(queue)
    future = queue.submit(ones(0))
    closer = threading.Thread(target=queue.close)
    closer.start()
    wait_for(future.cancelled)
    held.go.set()
    closer.join(10)
    assert not closer.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        queue.submit(ones(0))


def test_a_thread_that_waits_in_start_async_is_told_of_close():
    queue = AsyncInferQueue(compiled(), 1)
    held = Held(queue)
    told = []

    def wait():
        try:
            queue.start_async(ones(0))
        except RuntimeError as error:
            told.append(str(error))

    waiter = threading.Thread(target=wait)
    waiter.start()
    wait_for(lambda: queue.statistics().waiting)
    closer = threading.Thread(target=queue.close)
    closer.start()
    waiter.join(10)
    assert told == ["the queue is closed"]
    held.go.set()
    closer.join(10)


def test_submitters_are_served_in_order():
    with AsyncInferQueue(compiled(), 1) as queue:
        held = Held(queue)
        order = []
        threads = []
        for i in range(5):
            if i % 2:
                queue.submit(ones(i)).add_done_callback(lambda f: order.append(first(f.result())))
            else:

                def then(request, data, error):
                    order.append(int(request.get_output_tensor().data.flat[0]))

                thread = threading.Thread(
                    target=queue.start_async, args=(ones(i),), kwargs={"then": then}
                )
                threads.append(thread)
                thread.start()
            wait_for(lambda i=i: queue.statistics().waiting == i + 1)
        held.go.set()
        for thread in threads:
            thread.join(10)
        queue.wait_all()
        assert order == [0, 2, 4, 6, 8]


def test_a_job_may_wait_in_place_of_its_submitter(queue):
    held = Held(queue)
    order = []

    def then(request, data, error):
        order.append((data, None if error else int(request.get_output_tensor().data.flat[0])))

    for i in range(5):
        queue.start_async(ones(i), i, wait=False, then=then)
    queue.start_async(np.ones((3, 3), np.float32), "bad", wait=False, then=then)
    assert queue.statistics().waiting == 6
    held.go.set()
    queue.wait_all()
    assert set(order) == {*((i, 2 * i) for i in range(5)), ("bad", None)}
    assert len(order) == 6
    with pytest.raises(TypeError, match="then"):
        queue.start_async(ones(0), wait=False)


def test_what_then_returns_is_called_when_the_request_is_free_again(queue):
    """And what it raises is raised once, as of any callback."""
    seen = []

    def then(request, data, error):
        before = list(queue.userdata)
        return lambda: seen.append((data in before, data in queue.userdata))

    for i in range(3):
        queue.start_async(ones(i), i, then=then)
        queue.wait_all()
    assert seen == [(True, False)] * 3
    queue.start_async(ones(0), "bad", then=lambda *_: lambda: [][0])
    with pytest.raises(IndexError) as error:
        queue.wait_all()
    assert "'bad'" in error.value.__notes__[0]
    queue.wait_all()


# -- asyncio -----------------------------------------------------------------------------


def test_infer_is_awaited(queue):
    async def main():
        outputs = await asyncio.gather(*(queue.infer(ones(i)) for i in range(40)))
        return [first(o) for o in outputs]

    assert asyncio.run(main()) == [2 * i for i in range(40)]


def test_a_cancelled_task_leaves_the_line(queue):
    async def main():
        held = Held(queue)
        task = asyncio.ensure_future(queue.infer(ones(1)))
        await asyncio.sleep(0)
        assert queue.statistics().waiting == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held.go.set()
        return first(await queue.infer(ones(2)))

    assert asyncio.run(main()) == 4
    queue.wait_all()


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("source", ["iterable", "async"])
def test_async_for_over_map(queue, ordered, source):
    async def items():
        for i in range(30):
            await asyncio.sleep(0)
            yield ones(i)

    async def main():
        given = items() if source == "async" else (ones(i) for i in range(30))
        return [first(o) async for o in queue.map(given, ordered=ordered)]

    got = asyncio.run(main())
    assert (got if ordered else sorted(got)) == [2 * i for i in range(30)]


def test_async_map_gives_a_result_while_the_source_is_silent(queue):
    async def main():
        more = asyncio.Event()

        async def items():
            yield ones(1)
            await more.wait()
            yield ones(2)

        got = []
        async for outputs in queue.map(items()):
            got.append(first(outputs))
            more.set()
        return got

    assert asyncio.run(main()) == [2, 4]


# -- map ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
def test_map(queue, ordered):
    got = [first(o) for o in queue.map((ones(i) for i in range(100)), ordered=ordered)]
    assert (got if ordered else sorted(got)) == [2 * i for i in range(100)]


def test_map_takes_a_bounded_number_ahead(queue):
    taken = []

    def items():
        for i in range(100):
            taken.append(i)
            yield ones(i)

    for n, _ in enumerate(queue.map(items())):
        assert len(taken) - n <= 2 * len(queue) + 1
    assert len(taken) == 100


def test_map_copies_each_input_at_once(queue):
    buffer = ones(0)

    def items():
        for i in range(50):
            buffer[:] = i  # as a camera that fills the same buffer again and again
            yield buffer

    assert [first(o) for o in queue.map(items())] == [2 * i for i in range(50)]


def test_map_raises_in_its_place_and_the_queue_goes_on():
    with AsyncInferQueue(fragile(), 2) as queue:
        good = [np.ones(3, np.float32)] * 2
        results = iter(queue.map([good, good, BAD, good]))
        assert next(results)[0].tolist() == [2, 2, 2]
        assert next(results)[0].tolist() == [2, 2, 2]
        with pytest.raises(InferenceError):
            next(results)
        queue.wait_all()
        assert len(list(queue.map([good] * 5))) == 5


# -- memory of the caller ----------------------------------------------------------------


def address(array):
    return array.__array_interface__["data"][0]


def test_outputs_are_written_in_place(queue):
    mine = np.zeros(SHAPE, np.float32)
    seen = []
    queue.start_async(
        ones(4),
        outputs=mine,
        then=lambda request, data, error: seen.append(address(request.get_output_tensor().data)),
    )
    queue.wait_all()
    assert seen == [address(mine)]
    assert (mine == 8).all()
    for i in range(10):  # and nobody writes there later
        queue.start_async(ones(i))
    queue.wait_all()
    assert (mine == 8).all()
    future = queue.submit(ones(5), outputs={0: mine})
    assert address(future.result(10)[0]) == address(mine)
    assert (mine == 10).all()


def test_a_dynamic_output_uses_a_part_of_what_it_was_given():
    with AsyncInferQueue(compiled([-1, 4]), 1) as queue:
        mine = np.full((8, 4), -1, np.float32)
        outputs = queue.submit(np.ones((3, 4), np.float32), outputs=[mine]).result(10)
        assert outputs[0].shape == (3, 4)
        assert address(outputs[0]) == address(mine)
        assert (mine[:3] == 2).all()
        assert (mine[3:] == -1).all()
        assert queue.submit(np.ones((9, 4), np.float32)).result(10)[0].shape == (9, 4)


@pytest.mark.parametrize(
    ("outputs", "error"),
    [
        (np.zeros(SHAPE, np.float64), TypeError),
        (np.zeros((9, 9), np.float32), RuntimeError),
        (np.zeros((4, 4), np.float32)[:, :1].T, ValueError),
        ({"no such": np.zeros(SHAPE, np.float32)}, KeyError),
        ({7: np.zeros(SHAPE, np.float32)}, KeyError),
        (["text"], TypeError),
        (np.frombuffer(bytes(16), np.float32).reshape(SHAPE), ValueError),
    ],
    ids=["dtype", "shape", "strides", "name", "index", "type", "read-only"],
)
def test_unfit_outputs_are_refused_and_leak_nothing(queue, outputs, error):
    for _ in range(20):
        with pytest.raises(error):
            queue.start_async(ones(0), outputs=outputs)
    assert first(queue.submit(ones(1)).result(10)) == 2
    assert queue.is_ready()


def read_only_map(nbytes):
    """An array over shared memory that this process may not write to: a write is a SIGSEGV."""
    fd = os.memfd_create("test")
    os.ftruncate(fd, nbytes)
    writable = np.frombuffer(mmap.mmap(fd, nbytes), np.float32)
    readable = np.frombuffer(mmap.mmap(fd, nbytes, prot=mmap.PROT_READ), np.float32)
    os.close(fd)
    return writable, readable


@pytest.mark.parametrize(
    "layer",
    [op.relu, lambda p: op.softmax(p, 1), lambda p: op.add(op.relu(p), p), op.sqrt],
    ids=["relu", "softmax", "residual", "sqrt"],
)
def test_a_read_only_view_of_shared_memory_is_read_in_place(layer):
    parameter = op.parameter([1, 1024], np.float32, name="x")
    model = core().compile_model(ov.Model([layer(parameter)], [parameter]), "CPU")
    writable, readable = read_only_map(4096)
    writable[:] = np.linspace(0, 1, 1024)
    array = readable.reshape(1, 1024)
    expected = model(np.array(array))[0]
    seen = []

    def then(request, data, error):
        seen.append(address(request.get_input_tensor().data))
        seen.append(np.array_equal(request.get_output_tensor().data, expected))

    with AsyncInferQueue(model, 1) as queue:
        queue.start_async(array, share_inputs=True, then=then)
        queue.wait_all()
        queue.start_async({"x": array}, share_inputs=True, then=then)
        queue.wait_all()
    assert seen == [address(array), True] * 2


def test_tensor_over_keeps_its_array_alive():
    array = np.ones(SHAPE, np.float32)
    array.flags.writeable = False
    gone = weakref.ref(array)
    tensor = tensor_over(array)
    assert address(tensor.data) == address(array)
    del array
    gc.collect()
    assert gone() is not None
    del tensor
    gc.collect()
    assert gone() is None
    with pytest.raises(ValueError, match="strides"):
        tensor_over(np.ones((4, 4), np.float32).T)


@pytest.mark.parametrize("share", [False, True])
def test_inputs_outputs_and_userdata_are_let_go_with_their_job(queue, share):
    class Data:
        pass

    for make in (ones, lambda value: ones(value).astype(np.float64)):
        array, out, data = make(1), np.zeros(SHAPE, np.float32), Data()
        refs = [weakref.ref(x) for x in (array, out, data)]
        queue.start_async({0: array}, data, share, outputs=out)
        queue.wait_all()
        del array, out, data
        gc.collect()
        assert [r() for r in refs] == [None] * 3


def test_no_growth_over_many_requests(queue):
    def objects():
        gc.collect()
        return len(gc.get_objects())

    array = ones(1)
    for _ in range(200):
        queue.start_async(array, object(), True)
    queue.wait_all()
    before = objects()
    for _ in range(5000):
        queue.start_async(array, object(), True)
    queue.wait_all()
    assert objects() - before < 50


# -- statistics --------------------------------------------------------------------------


def test_statistics_are_a_frozen_reading(queue):
    assert queue.statistics().completed == 0
    assert queue.statistics().latency_p99_ms == 0
    for i in range(20):
        queue.start_async(ones(i))
    queue.wait_all()
    with AsyncInferQueue(fragile(), 1) as other:
        with pytest.raises(InferenceError):
            other.submit(BAD).result(10)
        assert other.statistics().failed == 1
        assert other.statistics().completed == 0
    now = queue.statistics()
    assert (now.jobs, now.in_flight, now.waiting, now.completed, now.failed) == (2, 0, 0, 20, 0)
    assert 0 < now.latency_p50_ms <= now.latency_p90_ms <= now.latency_p99_ms
    assert 0 < now.busy <= 1
    assert now.seconds > 0
    with pytest.raises(AttributeError):
        now.completed = 1


def test_a_slow_callback_is_not_in_flight(queue):
    held = Held(queue)
    wait_for(lambda: queue.statistics().completed == 4)
    assert queue.statistics().in_flight == 0
    held.go.set()
    queue.wait_all()
