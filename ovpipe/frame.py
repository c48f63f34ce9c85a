"""Frame: one unit of data on an edge: a header, named ndarrays, metadata.

Law: a frame never changes. Its arrays are read by several stages at a time: who wants other
pixels makes another array.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovpipe.detections import Detection, Detections
from ovpipe.image import Image, ImageFormat, Matrix

__all__ = ["UNSET", "Detection", "Detections", "Frame", "Image", "ImageFormat", "Matrix"]

UNSET = -1
_NOT_IMAGE = "an array cannot be named 'image': that is the frame's picture"


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame. Frames are values: `frame.with_(detections=...)` makes a changed one.

    stream       key of the stream; "" lets the producer's worker fill it in
    seq          rises by 1 within a stream; UNSET lets the producer's worker fill it in
    pts_ns       presentation time in the source's own time, ns from its start, or None
    captured_ns  time.monotonic_ns() when the frame came into being; UNSET as for seq
    image        the picture, or None for streams of other arrays
    arrays       other named arrays; never named "image"
    detections   objects found, in pixels of `image`, or None where nobody looked
    source       the stage that gave it; filled in by the worker that reads it
    meta         anything msgpack can carry (None, bool, int, float, str, bytes, list, dict)
    """

    image: Image | None = None
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    detections: Detections | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    stream: str = ""
    seq: int = UNSET
    pts_ns: int | None = None
    captured_ns: int = UNSET
    source: str = ""

    def __post_init__(self) -> None:
        if "image" in self.arrays:
            raise ValueError(_NOT_IMAGE)

    def with_(
        self,
        *,
        image: Image | None = None,
        arrays: Mapping[str, NDArray[np.generic]] | None = None,
        detections: Detections | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Frame:
        """This frame with parts replaced; `meta` and `arrays` are added to, the header stays."""
        changes: dict[str, Any] = {}
        if arrays is not None and "image" in arrays:
            raise ValueError(_NOT_IMAGE)
        if image is not None:
            changes["image"] = image
        if arrays is not None:
            changes["arrays"] = {**self.arrays, **arrays}
        if detections is not None:
            changes["detections"] = detections
        if meta is not None:
            changes["meta"] = {**self.meta, **meta}
        return self._changed(**changes)

    def stamped(self, stream: str, seq: int, captured_ns: int, pts_ns: int | None = None) -> Frame:
        """This frame with another header; `pts_ns` only where it has none."""
        pts_ns = pts_ns if self.pts_ns is None else self.pts_ns
        return self._changed(stream=stream, seq=seq, captured_ns=captured_ns, pts_ns=pts_ns)

    def _changed(self, **changes: Any) -> Frame:
        # As dataclasses.replace, at a tenth of its price: this is done for every frame.
        frame = object.__new__(type(self))
        frame.__dict__.update(self.__dict__, **changes)
        return frame
