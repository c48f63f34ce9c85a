"""The csv stage: a table that a reader of its own reads back."""

from __future__ import annotations

import csv
import io
import math
import os
from pathlib import Path
from typing import Any

import pytest

from ovpipe.detections import Detections
from ovpipe.frame import Frame
from ovpipe.stages.csv import COLUMNS, Csv

LABELS = {0: 'a "quoted", name', 1: "person\nin two lines", 2: "ж"}
FOUND = Detections.of([[1, 2.0004, 3.3333333, 4], [5, 6, 7, 8]], [0.93, 0.5], [0, 1], LABELS)


def run(path: Path, frames: list[Frame], **options: Any) -> None:
    stage = Csv(path=str(path), **options)
    stage.open()
    for frame in frames:
        stage.consume(frame)
    for stream in dict.fromkeys(frame.stream for frame in frames):
        stage.end_of_stream(stream)
    stage.close()


def frame(seq: int, found: Detections | None = FOUND, stream: str = "cam/gate") -> Frame:
    return Frame(stream=stream, seq=seq, pts_ns=seq * 40_000_000, detections=found)


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8"), newline="")))


def test_one_row_an_object(tmp_path: Path) -> None:
    path = tmp_path / "found.csv"
    run(path, [frame(0), frame(1, None), frame(2)])
    found = rows(path)
    assert [(row["seq"], row["label"]) for row in found] == [
        (str(seq), LABELS[i]) for seq in (0, 2) for i in (0, 1)
    ]
    assert tuple(found[0]) == COLUMNS
    assert found[2] == {
        "stream": "cam/gate", "seq": "2", "pts": "0.08", "label": LABELS[0], "class_id": "0",
        "score": "0.93", "x1": "1.0", "y1": "2.0", "x2": "3.333", "y2": "4.0", "track_id": "",
    }  # fmt: skip


def test_rows_of_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "found.csv"
    bad = Detections.of([[1, math.nan, 3, 4], [5, 6, 7, 8]], [0.9, 0.8], [0, 2], LABELS)
    run(path, [frame(0, bad)])
    (row,) = rows(path)
    assert row["label"] == "ж"


@pytest.mark.parametrize("append", [False, True])
def test_the_head_stands_there_once(tmp_path: Path, append: bool) -> None:
    path = tmp_path / "found.csv"
    run(path, [frame(0)], append=append)
    run(path, [frame(1)], append=append)
    assert path.read_text().count("stream,seq") == 1
    assert [row["seq"] for row in rows(path)] == (["0", "0", "1", "1"] if append else ["1", "1"])


def test_a_file_for_each_stream(tmp_path: Path) -> None:
    run(tmp_path / "{stream}.csv", [frame(0), frame(0, stream="b"), frame(1)])
    assert len(rows(tmp_path / "cam_gate.csv")) == 4
    assert len(rows(tmp_path / "b.csv")) == 2


@pytest.mark.parametrize("how", ["renamed", "emptied"])
def test_a_new_file_has_its_head(tmp_path: Path, how: str) -> None:
    path = tmp_path / "found.csv"
    stage = Csv(path=str(path))
    stage.open()
    stage.consume(frame(0))
    if how == "renamed":
        path.rename(tmp_path / "found.csv.1")
    else:
        os.truncate(path, 0)
    stage.consume(frame(1))
    stage.consume(frame(2))
    stage.close()
    assert path.read_text().startswith(",".join(COLUMNS))
    assert [row["seq"] for row in rows(path)] == ["1", "1", "2", "2"]
    if how == "renamed":
        assert [row["seq"] for row in rows(tmp_path / "found.csv.1")] == ["0", "0"]
