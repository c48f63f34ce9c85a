"""Jsonl: what was found, one JSON object a frame and line.

    {"v":1,"stream":"cam","seq":7,"pts":0.28,"width":640,"height":480,"detections":[
        {"label":"person","class_id":1,"score":0.93,"box":[12.5,40.0,90.25,200.0]}]}

`pts` is in seconds; it, width and height are null where unknown. `track_id` stands in a detection
that has one; `classes` in a frame that was classified; `meta` where the option asks for it.

Law: each line is valid JSON and whole. A line is handed to the system at once, not buffered, so
nothing waits to be flushed; where only a part of it finds room, that part is taken back and the
frame fails with `disk_full`, and the next frame tries again. What JSON cannot say (NaN, infinity)
is null in `meta`, and a detection with such a box or score is left out. When the reader of
standard output has gone (`| head`), the frames that follow fail quietly with `link_lost`.
"""

from __future__ import annotations

import io
import json
import math
import os
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar

from ovpipe.detections import Detections
from ovpipe.errors import FrameError
from ovpipe.frame import Frame
from ovpipe.stages.base import Consumer
from ovpipe.stages.paths import FULL, STREAM, for_stream, prepare, unwritable

_STDOUT = 1
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class Jsonl(Consumer):
    """Writes what was found as JSON, one line a frame."""

    one_process: ClassVar[bool] = True

    path: Annotated[str, "the file; - is standard output; {stream} in it makes a file per stream"]
    meta: Annotated[bool, "write the frame's metadata too"] = False
    append: Annotated[bool, "keep what the file holds and go on behind it"] = False

    _outputs: Any = None
    _deaf: bool = False

    def open(self) -> None:
        """Create the folder and, where there is one file only, the file."""
        self._outputs = {}
        if self.path == "-":
            return
        prepare(self.path)
        if STREAM not in self.path:
            path = for_stream(self.path, "")
            try:
                self._outputs[path] = _Lines.to(path, self.append)
            except OSError as error:
                raise unwritable(path, error) from None

    def consume(self, frame: Frame) -> None:
        """Write the frame's line."""
        line = _encode(record(frame, self.meta)).encode("utf-8", "backslashreplace") + b"\n"
        try:
            self._output(frame.stream).write(line)
        except BrokenPipeError as error:
            if self.path == "-" and not self._deaf:
                self._deaf = True
                self.context.end_run("nobody reads its output any more")
            raise FrameError("nobody reads the output any more", "link_lost") from error
        except OSError as error:
            if error.errno in FULL:
                raise FrameError(f"no space for '{self.path}'", "disk_full") from error
            raise

    def end_of_stream(self, stream: str) -> None:
        """Close the stream's own file."""
        if STREAM in self.path:
            output = self._outputs.pop(for_stream(self.path, stream), None)
            if output is not None:
                output.close()

    def close(self) -> None:
        """Close all files."""
        outputs, self._outputs = self._outputs or {}, {}
        for output in outputs.values():
            output.close()

    def _output(self, stream: str) -> _Lines:
        path = Path("-") if self.path == "-" else for_stream(self.path, stream)
        output: _Lines | None = self._outputs.get(path)
        if output is None:
            if self.path == "-":
                output = _Lines(io.FileIO(_STDOUT, "w", closefd=False))
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                output = _Lines.to(path, self.append)
            self._outputs[path] = output
        return output


class _Lines:
    """A file of whole lines, written through."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file

    @classmethod
    def to(cls, path: Path, append: bool) -> _Lines:
        """Open `path`, empty or behind what it holds. Raises OSError."""
        file = io.FileIO(path, "r+" if append and path.exists() else "w")
        if append and file.seekable() and file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a writer was killed in the middle of a line
                file.write(b"\n")
        return cls(file)

    def write(self, line: bytes) -> None:
        """All of the line, or none of it and OSError."""
        written = 0
        try:
            while written < len(line):
                written += self._file.write(line[written:]) or 0
        except OSError:
            if written:
                with suppress(OSError):  # a pipe keeps what it took
                    self._file.seek(-written, os.SEEK_CUR)
                    self._file.truncate()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def record(frame: Frame, with_meta: bool = False) -> dict[str, Any]:
    """What is written of a frame, before it is made text."""
    image, found = frame.image, frame.detections
    line: dict[str, Any] = {
        "v": 1,
        "stream": frame.stream,
        "seq": frame.seq,
        "pts": None if frame.pts_ns is None else frame.pts_ns / 1e9,
        "width": image.width if image else None,
        "height": image.height if image else None,
        "detections": [] if found is None else _detections(found),
    }
    if "classes" in frame.meta:
        line["classes"] = _plain(frame.meta["classes"])
    if with_meta:
        line["meta"] = _plain({k: v for k, v in frame.meta.items() if k != "classes"})
    return line


def _detections(found: Detections) -> list[dict[str, Any]]:
    tracks = None if found.track_id is None else found.track_id.tolist()
    rows = []
    for i, (label, class_id, score, box) in enumerate(found):
        if not all(map(math.isfinite, (score, *box))):
            continue
        row: dict[str, Any] = {
            "label": label,
            "class_id": class_id,
            "score": round(score, 6),
            "box": [round(edge, 3) for edge in box],
        }
        if tracks is not None:
            row["track_id"] = tracks[i]
        rows.append(row)
    return rows


def _plain(value: Any) -> Any:
    """`value` in the types of JSON: bytes as base64, NaN and infinity as null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return b64encode(value).decode("ascii")
    return value if value is None or isinstance(value, bool | int | str) else str(value)
