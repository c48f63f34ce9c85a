"""Images: pictures as files: snapshots of frames, or a crop of each object found.

Law: a file that has its name is whole: it is written beside it and renamed. It lies in the folder
that the pattern names, whatever a stream or a label is called. Where there is no room the frame
fails with `disk_full`, nothing of it stays, and the next frame tries again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from ovpipe.detections import Detections
from ovpipe.errors import FrameError, PreflightError
from ovpipe.frame import Frame
from ovpipe.stages.paths import FULL, prepare, safe_name
from ovpipe.stages.selective import Selective

_FIELD = re.compile(r"{(\w*)}")
_FIELDS = ("stream", "seq", "time", "label", "n")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


class Images(Selective):
    """Writes pictures as files: snapshots, or a crop of each object found."""

    requires: ClassVar[dict[str, str]] = {"cv2": "draw"}
    one_process: ClassVar[bool] = True

    path: Annotated[
        str,
        "name of the files, .jpg, .png or .webp; {stream}, {seq}, {time} (of writing, UTC), and of "
        "crops {label} and {n} (from 0, within the frame) are filled in",
    ]
    crops: Annotated[bool, "a picture of each object found instead of the whole frame"] = False
    quality: Annotated[int, Ge(1), Le(100), "of JPEG and WebP"] = 90

    def open(self) -> None:
        """Check the pattern; create the folder."""
        for name in _FIELD.findall(self.path):
            if name not in _FIELDS:
                raise PreflightError(
                    f"path '{self.path}': there is no {{{name}}}; "
                    f"there are {', '.join(f'{{{known}}}' for known in _FIELDS)}"
                )
            if name in ("label", "n") and not self.crops:
                raise PreflightError(f"path '{self.path}': {{{name}}} is for `crops: true` only")
        if self.crops and "{n}" not in self.path:
            raise PreflightError(
                f"path '{self.path}': crops of one frame need different names; add {{n}}"
            )
        if Path(self.path).suffix.lower() not in _SUFFIXES:
            raise PreflightError(
                f"path '{self.path}': the ending says the format: {', '.join(_SUFFIXES)}"
            )
        # A folder that depends on the frame is made when there is one.
        prepare(_FIELD.sub("{stream}", self.path))

    def consume(self, frame: Frame) -> None:
        """Write what of the frame is to be written."""
        image = frame.image
        wanted = self.select(frame, self.found or self.crops) if image is not None else None
        if image is None or wanted is None:
            return
        pixels: NDArray[np.uint8] = image.gray() if image.format == "gray" else image.bgr()
        parts = self._crops(pixels, wanted) if self.crops else [("", 0, pixels)]
        for label, n, part in parts:
            path = self._path(frame, label, n)
            try:
                _write(path, self._encoded(path, part))
            except OSError as error:
                if error.errno in FULL:
                    raise FrameError(f"no space for '{path}'", "disk_full") from error
                raise

    @staticmethod
    def _crops(
        pixels: NDArray[np.uint8], wanted: Detections
    ) -> Iterator[tuple[str, int, NDArray[np.uint8]]]:
        """What of the boxes lies in the picture."""
        height, width = pixels.shape[:2]
        for n, found in enumerate(wanted):
            if np.isfinite(found.box).all():
                x1, y1 = (max(0, int(np.floor(edge))) for edge in found.box[:2])
                x2, y2 = (int(np.ceil(edge)) for edge in found.box[2:])
                part = pixels[y1 : min(y2, height), x1 : min(x2, width)]
                if part.size:
                    yield found.label, n, part

    def _path(self, frame: Frame, label: str, n: int) -> Path:
        now = datetime.now(UTC)
        values = {
            "stream": safe_name(frame.stream),
            "seq": f"{frame.seq:08d}",
            "time": f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z",
            "label": safe_name(label),
            "n": str(n),
        }
        return Path(_FIELD.sub(lambda m: values[m[1]], self.path)).expanduser()

    def _encoded(self, path: Path, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        import cv2

        suffix = path.suffix.lower()
        options = []  # one that is another format's makes OpenCV complain on standard error
        if suffix in (".jpg", ".jpeg"):
            options = [cv2.IMWRITE_JPEG_QUALITY, self.quality]
        elif suffix == ".webp":
            options = [cv2.IMWRITE_WEBP_QUALITY, self.quality]
        try:
            good, data = cv2.imencode(suffix, pixels, options)
        except cv2.error as error:  # beyond what the format can hold
            raise FrameError(f"'{path}' cannot be encoded: {error}", "malformed") from error
        if not good:
            raise FrameError(f"'{path}' cannot be encoded", "malformed")
        return np.asarray(data, np.uint8)


def _write(path: Path, data: NDArray[np.uint8]) -> None:
    """The whole file or none. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_bytes(data.data)
        os.replace(beside, path)
    except OSError:
        with suppress(OSError):
            beside.unlink()
        raise
