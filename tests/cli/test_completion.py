"""completion, and the examples under --help."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from ovpipe.cli import complete, group
from ovpipe.supervisor import bulletin

COMMANDS = group.list_commands(click.Context(group))


def offered(words, cwd):
    """What a shell is offered for these words, the last of them begun."""
    from click.shell_completion import BashComplete

    before = os.getcwd()
    os.chdir(cwd)
    try:
        *arguments, incomplete = words.split(" ")
        found = BashComplete(group, {}, "ovpipe", "_OVPIPE_COMPLETE").get_completions(
            arguments, incomplete
        )
    finally:
        os.chdir(before)
    return [item.value for item in found]


@pytest.fixture
def folder(tmp_path):
    for name in ("yard.yaml", "yellow.yml", "notes.txt", "sub/deep.yaml", ".hidden.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path


def test_commands_and_options(folder):
    assert offered("", folder) == COMMANDS
    assert offered("st", folder) == ["stop", "stages"]
    assert offered("run --max", folder) == ["--max-frames"]
    assert offered("run --log-format ", folder) == ["text", "json"]


@pytest.mark.parametrize("command", ["run", "validate", "config", "graph", "doctor", "schema"])
def test_configurations(folder, command):
    assert offered(f"{command} ", folder) == ["sub/", "yard.yaml", "yellow.yml"]
    assert offered(f"{command} ya", folder) == ["yard.yaml"]
    assert offered(f"{command} sub/", folder) == ["sub/deep.yaml"]
    assert offered(f"{command} .h", folder) == [".hidden.yaml"]
    assert offered(f"{command} {folder}/s", folder) == [f"{folder}/sub/"]
    assert offered(f"{command} none/x", folder) == ["none/x"]  # and the shell's own files


def test_kinds(folder):
    assert offered("stages vid", folder) == ["video", "video-writer"]


@pytest.mark.parametrize("command", ["top", "stop"])
def test_pipelines_that_run(folder, command, monkeypatch):
    monkeypatch.setattr(
        bulletin, "runs", lambda: [SimpleNamespace(name=n) for n in ("yard", "roof", "yard")]
    )
    assert offered(f"{command} ", folder) == ["yard", "roof"]
    assert offered(f"{command} r", folder) == ["roof"]

    def fails():
        raise complete.OvpipeError("no folder")

    monkeypatch.setattr(bulletin, "runs", fails)
    assert offered(f"{command} ", folder) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_that_the_shell_reads(shell, tmp_path):
    ended = CliRunner().invoke(group, ["completion", shell])
    assert ended.exit_code == 0
    assert "_OVPIPE_COMPLETE" in ended.stdout
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: apt-get install {shell}")
    (tmp_path / "script").write_text(ended.stdout)
    subprocess.run([shell, "-n", str(tmp_path / "script")], check=True, timeout=60)


def test_bash_completes_with_it(folder):
    program = folder / "bin" / "ovpipe"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m ovpipe "$@"\n')
    program.chmod(0o755)
    script = CliRunner().invoke(group, ["completion", "bash"]).stdout
    words = 'COMP_WORDS=(ovpipe validate ya); COMP_CWORD=2; _ovpipe_completion ovpipe; echo "${COMPREPLY[@]}"'
    ended = subprocess.run(
        ["bash", "-c", f"{script}\n{words}"], cwd=folder, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert ended.stdout.strip() == "yard.yaml", ended.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_example(command):
    ended = CliRunner().invoke(group, [command, "--help"])
    assert ended.exit_code == 0
    _, _, shown = ended.stdout.partition("Examples:\n")
    lines = [line.strip() for line in shown.splitlines()]
    assert len(lines) >= 2
    assert all(len(line) <= 100 for line in ended.stdout.splitlines())
    for line in lines:  # each names a command, and options, that there are
        for part in re.findall(r"ovpipe ([a-z]+)((?: [^|>&)]*)?)", line.partition("  ")[0]):
            known = group.get_command(click.Context(group), part[0])
            assert known is not None, line
            options = {o for p in known.params for o in p.opts} | {"--help"}
            assert {w for w in part[1].split() if w.startswith("--")} <= options, line
