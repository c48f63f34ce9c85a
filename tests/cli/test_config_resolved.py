"""config: what it prints comes to the same graph, and holds no secret."""

import json

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from ovpipe.cli import group
from ovpipe.graph import resolve
from ovpipe.loader import load, tree
from ovpipe.loader.secrets import Expression, Masker, is_secret
from ovpipe.loader.writing import dump, escaped

YARD = """\
version: 1
name: yard
x-note: mine
stages:
  cam:
    kind: video
    fps: ${FPS:-10}
    description: all of them
    for_each:
      gate:
        url: "rtsp://10.0.0.11/sub"
        username: viewer
        password: "${RTSP_PASSWORD:?put it into .env}"
      dock: {url: "rtsp://me:hunter2@10.0.0.12/sub?token=hunter2&channel=1"}
      roof: {url: $ROOF}
  detect:
    kind: infer
    inputs: {from: cam, depth: 2, when_full: drop_newest, max_age: 500ms}
    model: models/a$$b.xml
    keep: {classes: ["no", "0o17", "1e3"], score: 0.5}
    run: {replicas: 2, restart: never, stall_timeout: 1m}
  draw: {kind: annotate, inputs: detect}
  both: {kind: join, inputs: [detect, {from: draw, depth: 3, max_age: none}]}
  events: {kind: jsonl, inputs: both, path: "-"}
  off: {kind: log, enabled: false}
"""
ENVIRON = {"RTSP_PASSWORD": "hunter2", "ROOF": "rtsp://me:hunter2@roof/x"}


def call(*arguments, **options):
    ended = CliRunner().invoke(group, ["config", *arguments], env=ENVIRON, **options)
    assert ended.exit_code == 0, ended.exception
    return ended.stdout


@pytest.mark.parametrize("how", [[], ["--json"]], ids=["yaml", "json"])
def test_it_is_a_configuration_of_the_same_graph_without_a_secret(tmp_path, how):
    (tmp_path / "c.yaml").write_text(YARD)
    text = call(str(tmp_path / "c.yaml"), *how)
    assert "hunter2" not in text
    (tmp_path / "d.yaml").write_text(text)
    first, second = (resolve(load(tmp_path / name, ENVIRON)) for name in ("c.yaml", "d.yaml"))
    for name in ("replicas", "restart", "max_restarts", "within_s"):
        assert [getattr(s.run, name) for s in first.stages] == [
            getattr(s.run, name) for s in second.stages
        ]
    assert (first.name, first.edges, first.streams) == (second.name, second.edges, second.streams)
    for stage in first.stages:
        for before, after in zip(stage.workers, second.stage(stage.name).workers, strict=True):
            for option, value in before.options.items():
                if option != "url":
                    assert after.options[option] == value, option
    gate, dock, roof = (w.options for w in second.stage("cam").workers)
    assert gate["password"] == "hunter2"  # by its variable, which is set here, too
    assert dock["url"] == "rtsp://me:***@10.0.0.12/sub?token=***&channel=1"
    assert roof["url"] == ENVIRON["ROOF"]


def test_all_defaults_are_there_and_what_is_set_wins():
    values = json.loads(call("-", "--json", "--set", "stages.a.count=5", input=(
        "version: 1\nstages:\n  a: {kind: synthetic, size: 64x48}\n  b: {kind: log}\n"
    )))  # fmt: skip
    run = values["stages"]["a"].pop("run")
    assert (run["replicas"], run["restart"], run["start_timeout"]) == (1, "on-failure", 30.0)
    assert "stall_timeout" not in run  # a producer has none
    assert values["stages"]["a"] == {
        "kind": "synthetic", "size": [64, 48], "count": 5, "fps": 0.0, "seed": 0, "format": "bgr",
        "live": False,
    }  # fmt: skip
    assert values["stages"]["b"]["run"]["stall_timeout"] == 5.0
    assert values["stages"]["b"]["inputs"] == {
        "from": "a", "depth": 4, "when_full": "block", "max_age": "none",
    }  # fmt: skip


def test_own_kinds_show_their_defaults(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def dim(frame, by: float = 0.5, api_key: str = 'k1234'):\n    return frame\n"
    )
    (tmp_path / "c.yaml").write_text(
        "version: 1\nstages:\n  a: {kind: synthetic}\n  b: {kind: 'mine:dim'}\n"
    )
    stage = json.loads(call(str(tmp_path / "c.yaml"), "--json"))["stages"]["b"]
    assert (stage["by"], stage["api_key"]) == (0.5, "***")


@pytest.mark.parametrize(
    "name",
    ["password", "RTSP_PASSWORD", "db_pwd", "apiKey", "api_key", "API_KEY", "access-key", "authToken",
     "Authorization", "client_secret", "MQTT_PASS", "--password", "headers.Cookie", "SSH_KEY"],
)  # fmt: skip
def test_names_of_secrets(name):
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "path",
        "passes",
        "key",
        "keep",
        "author",
        "keyframes",
        "monkey",
        "partition_key",
        "compass",
        "spin",
    ],
)
def test_names_of_others(name):
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("url", "rtsp://u:p@h/x", "rtsp://u:***@h/x"),
        ("url", "http://h/x?a=1&api_key=zz&key=9#f", "http://h/x?a=1&api_key=***&key=***#f"),
        ("url", "http://h:80/x?a=1", "http://h:80/x?a=1"),
        ("command", ["curl", "--token", "abc", "-x", "b", "password=abc"], ["curl", "--token", "***", "-x", "b", "password=***"]),
        ("headers", {"Authorization": "abc", "Accept": "b"}, {"Authorization": "***", "Accept": "b"}),
        ("password", "", ""),
        ("password", None, None),
        ("password", 1234, "***"),
        ("note", "say swordfish twice: swordfish", "say *** twice: ***"),
        ("note", "port 12", "port 12"),
    ],
)  # fmt: skip
def test_values(name, value, shown):
    assert Masker({"A_TOKEN": "swordfish", "B_TOKEN": "12"}).shown(name, value) == shown


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("$A_TOKEN", "${A_TOKEN}"),
        ("${A_TOKEN:-hunter2}", "${A_TOKEN}"),
        ("${A_TOKEN:-${B_TOKEN:-hunter2}}", "***"),
        ("rtsp://u:${A_TOKEN}@h/$PLACE", "rtsp://u:${A_TOKEN}@h/${PLACE}"),
        ("rtsp://u:hunter2@h/${PLACE:-x}", "rtsp://u:***@h/${PLACE}"),
    ],
)
def test_what_came_from_variables_names_them(written, shown):
    environ = {"A_TOKEN": "hunter2", "PLACE": "x"}
    text = f"version: 1\nstages:\n  a:\n    kind: jsonl\n    path: '{written}'\n"
    node = tree.parse(text).value["stages"].value["a"].value["path"]
    assert Masker(environ).shown("path", "rtsp://u:hunter2@h/x", node) == shown


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-10**9, 10**9) | st.floats(allow_nan=False)
        | st.text(st.characters(exclude_categories=("Cs", "Cc"))) | st.sampled_from(["no", "0o7", "1e3", ".5", "~", "+1", "null", "$x", "${", "- a", "#"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    )
)  # fmt: skip
def test_what_is_written_is_read_as_it_was(value):
    def read(node):
        if isinstance(node.value, dict):
            return {k: read(v) for k, v in node.value.items()}
        return [read(v) for v in node.value] if isinstance(node.value, list) else node.value

    assert read(tree.parse(dump({"v": value}))) == {"v": value}


def test_a_dollar_sign_is_one_and_a_variable_one():
    assert escaped({"a": ["$x", Expression("$x")], "b": 1}) == {"a": ["$$x", "$x"], "b": 1}
