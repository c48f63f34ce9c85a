"""A frame -> a JPEG for people, with what was found drawn on it.

JPEG pictures are BT.601 in full range. The planes of I420 go into the encoder as they are where
they are that already; limited range and BT.709 are brought there first. Where boxes are to be
drawn the picture becomes BGR, and stage `annotate` draws them, in the colours that it has anywhere.

Law: the frame's pixels are only read. Colours are within 4 of 255 of `Image.rgb()`, but for what
JPEG itself loses.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from ovpipe.detections import Detections
from ovpipe.frame import Frame, Image
from ovpipe.image import U8, yuv_matrix
from ovpipe.stages.annotate import Annotate

MAX_WIDTH = 1280
QUALITY = 80
_MAX_META = 64  # entries of a frame's meta that are shown, and letters of each
_MAX_TEXT = 500


class Painter:
    """Makes pictures. Use from one thread at a time."""

    def __init__(self, max_width: int = MAX_WIDTH, quality: int = QUALITY) -> None:
        self._max_width = max_width
        self._quality = quality
        self._annotate = Annotate()
        self._annotate.open()

    def jpeg(self, frame: Frame) -> bytes:
        """The picture of a frame. ValueError where it has none."""
        if frame.image is None:
            raise ValueError("these frames have no picture")
        by = -(-frame.image.width // self._max_width)
        image = thinned(frame.image, by)
        if frame.detections or frame.meta.get("classes"):
            small = frame.with_(image=image, detections=_scaled(frame.detections, by))
            image = self._annotate.process(small).image or image
        return self._encoded(image)

    def _encoded(self, image: Image) -> bytes:
        if image.format == "i420":
            planes = full_range_bt601(image)
            return bytes(simplejpeg.encode_jpeg_yuv_planes(*planes, quality=self._quality))
        data = np.ascontiguousarray(image.data)
        if image.format == "gray":
            data, space, sampling = data[:, :, None], "GRAY", "Gray"
        else:
            space, sampling = image.format.upper(), "444"  # thin lines keep their colours
        return bytes(
            simplejpeg.encode_jpeg(
                data, quality=self._quality, colorspace=space, colorsubsampling=sampling
            )
        )


def thinned(image: Image, by: int) -> Image:
    """The picture at one `by`-th of its size; some rows and columns at its end may go."""
    if by <= 1:
        return image
    width, height = image.width // by, image.height // by
    if image.format != "i420":
        data = _smaller(image.data[: height * by, : width * by], width, height)
        return Image(data, image.format, image.matrix, image.full_range)
    width, height = width & ~1, height & ~1
    out = np.empty((height * 3 // 2, width), np.uint8)
    for plane, target in zip(_planes(image), _planes(Image(out, "i420")), strict=True):
        rows, columns = target.shape
        target[:] = _smaller(plane[: rows * by, : columns * by], columns, rows)
    return Image(out, "i420", image.matrix, image.full_range)


def full_range_bt601(image: Image) -> tuple[U8, U8, U8]:
    """The planes of an I420 picture, as JPEG wants them."""
    y, u, v = _planes(image)
    if image.matrix == "bt601" and image.full_range:
        return y, u, v
    there = yuv_matrix(image.matrix, image.full_range, "rgb").astype(np.float64)
    back = np.linalg.inv(yuv_matrix("bt601", True, "rgb")[:, :3].astype(np.float64))
    turn = back @ there
    turn[1:, 3] += 128.0
    chroma = np.stack([u, v]).astype(np.float32)
    small = np.tensordot(turn[:, 1:3].astype(np.float32), chroma, 1)  # what chroma adds to each
    if image.matrix == "bt601":  # nothing to luma but a constant
        luma = _clipped(turn[0, 0] * np.arange(256) + turn[0, 3])[y]
    else:
        large = cv2.resize(small[0], (image.width, image.height), interpolation=cv2.INTER_NEAREST)
        large += y * np.float32(turn[0, 0]) + np.float32(turn[0, 3])
        luma = _clipped(large)
    return luma, _clipped(small[1] + turn[1, 3]), _clipped(small[2] + turn[2, 3])


def facts(frame: Frame, now_ns: int) -> dict[str, Any]:
    """What is to be said of a frame beside its picture, as plain values."""
    image, found = frame.image, frame.detections
    return {
        "stream": frame.stream,
        "seq": frame.seq,
        "pts_ns": frame.pts_ns,
        "captured_ns": frame.captured_ns,
        "age_s": round((now_ns - frame.captured_ns) / 1e9, 4),
        "image": None
        if image is None
        else {
            "width": image.width,
            "height": image.height,
            "format": image.format,
            "matrix": image.matrix,
            "full_range": image.full_range,
        },
        "arrays": {
            str(name): {"shape": list(a.shape), "dtype": str(a.dtype)}
            for name, a in frame.arrays.items()
        },
        "detections": None if found is None else _rows(found),
        "meta": {str(k)[:_MAX_TEXT]: _plain(v) for k, v in [*frame.meta.items()][:_MAX_META]},
    }


def _rows(found: Detections) -> list[dict[str, Any]]:
    tracks = None if found.track_id is None else found.track_id.tolist()
    return [
        {
            "label": row.label,
            "class_id": row.class_id,
            "score": _number(row.score),
            "box": [_number(edge) for edge in row.box],
            "track_id": tracks[i] if tracks else None,
        }
        for i, row in enumerate(found)
    ]


def _number(value: float) -> float | None:
    """JSON knows no other numbers than these."""
    return round(value, 3) if np.isfinite(value) else None


def _plain(value: Any) -> Any:
    """A value of a frame's meta as JSON has it; what is too long is cut."""
    if isinstance(value, dict):
        return {str(k)[:_MAX_TEXT]: _plain(v) for k, v in [*value.items()][:_MAX_META]}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value[:_MAX_META]]
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value[:_MAX_TEXT] if isinstance(value, str) else value


def _planes(image: Image) -> tuple[U8, U8, U8]:
    w, h = image.width, image.height
    chroma = image.data[h:].reshape(2, h // 2, w // 2)
    return image.data[:h], chroma[0], chroma[1]


def _smaller(plane: U8, width: int, height: int) -> U8:
    out = np.empty((height, width, *plane.shape[2:]), np.uint8)
    cv2.resize(plane, (width, height), dst=out, interpolation=cv2.INTER_AREA)
    return out


def _scaled(found: Detections | None, by: int) -> Detections | None:
    if found is None or by <= 1:
        return found
    return Detections(
        found.xyxy / np.float32(by), found.score, found.class_id, found.labels, found.track_id
    )


def _clipped(values: NDArray[Any]) -> U8:
    rounded: U8 = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded
