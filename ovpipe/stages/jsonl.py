"""Jsonl: what was found, one JSON object a frame and line.

    {"v":1,"stream":"cam","seq":7,"pts":0.28,"width":640,"height":480,"detections":[
        {"label":"person","class_id":1,"score":0.93,"box":[12.5,40.0,90.25,200.0]}]}

`pts` is in seconds; it, width and height are null where unknown. `track_id` stands in a detection
that has one; `classes` in a frame that was classified; `meta` where the option asks for it.

Law: each line is valid JSON, and whole (`ovpipe.stages.lines`). What JSON cannot say (NaN,
infinity) is null in `meta`, and a detection with such a box or score is left out.
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Mapping
from typing import Annotated, Any

from ovpipe.detections import Detections
from ovpipe.frame import Frame
from ovpipe.stages.lines import LineWriter

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class Jsonl(LineWriter):
    """Writes what was found as JSON, one line a frame."""

    meta: Annotated[bool, "write the frame's metadata too"] = False

    def lines(self, frame: Frame) -> str:
        """One line for every frame, found anything or not."""
        return _encode(record(frame, self.meta)) + "\n"


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
