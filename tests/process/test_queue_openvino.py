"""What OpenVINO's own tests ask of its queue, asked of ours: the same facts, and of both classes.

Where the native class has a fault that ours has not, only ours is asked.
"""

import threading
from collections.abc import Iterable

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op

from ovpipe.queue import AsyncInferQueue
from tests.support.models import core

CLASSES = [
    pytest.param(AsyncInferQueue, id="ovpipe"),
    pytest.param(ov.AsyncInferQueue, id="openvino"),
]


@pytest.fixture(params=CLASSES)
def cls(request):
    return request.param


def compile_(layer, shape, dtype=np.float32, name="data"):
    data = op.parameter(shape, dtype, name=name)
    return core().compile_model(ov.Model([layer(data)], [data]), "CPU")


@pytest.fixture(scope="module")
def relu():
    return compile_(op.relu, [1, 3, 32, 32])


IMAGE = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)


@pytest.mark.parametrize("share", [True, False])
def test_every_job_is_called_back_with_a_latency(cls, relu, share):
    queue = cls(relu, 4)
    latency = [0.0] * 8

    def callback(request, job):
        latency[job] = request.latency

    queue.set_callback(callback)
    assert queue.is_ready()
    for job in range(8):
        queue.start_async({"data": IMAGE.copy()}, job, share_inputs=share)
    queue.wait_all()
    assert all(value > 0 for value in latency)


@pytest.mark.parametrize("share", [True, False])
def test_after_wait_all_each_request_shows_its_results(cls, relu, share):
    queue = cls(relu, 4)
    for job in range(8):
        queue.start_async({"data": IMAGE}, job, share_inputs=share)
    queue.wait_all()
    expected = relu.create_infer_request().infer({0: IMAGE})
    for i in range(4):
        assert np.allclose(list(expected.values()), list(queue[i].results.values()))


def test_iteration_gives_the_requests_once(cls):
    queue = cls(compile_(op.relu, [10]), 1)
    assert isinstance(queue, Iterable)
    requests = iter(queue)
    request = next(requests)
    assert isinstance(request, ov.InferRequest)
    assert request.userdata is None
    with pytest.raises(StopIteration):
        next(requests)


@pytest.mark.parametrize("jobs", [1, 5])
def test_userdata_is_none_where_none_was_passed(cls, jobs):
    assert cls(compile_(op.relu, [10]), jobs).userdata == [None] * jobs


def test_an_idle_id_names_a_request_that_is_done(cls):
    queue = cls(compile_(op.relu, [10]), 2)
    for _ in range(len(queue)):
        queue.start_async()
    queue.wait_all()
    assert all(request.wait_for(0) for request in queue)
    for _ in range(10):
        number = queue.get_idle_request_id()
        assert queue[number].wait_for(0)
        queue.start_async()
    queue.wait_all()


def test_start_async_without_inputs_takes_what_the_idle_request_has(cls):
    queue = cls(compile_(op.relu, [4]), 2)
    results = []
    queue.set_callback(lambda request, data: results.append(request.get_output_tensor().data[0]))
    for value in range(5):
        request = queue[queue.get_idle_request_id()]
        request.get_input_tensor().data[:] = value
        queue.start_async()
    queue.wait_all()
    assert sorted(results) == [0, 1, 2, 3, 4]


def test_what_openvino_raises_in_a_callback_reaches_who_waits(relu):
    queue = AsyncInferQueue(relu, 4)
    queue.set_callback(lambda request, _: request.get_tensor("Unknown"))

    def run():
        for _ in range(6):
            queue.start_async({"data": IMAGE})
        queue.wait_all()

    with pytest.raises(RuntimeError, match="Port for tensor name Unknown was not found"):
        run()


def test_what_python_raises_in_a_callback_reaches_who_waits(relu):
    queue = AsyncInferQueue(relu, 1)
    queue.set_callback(lambda request, _: request + 21)
    queue.start_async({"data": IMAGE})
    with pytest.raises(TypeError, match="unsupported operand type"):
        queue.wait_all()


@pytest.mark.parametrize("with_callback", [False, True])
def test_a_failing_inference_is_raised_and_not_called_back(with_callback):
    data = op.parameter([10], np.float32, name="data")
    k = op.parameter([], np.int32, name="k")
    top = op.topk(data, k, axis=0, mode="max", sort="value")
    model = core().compile_model(ov.Model(top.outputs(), [data, k]), "CPU")
    queue = AsyncInferQueue(model, 4)
    called = []
    if with_callback:
        queue.set_callback(lambda request, _: called.append(request))
    inputs = {
        "data": ov.Tensor(np.arange(10, dtype=np.float32)),
        "k": ov.Tensor(np.array(11, np.int32)),
    }

    def run():
        for _ in range(6):
            queue.start_async(inputs)
        queue.wait_all()

    with pytest.raises(RuntimeError, match="Can not clone with new dims"):
        run()
    assert not called


class ArrayLike:
    """As a torch.Tensor: known to numpy by its __array__ alone."""

    def __init__(self, array):
        self.data = array

    def __array__(self, dtype=None, copy=None):
        return np.array(self.data)


@pytest.mark.parametrize("share", [True, False])
def test_objects_that_convert_to_arrays(cls, share):
    model = compile_(op.abs, [2, 2])
    data = np.array([[-2, -1], [0, 1]])
    for make in (lambda: ArrayLike(data), lambda: [ArrayLike(data)]):
        queue = cls(model, 8)
        given = [make() for _ in range(8)]
        for inputs in given:
            queue.start_async(inputs, share_inputs=share)
        queue.wait_all()
        assert all(np.array_equal(r.get_output_tensor().data, np.abs(data)) for r in queue)


TYPES = [
    "f32",
    "f64",
    "f16",
    "bf16",
    "i8",
    "u8",
    "i32",
    "u32",
    "i16",
    "u16",
    "i64",
    "u64",
    "boolean",
]


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("share", [True, False])
def test_a_tensor_and_an_array_of_any_type_side_by_side(cls, name, share):
    type_ = getattr(ov.Type, name)
    parameters = [op.parameter([5], type_), op.parameter([5], type_)]
    model = core().compile_model(ov.Model([op.concat(parameters, 0)], parameters), "CPU")
    tensor = ov.Tensor(type_, [5])
    tensor.data[:] = np.array([6, 7, 8, 9, 0])
    array = np.array([1, 2, 3, 4, 5]).astype(type_.to_dtype())
    queue = cls(model, 1)
    queue.start_async([tensor, array], share_inputs=share)
    queue.wait_all()
    result = queue[0].get_output_tensor().data
    assert np.array_equal(result, np.concatenate((tensor.data, array)))


@pytest.mark.parametrize("name", ["f32", "f64", "f16", "i8", "u8", "i32", "i16", "u16", "i64"])
@pytest.mark.parametrize("share", [True, False])
def test_a_single_array_and_a_single_tensor_of_any_type(cls, name, share):
    type_ = getattr(ov.Type, name)
    queue = cls(compile_(op.abs, [1, 4], type_), 1)
    array = np.array([[-1, 2, 5, -3]]).astype(type_.to_dtype())
    tensor = ov.Tensor(type_, [1, 4])
    tensor.data[:] = np.array([6, -7, -8, 9]).astype(type_.to_dtype())
    for inputs, values in ((array, array), (tensor, tensor.data)):
        queue.start_async(inputs, share_inputs=share)
        queue.wait_all()
        assert np.array_equal(queue[0].get_output_tensor().data, np.abs(values))


@pytest.mark.parametrize("given", [np.int64, np.float64, np.uint8, np.float16])
@pytest.mark.parametrize("share", [True, False])
def test_arrays_are_cast_up_and_down(cls, given, share):
    queue = cls(compile_(op.relu, [1, 4]), 1)
    queue.start_async(np.array([[1, 2, 3, 4]], given), share_inputs=share)
    queue.wait_all()
    assert queue[0].get_output_tensor().data.tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("value", [3, 3.0, np.float32(3), np.array(3, np.float64)])
@pytest.mark.parametrize("share", [True, False])
def test_scalars(cls, value, share):
    queue = cls(compile_(op.relu, []), 1)
    queue.start_async({0: value}, share_inputs=share)
    queue.wait_all()
    assert queue[0].get_output_tensor().data == 3


@pytest.mark.parametrize("share", [True, False])
def test_strings(cls, share):
    data = op.parameter([2], ov.Type.string, name="data")
    model = core().compile_model(ov.Model([data], [data]), "CPU")
    queue = cls(model, 1)
    queue.start_async(["text", "more text"], share_inputs=share)
    queue.wait_all()
    assert queue[0].get_output_tensor().str_data.tolist() == ["text", "more text"]


def test_futures_give_strings():
    data = op.parameter([2], ov.Type.string, name="data")
    model = core().compile_model(ov.Model([data], [data]), "CPU")
    with AsyncInferQueue(model, 1) as queue:
        assert queue.submit(["a", "b"]).result(10)[0].tolist() == ["a", "b"]


@pytest.mark.parametrize("wait", ["wait_all", "get_idle_request_id", "start_async"])
def test_the_gil_is_released_while_waiting(wait):
    """Another thread lets the pool go on: it can only run while the waiting one does not."""
    queue = AsyncInferQueue(compile_(op.relu, [10]), 1)
    go = threading.Event()
    for _ in range(2):
        queue.start_async(then=lambda request, data, error: go.wait(30))
    releaser = threading.Timer(0.05, go.set)
    releaser.start()
    getattr(queue, wait)()
    assert go.is_set()
    releaser.join()
    queue.close()
