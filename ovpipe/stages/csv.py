"""Csv: what was found as a table, one row an object, as spreadsheets and data frames read it.

    stream,seq,pts,label,class_id,score,x1,y1,x2,y2,track_id
    cam,7,0.28,person,1,0.93,12.5,40.0,90.25,200.0,

`pts` is in seconds and `track_id` a number; both are empty where unknown. Boxes are in pixels. A
frame in which nothing was found has no row.

Law: rows are whole (`ovpipe.stages.lines`); numbers are finite; a comma, quote or line break in a
name is quoted as RFC 4180 says.
"""

from __future__ import annotations

import csv
import io
import math
from typing import ClassVar

from ovpipe.frame import Frame
from ovpipe.stages.lines import LineWriter

COLUMNS = (
    "stream", "seq", "pts", "label", "class_id", "score", "x1", "y1", "x2", "y2", "track_id",
)  # fmt: skip


class Csv(LineWriter):
    """Writes what was found as a table, one row an object."""

    head: ClassVar[str] = ",".join(COLUMNS) + "\n"

    def lines(self, frame: Frame) -> str:
        """A row for each detection whose numbers are finite."""
        found = frame.detections
        if found is None:
            return ""
        pts = "" if frame.pts_ns is None else frame.pts_ns / 1e9
        tracks = None if found.track_id is None else found.track_id.tolist()
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        for i, (label, class_id, score, box) in enumerate(found):
            if not all(map(math.isfinite, (score, *box))):
                continue
            edges = [round(edge, 3) for edge in box]
            track = "" if tracks is None else tracks[i]
            rows.writerow(
                [frame.stream, frame.seq, pts, label, class_id, round(score, 6), *edges, track]
            )
        return text.getvalue()
