"""A picture of each thing that was found: `python snapshots.py [clip.mp4 model.xml]`.

Whole frames go to shots/, the things themselves to crops/. Without arguments the frames are
painted, and the model finds something in each.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as op

import ovpipe


def tiny(folder: str) -> str:
    """A "detector" that answers one box to every picture."""
    picture = op.parameter([1, 3, 32, 32], np.float32)
    nothing = op.multiply(op.reduce_max(picture, [0, 1, 2, 3], True), np.float32(0))
    box = op.constant(np.float32([[[[0, 1, 0.9, 0.25, 0.25, 0.75, 0.5]]]]))
    ov.save_model(ov.Model([op.add(box, nothing)], [picture]), f"{folder}/tiny.xml")
    return f"{folder}/tiny.xml"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pipeline = ovpipe.Pipeline("snapshots")
        if len(sys.argv) > 2:
            pipeline.add("clip", "video", {"url": sys.argv[1]})
            model = {"model": sys.argv[2]}
        else:
            pipeline.add("clip", "synthetic", {"size": "320x240", "count": 5})
            model = {"model": tiny(folder), "labels": ["none", "thing"], "cache": "off"}
        pipeline.add("detect", "infer", model, inputs="clip")
        shots = {"path": "shots/{stream}/{seq}.jpg", "found": True}
        crops = {"path": "crops/{label}/{seq}-{n}.png", "crops": True}
        pipeline.add("shots", "images", shots, inputs="detect")
        pipeline.add("crops", "images", crops, inputs="detect")
        with pipeline:
            pipeline.run()
    for folder in ("shots", "crops"):
        print(f"{folder}: {len(list(Path(folder).rglob('*.*')))} pictures")


if __name__ == "__main__":
    main()
