"""Spec -> graph: defaults, order, and what is wrong with it."""

from pathlib import Path

import pytest

from ovpipe import drawing
from ovpipe.errors import ConfigError
from ovpipe.graph import Graph, resolve
from ovpipe.spec import InputSpec, PipelineSpec, StageSpec
from ovpipe.supervisor.launch import make_plan


def stage(name, role="transform", inputs=None, **more):
    entries = None if inputs is None else tuple(InputSpec(i) for i in inputs)
    return StageSpec(name, f"kind-{name}", role, inputs=entries, **more)


def graph(*stages):
    return resolve(PipelineSpec("test", tuple(stages), Path("/x")))


def problems(*stages):
    with pytest.raises(ConfigError) as error:
        graph(*stages)
    return [str(p) for p in error.value.problems]


def src(name="src", **more):
    return stage(name, "producer", **more)


def sink(name="sink", inputs=None):
    return stage(name, "consumer", inputs)


def test_without_inputs_each_reads_the_one_above():
    g = graph(src(), stage("mid"), sink())
    assert [(e.source, e.target, e.depth, e.when_full) for e in g.edges] == [
        ("src", "mid", 4, "block"),
        ("mid", "sink", 4, "block"),
    ]
    assert g.streams == ("src",)


def test_order_is_topological_whatever_the_text():
    g = graph(sink("z", ["m"]), stage("m", inputs=["s"]), src("s"))
    assert [s.name for s in g.stages] == ["s", "m", "z"]


def test_edges_below_a_live_source_drop_the_oldest():
    g = graph(
        src("live", live=True), src("file"), stage("a", inputs=["live"]), stage("b", inputs=["file"]),
        stage("c", inputs=["a", "b"]), sink("d", ["b"]), sink("e", ["c"]),
    )  # fmt: skip
    policy = {(e.source, e.target): e.when_full for e in g.edges}
    assert policy == {
        ("live", "a"): "drop_oldest", ("file", "b"): "block", ("a", "c"): "drop_oldest",
        ("b", "c"): "block", ("b", "d"): "block", ("c", "e"): "drop_oldest",
    }  # fmt: skip
    streams = {(e.source, e.target): e.streams for e in g.edges}
    assert set(streams["c", "e"]) == {"live", "file"}
    assert streams["b", "c"] == ("file",)


def test_for_each_makes_a_worker_and_a_stream_each():
    g = graph(src("cam", for_each={"a": {"x": 1}, "b": {"x": 2}}), sink())
    assert g.streams == ("cam/a", "cam/b")
    plan = make_plan(g)
    assert [(w.name, dict(w.options)) for w in plan.workers] == [
        ("cam/a", {"x": 1}), ("cam/b", {"x": 2}), ("sink", {}),
    ]  # fmt: skip
    assert [(x.sender, x.receiver, x.streams) for x in plan.links] == [(0, 2, (0,)), (1, 2, (1,))]


def test_downstream_links_come_upstream_first():
    plan = make_plan(graph(src(), stage("m", inputs=["src"]), sink("a", ["m"]), sink("b", ["src"])))
    names = [w.name for w in plan.workers]
    found = [(names[x.sender], names[x.receiver]) for x in plan.downstream(0)]
    assert set(found) == {("src", "m"), ("src", "b"), ("m", "a")}
    assert found.index(("src", "m")) < found.index(("m", "a"))
    assert plan.readers(names.index("m")) == [names.index("a")]


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ([], "there are no stages"),
        ([stage("a", inputs=["b"]), stage("b", inputs=["a"])], "a cycle: "),
        ([src(), stage("a", inputs=["a"])], "a cycle: a -> a"),
        ([src("camera"), sink("s", ["camra"])], "did you mean 'camera'?"),
        ([src(), sink("s", ["src", "src"])], "named twice"),
        ([src("a"), src("b", inputs=["a"])], "a producer takes no inputs"),
        ([src(), sink("s", ["src"]), sink("t", ["s"])], "'s' is a consumer"),
        ([src(), stage("m"), sink("s", ["src"])], "has no inputs"),
        ([sink()], "nothing above it to read"),
        ([src(), sink("s", [])], "empty list of inputs"),
    ],
)
def test_what_is_wrong_is_said(stages, says):
    assert any(says in line for line in problems(*stages)), problems(*stages)


def test_a_cycle_is_printed_in_the_direction_of_the_frames():
    line = problems(src(), stage("a", inputs=["src", "c"]), stage("b", inputs=["a"]),
                    stage("c", inputs=["b"]))[0]  # fmt: skip
    assert any(c in line for c in ("a -> b -> c -> a", "b -> c -> a -> b", "c -> a -> b -> c"))


def test_all_problems_at_once():
    assert len(problems(src(), sink("a", ["x"]), sink("b", ["y"]))) == 2


def test_output_that_nobody_reads_is_a_warning():
    assert graph(src(), stage("m")).warnings == ("stage 'm': nobody reads what it gives",)


def test_json_round_trip():
    g = graph(src("cam", for_each={"a": {"x": [1]}}), stage("m"), sink())
    assert Graph.from_json(g.to_json()).to_json() == g.to_json()


def test_a_tap_is_one_more_consumer():
    g = graph(src(live=True), sink())
    tapped = g.with_tap("src", "reader", depth=7)
    assert tapped.stages[-1].external
    edge = tapped.edges[-1]
    assert (edge.source, edge.target, edge.depth, edge.when_full) == (
        "src",
        "reader",
        7,
        "drop_oldest",
    )
    with pytest.raises(ConfigError, match="consumer"):
        g.with_tap("sink", "reader")
    with pytest.raises(ConfigError, match="did you mean 'sink'"):
        g.with_tap("sin", "reader")


# -- pictures ----------------------------------------------------------------------------

EVIL = '<img src=x onerror="alert(1)">]'


@pytest.mark.parametrize("draw", [drawing.as_text, drawing.as_mermaid, drawing.as_svg])
def test_pictures_name_every_stage_and_edge(draw):
    g = graph(src(), stage("mid", inputs=["src"]), sink("one", ["mid"]), sink("two", ["mid"]))
    picture = draw(g)
    assert all(name in picture for name in ("src", "mid", "one", "two"))
    assert picture.count("block 4") in (3, 6)  # SVG: each with its outline


@pytest.mark.parametrize("draw", [drawing.as_mermaid, drawing.as_svg])
def test_no_name_can_inject_markup(draw):
    picture = draw(graph(src(EVIL), sink()))
    assert "<img" not in picture
    assert 'onerror="' not in picture


def test_svg_is_well_formed_and_boxes_do_not_overlap():
    from xml.etree import ElementTree

    g = graph(
        src("a"), src("b"), stage("m", inputs=["a", "b"]), *(sink(f"s{i}", ["m"]) for i in range(3))
    )
    root = ElementTree.fromstring(drawing.as_svg(g))
    boxes = [
        (float(r.get("x")), float(r.get("y")), float(r.get("width")), float(r.get("height")))
        for r in root.iter("{http://www.w3.org/2000/svg}rect")
        if r.get("x") is not None
    ]
    assert len(boxes) == 6
    for i, (x, y, w, h) in enumerate(boxes):
        for X, Y, W, H in boxes[:i]:
            assert x + w <= X or x >= X + W or y + h <= Y or y >= Y + H
