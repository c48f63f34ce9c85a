"""Annotate: boxes and labels, drawn onto the picture.

Law: a frame with something to draw goes out with a BGR picture of its own, made in shared memory
with one conversion and drawn on there; the picture that came in is never touched. A frame with
nothing to draw goes on as it came, by reference: its format stays what it was.

A class has the same colour in every frame, stream and run. Lines and letters grow with the
picture. A classified frame shows its classes in the upper left corner.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from ovpipe.frame import Frame, Image
from ovpipe.stages.base import Transform

_GOLDEN = 0.618034
_LIMIT = 2**15  # drawn coordinates stay where fixed-point arithmetic does not overflow
_MAX_CLASSES = 5
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
Colour = tuple[int, int, int]


class Annotate(Transform):
    """Draws the boxes and labels of what was found."""

    requires: ClassVar[dict[str, str]] = {"cv2": "draw"}

    labels: Annotated[bool, "write the class beside each box"] = True
    scores: Annotated[bool, "write the score beside each box"] = True
    thickness: Annotated[int, Ge(0), Le(64), "of the lines, in pixels; 0: by picture size"] = 0

    _cv2: Any = None

    def open(self) -> None:
        """Import the drawing library."""
        import cv2

        self._cv2 = cv2

    def process(self, frame: Frame) -> Frame:
        """The frame with its picture drawn on, or the frame itself."""
        image, found = frame.image, frame.detections
        classes = _classes(frame.meta.get("classes"))
        if image is None or not (classes or found):
            return frame
        canvas: NDArray[Any] = self.loan((image.height, image.width, 3), np.uint8)
        image.write("bgr", canvas)
        size = min(image.width, image.height)
        thickness = self.thickness or max(1, round(size / 240))
        scale = max(0.35, size / 1000)
        if found:
            tracks = None if found.track_id is None else found.track_id.tolist()
            for i, (label, class_id, score, box) in enumerate(found):
                if not all(map(math.isfinite, box)):
                    continue
                x1, y1, x2, y2 = (round(max(-_LIMIT, min(_LIMIT, edge))) for edge in box)
                colour = colour_of(class_id)
                self._cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, thickness)
                words = [label] if self.labels else []
                words += [f"#{tracks[i]}"] if self.labels and tracks else []
                words += [f"{score:.2f}"] if self.scores else []
                self._write(canvas, " ".join(words), x1, y1, colour, scale)
        y = 0
        for label, class_id, score in classes:
            text = f"{label} {score:.2f}" if self.scores else label
            y = self._write(canvas, text, 0, y, colour_of(class_id), scale, below=True)
        return frame.with_(image=Image(canvas, "bgr", image.matrix, image.full_range))

    def _write(
        self,
        canvas: NDArray[Any],
        text: str,
        x: int,
        y: int,
        colour: Colour,
        scale: float,
        below: bool = False,
    ) -> int:
        """Text on a ground of `colour`, above (x, y) or where there is room; its lower edge."""
        if not text:
            return y
        cv2 = self._cv2
        stroke = max(1, round(scale * 1.6))
        font = cv2.FONT_HERSHEY_SIMPLEX
        (width, height), base = cv2.getTextSize(text, font, scale, stroke)
        margin = max(2, base // 2)
        width, height = width + 2 * margin, height + base + margin
        top = y if below or y < height else y - height
        top = max(0, min(top, canvas.shape[0] - height))
        left = max(0, min(x, canvas.shape[1] - width))
        cv2.rectangle(canvas, (left, top), (left + width, top + height), colour, cv2.FILLED)
        ink = _BLACK if 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2] > 127 else _WHITE
        at = (left + margin, top + height - base)
        cv2.putText(canvas, text, at, font, scale, ink, stroke, cv2.LINE_AA)
        return int(top + height)


def colour_of(class_id: int) -> Colour:
    """A BGR colour: neighbours on the list of classes are far apart on the wheel of hues."""
    hue = (class_id * _GOLDEN) % 1.0 * 6
    part = hue % 1
    low, high = 40, 255
    up, down = round(low + (high - low) * part), round(high - (high - low) * part)
    red, green, blue = (
        (high, up, low),
        (down, high, low),
        (low, high, up),
        (low, down, high),
        (up, low, high),
        (high, low, down),
    )[int(hue) % 6]
    return blue, green, red


def _classes(value: object) -> list[tuple[str, int, float]]:
    """The best classes of a classified frame; nothing where `value` is anything else."""
    if not isinstance(value, list | tuple):
        return []
    rows = []
    for row in value[:_MAX_CLASSES]:
        if isinstance(row, dict) and {"label", "class_id", "score"} <= row.keys():
            rows.append((str(row["label"]), int(row["class_id"]), float(row["score"])))
    return rows
