"""--set, --env-file and --duration, of every command that takes a configuration."""

import json

import pytest

from tests.cli.test_commands import GOOD, ovpipe

__all__ = ["ovpipe"]
VARIABLE = GOOD.replace("{kind: synthetic, count: 3}", "\n    kind: synthetic\n    count: ${COUNT}")


def claimed(ended):
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])["ledger"][0]["claimed"]


@pytest.mark.parametrize(
    ("assignments", "count"),
    [
        (["stages.a.count=5"], 5),
        (["stages.a.count=5", "stages.a.count=7"], 7),
        (["stages.b.inputs=[a]", "stages.a.size=32x32"], 3),
        (["stages.b={kind: log}", "stages.b.inputs=a"], 3),
    ],
)
def test_values_are_set(ovpipe, assignments, count):
    arguments = [word for text in assignments for word in ("--set", text)]
    assert claimed(ovpipe("run", "c.yaml", "--json", *arguments, config=GOOD)) == count


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stages.a.count", "'stages.a.count' assigns nothing"),
        ("=3", "'=3' assigns nothing"),
        ("stages..count=3", "assigns nothing"),
        ("stages.a.cuont=3", "unknown key"),
        ("stages.a.count=many", "stages.a.count"),
        ("stages.a.count.more=3", "'more' of 'stages.a.count.more' is not there: a single value"),
        ("stages.b.inputs=[a", "not YAML"),
        ("stages.a.count=!!python/object:os.system 3", "tag"),
    ],
)
def test_wrong_ones_are_told_as_such(ovpipe, text, says):
    ended = ovpipe("validate", "c.yaml", "--set", text, config=GOOD)
    assert ended.returncode == 2
    assert says in ended.stderr
    assert "--set" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_variables_come_from_a_file_and_the_environment_wins(ovpipe, tmp_path, monkeypatch):
    (tmp_path / "env").write_text("# of the yard\n\nexport COUNT = '4'\nOTHER=\"a = b\"\n")
    arguments = ("run", "c.yaml", "--json", "--env-file", "env")
    assert claimed(ovpipe(*arguments, config=VARIABLE)) == 4
    monkeypatch.setenv("COUNT", "6")
    assert claimed(ovpipe(*arguments, config=VARIABLE)) == 6


def test_a_wrong_file_of_variables_is_told_without_its_values(ovpipe, tmp_path):
    (tmp_path / "env").write_text("COUNT=4\nsecret words\n3X=secret\n")
    ended = ovpipe("validate", "c.yaml", "--env-file", "env", config=VARIABLE)
    assert ended.returncode == 2
    assert "env:2:1: not NAME=value" in ended.stderr
    assert "env:3:1: not NAME=value" in ended.stderr
    assert "secret" not in ended.stderr
    assert "cannot be read" in ovpipe("validate", "c.yaml", "--env-file", "none").stderr
    assert "no file of variables" in ovpipe("validate", "c.yaml", "--env-file", "/dev/zero").stderr


def test_a_run_ends_after_its_duration(ovpipe):
    ended = ovpipe(
        "run", "c.yaml", "--json", "--duration", "0.5", "--set", "stages.a.count=0",
        "--set", "stages.a.fps=50", config=GOOD,
    )  # fmt: skip
    assert claimed(ended) > 0
