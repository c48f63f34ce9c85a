"""A job's inputs and outputs: the tensors of one infer request, set for it and taken back.

What a request owns from its birth is its home: copied inputs land there and results come from
there, unless a job brings memory of its own. That memory is in the request only while its job
runs; then the home is put back, so that no later copy lands in it and nothing keeps it alive.

An array that fits (C-contiguous, of the port's dtype) is read in place with `share`, also when
it is read-only, as views of shared memory are: the device only reads its inputs. All else is
left to openvino's own dispatcher: casts, scalars, strings, bf16, what converts to an array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino.utils.data_helpers import OVDict
from openvino.utils.data_helpers.data_dispatcher import _data_dispatch

# Types whose tensors numpy sees as they are. Not bf16, strings, nor what is packed into bits.
_PLAIN = {
    ov.Type.boolean, ov.Type.i8, ov.Type.u8, ov.Type.i16, ov.Type.u16, ov.Type.i32, ov.Type.u32,
    ov.Type.i64, ov.Type.u64, ov.Type.f16, ov.Type.f32, ov.Type.f64,
}  # fmt: skip


class _Alias:
    """The memory of a read-only array, given to numpy as writable; keeps the array alive."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


def tensor_over(array: NDArray[Any]) -> ov.Tensor:
    """A tensor in the memory of `array`, which it keeps alive; no copy.

    `array` is C-contiguous and may be read-only: use the tensor as an input, then.
    Raises ValueError for one that is not C-contiguous.
    """
    if not array.flags.c_contiguous:
        raise ValueError(f"an array with strides {array.strides} cannot be shared; copy it first")
    if not array.flags.writeable:
        array = np.asarray(_Alias(array))
    return ov.Tensor(array, shared_memory=True)


class _Port:
    """One input or output of a request, and the tensor that it was born with."""

    def __init__(self, number: int, port: ov.ConstOutput, home: ov.Tensor) -> None:
        self.number = number
        self.port = port
        self.home = home
        self.plain = home.element_type in _PLAIN
        self.dtype = home.element_type.to_dtype() if self.plain else None
        static = not port.get_partial_shape().is_dynamic
        self.view: Any = home.data if self.plain and static else None

    def mend(self) -> None:
        """openvino's dispatcher gives the tensor it copies to the shape of what it was given."""
        if self.view is not None and list(self.home.shape) != list(self.view.shape):
            self.home = ov.Tensor(self.home.element_type, ov.Shape(self.view.shape))
            self.view = self.home.data

    def takes(self, value: Any, share: bool) -> bool:
        """True where we need no dispatcher: a tensor, or an array that fits as it is."""
        if type(value) is ov.Tensor:
            return True
        if type(value) is not np.ndarray or value.dtype != self.dtype or not value.ndim:
            return False
        if share:
            return value.flags.c_contiguous
        return self.view is not None and value.shape == self.view.shape


class Ports:
    """The inputs and outputs of one request. `restore` undoes what `feed` and `give` did."""

    def __init__(self, request: ov.InferRequest) -> None:
        self.request = request
        self._inputs, self._input_keys = _ports(request.model_inputs, request.get_input_tensor)
        self._outputs, self._output_keys = _ports(request.model_outputs, request.get_output_tensor)
        self._fed = False
        self._dispatched = False
        self._given: list[_Port] = []

    def feed(self, inputs: Any, share: bool) -> Any:
        """Set the inputs, as openvino's own start_async does; raises what that raises.

        Returns what start_async of the request still has to set, by key.
        """
        if inputs is None:
            return {}
        pairs = self._pairs(inputs)
        if pairs is None or not all(port.takes(value, share) for port, value in pairs):
            self._fed = self._dispatched = True
            return _data_dispatch(self.request, inputs, is_shared=share)
        for port, value in pairs:
            if type(value) is ov.Tensor or share:
                self._fed = True
                tensor = value if type(value) is ov.Tensor else tensor_over(value)
                self.request.set_input_tensor(port.number, tensor)
            else:  # somebody may have set a tensor of his own, by hand
                self.request.set_input_tensor(port.number, port.home)
                np.copyto(port.view, value)
        return {}

    def give(self, outputs: Any) -> None:
        """Have results written to `outputs`: an array or Tensor, a list, or a dict by index,
        name or port. Raises KeyError, TypeError or ValueError for what cannot be written to.
        """
        if outputs is None:
            return
        if isinstance(outputs, np.ndarray | ov.Tensor):
            outputs = [outputs]
        items = outputs.items() if isinstance(outputs, Mapping) else enumerate(outputs)
        for key, value in items:
            if key not in self._output_keys:
                raise KeyError(f"the model has no output {key!r}")
            port = self._outputs[self._output_keys[key]]
            if isinstance(value, np.ndarray):
                if not value.flags.writeable:
                    raise ValueError(f"output {key!r}: the array is read-only")
                if not port.plain or value.dtype != port.dtype:
                    raise TypeError(
                        f"output {key!r} is {port.home.element_type}, the array {value.dtype}"
                    )
                value = tensor_over(value)
            elif not isinstance(value, ov.Tensor):
                raise TypeError(f"output {key!r}: an ndarray or Tensor, not {type(value).__name__}")
            self._given.append(port)
            self.request.set_output_tensor(port.number, value)

    def results(self) -> OVDict:
        """What the inference gave, by port, name or index: copies, but for outputs that the
        caller gave memory for, which are views of that."""
        return OVDict({port.port: self._result(port) for port in self._outputs})

    def _result(self, port: _Port) -> Any:
        tensor = self.request.get_output_tensor(port.number)
        if tensor.element_type == ov.Type.string:
            return np.array(tensor.str_data)
        return tensor.data if port in self._given else tensor.data.copy()

    def restore(self) -> None:
        """The job is over: nothing of its memory stays in the request."""
        if self._fed:
            for port in self._inputs:
                if self._dispatched:
                    port.mend()
                self.request.set_input_tensor(port.number, port.home)
            if self._dispatched:
                self.request._inputs_data = None
            self._fed = self._dispatched = False
        for port in self._given:
            self.request.set_output_tensor(port.number, port.home)
        self._given = []

    def _pairs(self, inputs: Any) -> list[tuple[_Port, Any]] | None:
        """Ports and their values; None where that takes openvino's own dispatcher."""
        kind = type(inputs)
        if kind is np.ndarray or kind is ov.Tensor:
            return [(self._inputs[0], inputs)] if len(self._inputs) == 1 else None
        items: Iterable[tuple[Any, Any]]
        if kind is dict:
            items = inputs.items()
        elif kind is list or kind is tuple:
            items = enumerate(inputs)
        else:
            return None
        pairs = []
        for key, value in items:
            number = self._input_keys.get(key)
            if number is None:
                return None
            pairs.append((self._inputs[number], value))
        return pairs


def _ports(
    ports: list[ov.ConstOutput], tensor: Callable[[int], ov.Tensor]
) -> tuple[list[_Port], dict[Any, int]]:
    """The ports, and the place of each by index, port and name."""
    found = [_Port(i, port, tensor(i)) for i, port in enumerate(ports)]
    keys: dict[Any, int] = {}
    for port in found:
        keys.update(dict.fromkeys((port.number, port.port, *port.port.get_names()), port.number))
    return found, keys


def copied(inputs: Any) -> Any:
    """`inputs` with every array in it copied: the caller may change his at once.

    Tensors and what is no array are passed on as they are.
    """
    if isinstance(inputs, np.ndarray):
        return inputs.copy()
    if isinstance(inputs, Mapping):
        return {key: copied(value) for key, value in inputs.items()}
    if isinstance(inputs, list | tuple):
        return [copied(value) for value in inputs]
    return inputs
