"""The command line, as a process: output, exit codes, one clear error each."""

import json
import os
import subprocess
import sys

import pytest

GOOD = "version: 1\nname: yard\nstages:\n  a: {kind: synthetic, count: 3}\n  b: {kind: jsonl, path: '-'}\n"


@pytest.fixture
def ovpipe(tmp_path):
    def call(*arguments, config=None, **options):
        if config is not None:
            (tmp_path / "c.yaml").write_text(config)
        return subprocess.run(
            [sys.executable, "-m", "ovpipe", *arguments],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, **options,
        )  # fmt: skip

    return call


def test_validate_says_ok(ovpipe):
    ended = ovpipe("validate", "c.yaml", config=GOOD)
    assert (ended.returncode, ended.stdout) == (0, "c.yaml: ok: 2 stages, 1 edges, 1 streams\n")


@pytest.mark.parametrize(
    ("command", "code"), [(["validate", "-"], 2), (["init", "x"], 3), (["run", "c.yaml"], 2)]
)
def test_a_current_folder_that_is_gone_is_one_error(tmp_path, command, code):
    """Scripts that clean up do that."""
    gone = tmp_path / "gone"
    gone.mkdir()
    command = [sys.executable, "-m", "ovpipe", *command]
    environ = {**os.environ, "PYTHONPATH": os.getcwd()}
    ended = subprocess.run(
        ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", *command],
        cwd=gone, input="version: 1\n", capture_output=True, text=True, env=environ, timeout=60,
    )  # fmt: skip
    assert ended.returncode == code
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert "deleted" in line or "No such file" in line


def test_validate_says_everything_wrong_and_exits_2(ovpipe):
    ended = ovpipe(
        "validate", "c.yaml", config=GOOD.replace("count", "cuont").replace("jsonl", "jsnl")
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert lines[0].startswith("error: c.yaml:4:24: stages.a.cuont: unknown key")
    assert lines[1].startswith("error: c.yaml:5:13: stages.b.kind: unknown kind 'jsnl'")
    assert lines[2:] == ["2 problems"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["validate", "none.yaml"], "cannot be read"),
        (["run", "none.yaml"], "cannot be read"),
        (["frobnicate"], "No such command"),
        (["run"], "Missing argument"),
        (["stages", "synthetik"], "did you mean 'synthetic'"),
    ],
)
def test_wrong_usage_is_exit_2_without_a_traceback(ovpipe, arguments, says):
    ended = ovpipe(*arguments)
    assert ended.returncode == 2
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("format_", "begins"),
    [("text", "yard: 2 stages"), ("mermaid", "flowchart LR"), ("svg", "<svg ")],
)
def test_graph(ovpipe, format_, begins, tmp_path):
    ended = ovpipe("graph", "c.yaml", "--format", format_, config=GOOD)
    assert ended.stdout.startswith(begins)
    ovpipe("graph", "c.yaml", "--format", format_, "-o", "picture")
    assert (tmp_path / "picture").read_text() == ended.stdout


def test_stages_lists_kinds_and_options(ovpipe):
    assert "synthetic" in ovpipe("stages").stdout
    assert "seed" in ovpipe("stages", "synthetic").stdout


def test_schema_is_json(ovpipe):
    assert json.loads(ovpipe("schema").stdout)["title"] == "ovpipe pipeline"


def test_run_keeps_data_on_stdout_and_talk_on_stderr(ovpipe):
    ended = ovpipe("run", "-", input=GOOD)
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [line["seq"] for line in lines] == [0, 1, 2]
    assert "a -> b" in ended.stderr


@pytest.mark.parametrize("command", [[], ["run"], ["validate"], ["graph"], ["stages"]])
def test_help(ovpipe, command):
    ended = ovpipe(*command, "--help")
    assert ended.returncode == 0
    assert "Usage:" in ended.stdout


def test_version(ovpipe):
    assert ovpipe("--version").stdout.startswith("ovpipe, version ")


def test_devices_are_those_of_openvino(ovpipe):
    import openvino

    ended = ovpipe("devices", "--json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert list(found) == openvino.Core().available_devices
    assert "FP32" in found["CPU"]["OPTIMIZATION_CAPABILITIES"]
    text = ovpipe("devices")
    assert text.stdout.startswith(f"CPU: {found['CPU']['FULL_DEVICE_NAME']}\n")
