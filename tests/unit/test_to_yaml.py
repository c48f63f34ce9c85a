"""`to_yaml` and back: the same graph, no secret, and what cannot be written is told."""

import os
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ovpipe
from ovpipe.loader import tree

HERE = os.getcwd()


def again(pipeline, environ=None):
    return ovpipe.Pipeline.from_yaml_text(pipeline.to_yaml(), HERE, environ or {})


NAMES = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=12)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40) | st.sampled_from(
    ["no", "1", "0x1f", "0o17", "1e3", "~", "null", ".inf", "$", "${HOME}", "$$", "a: b", "# c",
     "- x", "'", '"', " x ", "a\n\nb", "{}", "*a", "!t", "%", "\t", "\x85", "\u2028", "=", "<<"]
)  # fmt: skip
SECONDS = st.floats(0.001, 1e6, allow_nan=False)
RUN = st.fixed_dictionaries(
    {},
    optional={
        "restart": st.sampled_from(["always", "on-failure", "never"]),
        "max_restarts": st.integers(0, 9),
        "within": SECONDS,
        "start_timeout": SECONDS,
        "stall_timeout": SECONDS,
    },
)
SYNTHETIC = st.fixed_dictionaries(
    {},
    optional={
        "count": st.integers(0, 10**9),
        "size": st.tuples(
            st.integers(1, 500).map(lambda n: 2 * n), st.integers(1, 500).map(lambda n: 2 * n)
        ),
        "live": st.booleans(),
    },
)
APP = st.fixed_dictionaries({}, optional={"live": st.booleans()})
INPUT = st.fixed_dictionaries(
    {},
    optional={
        "depth": st.integers(1, 64),
        "when_full": st.sampled_from(["block", "drop_oldest", "drop_newest"]),
        "max_age": SECONDS | st.just("none"),
    },
)


@st.composite
def pipelines(draw):
    """Producers, and stages behind any of those above them."""
    names = draw(st.lists(NAMES, min_size=2, max_size=6, unique=True))
    pipeline = ovpipe.Pipeline(draw(NAMES), HERE)
    sources, implicit = [], draw(st.booleans())
    for i, name in enumerate(names):
        common = {"run": draw(st.none() | RUN), "description": draw(TEXT)}
        if i == 0 or (not implicit and draw(st.booleans())):
            kind, options = draw(
                st.sampled_from(["synthetic", "app"]).flatmap(
                    lambda k: st.tuples(st.just(k), SYNTHETIC if k == "synthetic" else APP)
                )
            )
            each = draw(
                st.none()
                | st.dictionaries(
                    NAMES, SYNTHETIC if kind == "synthetic" else APP, min_size=1, max_size=3
                )
            )
            pipeline.add(name, kind, options, for_each=each, **common)
            sources.append(name)
            continue
        inputs = None
        if not implicit:
            chosen = draw(st.lists(st.sampled_from(sources), min_size=1, max_size=2, unique=True))
            inputs = [{"from": s, **draw(INPUT)} if draw(st.booleans()) else s for s in chosen]
            inputs = inputs[0] if len(inputs) == 1 and draw(st.booleans()) else inputs
        if i + 1 == len(names):
            path = draw(TEXT.filter(bool))
            pipeline.add(name, "jsonl", {"path": path}, inputs=inputs, **common)
        else:
            pipeline.add(name, "annotate", {}, inputs=inputs, **common)
            sources.append(name)
    return pipeline


@settings(max_examples=60, deadline=None)
@given(pipelines())
def test_a_round_trip_gives_the_same_graph(pipeline):
    graph = pipeline.graph
    back = again(pipeline)
    assert back.graph == graph
    assert back.to_yaml() == pipeline.to_yaml()


@settings(max_examples=80, deadline=None)
@given(TEXT)
def test_any_text_is_itself_again(text):
    pipeline = ovpipe.Pipeline("p", HERE).add("s", "synthetic", description=text)
    pipeline.add("log", "log", {"format": text.replace("{", "{{").replace("}", "}}")})
    assert again(pipeline).graph == pipeline.graph


SECRET = """
x-common: &all {fps: 10}
version: 1
stages:
  cam:
    kind: video
    for_each:
      gate: {url: "rtsp://10.0.0.1/sub", username: viewer, password: "${PASSWORD:?put it into .env}"}
  shown:
    kind: annotate
  count:
    kind: synthetic
    count: ${COUNT:-5}
    enabled: false
"""


def test_what_a_variable_gave_is_written_as_the_variable():
    environ = {"PASSWORD": "hunter2"}
    pipeline = ovpipe.Pipeline.from_yaml_text(SECRET, HERE, environ)
    text = pipeline.to_yaml()
    assert "hunter2" not in text
    assert 'password: "${PASSWORD:?put it into .env}"' in text
    assert "count: ${COUNT:-5}" in text
    assert again(pipeline, environ).graph == pipeline.graph
    with pytest.raises(ovpipe.ConfigError, match="PASSWORD is not set"):
        again(pipeline)


def test_what_was_read_is_extended():
    text = "version: 1\nname: yard\nstages:\n  a: {kind: synthetic, count: 3}\n"
    pipeline = ovpipe.Pipeline.from_yaml_text(text, HERE)
    pipeline.add("b", "annotate").add("c", "jsonl", {"path": "cost: $5"})
    assert [(e.source, e.target) for e in pipeline.graph.edges] == [("a", "b"), ("b", "c")]
    back = again(pipeline)
    assert back.graph == pipeline.graph
    assert back.graph.name == "yard"
    with pytest.raises(ovpipe.ConfigError, match="two stages 'a'"):
        assert pipeline.add("a", "synthetic").graph


def test_how_stages_are_run_is_written():
    pipeline = ovpipe.Pipeline("p", HERE).add("in", "app", {"live": True})
    pipeline.add("many", "annotate", inputs="in", run={"replicas": 2})
    pipeline.add("one", "annotate", inputs={"from": "many", "max_age": "none"})
    pipeline.add("guest", "log", inputs="one", run={"placement": "inline", "restart": "never"})
    assert again(pipeline).graph == pipeline.graph


def test_nobody_lives_in_the_process_of_a_stage_of_the_application():
    pipeline = ovpipe.Pipeline("p", HERE).add("in", "app")
    pipeline.add("guest", "log", run={"placement": "inline"})
    with pytest.raises(ovpipe.ConfigError, match="cannot be inline: 'in' lives in the application"):
        assert pipeline.graph


def test_a_file_keeps_its_name_and_folder(tmp_path):
    path = tmp_path / "yard.yaml"
    path.write_text("version: 1\nstages:\n  a: {kind: synthetic}\n")
    pipeline = ovpipe.Pipeline.from_yaml(path)
    assert pipeline.graph.name == "yard"
    back = ovpipe.Pipeline.from_yaml_text(pipeline.to_yaml(), tmp_path)
    assert back.graph == pipeline.graph


def test_what_yaml_cannot_hold_is_told():
    with pytest.raises(ovpipe.ConfigError, match=r"'my yard'.*in YAML it is 1 to 64 letters"):
        ovpipe.Pipeline("my yard").add("a", "synthetic").to_yaml()


@settings(max_examples=80, deadline=None)
@given(
    st.recursive(
        TEXT
        | st.integers(-(10**12), 10**12)
        | st.booleans()
        | st.none()
        | st.floats(allow_nan=False),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=12,
    )
)
def test_a_tree_is_the_same_again(value):
    from ovpipe.loader.reading import Reading
    from ovpipe.loader.written import _node

    text = tree.write(_node({"value": value}))
    assert Reading({}).plain(tree.parse(text), "") == {"value": value}
