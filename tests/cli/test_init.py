"""init: what it makes is valid, runs, and passes its own test; nothing is overwritten."""

import json
import subprocess
import sys

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from ovpipe.cli import group

FILES = {"pipeline.yaml", "bright.py", "test_bright.py", "README.md", ".gitignore", ".env.example", "schema.json"}  # fmt: skip


def call(*arguments, **options):
    return CliRunner().invoke(group, arguments, **options)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work") / "my yard"
    ended = call("init", str(folder))
    assert ended.exit_code == 0, ended.output
    assert {path.name for path in folder.iterdir()} == FILES
    return folder


def test_it_is_valid_without_a_warning(project):
    ended = call("validate", str(project / "pipeline.yaml"))
    assert ended.exit_code == 0
    assert ended.stderr == ""
    assert "name: my-yard" in (project / "pipeline.yaml").read_text()


def test_its_schema_knows_its_stage(project):
    schema = json.loads((project / "schema.json").read_text())
    config = yaml.safe_load((project / "pipeline.yaml").read_text())
    jsonschema.validate(config, schema)
    config["stages"]["bright"]["at_least"] = 300
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config, schema)


def test_it_runs(project):
    ended = subprocess.run(
        [sys.executable, "-m", "ovpipe", "run", "pipeline.yaml", "--env-file", ".env.example", "--set", "stages.cam.fps=0"],
        cwd=project, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    lines = (project / "out" / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(50))
    assert "brightness" in lines[0]


def test_its_tests_pass(project):
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=project, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "2 passed" in ended.stdout, ended.stdout + ended.stderr


@pytest.mark.parametrize("name", sorted(FILES))
def test_nothing_is_overwritten(tmp_path, name):
    (tmp_path / name).write_text("mine")
    ended = call("init", str(tmp_path))
    assert ended.exit_code != 0
    assert f"{name} is there already" in ended.output
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("file/project", "x" * 300):
        ended = call("init", str(tmp_path / name))
        assert ended.exit_code == 1
        assert isinstance(ended.exception, SystemExit)
        assert "cannot be written" in ended.output


@pytest.mark.parametrize("name", ["-x", "a b", "é", "$HOME"])
def test_the_next_command_is_one_that_works(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    said = call("init", "--", name).stderr.splitlines()[-1].removeprefix("next: ")
    there, _, _ = said.partition(" && ")
    ended = subprocess.run(["sh", "-c", f"{there} && ls"], capture_output=True, text=True)
    assert "pipeline.yaml" in ended.stdout, ended.stderr
