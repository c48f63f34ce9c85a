"""The jsonl stage: valid, whole lines, wherever they go, and when they cannot go there."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovpipe.detections import Detections
from ovpipe.errors import FrameError, PreflightError
from ovpipe.frame import Frame, Image
from ovpipe.stages import lines as lines_module
from ovpipe.stages.jsonl import Jsonl

FOUND = Detections.of([[1, 2.00049, 3.3333333, 4]], [0.93], [1], {1: "person"})


def frame(seq: int = 0, stream: str = "cam", **parts: Any) -> Frame:
    image = Image(np.zeros((48, 64, 3), np.uint8))
    return Frame(image=image, stream=stream, seq=seq, pts_ns=seq * 40_000_000, **parts)


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def written(stage: Jsonl, frames: list[Frame]) -> None:
    stage.open()
    for each in frames:
        stage.consume(each)
    for stream in dict.fromkeys(each.stream for each in frames):
        stage.end_of_stream(stream)
    stage.close()


def lines(path: Path) -> list[Any]:
    text = path.read_text("utf-8")
    assert not text or text.endswith("\n")
    return [strict(line) for line in text.splitlines()]


def line(tmp_path: Path, one: Frame, **options: Any) -> Any:
    path = tmp_path / "line.jsonl"
    written(Jsonl(path=str(path), **options), [one])
    (only,) = lines(path)
    return only


def test_a_line_is_exactly_this(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "out.jsonl"
    written(Jsonl(path=str(path)), [frame(7, detections=FOUND, meta={"fps": 25}), frame(8)])
    assert path.read_text() == (
        '{"v":1,"stream":"cam","seq":7,"pts":0.28,"width":64,"height":48,"detections":['
        '{"label":"person","class_id":1,"score":0.93,"box":[1.0,2.0,3.333,4.0]}]}\n'
        '{"v":1,"stream":"cam","seq":8,"pts":0.32,"width":64,"height":48,"detections":[]}\n'
    )


def test_what_is_unknown_is_null(tmp_path: Path) -> None:
    got = line(tmp_path, Frame(stream="cam", seq=0))
    assert (got["pts"], got["width"], got["height"]) == (None, None, None)


def test_tracks_classes_and_metadata(tmp_path: Path) -> None:
    tracked = replace(FOUND, track_id=np.array([2**40]))
    classes = [{"label": "cat", "class_id": 3, "score": 0.5}]
    one = frame(detections=tracked, meta={"classes": classes, "zone": "gate", 5: (1, b"\0\1")})
    assert line(tmp_path, one)["detections"][0]["track_id"] == 2**40
    assert line(tmp_path, one)["classes"] == classes
    assert "meta" not in line(tmp_path, one)
    assert line(tmp_path, one, meta=True)["meta"] == {"zone": "gate", "5": [1, "AAE="]}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_say_is_not_written(tmp_path: Path, bad: float) -> None:
    found = Detections.of(
        [[0, 0, 1, 1], [0, bad, 1, 1], [2, 2, 3, 3]], [0.5, 0.5, bad], [0, 0, 0], {0: "é \ud800\n"}
    )
    got = line(tmp_path, frame(detections=found, meta={"x": [bad]}), meta=True)
    assert [row["box"] for row in got["detections"]] == [[0, 0, 1, 1]]
    assert got["meta"] == {"x": [None]}
    assert got["detections"][0]["label"] == "é \ud800\n"


def test_F03_a_file_per_stream_and_no_way_out_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    streams = ["cam/gate", "../../up", "/etc/x", "..", "", "a\0b", "x" * 400, "camé"]
    written(
        Jsonl(path=str(folder / "{stream}.jsonl")), [frame(i, s) for i, s in enumerate(streams)]
    )
    assert sorted(path.name for path in tmp_path.rglob("*.jsonl")) == sorted(
        [
            "cam_gate.jsonl",
            "_.._up.jsonl",
            "_etc_x.jsonl",
            "stream.jsonl",
            "a_b.jsonl",
            "x" * 150 + ".jsonl",
            "camé.jsonl",
        ]
    )
    assert {path.parent for path in tmp_path.rglob("*.jsonl")} == {folder}
    assert [got["stream"] for got in lines(folder / "cam_gate.jsonl")] == ["cam/gate"]
    assert [got["stream"] for got in lines(folder / "stream.jsonl")] == ["..", ""]


def test_streams_share_a_file_without_a_placeholder(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    written(Jsonl(path=str(path)), [frame(0, "a"), frame(0, "b"), frame(1, "a")])
    assert [(got["stream"], got["seq"]) for got in lines(path)] == [("a", 0), ("b", 0), ("a", 1)]


def test_a_new_run_replaces_or_appends(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    written(Jsonl(path=str(path)), [frame(0)])
    written(Jsonl(path=str(path)), [frame(1)])
    assert [got["seq"] for got in lines(path)] == [1]
    with path.open("a") as file:
        file.write('{"v":1,"half')
    written(Jsonl(path=str(path), append=True), [frame(2)])
    whole = [text for text in path.read_text().splitlines() if text.endswith("}")]
    assert [strict(text)["seq"] for text in whole] == [1, 2]


def test_lines_are_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    stage = Jsonl(path=str(path))
    stage.open()
    stage.consume(frame(3))
    assert [got["seq"] for got in lines(path)] == [3]
    stage.close()
    stage.close()


# -- a file that is moved or deleted meanwhile --------------------------------------------------


def gone(how: str, path: Path) -> None:
    if how == "renamed":
        path.rename(path.with_suffix(".1"))
    elif how == "replaced":
        path.rename(path.with_suffix(".1"))
        path.touch()
    elif how == "deleted":
        path.unlink()
    elif how == "folder deleted":
        shutil.rmtree(path.parent)
    else:
        path.parent.rename(path.parent.with_name("kept"))


@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("name", ["out.jsonl", "{stream}.jsonl"])
@pytest.mark.parametrize(
    "how", ["renamed", "replaced", "deleted", "folder deleted", "folder renamed"]
)
def test_a_file_that_is_moved_or_deleted_is_opened_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str, name: str, append: bool
) -> None:
    path = tmp_path / "deep" / "out" / name.format(stream="cam")
    stage = Jsonl(path=str(path.with_name(name)), append=append)
    stage.open()
    for seq in range(9):
        if seq in (3, 6):
            gone(how, path)
            if how == "folder renamed" and seq == 3:
                path.parent.with_name("kept").rename(tmp_path / "first")
            elif how in ("renamed", "replaced"):
                path.with_suffix(".1").rename(tmp_path / f"{seq}.jsonl")
        stage.consume(frame(seq))
    stage.close()
    assert [got["seq"] for got in lines(path)] == [6, 7, 8]
    assert caplog.text.count(f"'{path}' was moved or deleted; it is opened anew") == 2
    assert len(caplog.records) == 2
    kept = {
        "renamed": ["3.jsonl", "6.jsonl"],
        "replaced": ["3.jsonl", "6.jsonl"],
        "folder renamed": [f"first/{path.name}", f"deep/kept/{path.name}"],
    }.get(how, [])
    left = [got["seq"] for one in kept for got in lines(tmp_path / one)]
    assert left == list(range(6 if kept else 0))


def test_what_somebody_else_has_put_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    stage = Jsonl(path=str(path))
    stage.open()
    stage.consume(frame(0))
    gone("renamed", path)
    path.write_text('{"seq":-1}\n{"half')
    stage.consume(frame(1))
    stage.close()
    assert path.read_text().startswith('{"seq":-1}\n{"half\n{"v":1,')


def test_a_stream_that_comes_again_empties_nothing(tmp_path: Path) -> None:
    path = tmp_path / "stream.jsonl"
    stage = Jsonl(path=str(path.with_name("{stream}.jsonl")))
    stage.open()
    stage.consume(frame(0, ".."))
    stage.consume(frame(0, ""))
    stage.end_of_stream("..")
    stage.consume(frame(1, ""))
    stage.close()
    assert [(got["stream"], got["seq"]) for got in lines(path)] == [("..", 0), ("", 0), ("", 1)]


def test_a_file_that_is_emptied_begins_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As logrotate's `copytruncate` does it."""
    path = tmp_path / "out.jsonl"
    stage = Jsonl(path=str(path))
    stage.open()
    stage.consume(frame(0))
    os.truncate(path, 0)
    stage.consume(frame(1))
    stage.close()
    assert [got["seq"] for got in lines(path)] == [1]
    assert not caplog.records


def test_a_folder_that_cannot_be_made_again_is_said(tmp_path: Path) -> None:
    path = tmp_path / "out" / "out.jsonl"
    stage = Jsonl(path=str(path))
    stage.open()
    stage.consume(frame(0))
    gone("folder renamed", path)
    path.parent.touch()
    with pytest.raises(PreflightError) as caught:
        stage.consume(frame(1))
    assert f"cannot write to '{path}'" in str(caught.value)
    path.parent.unlink()
    stage.consume(frame(2))
    stage.close()
    assert [got["seq"] for got in lines(path)] == [2]


def test_without_room_for_a_new_file_frames_fail_and_later_ones_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "out.jsonl"
    stage = Jsonl(path=str(path))
    stage.open()
    stage.consume(frame(0))
    gone("renamed", path)

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as room:
        room.setattr(lines_module, "_appending", full)
        for seq in (1, 2):
            with pytest.raises(FrameError) as caught:
                stage.consume(frame(seq))
            assert caught.value.reason == "disk_full"
    stage.consume(frame(3))
    stage.close()
    assert [got["seq"] for got in lines(path)] == [3]
    assert len(caplog.records) == 1


def test_a_pipe_that_is_deleted_is_written_to_on(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    stage = Jsonl(path=str(path))
    stage.open()
    stage.consume(frame(0))
    path.unlink()
    stage.consume(frame(1))
    stage.close()
    text = os.read(reader, 10_000).decode()
    os.close(reader)
    assert [strict(one)["seq"] for one in text.splitlines()] == [0, 1]
    assert not path.exists()


# -- where nothing can be written -------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["file/out.jsonl", "folder", "folder/", "", "file/{stream}/o.jsonl"]
)
def test_F03_open_says_where_nothing_can_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(PreflightError) as caught:
        Jsonl(path=f"{tmp_path}/{name}" if name else "").open()
    assert "\n" not in str(caught.value)


@pytest.fixture
def room() -> Iterator[Any]:
    """Sets how large a file may become."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size or soft, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_F01_without_room_a_frame_fails_whole_and_later_ones_go_on(
    tmp_path: Path, room: Any
) -> None:
    path = tmp_path / "out.jsonl"
    stage = Jsonl(path=str(path))
    stage.open()
    size = 0
    failed = []
    for seq in range(30):
        if seq == 5:
            room(size + 150)  # one line and a half
        if seq == 20:
            room(0)
        try:
            stage.consume(frame(seq))
        except FrameError as error:
            assert error.reason == "disk_full"
            failed.append(seq)
        size = path.stat().st_size
    stage.close()
    assert failed == list(range(6, 20))
    assert [got["seq"] for got in lines(path)] == [*range(6), *range(20, 30)]


def test_a_full_device() -> None:
    stage = Jsonl(path="/dev/full")
    stage.open()
    for seq in range(3):
        with pytest.raises(FrameError) as caught:
            stage.consume(frame(seq))
        assert caught.value.reason == "disk_full"
    stage.close()


OUT = """
import sys
from ovpipe.frame import Frame
from ovpipe.errors import FrameError
from ovpipe.stages.jsonl import Jsonl
stage = Jsonl(path="-")
stage.open()
for seq in range(int(sys.argv[1])):
    try:
        stage.consume(Frame(stream="cam", seq=seq))
    except FrameError as error:
        print(error.reason, file=sys.stderr)
        break
stage.close()
"""


def test_standard_output() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", OUT, "3"], capture_output=True, text=True, check=True, timeout=60
    )
    assert [strict(text)["seq"] for text in ended.stdout.splitlines()] == [0, 1, 2]
    assert ended.stderr == ""


def test_standard_output_into_a_file_that_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("w+") as file:
        path.unlink()
        subprocess.run([sys.executable, "-c", OUT, "3"], stdout=file, check=True, timeout=60)
        file.seek(0)
        assert [strict(text)["seq"] for text in file] == [0, 1, 2]
    assert not path.exists()


def test_a_reader_that_has_gone_ends_it_quietly() -> None:
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", OUT, "1000000"], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert os.read(read, 10)
    os.close(read)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "link_lost\n")
