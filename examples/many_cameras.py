"""Many cameras, one model, and nobody starves: `python many_cameras.py [rtsp://... ...]`.

Each camera has a process; one infer stage serves them all. Without addresses twelve are painted.
"""

import sys
import tempfile
from collections import Counter

import numpy as np
import openvino as ov
from openvino import opset13 as op

import ovpipe


def tiny(folder: str) -> str:
    """A model that answers the mean of a picture: a stand-in for yours."""
    picture = op.parameter([1, 3, 32, 32], np.float32)
    ov.save_model(ov.Model([op.reduce_mean(picture, [2, 3], True)], [picture]), f"{folder}/m.xml")
    return f"{folder}/m.xml"


def cameras(pipeline: ovpipe.Pipeline, urls: list[str]) -> None:
    """Streams cam/0, cam/1, ...: of cameras, or painted."""
    if urls:
        each = {str(i): {"url": url} for i, url in enumerate(urls)}
        pipeline.add("cam", "video", for_each=each)
    else:
        painted = {"size": "160x120", "fps": 15, "count": 30, "live": True}
        pipeline.add("cam", "synthetic", painted, for_each={str(i): {} for i in range(12)})


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pipeline = ovpipe.Pipeline("cameras")
        cameras(pipeline, sys.argv[1:])
        pipeline.add("detect", "infer", {"model": tiny(folder), "cache": "off"})
        seen: Counter[str] = Counter()
        with pipeline:
            for frame in pipeline.read("detect"):
                seen[frame.stream] += 1
        for stream, frames in sorted(seen.items()):
            print(f"{stream}: {frames} frames")
        print(f"{len(seen)} cameras, fewest / most: {min(seen.values()) / max(seen.values()):.2f}")


if __name__ == "__main__":
    main()
