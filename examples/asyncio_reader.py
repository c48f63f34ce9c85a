"""A pipeline in an event loop: `python asyncio_reader.py`."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np

import ovpipe


async def watch(reader: AsyncIterator[ovpipe.Frame]) -> None:
    async for frame in reader:
        print("passing by:", frame.seq)


async def main() -> None:
    pipeline = ovpipe.Pipeline("web").add("in", "app").results("in")
    async with pipeline:
        watching = asyncio.create_task(watch(pipeline.read("in")))
        pictures = [np.full((48, 64, 3), i, np.uint8) for i in range(3)]
        # As a request of a web server would do it: the loop goes on meanwhile.
        frames = await asyncio.gather(*(pipeline.aio("in", p, result="in") for p in pictures))
        print("answered:", [frame.seq for frame in frames])
        pipeline.end("in")
        await watching


if __name__ == "__main__":
    asyncio.run(main())
