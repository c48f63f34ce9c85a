"""init: what it makes is valid, runs, and passes its own test; nothing is overwritten."""

import json
import resource
import shutil
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


def process(folder, *before, **options):
    """`ovpipe init FOLDER` as a process: its exit code and its lines on stderr."""
    ended = subprocess.run(
        [*before, sys.executable, "-m", "ovpipe", "init", str(folder)],
        capture_output=True, text=True, timeout=60, **options,
    )  # fmt: skip
    return ended.returncode, ended.stderr.splitlines()


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("file/project", "x" * 300):
        code, (line,) = process(tmp_path / name)
        assert code == 3
        assert line.startswith("error: ")
        assert "cannot be written" in line


@pytest.mark.parametrize("most", [500, 8192], ids=["the first file", "the schema"])
@pytest.mark.parametrize("there", [True, False])
def test_what_cannot_be_written_to_its_end_leaves_nothing(tmp_path, there, most):
    folder = tmp_path / "work" / "yard"
    if there:
        folder.mkdir(parents=True)
        (folder / "notes").write_text("mine")
    before = sorted(tmp_path.rglob("*"))

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    code, (line,) = process(folder, preexec_fn=limit)
    assert (code, line) == (3, f"error: {folder}: cannot be written: File too large")
    assert sorted(tmp_path.rglob("*")) == before
    assert process(folder)[0] == 0
    assert {path.name for path in folder.iterdir()} == FILES | {"notes"} & {p.name for p in before}


def test_F01_a_full_disk_is_left_as_it_was(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=64k tmpfs {disk}"
    within = ["unshare", "--mount", "sh", "-c", f'{mount} && "$@"; code=$?; ls -A {disk} >&2; exit $code', "sh"]  # fmt: skip
    if not shutil.which("unshare") or subprocess.run([*within, "true"], check=False).returncode:
        pytest.skip("needs to mount: run it as root")
    folder = disk / "yard"
    code, lines = process(folder, *within)
    assert code == 3
    assert lines == [f"error: {folder}: cannot be written: No space left on device"]


@pytest.mark.parametrize("name", ["-x", "a b", "é", "$HOME"])
def test_the_next_command_is_one_that_works(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    said = call("init", "--", name).stderr.splitlines()[-1].removeprefix("next: ")
    there, _, _ = said.partition(" && ")
    ended = subprocess.run(["sh", "-c", f"{there} && ls"], capture_output=True, text=True)
    assert "pipeline.yaml" in ended.stdout, ended.stderr
