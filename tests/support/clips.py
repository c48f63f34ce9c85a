"""Small video clips with a known answer, made where they are needed.

Law: frame i of a clip is of one brightness, `level(i)`, so that a decoded frame says which one it
is. Each clip is the same in every run.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from ovpipe.frame import Frame, Image
from ovpipe.stages.base import Consumer, LocalContext, Producer
from ovpipe.testing import run_stage

FRAMES = 25
RATE = 25
_STEP = 5


def level(i: int) -> int:
    """The luma of frame `i`; different for 40 frames in a row."""
    return 20 + _STEP * (i % 40)


def index(image: Image) -> int:
    """Which frame this picture is of."""
    gray = image.gray()
    if image.format in ("bgr", "rgb"):
        gray = np.round(gray * (219 / 255) + 16)
    return round((float(gray.mean()) - 20) / _STEP)


def clip(
    path: Path,
    frames: int = FRAMES,
    size: tuple[int, int] = (64, 48),
    pix_fmt: str = "yuv420p",
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    colorspace: int = 5,
    color_range: int = 1,
    pts: list[int] | None = None,
    codec_options: dict[str, str] | None = None,
) -> Path:
    """A clip at `path`, its container chosen by the suffix; `pts` in milliseconds."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream: Any = container.add_stream(codec, rate=RATE, options=codec_options)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.gop_size = 10
        stream.codec_context.colorspace = colorspace
        stream.codec_context.color_range = color_range
        if pts is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(frames):
            luma = np.full((size[1], size[0]), level(i), np.uint8)
            picture = av.VideoFrame.from_ndarray(_grey(luma), "yuv444p").reformat(
                format=pix_fmt,
                src_color_range=color_range,
                dst_color_range=color_range,
                src_colorspace=colorspace,
                dst_colorspace=colorspace,
            )
            picture.colorspace, picture.color_range = colorspace, color_range
            picture.pts = i if pts is None else pts[i]
            for packet in stream.encode(picture):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def _grey(luma: np.ndarray) -> np.ndarray:
    return np.stack([luma, np.full_like(luma, 128), np.full_like(luma, 128)])


def picture(path: Path, size: tuple[int, int] = (64, 48), value: int = 100) -> Path:
    """An image file of one brightness, its format chosen by the suffix."""
    import cv2

    assert cv2.imwrite(str(path), np.full((size[1], size[0], 3), value, np.uint8))
    return path


def play(stage: Producer, limit: int | None = None, first_seq: int = 0) -> list[Frame]:
    """All frames of a producer, numbered as its worker does."""
    return run_stage(stage, limit=limit, first_seq=first_seq).outputs


def failed(stage: Producer) -> dict[str, int]:
    """What the producer counted as failed."""
    assert isinstance(stage.context, LocalContext)
    return stage.context.failed


def feed(stage: Consumer, frames: list[Frame]) -> None:
    """All frames into a consumer, from open to close; none may fail."""
    for error in run_stage(stage, frames).errors:
        raise error
