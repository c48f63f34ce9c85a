"""What is wrong with a model, a device or an option is said before the first frame: in at most
three lines, with the path or the value, without a stack of OpenVINO."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovpipe.errors import PreflightError
from ovpipe.frame import Frame
from ovpipe.image import Image
from ovpipe.stages.infer import Infer
from ovpipe.testing import push, run_stage
from tests.support import models
from tests.support.data import need

BOX = (0, 1, 0.4, 0.25, 0.25, 0.75, 0.75)


def refusal(capfd: pytest.CaptureFixture[str], **options: Any) -> str:
    """The one message; nothing else is printed."""
    stage = Infer(**{"cache": "off", **options})
    with pytest.raises(PreflightError) as caught:
        stage.open()
    stage.close()
    message = str(caught.value)
    assert len(message.splitlines()) <= 3
    for stack in ("Exception from", "src/", ".cpp", "Check '"):
        assert stack not in message
    assert capfd.readouterr() == ("", "")
    return message


@pytest.fixture
def ir(tmp_path: Path) -> Path:
    return models.constant_picture_model(tmp_path, {"out": np.arange(3000).reshape(1, 3000)})


NO_MODELS: dict[str, tuple[bytes, str]] = {
    "empty.xml": (b"", "empty"),
    "empty.onnx": (b"", "empty"),
    "html.xml": (b"<html></html>", "no <net>"),
    "noise.xml": (np.random.default_rng(1).bytes(5000), "no <net>"),
    "noise.onnx": (b"\xff" + np.random.default_rng(1).bytes(5000), "no ONNX model"),
    "tagged.onnx": (b"\x08\xff" + np.random.default_rng(1).bytes(5000), "no ONNX model"),
    "noise.tflite": (np.random.default_rng(1).bytes(5000), "no TFLite model"),
    "tagged.tflite": (b"\0\0\0\0TFL3" + np.random.default_rng(1).bytes(5000), "cannot read model"),
    "video.mp4": (b"....ftyp", "suffix is '.mp4'"),
    "hollow.xml": (b'<?xml version="1.0"?><net name="x" version="11"></net>', "cannot read model"),
}


@pytest.mark.parametrize("name", NO_MODELS)
def test_E01_files_that_are_no_models(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    content, says = NO_MODELS[name]
    path = tmp_path / name
    path.write_bytes(content)
    message = refusal(capfd, model=str(path))
    assert str(path) in message
    assert says in message


def test_E01_no_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "No such file" in refusal(capfd, model=str(tmp_path / "away.xml"))
    assert "is a folder" in refusal(capfd, model=str(tmp_path))
    assert "set `model`" in refusal(capfd, model="")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_E01_a_file_without_permission(ir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ir.with_suffix(".bin").chmod(0)
    assert "Permission denied" in refusal(capfd, model=str(ir))
    ir.chmod(0)
    assert "Permission denied" in refusal(capfd, model=str(ir))


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_E01_a_truncated_xml(ir: Path, capfd: pytest.CaptureFixture[str], part: float) -> None:
    text = ir.read_bytes()
    ir.write_bytes(text[: int(len(text) * part)])
    assert str(ir) in refusal(capfd, model=str(ir))


def test_E01_truncated_missing_or_empty_weights(
    ir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    weights = ir.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "Incorrect weights in bin file" in refusal(capfd, model=str(ir))
    weights.write_bytes(b"")
    assert str(ir) in refusal(capfd, model=str(ir))
    weights.unlink()
    assert "bin file cannot be found" in refusal(capfd, model=str(ir))


def test_a_real_model_that_openvino_refuses(capfd: pytest.CaptureFixture[str]) -> None:
    path = need("models/unsupported/person_detect.tflite")
    assert "Per-Channel Quantization axis" in refusal(capfd, model=str(path))


def test_E01_a_truncated_onnx(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "half.onnx"
    path.write_bytes(need("models/yolox/yolox_nano.onnx").read_bytes()[:100_000])
    assert str(path) in refusal(capfd, model=str(path))


@pytest.mark.parametrize(
    ("device", "missing"),
    [("FOO", "FOO"), ("", ""), ("CPU.7", "CPU.7"), ("AUTO:FOO,CPU", "FOO"), ("HETERO:XPU", "XPU")],
)
def test_E06_a_device_that_is_not_there(
    ir: Path, capfd: pytest.CaptureFixture[str], device: str, missing: str
) -> None:
    message = refusal(capfd, model=str(ir), device=device)
    assert f"device '{missing}' does not exist here; there are: " in message
    assert "CPU" in message.partition("there are: ")[2]


@pytest.mark.parametrize(
    ("device", "config", "pinning"),
    [
        ("CPU", {}, None),
        ("CPU", {"INFERENCE_NUM_THREADS": 1}, False),
        ("CPU", {"INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": True}, True),
        ("AUTO", {"INFERENCE_NUM_THREADS": 1}, None),
    ],
)
def test_a_part_of_the_cores_is_not_pinned(
    ir: Path, monkeypatch: pytest.MonkeyPatch, device: str, config: Any, pinning: bool | None
) -> None:
    import openvino

    given: list[dict[str, Any]] = []
    compile_model = openvino.Core.compile_model

    def spy(core: Any, model: Any, name: str, properties: dict[str, Any]) -> Any:
        given.append(properties)
        return compile_model(core, model, name, properties)

    monkeypatch.setattr(openvino.Core, "compile_model", spy)
    stage = Infer(model=str(ir), device=device, config=config, cache="off")
    stage.open()
    stage.close()
    assert [p.get("ENABLE_CPU_PINNING") for p in given] == [pinning]


def test_E06_fallback_takes_the_first_device_that_does(
    ir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Infer(model=str(ir), device="NPU9", fallback=["HETERO:XPU", "CPU", "FOO"], cache="off")
    stage.open()
    stage.close()
    (said,) = (r.getMessage() for r in caplog.records)
    assert "runs on device 'CPU'" in said
    assert "device 'NPU9' does not exist here" in said
    assert "device 'XPU' does not exist here" in said
    assert "FOO" not in said


def test_E06_fallback_says_nothing_where_the_device_is_there(
    ir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Infer(model=str(ir), fallback=["FOO"], cache="off")
    stage.open()
    stage.close()
    assert not caplog.records


def test_E06_no_device_of_the_fallback_takes_it(
    ir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    message = refusal(
        capfd, model=str(ir), device="FOO", fallback=["CPU"], config={"NUM_STREAMS": "many"}
    )
    assert "no device of FOO, CPU takes it" in message
    assert "device 'FOO' does not exist here; there are: CPU" in message
    assert "device 'CPU' does not take model" in message


@pytest.mark.parametrize("device", ["CPU", "AUTO"])
def test_a_property_that_is_not_there(
    ir: Path, capfd: pytest.CaptureFixture[str], device: str
) -> None:
    message = refusal(capfd, model=str(ir), device=device, config={"NUM_STREAM": 1})
    assert "no property 'NUM_STREAM'; did you mean 'NUM_STREAMS'?" in message


def test_a_property_with_a_wrong_value(ir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    message = refusal(capfd, model=str(ir), config={"NUM_STREAMS": "many"})
    assert "many" in message


@pytest.mark.parametrize(
    "options",
    [
        {"decode": "yunet"},
        {"decode": "no_such_module_of_mine:f"},
        {"keep": {"classes": ["dog"]}},
        {"labels": "/away/names.txt"},
        {"mean": [1.0, 2.0]},
        {"feed": "arrays", "scale": [2.0]},
        {"cache": "/proc/none"},
    ],
)
def test_options_that_contradict_the_model(
    ir: Path, capfd: pytest.CaptureFixture[str], options: dict[str, Any]
) -> None:
    refusal(capfd, model=str(ir), **options)


@pytest.mark.parametrize("device", ["CPU", "AUTO", "AUTO:CPU", "HETERO:CPU", "AUTO:-GPU"])
@pytest.mark.parametrize("hint", ["throughput", "latency", "none"])
def test_devices_and_hints_that_are_there(tmp_path: Path, device: str, hint: Any) -> None:
    model = str(models.ssd(tmp_path, [BOX]))
    stage = Infer(model=model, device=device, hint=hint, jobs=2, cache="off")
    white = Frame(image=Image(np.full((16, 16, 3), 255, np.uint8)))
    (out,) = run_stage(stage, [white]).results
    assert isinstance(out, Frame)
    assert len(out.detections or ()) == 1


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models.ssd(tmp_path, [BOX])
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    stage = Infer(model="~/ssd.xml")
    stage.open()
    stage.close()
    folder = tmp_path / ".cache" / "ovpipe" / "models"
    assert list(folder.iterdir())
    assert folder.stat().st_mode & 0o777 == 0o700


def test_without_a_home_there_is_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.ssd(tmp_path, [BOX])
    monkeypatch.setenv("HOME", "/proc/none")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    stage = Infer(model=str(model))
    stage.open()
    stage.close()


def test_a_cached_model_gives_the_same(tmp_path: Path) -> None:
    model = str(models.ssd(tmp_path, [BOX]))
    gray = Frame(image=Image(np.full((16, 16, 3), 77, np.uint8)))
    boxes = []
    for _ in range(2):
        (out,) = run_stage(Infer(model=model, cache=str(tmp_path / "cache")), [gray]).results
        assert isinstance(out, Frame)
        boxes.append(list(out.detections or ()))
    assert boxes[0] == boxes[1]
    assert len(boxes[0]) == 1


@pytest.mark.parametrize("cached", [False, True])
def test_E02_files_that_shrink_while_it_runs_do_not_kill_it(tmp_path: Path, cached: bool) -> None:
    """A mapped file that is truncated is a SIGBUS; so this runs in a process of its own."""
    model = models.constant_picture_model(
        tmp_path, {"out": np.random.default_rng(1).random((1, 1 << 20))}
    )
    script = (
        "import sys; from tests.contract.test_infer_preflight import outlive_the_files as f;"
        "f(*sys.argv[1:])"
    )
    cache = str(tmp_path / "cache") if cached else "off"
    done = subprocess.run(
        [sys.executable, "-c", script, str(model), cache],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "CI": "true"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["1048576", "1048576"]), done.stderr


def outlive_the_files(model: str, cache: str) -> None:
    """Open twice (the second time from the cache), then truncate everything, then infer."""
    Infer(model=model, cache=cache).open()
    stage = Infer(model=model, cache=cache)
    stage.open()
    frame = Frame(image=Image(np.zeros((16, 16, 3), np.uint8)))
    for truncate in (False, True):
        files = [Path(model), Path(model).with_suffix(".bin"), *Path(cache).glob("*")]
        for file in files if truncate else []:
            os.truncate(file, 0)
        (out,) = push(stage, [frame])
        assert isinstance(out, Frame)
        print(out.arrays["out"].size)
    stage.close()


def test_E02_weights_that_shrink_while_they_are_read_do_not_kill_it(tmp_path: Path) -> None:
    """Open again and again while another thread cuts and restores the weights: each time it
    opens, or says what is wrong. In a process of its own, as above."""
    model = models.constant_picture_model(
        tmp_path, {"out": np.random.default_rng(1).random((1, 1 << 18))}
    )
    script = (
        "import sys; from tests.contract.test_infer_preflight import open_while_cut as f;"
        "f(*sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(model)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "40\n"), done.stderr


def open_while_cut(model: str) -> None:
    """Count the attempts that end as they may."""
    weights = Path(model).with_suffix(".bin")
    whole = weights.read_bytes()
    over = threading.Event()

    def cut() -> None:
        while not over.is_set():
            os.truncate(weights, len(whole) // 2)
            weights.write_bytes(whole)

    thread = threading.Thread(target=cut)
    thread.start()
    ended = 0
    for _ in range(40):
        stage = Infer(model=model, cache="off")
        try:
            stage.open()
        except PreflightError as error:
            assert str(weights.parent) in str(error)
        stage.close()
        ended += 1
    over.set()
    thread.join()
    print(ended)


def test_importing_the_stage_is_light() -> None:
    """The supervisor imports it to validate options."""
    script = "import sys, ovpipe.stages.infer; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"openvino", "cv2", "av", "pydantic", "yaml", "zmq"} & set(loaded)
