"""Faults of models, devices and decoders, seen from outside: `ovpipe run` and what it says."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino")

from tests.process.conftest import T
from tests.support import models

END = [-1, 0, 0, 0, 0, 0, 0]


def stages(folder, **options):
    model = models.ssd(folder, [[0, 1, 0.75, 0.25, 0.25, 0.75, 0.5], END])
    return {
        "clip": {"kind": "synthetic", "count": 12, "size": "32x32"},
        "find": {"kind": "infer", "model": str(model), "cache": "off", "jobs": 2, **options},
        "lines": {"kind": "jsonl", "path": str(folder / "out.jsonl")},
    }


def lines(folder):
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def test_E08_a_decoder_that_raises_fails_those_frames_and_prints_its_traceback_once(
    ovpipe_run, tmp_path
):
    graph = stages(tmp_path, decode="tests.support.decoders:raises_on_each_third")
    ended = ovpipe_run(graph).balanced()
    assert ended.code == 0, ended.err
    assert ended.ledger["clip", "find"]["failed"] == {"infer_error": 4}
    assert ended.ledger["find", "lines"]["delivered"] == 8
    assert [line["seq"] for line in lines(tmp_path)] == [0, 1, 3, 4, 6, 7, 9, 10]
    assert ended.err.count("Traceback (most recent call last)") == 1
    assert "find: tests.support.decoders:raises_on_each_third failed" in ended.err
    assert "ZeroDivisionError: in frame 2" in ended.err


def spoilt(folder, how):
    """The model with something wrong in it, and what is said of that."""
    model = models.constant_picture_model(folder, {"out": np.arange(3000).reshape(1, 3000)})
    weights = model.with_suffix(".bin")
    match how:
        case "missing":
            model.unlink()
            return model, "No such file"
        case "truncated xml":
            os.truncate(model, model.stat().st_size // 2)
            return model, "cannot read model"
        case "truncated bin":
            os.truncate(weights, 1000)
            return model, "Incorrect weights"
        case "random bytes":
            model.write_bytes(np.random.default_rng(1).bytes(5000))
            return model, "no <net>"
        case "no weights":
            weights.unlink()
            return model, "bin file cannot be found"
    raise ValueError(how)


@pytest.mark.parametrize(
    "how", ["missing", "truncated xml", "truncated bin", "random bytes", "no weights"]
)
def test_E01_a_model_that_is_none_is_three_lines_at_most(ovpipe_run, tmp_path, how):
    graph = stages(tmp_path)
    model, says = spoilt(tmp_path, how)
    graph["find"]["model"] = str(model)
    ended = ovpipe_run(graph)
    assert ended.code == 3, ended.err
    said = ended.err.splitlines()
    assert len(said) <= 3, said
    assert said[0].startswith("error: stage 'find': ")
    assert str(tmp_path) in said[0]
    assert says in ended.err
    for stack in ("Traceback", "Exception from", "src/", ".cpp"):
        assert stack not in ended.err
    assert {stage["restarts"] for stage in ended.stages.values()} == {0}


def test_E04_frames_of_nan_fail_and_those_after_them_go_on(ovpipe_run, tmp_path):
    model = models.double(tmp_path)
    items = [{"nan": 3}]
    ended = ovpipe_run(
        {
            "cam": {"kind": T + "Script", "items": items},
            "find": {"kind": "infer", "model": str(model), "cache": "off", "feed": "arrays"},
            "lines": {"kind": "jsonl", "path": str(tmp_path / "out.jsonl")},
        }
    ).balanced()
    assert ended.code == 0, ended.err
    assert ended.ledger["cam", "find"]["failed"] == {"nan_output": 3}
    assert (tmp_path / "out.jsonl").read_text() == ""


def test_E05_frames_that_do_not_fit_the_model_fail_by_our_own_check(ovpipe_run, tmp_path):
    """OpenVINO takes uint8 for float32 without a word.

    So many that each slot there is has had one: what failed must give its slot back.
    """
    model = models.double(tmp_path)
    ended = ovpipe_run(
        {
            "cam": {"kind": "tests.support.edges:Vectors", "count": 150},
            "find": {"kind": "infer", "model": str(model), "cache": "off", "feed": "arrays"},
            "lines": {"kind": "jsonl", "path": str(tmp_path / "out.jsonl")},
        }
    ).balanced()
    assert ended.code == 0, ended.err
    assert ended.ledger["cam", "find"]["failed"] == {"infer_error": 100}
    assert [line["seq"] for line in lines(tmp_path)] == list(range(0, 150, 3))
    assert {stage["restarts"] for stage in ended.stages.values()} == {0}


def test_E06_a_device_that_is_not_there_ends_it_and_the_others_are_named(ovpipe_run, tmp_path):
    ended = ovpipe_run(stages(tmp_path, device="GPU.7"))
    assert ended.code == 3, ended.err
    assert "device 'GPU.7' does not exist here; there are: CPU" in ended.err
    assert "Traceback" not in ended.err


def test_E06_the_fallback_runs_and_says_so(ovpipe_run, tmp_path):
    ended = ovpipe_run(stages(tmp_path, device="GPU.7", fallback=["NPU", "CPU"])).balanced()
    assert ended.code == 0, ended.err
    assert ended.ledger["find", "lines"]["delivered"] == 12
    assert "find: runs on device 'CPU': device 'GPU.7' does not exist here" in ended.err
    assert "device 'NPU' does not exist here" in ended.err


@pytest.mark.parametrize(
    "options",
    [{"preprocess": "graph"}, {"batch": {"size": 4, "wait": "20ms"}}],
    ids=["graph", "batch"],
)
def test_other_ways_into_the_device(ovpipe_run, tmp_path, options):
    """Every frame arrives, in order, and its memory comes back."""
    graph = stages(tmp_path, decode="tests.support.decoders:half_nan", **options)
    graph["find"]["model"] = str(models.echo(tmp_path))
    graph["clip"] |= {"count": 200, "format": "i420"}
    ended = ovpipe_run(graph).balanced()
    assert ended.code == 0, ended.err
    found = lines(tmp_path)
    assert [line["seq"] for line in found] == list(range(200))
    assert all(line["detections"][0]["box"] == [0, 0, 4, 4] for line in found)


def test_streams_share_a_batch_and_one_may_end_early(ovpipe_run, tmp_path):
    graph = stages(tmp_path, batch={"size": 8, "wait": "10ms"})
    graph["find"]["model"] = str(models.echo(tmp_path))
    graph["clip"]["for_each"] = {"a": {"count": 3}, "b": {"count": 60}, "c": {"count": 31}}
    ended = ovpipe_run(graph).balanced()
    assert ended.code == 0, ended.err
    by_stream = {}
    for line in lines(tmp_path):
        by_stream.setdefault(line["stream"], []).append(line["seq"])
    assert by_stream == {
        "clip/a": list(range(3)), "clip/b": list(range(60)), "clip/c": list(range(31)),
    }  # fmt: skip


def test_E02_weights_that_are_cut_while_it_runs_harm_nothing(ovpipe_run, tmp_path):
    """No SIGBUS; the run goes on with what it read."""
    graph = stages(tmp_path)
    graph["clip"] |= {"count": 400, "fps": 200, "live": True}
    process = ovpipe_run.start(graph)
    weights = Path(graph["find"]["model"]).with_suffix(".bin")
    from tests.support.processes import wait_for

    out = tmp_path / "out.jsonl"
    wait_for(lambda: out.exists() and out.stat().st_size, "a first line")
    weights.write_bytes(b"")
    ended = ovpipe_run.finish(process).balanced()
    assert ended.code == 0, ended.err
    assert lines(tmp_path)[-1]["seq"] > 0
