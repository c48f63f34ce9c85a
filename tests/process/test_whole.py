"""The main job, whole: a video file through `ovpipe run` to detections in files."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

import ovpipe
from tests.process.conftest import both, everywhere
from tests.support.data import need

av = pytest.importorskip("av")

CAR = "models/omz/person-vehicle-bike-detection-2000/FP16/person-vehicle-bike-detection-2000.xml"


def lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def played(path):
    """The number of frames that an independent reader decodes."""
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def made(folder, frames):
    """A clip and a model of our own: the detector answers the same box to every frame."""
    from tests.support.clips import clip
    from tests.support.models import ssd

    row = [0, 1, 0.75, 0.25, 0.25, 0.75, 0.5]
    end = [-1, 0, 0, 0, 0, 0, 0]
    return clip(folder / "clip.mp4", frames), ssd(folder, [row, end])


@everywhere
def test_a_clip_becomes_lines_and_a_film(ovpipe_run, tmp_path):
    video, model = made(tmp_path, 40)
    stages = {
        "clip": {"kind": "video", "url": str(video)},
        "find": {
            "kind": "infer", "inputs": "clip", "model": str(model), "jobs": 3, "device": "CPU",
            "labels": ["none", "thing"], "cache": "off",
        },
        "lines": {"kind": "jsonl", "inputs": "find", "path": str(tmp_path / "o" / "{stream}.jsonl")},
        "draw": {"kind": "annotate", "inputs": "find"},
        "film": {"kind": "video-writer", "inputs": "draw", "path": str(tmp_path / "o" / "film.mp4")},
    }  # fmt: skip
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    assert all(row["claimed"] == row["delivered"] == 40 for row in ended.ledger.values())
    found = lines(tmp_path / "o" / "clip.jsonl")
    assert [x["seq"] for x in found] == list(range(40))
    assert all(x["stream"] == "clip" and (x["width"], x["height"]) == (64, 48) for x in found)
    for x in found:
        (thing,) = x["detections"]
        assert (thing["label"], thing["class_id"], thing["box"]) == ("thing", 1, [16, 12, 48, 24])
    assert played(tmp_path / "o" / "film.mp4") == 40


@both
def test_a_decoder_that_raises_fails_its_frames_only(ovpipe_run, tmp_path):
    video, model = made(tmp_path, 30)
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n\n\n"
        "def decode(outputs, info):\n"
        "    if info.frame.seq % 5 == 0:\n"
        "        raise ValueError('five')\n"
        "    box = np.float32([[0, 0, 8, 8]])\n"
        "    return info.detections(box, np.float32([0.9]), np.int32([0]))\n"
    )
    stages = {
        "clip": {"kind": "video", "url": str(video)},
        "find": {"kind": "infer", "model": str(model), "decode": "mine:decode", "cache": "off"},
        "lines": {"kind": "jsonl", "path": str(tmp_path / "out.jsonl")},
    }
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    assert ended.ledger["clip", "find"]["failed"] == {"infer_error": 6}
    assert "ValueError: five" in ended.err  # told, and not for every frame
    assert ended.err.count("Traceback") == 1
    assert [x["seq"] for x in lines(tmp_path / "out.jsonl")] == [i for i in range(30) if i % 5]


@everywhere
def test_results_leave_in_stream_order_with_many_jobs_and_streams(ovpipe_run, tmp_path):
    _, model = made(tmp_path, 5)
    stages = {
        "src": {
            "kind": "synthetic", "size": "64x48", "for_each": {s: {"count": 150} for s in "abc"},
        },
        "find": {"kind": "infer", "model": str(model), "jobs": 7, "cache": "off"},
        "lines": {"kind": "jsonl", "path": str(tmp_path / "{stream}.jsonl")},
    }  # fmt: skip
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    for s in "abc":
        assert [x["seq"] for x in lines(tmp_path / f"src_{s}.jsonl")] == list(range(150))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ({"find": {"model": "none.xml"}}, "none.xml"),
        ({"find": {"model": "noise.xml"}}, "noise.xml"),
        ({"find": {"device": "GPU.7"}}, "GPU.7"),
        ({"clip": {"url": "none.mp4"}}, "none.mp4"),
        ({"clip": {"url": "noise.xml"}}, "noise.xml"),
        ({"lines": {"path": "/proc/nowhere/out.jsonl"}}, "/proc/nowhere"),
    ],
    ids=["no-model", "noise-model", "no-device", "no-video", "noise-video", "no-folder"],
)
def test_what_is_missing_is_one_error_and_exit_3(ovpipe_run, tmp_path, monkeypatch, spoil, says):
    video, model = made(tmp_path, 5)
    monkeypatch.chdir(tmp_path)
    Path("noise.xml").write_bytes(bytes(range(256)) * 40)
    stages = {
        "clip": {"kind": "video", "url": str(video)},
        "find": {"kind": "infer", "model": str(model), "cache": "off"},
        "lines": {"kind": "jsonl", "path": str(tmp_path / "out.jsonl")},
    }
    for name, options in spoil.items():
        stages[name].update(options)
    ended = ovpipe_run(stages)
    assert ended.code == 3, ended.err
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert says in errors[0]
    assert "Traceback" not in ended.err


# -- with real data ----------------------------------------------------------------------


def test_the_quick_start_finds_a_face_in_each_of_120_frames(ovpipe_run, tmp_path, monkeypatch):
    for name in ("models/yunet/face_detection_yunet_2023mar.onnx", "videos/carphone_pristine.mp4"):
        shutil.copy(need(name), tmp_path)
    stages = yaml.safe_load(Path("configs/quickstart.yaml").read_text())["stages"]
    monkeypatch.setenv("OVPIPE_DEMO", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    ended = ovpipe_run(stages).balanced()
    assert ended.code == 0, ended.err
    assert all(row["claimed"] == row["delivered"] == 120 for row in ended.ledger.values())
    found = lines("out/faces.jsonl")
    assert [x["seq"] for x in found] == list(range(120))
    assert [[d["label"] for d in x["detections"]] for x in found] == [["face"]] * 120
    assert played("out/faces.mp4") == 120


def test_a_parallel_run_gives_the_serial_loops_answer_exactly():
    from tests.support.serial import SerialSsd, i420_frames

    video, model = need("videos/car-detection.mp4"), need(CAR)
    pipeline = ovpipe.Pipeline("cars")
    pipeline.add("road", "video", {"url": str(video)})
    options = {"model": str(model), "device": "CPU", "jobs": 2, "keep": {"score": 0.5}}
    pipeline.add("cars", "infer", {**options, "cache": "off"})
    with pipeline:
        parallel = [
            [(*d.box, d.score, d.class_id) for d in frame.detections]
            for frame in pipeline.read("cars")
        ]
    serial = SerialSsd(model, 0.5, {})
    assert parallel == [serial(pixels) for pixels in i420_frames(video)]
    assert len(parallel) == 377
