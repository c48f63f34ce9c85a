"""What nobody sane writes: the loader stays within its bounds and says one clear thing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovpipe.errors import ConfigError
from ovpipe.loader import loads, stage_spec, tree
from ovpipe.loader.reading import MAX_PROBLEMS

HEAD = "version: 1\nstages:\n"


def problems(source, tmp_path, environ=None):
    with pytest.raises(ConfigError) as error:
        loads(source, folder=tmp_path, file="c.yaml", environ=environ or {})
    return [str(problem) for problem in error.value.problems]


def test_text_does_not_grow_by_aliases(tmp_path):
    """Few nodes, much text: each alias of it would be looked through for variables."""
    source = f"version: 1\nx-a: &a '$${'x' * 300_000}'\nx-b: [{', '.join(['*a'] * 1000)}]\n"
    assert "more than 4 MiB of text, aliases expanded" in problems(source, tmp_path)[0]


def test_text_does_not_grow_by_variables(tmp_path):
    rows = "".join(f"    o{i}: '{'$A' * 9}'\n" for i in range(60))
    found = problems(f"{HEAD}  a:\n    kind: log\n{rows}", tmp_path, {"A": "x" * 100_000})
    assert any("the variables of the file make too much text" in line for line in found)


def test_a_text_from_python_is_bounded_too(tmp_path):
    assert "larger than 1 MiB" in problems("# " + "x" * tree.MAX_BYTES, tmp_path)[0]


def test_problems_and_stages_are_bounded(tmp_path):
    keys = "".join(f"    key{i}: 1\n" for i in range(5000))
    found = problems(f"{HEAD}  a:\n    kind: infer\n{keys}", tmp_path)
    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1].startswith("and more")
    stages = "".join(f"  s{i}: {{kind: synthetic}}\n" for i in range(2000))
    assert "stages: more than 500 stages" in problems(HEAD + stages, tmp_path)[0]


def test_no_message_holds_what_a_terminal_obeys(tmp_path):
    source = HEAD + '  "\\e[31mx": {kind: "\\e[2J", "\\a": "\\e]0;x\\a"}\n"\\r": 1\n'
    found = problems(source, tmp_path)
    assert len(found) == 3
    assert all(line.isprintable() for line in found)


def test_a_message_has_an_end(tmp_path):
    source = f"{HEAD}  a: {{kind: synthetic, {'k' * 50_000}: 1, count: '{'v' * 50_000}'}}\n"
    assert all(len(line) < 2000 for line in problems(source, tmp_path))


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("\ta: {kind: synthetic}", "indent with spaces, not with tabs"),
        ("  a: {kind: jsonl, path: ${P}}", "a ${VAR} must be in quotes"),
    ],
)
def test_usual_slips_of_yaml_have_a_hint(tmp_path, line, hint):
    assert hint in problems(HEAD + line + "\n", tmp_path, {"P": "x"})[0]


@pytest.mark.parametrize("text", ["\ud800", "a: \udcff\n"])
def test_halves_of_surrogate_pairs_are_no_text(tmp_path, text):
    assert problems(text, tmp_path) == ["c.yaml:1:1: not YAML: not Unicode text"]


def test_a_variable_with_bytes_that_are_not_utf_8(tmp_path):
    source = f"{HEAD}  a: {{kind: jsonl, path: '$P'}}\n"
    assert (
        "stages.a.path: holds bytes that are not UTF-8"
        in problems(source, tmp_path, {"P": "a\udcff"})[0]
    )


PYTHON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(PYTHON, st.sampled_from(["size", "fps", "count", "seed", "format", "live", "kind", "xyz"]))
def test_any_python_value_is_an_option_or_a_config_error(tmp_path_factory, value, key):
    folder = tmp_path_factory.getbasetemp()
    try:
        stage_spec("a", "synthetic", {key: value}, inputs=None, folder=folder)
    except ConfigError as error:
        assert error.problems


def test_python_values_without_end(tmp_path):
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(ConfigError, match="nested deeper than 64 levels"):
        stage_spec("a", "synthetic", {"size": endless}, folder=tmp_path)
    with pytest.raises(ConfigError, match="type bytes cannot be an option"):
        stage_spec("a", "synthetic", {"size": b"x"}, folder=tmp_path)


def test_the_words_of_every_stage_are_not_options(tmp_path):
    with pytest.raises(ConfigError, match="'inputs' is no option"):
        stage_spec("a", "log", {"inputs": "b"}, folder=tmp_path)
    spec = stage_spec("a", "log", {}, inputs=["b"], run={"start_timeout": "5s"},
                      description="what came", folder=tmp_path)  # fmt: skip
    assert (spec.run.start_timeout_s, spec.description) == (5.0, "what came")
