"""From a FRAME message and its arrays to a Frame."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ovpipe.detections import Detections
from ovpipe.frame import Frame
from ovpipe.image import Image
from ovpipe.transport.wire import NO_PTS, Message


def frame_of(message: Message, arrays: dict[str, NDArray[Any]], stream: str, source: str) -> Frame:
    """The frame that a message describes.

    Raises KeyError, TypeError, ValueError or OverflowError where the message lies about it.
    """
    meta = message.meta
    image = None
    if "i" in meta:
        form, matrix, full_range = meta["i"]
        image = Image(arrays.pop("image"), form, matrix, bool(full_range))
    detections = Detections.from_wire(meta["d"]) if "d" in meta else None
    users = meta.get("m", {})
    if type(users) is not dict:
        raise TypeError("metadata must be a dict")
    return Frame(
        image=image,
        arrays=arrays,
        detections=detections,
        meta=users,
        stream=stream,
        seq=message.seq,
        pts_ns=None if message.pts_ns == NO_PTS else message.pts_ns,
        captured_ns=message.captured_ns,
        source=source,
    )
