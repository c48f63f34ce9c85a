"""Publishes a clip of known frames at its own pace: python -m tests.support.publish URL FORMAT.

A process of its own, since PyAV holds the interpreter's lock while it opens an output. Tries until
somebody listens; goes on until it is killed, or nobody listens any more.
"""

from __future__ import annotations

import itertools
import sys
import time
from typing import Any

import av
import numpy as np

from tests.support.clips import RATE, level


def send(url: str, form: str) -> None:
    """From frame 0, for ever."""
    with av.open(url, "w", format=form) as container:
        stream: Any = container.add_stream("libx264", rate=RATE, options={"tune": "zerolatency"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size = 10
        for i in itertools.count():
            planes = np.full((72, 64), 128, np.uint8)
            planes[:48] = level(i)
            for packet in stream.encode(av.VideoFrame.from_ndarray(planes, "yuv420p")):
                container.mux(packet)
            time.sleep(1 / RATE)


if __name__ == "__main__":
    for _ in range(600):
        try:
            send(*sys.argv[1:])
            break
        except (OSError, av.error.FFmpegError):
            time.sleep(0.1)
