"""The request pool alone: no pipeline, no processes. `python queue_alone.py [model.xml]`."""

import sys

import numpy as np
import openvino as ov
from openvino import opset13 as op

from ovpipe.queue import AsyncInferQueue


def tiny() -> ov.Model:
    x = op.parameter([1, 3, 32, 32], np.float32)
    return ov.Model([op.reduce_mean(op.relu(x), [1, 2, 3], False)], [x])


def main() -> None:
    compiled = ov.Core().compile_model(sys.argv[1] if len(sys.argv) > 1 else tiny(), "CPU")
    shape = tuple(compiled.input(0).shape)
    results = {}
    with AsyncInferQueue(compiled, jobs=2) as queue:
        queue.set_callback(
            lambda request, i: results.__setitem__(i, request.get_output_tensor().data.copy())
        )
        for i in range(8):
            queue.start_async(np.full(shape, i, np.float32), userdata=i)
        queue.wait_all()
    for i, result in sorted(results.items()):
        print(i, result.ravel()[0])


if __name__ == "__main__":
    main()
