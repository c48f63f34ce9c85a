"""Rows D and F of the faults, seen from outside: `ovpipe run` on media that are not what they say.

What the stages do by themselves is in tests/contract (test_stage_video*, test_stage_video_writer);
cameras that go away are in test_cameras.
"""

import itertools
import random
import resource
import signal
import struct
from pathlib import Path

import pytest

from tests.support.models import ssd
from tests.support.processes import wait_for, worker_of

av = pytest.importorskip("av")

from tests.support.clips import clip, picture  # noqa: E402

SIZES = "tests.support.cameras:Sizes"
END = [-1, 0, 0, 0, 0, 0, 0]


def seen(folder):
    """[(stream, size)] as the sink saw them."""
    return [tuple(line.split()) for line in (folder / "sizes").read_text().splitlines()]


def media(**url_of):
    """A source per name, and a sink that checks every picture."""
    return {
        "cam": {"kind": "video", "for_each": {n: {"url": str(u)} for n, u in url_of.items()}},
        "sink": {"kind": SIZES, "inputs": "cam", "path": "sizes"},
    }


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_D06_the_size_changes_in_mid_stream_and_back(ovpipe_run, tmp_path):
    """Also with an odd size on the way, and an infer stage behind it."""
    pytest.importorskip("openvino")
    sizes = [(640, 360), (1280, 720), (640, 360), (321, 181), (640, 360)]
    whole = b""
    for i, size in enumerate(sizes):
        form = "yuv444p" if size[0] % 2 else "yuv420p"
        whole += clip(tmp_path / f"{i}.ts", size=size, pix_fmt=form).read_bytes()
    (tmp_path / "all.ts").write_bytes(whole)
    stages = media(a="all.ts")
    model = ssd(tmp_path, [[0, 1, 0.75, 0.25, 0.25, 0.75, 0.5], END])
    stages["find"] = {"kind": "infer", "inputs": "cam", "model": str(model), "cache": "off"}
    stages["lines"] = {"kind": "jsonl", "inputs": "find", "path": "lines"}
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    assert [k for k, _ in itertools.groupby(size for _, size in seen(tmp_path))] == [
        f"{w}x{h}" for w, h in sizes
    ]
    for row in ended.ledger.values():
        assert row["dropped"] == {}, row
        # decode_error: where one clip ends and the next begins there is a packet of neither
        assert set(row["failed"]) <= {"shape_changed", "decode_error"}, row
        assert row["failed"].get("shape_changed", 0) <= 4 * (len(sizes) - 1), row
        assert row["delivered"] >= 25 * len(sizes) - 2 * len(sizes), row
    assert {stage["restarts"] for stage in ended.stages.values()} == {0}


def test_D08_damaged_videos_end_well_and_only_whole_frames_leave(ovpipe_run, tmp_path):
    """Cut anywhere, or with bytes that are others; beside one that is whole."""
    options = {"movflags": "faststart"}
    good = clip(tmp_path / "good.mp4", frames=40, options=options)
    urls = {"good": good}
    data = good.read_bytes()
    body = data.index(b"mdat") + 4
    for i in range(4):
        chance = random.Random(i)
        bad = bytearray(data)
        for _ in range(40):
            bad[chance.randrange(body, len(bad))] = chance.randrange(256)
        if i == 3:
            del bad[(body + len(bad)) // 2 :]
        urls[f"bad{i}"] = tmp_path / f"bad{i}.mp4"
        urls[f"bad{i}"].write_bytes(bad)
    ended = ovpipe_run(media(**urls)).balanced()
    assert ended.code == 0, ended.err
    assert {size for _, size in seen(tmp_path)} == {"64x48"}
    rows = {row["stream"]: row for row in ended.summary["ledger"]}
    good_row = rows.pop("cam/good")
    assert (good_row["delivered"], good_row["failed"]) == (40, {})
    for row in rows.values():
        assert set(row["failed"]) == {"decode_error"}, row
        assert row["delivered"] + row["failed"]["decode_error"] <= 41, row
    assert {stage["restarts"] for stage in ended.stages.values()} == {0}


def patched(path, mark, offset, form, *values):
    """The file with these values at `offset` behind the first `mark`."""
    data = bytearray(path.read_bytes())
    at = data.index(mark) + len(mark) + offset
    data[at : at + struct.calcsize(form)] = struct.pack(form, *values)
    path.write_bytes(data)
    return path


HUGE = 65535
BOMBS = {
    "png": lambda d: patched(picture(d / "a.png"), b"IHDR", 0, ">II", HUGE, HUGE),
    "bmp": lambda d: patched(picture(d / "a.bmp"), b"\x28\0\0\0", 0, "<ii", HUGE, HUGE),
    "jpg": lambda d: patched(picture(d / "a.jpg"), b"\xff\xc0", 3, ">HH", HUGE, HUGE),
    "avi": lambda d: patched(clip(d / "a.avi", codec="ffv1"), b"strf", 8, "<ii", HUGE, HUGE),
    "mp4": lambda d: patched(clip(d / "a.mp4", codec="mpeg4"), b"mp4v", 24, ">HH", HUGE, HUGE),
    "mp4-of-pictures": lambda d: patched(
        clip(d / "a.mp4", codec="mjpeg", pix_fmt="yuvj420p"), b"\xff\xc0", 3, ">HH", HUGE, HUGE
    ),
}  # fmt: skip
ROOM = 4 << 30
"""Of address space: a third of what such a picture takes."""


@pytest.mark.parametrize("name", BOMBS)
def test_D11_a_header_of_65535_x_65535_takes_no_memory(ovpipe_run, tmp_path, name):
    """Refused with the bound; or, where another header has the true size, played."""
    path = BOMBS[name](tmp_path)
    ended = ovpipe_run(
        media(a=path),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (ROOM, ROOM)),
    )
    assert "Traceback" not in ended.err
    assert "MemoryError" not in ended.err
    if name.startswith("mp4"):
        assert ended.code == 0, ended.err
        row = ended.balanced().ledger["cam", "sink"]
        assert row["delivered"] + row["failed"].get("decode_error", 0) >= 25, row
        assert {size for _, size in seen(tmp_path)} == {"64x48"}
        return
    assert ended.code == 3, ended.err
    (line,) = [x for x in ended.err.splitlines() if x.startswith("error: ")]
    assert str(path) in line
    assert "16384 pixels a side" in line, line


def plays(path):
    """How many frames a file has."""
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_F05_sigkill_of_the_recorder_costs_no_file(ovpipe_run, tmp_path):
    """What was written plays, and nobody writes over it: not the successor, nor the next run."""
    stages = {
        "cam": {"kind": "synthetic", "size": "64x48", "format": "i420", "fps": 50, "live": True},
        "record": {"kind": "video-writer", "path": "rec/{stream}.mp4", "gop": "0.2s"},
    }
    first, second, third = (tmp_path / "rec" / f"cam{n}.mp4" for n in ("", "-2", "-3"))
    process = ovpipe_run.start(stages)
    wait_for(lambda: first.exists() and first.stat().st_size > 20_000, "some of a file")
    worker_of(process.pid, "record").kill()
    ovpipe_run.until(process, "stage 'record' is back after")
    before = first.read_bytes()
    wait_for(lambda: second.exists() and second.stat().st_size > 20_000, "the next file")
    process.send_signal(signal.SIGINT)
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    assert "stage 'record' died (SIGKILL) while" in ended.err
    stages["cam"] |= {"count": 5, "live": False}
    assert ovpipe_run(stages).code == 0
    assert first.read_bytes() == before
    assert plays(first) >= 10  # one group of pictures
    assert plays(second) >= 10
    assert plays(third) == 5
    assert sorted(Path("rec").iterdir()) == sorted(
        p.relative_to(tmp_path) for p in (first, second, third)
    )
