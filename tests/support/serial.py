"""The same answers without ovpipe: PyAV, cv2 and openvino, one frame after the other.

Nothing here imports ovpipe: decoding of the video, preparation, inference and reading of the
output are written down plainly, so that the stage can be compared with them bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from tests.support.models import core

Boxes = list[tuple[float, ...]]
"""(x1, y1, x2, y2, score, class) of each object, in pixels of the frame."""


def i420_frames(video: Path) -> Iterator[NDArray[np.uint8]]:
    """Each frame of a video as I420, (height * 3 / 2, width)."""
    with av.open(str(video)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="yuv420p")


class SerialSsd:
    """A detector of Open Model Zoo in a plain loop: infer(), wait, read."""

    def __init__(self, model: Path, threshold: float, properties: dict[str, Any]) -> None:
        import openvino
        from openvino.preprocess import PrePostProcessor

        ppp = PrePostProcessor(core().read_model(model))
        ppp.input().tensor().set_element_type(openvino.Type.u8)
        ppp.input().tensor().set_layout(openvino.Layout("NHWC"))
        ppp.input().model().set_layout(openvino.Layout("NCHW"))
        compiled = core().compile_model(ppp.build(), "CPU", properties)
        _, self.height, self.width, _ = compiled.input(0).shape
        self.request = compiled.create_infer_request()
        self.threshold = np.float32(threshold)

    def __call__(self, i420: NDArray[np.uint8]) -> Boxes:
        bgr = cv2.cvtColor(i420, cv2.COLOR_YUV2BGR_I420)
        height, width, _ = bgr.shape
        picture = cv2.resize(bgr, (self.width, self.height))
        self.request.infer({0: picture[None]})
        found: Boxes = []
        for image_id, label, score, x1, y1, x2, y2 in self.request.get_output_tensor(0).data[0, 0]:
            if image_id < 0:
                break
            if score >= self.threshold:
                ends = np.float32([width, height, width, height])
                inside = np.clip(np.float32([x1, y1, x2, y2]) * ends, 0, ends)
                found.append((*inside.tolist(), float(score), int(label)))
        return found
