"""YAML -> spec: what is right, and that everything wrong is said at once, with its place."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovpipe.errors import ConfigError
from ovpipe.loader import load, loads, stage_spec, tree
from ovpipe.loader.options import duration, number_of_bytes, size

S = "tests.support.stages:"


def text(body, head="version: 1\n"):
    return f"{head}stages:\n{body}"


def parse(body, environ=None, **options):
    return loads(text(body, **options), folder=Path(), file="c.yaml", environ=environ or {})


def problems(source, environ=None):
    with pytest.raises(ConfigError) as error:
        loads(source, folder=Path(), file="c.yaml", environ=environ or {})
    assert error.value.exit_code == 2
    return [str(problem) for problem in error.value.problems]


GOOD = """\
  clip:
    kind: synthetic
    size: 320x240
    count: 5
  out:
    kind: jsonl
    inputs: {from: clip, depth: 2, when_full: drop_oldest, max_age: 500ms}
    path: out.jsonl
    description: what came
    run: {start_timeout: 1m}
"""


def test_a_good_configuration():
    spec = parse(GOOD)
    clip, out = spec.stages
    assert (clip.role, clip.live, clip.inputs) == ("producer", False, None)
    assert clip.options == {"size": [320, 240], "count": 5}
    assert out.role == "consumer"
    entry = out.inputs[0]
    assert (entry.source, entry.depth, entry.when_full, entry.max_age_s) == (
        "clip", 2, "drop_oldest", 0.5,
    )  # fmt: skip
    assert out.run.start_timeout_s == 60.0
    assert (out.place.file, out.place.line) == ("c.yaml", 8)


def test_name_is_the_files_and_inputs_may_be_a_list(tmp_path):
    path = tmp_path / "yard.yaml"
    path.write_text(text("  a: {kind: synthetic}\n  b: {kind: synthetic}\n"
                         "  c: {kind: jsonl, path: '-', inputs: [a, {from: b}]}\n"))  # fmt: skip
    spec = load(path, {})
    assert spec.name == "yard"
    assert [i.source for i in spec.stages[2].inputs] == ["a", "b"]


def test_yaml_1_2_scalars():
    node = tree.parse(
        "a: no\nb: on\nc: yes\nd: true\ne: ~\nf: 012\ng: 0x1F\nh: 1e3\ni: '7'\nj: 1:30"
    )
    assert {k: v.value for k, v in node.value.items()} == {
        "a": "no", "b": "on", "c": "yes", "d": True, "e": None, "f": 12, "g": 31, "h": 1000.0,
        "i": "7", "j": "1:30",
    }  # fmt: skip


def test_x_keys_anchors_and_aliases():
    spec = loads(
        "version: 1\nx-size: &s 64x48\nstages:\n  a: {kind: synthetic, size: *s}\n"
        "  b: {kind: jsonl, path: '-'}\n",
        folder=Path(), environ={},
    )  # fmt: skip
    assert spec.stages[0].options["size"] == [64, 48]


def test_all_problems_at_once_with_place_path_and_a_way_out():
    source = """\
version: 2
nmae: yard
stages:
  cam:
    kind: synthetik
  two words:
    kind: synthetic
    cuont: 3
    fps: fast
    live: 1
  out:
    kind: jsonl
    inputs: {form: cam, depth: 0, when_full: drop_odlest, max_age: soon}
    path: 5
"""
    found = problems(source)
    expected = [
        ("c.yaml:1:10: version: must be 1", ""),
        ("c.yaml:2:1: nmae: unknown key", "did you mean 'name'?"),
        ("c.yaml:5:11: stages.cam.kind: unknown kind 'synthetik'", "did you mean 'synthetic'?"),
        ("c.yaml:6:3: stages.two words: a stage's name is 1 to 64 letters", ""),
        ("c.yaml:8:5: stages.two words.cuont: unknown key", "did you mean 'count'?"),
        ("c.yaml:9:10: stages.two words.fps: ", "'fast'"),
        ("c.yaml:10:11: stages.two words.live: ", "1"),
        ("c.yaml:13:13: stages.out.inputs.from: is required", ""),
        ("c.yaml:13:14: stages.out.inputs.form: unknown key", "did you mean 'from'?"),
        ("c.yaml:14:11: stages.out.path: ", "5"),
    ]
    assert len(found) == len(expected), found
    for line, (start, end) in zip(found, expected, strict=True):
        assert line.startswith(start), (line, start)
        assert end in line


def test_max_age_may_be_none():
    body = (
        "  a: {kind: synthetic}\n  b: {kind: jsonl, path: '-', inputs: {from: a, max_age: none}}\n"
    )
    assert parse(body).stages[1].inputs[0].max_age_s == float("inf")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("{from: a, depth: 0}", "inputs.depth: must be a whole number from 1 to 64"),
        ("{from: a, depth: true}", "inputs.depth: must be a whole number from 1 to 64"),
        ("{from: a, when_full: drop_odlest}", "did you mean 'drop_oldest'?"),
        ("{from: a, when_full: drop_newst}", "did you mean 'drop_newest'?"),
        ("{from: a, max_age: soon}", "'soon' is no duration; write 500ms"),
        ("{from: a, max_age: -1}", "must be a duration greater than 0"),
        ("{from: 7}", "inputs.from: must be the name of a stage"),
        ("[[a]]", "inputs[0]: must be the name of a stage"),
    ],
)
def test_wrong_inputs(entry, says):
    body = f"  a: {{kind: synthetic}}\n  b: {{kind: jsonl, path: '-', inputs: {entry}}}\n"
    assert says in problems(text(body))[0]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("", "1:1: the file is empty"),
        ("- 1\n- 2\n", "must be a mapping"),
        ("just text", "must be a mapping"),
        ("version: 1\n", "stages: is required"),
        ("version: 1\nstages:\n", "stages: must be a mapping"),
        ("version: 1\nstages: {a: 5}\n", "stages.a: must be a mapping"),
        ("version: 1\nstages: {a: {}}\n", "stages.a.kind: is required"),
        ("version: 1\nversion: 1\n", "2:1: the key 'version' stands twice (first in line 1)"),
        ("a: !!python/object/apply:os.system ['false']\n", "tag"),
        ("a: !include x\n", "tag"),
        ("a: [1, 2\n", "not YAML"),
        ("a:\n\t- b\n", "not YAML"),
        ("a: *b\n", "alias"),
        ("? [1]\n: 2\n", "a key must be plain text"),
        ("a: 1\n---\nb: 2\n", "2:1: a second document"),
        ("a: \x07\n", "not YAML"),
    ],
)
def test_texts_that_are_no_configuration(source, says):
    assert any(says in line for line in problems(source)), problems(source)


def test_hostile_texts_are_refused_within_bounds():
    deep = "[" * 10_000 + "]" * 10_000
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
    )
    assert "nested deeper than 64 levels" in problems(deep)[0]
    assert "more than 100000 values, aliases expanded" in problems(bomb)[0]


def test_files_that_cannot_be_read(tmp_path):
    large, binary = tmp_path / "large.yaml", tmp_path / "binary.yaml"
    with large.open("wb") as file:
        file.truncate(100 << 20)
    binary.write_bytes(b"version: 1\nname: \xff\xfe\n")
    for path, says in [
        (tmp_path / "none.yaml", "cannot be read: No such file"),
        (tmp_path, "cannot be read: Is a directory"),
        (large, "larger than 1 MiB"),
        (binary, "binary.yaml:2:7: not UTF-8"),
    ]:
        with pytest.raises(ConfigError) as error:
            load(path, {})
        assert says in str(error.value)


def test_no_code_runs_at_a_tag(tmp_path):
    mark = tmp_path / "mark"
    problems(
        f"a: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{mark}']]"
    )
    assert not mark.exists()


@given(st.text(max_size=300) | st.binary(max_size=100).map(lambda b: b.decode("latin-1")))
def test_any_text_gives_a_spec_or_a_config_error(source):
    try:
        loads(source, folder=Path(), environ={})
    except ConfigError as error:
        assert error.problems


@given(st.integers(0, len(GOOD) - 1), st.sampled_from(" :{}[]&*!|>'\"%@`\t\n$-a1"))
def test_any_mutation_gives_a_spec_or_a_config_error(at, character):
    try:
        parse(GOOD[:at] + character + GOOD[at + 1 :])
    except ConfigError as error:
        assert error.problems


def test_variables_take_their_type_where_unquoted():
    body = "  a:\n    kind: synthetic\n    count: ${N}\n    size: ${W}x${H:-48}\n    live: ${LIVE:-true}\n"
    options = parse(body, {"N": "3", "W": "64"}).stages[0].options
    assert options == {"count": 3, "size": [64, 48], "live": True}
    assert (
        "count" in problems(text("  a:\n    kind: synthetic\n    count: '${N}'\n"), {"N": "3"})[0]
    )


def test_an_unset_variable_is_named_with_its_line_and_no_value():
    body = "  a: {kind: jsonl, path: '${SECRET}${MISSING}'}\n"
    line = problems(text(body), {"SECRET": "hunter2"})[0]
    assert line.startswith("c.yaml:3:26: stages.a.path: the variable MISSING is not set")
    assert "hunter2" not in line


def test_a_disabled_stage_is_left_out_and_not_read():
    body = "  a: {kind: synthetic}\n  b: {kind: log, enabled: false, nonsense: 1}\n"
    assert [s.name for s in parse(body).stages] == ["a"]
    line = problems(text(body + "  c: {kind: log, inputs: b}\n"))[0]
    assert "stage 'b' is switched off" in line


def test_for_each_merges_options_and_is_checked_per_stream():
    body = "  cam:\n    kind: synthetic\n    count: 3\n    for_each:\n      gate: {}\n      dock: {count: 9}\n"
    assert dict(parse(body).stages[0].for_each) == {"gate": {"count": 3}, "dock": {"count": 9}}
    found = problems(text(body.replace("9", "many")))
    assert len(found) == 1
    assert found[0].startswith("c.yaml:8:21: stages.cam.for_each.dock.count: ")
    assert (
        "is for producers only"
        in problems(text("  a: {kind: synthetic}\n  b: {kind: log, for_each: {x: {}}}\n"))[0]
    )


# -- kinds of one's own ------------------------------------------------------------------


def test_own_kinds_are_checked_without_importing_them_here(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import ovpipe, threading\nprint('noise')\n"
        "class Crowd(ovpipe.Transform):\n"
        "    limit: int = 10\n"
        "    def process(self, frame): return frame\n"
        "def half(frame, keep: float = 0.5): return frame\n"
        "class NoStage: pass\n"
    )
    body = "  a: {kind: synthetic}\n  b: {kind: 'mine:Crowd', limit: 3}\n  c: {kind: 'mine:half', keep: 1}\n"
    spec = loads(text(body), folder=tmp_path, environ={})
    assert [(s.role, dict(s.options)) for s in spec.stages[1:]] == [
        ("transform", {"limit": 3}),
        ("transform", {"keep": 1.0}),
    ]
    assert "mine" not in sys.modules
    wrong = body.replace("limit: 3", "limt: 3") + (
        "  d: {kind: 'mine:Nobody'}\n  e: {kind: 'mine:NoStage'}\n  f: {kind: 'nowhere:X'}\n"
    )
    with pytest.raises(ConfigError) as error:
        loads(text(wrong), folder=tmp_path, file="c.yaml", environ={})
    found = [str(p) for p in error.value.problems]
    assert len(found) == 4
    assert found[0].startswith("c.yaml:4:") and "did you mean 'limit'?" in found[0]  # noqa: PT018
    assert "module 'mine' has no 'Nobody'" in found[1]
    assert "neither a Producer, Transform or Consumer nor a function" in found[2]
    assert "cannot import 'nowhere'" in found[3]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("raise ValueError('broken')", "ValueError: broken"),
        ("import os; os._exit(3)", "cannot be looked at"),
        ("import sys; sys.exit(3)", "cannot be looked at"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_a_module_that_breaks_is_one_problem(tmp_path, source, says):
    (tmp_path / "bad.py").write_text(source)
    with pytest.raises(ConfigError) as error:
        loads(text("  a: {kind: 'bad:X'}\n"), folder=tmp_path, environ={})
    assert len(error.value.problems) == 1
    assert says in str(error.value)


# -- in Python ---------------------------------------------------------------------------


def test_stage_spec_checks_as_yaml_does(tmp_path):
    spec = stage_spec("a", "synthetic", {"size": (64, 48), "count": 2}, folder=tmp_path)
    assert spec.options == {"size": [64, 48], "count": 2}
    assert stage_spec("b", "jsonl", {"path": "$HOME"}, folder=tmp_path).options["path"] == "$HOME"
    with pytest.raises(ConfigError, match=r"stages\.a\.cuont: unknown key .*'count'"):
        stage_spec("a", "synthetic", {"cuont": 2}, folder=tmp_path)


@pytest.mark.parametrize(
    ("given_", "seconds"),
    [("500ms", 0.5), ("5s", 5), ("2m", 120), ("1h", 3600), ("1.5 s", 1.5), ("7d", 604800), (7, 7)],
)
def test_durations(given_, seconds):
    assert duration(given_) == seconds


@pytest.mark.parametrize("given_", ["", "5 days", "s", "-1s", "1e3s"])
def test_no_durations(given_):
    with pytest.raises(ValueError, match="no duration"):
        duration(given_)


@pytest.mark.parametrize(
    ("given_", "count"),
    [
        ("50GB", 50 * 10**9), ("500 MB", 5 * 10**8), ("1.5kB", 1500), ("2K", 2000),
        ("4GiB", 4 * 2**30), ("512Mi", 2**29), ("1TB", 10**12), ("100B", 100), ("7", 7), (7, 7),
    ],
)  # fmt: skip
def test_amounts_of_data(given_, count):
    assert number_of_bytes(given_) == count


@pytest.mark.parametrize("given_", ["", "GB", "-1GB", "5 gigs", "1e3MB", "5PB", "5iB"])
def test_no_amounts_of_data(given_):
    with pytest.raises(ValueError, match="no amount of data"):
        number_of_bytes(given_)


def test_sizes():
    assert size("640x480") == size([640, 480]) == (640, 480)
    with pytest.raises(ValueError, match="640x480"):
        size("640")


def streams(for_each, **more):
    lines = "".join(f"    {k}: {v}\n" for k, v in more.items())
    spec = parse(
        f"  cam:\n    kind: video\n    for_each: {for_each}\n{lines}  out: {{kind: log}}\n"
    )
    return spec.stages[0].for_each


def test_forty_cameras_in_ten_lines():
    text = """\
version: 1
name: yard
stages:
  cam:
    kind: video
    for_each: "{01..40}"
    url: "rtsp://10.0.0.2/{key}"
    fps: 10
  detect: {kind: infer, inputs: cam, model: model.xml}
  events: {kind: jsonl, inputs: detect, path: "-"}
"""
    assert len(text.splitlines()) == 10
    (cam, *_) = loads(text, folder=Path(), environ={}).stages
    assert list(cam.for_each) == [f"{i:02}" for i in range(1, 41)]
    assert cam.for_each["07"] == {"url": "rtsp://10.0.0.2/07", "fps": 10.0}


def test_streams_that_are_only_named():
    found = streams(
        "[gate, 'dock{8..11}', 7]", url='"rtsp://10.0.0.{n}/{key}"', options="{a: 'x{n}'}"
    )
    assert {key: own["url"] for key, own in found.items()} == {
        "gate": "rtsp://10.0.0./gate", "dock8": "rtsp://10.0.0.8/dock8",
        "dock9": "rtsp://10.0.0.9/dock9", "dock10": "rtsp://10.0.0.10/dock10",
        "dock11": "rtsp://10.0.0.11/dock11", "7": "rtsp://10.0.0./7",
    }  # fmt: skip
    assert found["dock9"]["options"] == {"a": "x9"}
    assert list(streams("cam{1..3}", url="a.mp4")) == ["cam1", "cam2", "cam3"]


def test_what_comes_from_a_variable_is_not_filled_in():
    body = """\
  cam:
    kind: video
    for_each: [a, b]
    url: "rtsp://10.0.0.2/{key}"
    username: me
    password: "${PASSWORD}"
  out: {kind: log}
"""
    spec = parse(body, {"PASSWORD": "p{key}{n}"})
    assert spec.stages[0].for_each["b"]["password"] == "p{key}{n}"


@pytest.mark.parametrize(
    ("for_each", "says"),
    [
        ("'cam{1..}'", "a range is written as cam{01..40}"),
        ("'cam{9..1}'", "from a number to a greater one"),
        ("'cam{1..999999}'", "more than 500 streams"),
        ("['a{1..300}', 'b{1..300}']", "must name 1 to 500 streams"),
        ("[a, b, a]", "stream 'a' is named twice"),
        ("[a, [b]]", "for_each[1]: must be a mapping, a name, or a list of names"),
        ("[]", "must name 1 to 500 streams"),
        ("true", "must be a mapping, a name, or a list of names"),
        ("'a b'", "a stream's name is 1 to 64 letters"),
        ("'{1..3}/../x'", "a stream's name is 1 to 64 letters"),
    ],
)
def test_names_and_ranges_that_cannot_be(for_each, says):
    body = f"  cam: {{kind: video, for_each: {for_each}, url: a.mp4}}\n  out: {{kind: log}}\n"
    assert says in problems(text(body))[0]
