"""The request pool in an asyncio program: `await` one inference, `async for` over many."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import openvino as ov
from openvino import opset13 as op

from ovpipe.queue import AsyncInferQueue


def tiny() -> ov.Model:
    x = op.parameter([1, 3, 32, 32], np.float32)
    return ov.Model([op.reduce_mean(op.relu(x), [1, 2, 3], False)], [x])


async def frames(count: int) -> AsyncIterator[np.ndarray]:
    """A source that takes its time."""
    for value in range(count):
        await asyncio.sleep(0.001)
        yield np.full((1, 3, 32, 32), value, np.float32)


async def main() -> None:
    compiled = ov.Core().compile_model(tiny(), "CPU")
    with AsyncInferQueue(compiled, jobs=2) as queue:
        one = await queue.infer(np.full((1, 3, 32, 32), 42, np.float32))
        print("one:", one[0].item())
        print("many:", [outputs[0].item() async for outputs in queue.map(frames(5))])
        print(f"{queue.statistics().completed} inferences")


if __name__ == "__main__":
    asyncio.run(main())
