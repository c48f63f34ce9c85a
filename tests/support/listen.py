"""A server to publish at, for one connection after the other: python -m tests.support.listen URL.

FFmpeg's own listening mode (RTMP), in a process that can be stopped and killed. For each picture
one line: which frame of the clips it is (`tests.support.clips.level`).
"""

from __future__ import annotations

import sys
import time

import av


def receive(url: str) -> None:
    """All pictures of one connection."""
    options = {"listen": "1", "timeout": "30", "analyzeduration": "200000"}
    with av.open(url, options=options) as container:
        for picture in container.decode(video=0):
            gray = picture.reformat(format="yuv420p").to_ndarray()[: picture.height]
            print(round((float(gray.mean()) - 20) / 5), flush=True)


if __name__ == "__main__":
    while True:
        try:
            receive(sys.argv[1])
        except (OSError, av.error.FFmpegError):
            time.sleep(0.05)
        print("over", flush=True)
