"""The infer stage alone: no pipeline, no processes. `python infer_alone.py [model.xml]`."""

import sys
import tempfile

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
    images = [np.full((480, 640, 3), i, np.uint8) for i in range(8)]
    with tempfile.TemporaryDirectory() as folder:
        model = sys.argv[1] if len(sys.argv) > 1 else tiny(folder)
        with ovpipe.stages.Infer(model=model, labels=["none", "thing"], cache="off") as detect:
            for found in detect(images[0]):
                print(found.label, round(found.score, 2), found.box)
            for i, detections in enumerate(detect.map(images)):
                print(i, len(detections))


if __name__ == "__main__":
    main()
