"""Spec -> graph: defaults, order, and what is wrong with it."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovpipe.errors import ConfigError
from ovpipe.graph import Graph, resolve
from ovpipe.spec import InputSpec, PipelineSpec, Place, RunSpec, StageSpec
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


def test_below_a_live_source_frames_have_an_age_limit_unless_told_otherwise():
    mine = InputSpec("live", max_age_s=0.25)
    none = InputSpec("live", max_age_s=float("inf"))
    g = graph(
        src("live", live=True), src("file"), stage("a", inputs=["live"]), stage("b", inputs=["file"]),
        sink("c", ["a", "b"]), StageSpec("d", "x", "consumer", inputs=(mine,)),
        StageSpec("e", "x", "consumer", inputs=(none,)),
        StageSpec("f", "x", "consumer", inputs=(InputSpec("live", when_full="block"),)),
    )  # fmt: skip
    ages = {(e.source, e.target): e.max_age_s for e in g.edges}
    assert ages == {
        ("live", "a"): 1.0, ("file", "b"): None, ("a", "c"): 5.0, ("b", "c"): None,
        ("live", "d"): 0.25, ("live", "e"): None, ("live", "f"): None,
    }  # fmt: skip
    assert g.with_tap("live", "tap").edges[-1].max_age_s == 1.0
    assert g.with_tap("file", "tap").edges[-1].max_age_s is None
    plan = make_plan(g)
    assert [x.max_age_ns for x in plan.links if x.source == "live"] == [10**9, 25 * 10**7, 0, 0]


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


def test_a_tap_takes_away_the_warning_and_needs_a_name_of_its_own():
    g = graph(src(), stage("m"))
    assert g.with_tap("m", "reader").warnings == ()
    with pytest.raises(ConfigError, match="already a stage 'm'"):
        g.with_tap("m", "m")


def test_every_cycle_is_told_beside_what_else_is_wrong():
    found = problems(
        stage("a", inputs=["b"]), stage("b", inputs=["a"]), stage("c", inputs=["d"]),
        stage("d", inputs=["c"]), src(), sink("z", ["nope"]),
    )  # fmt: skip
    assert len(found) == 3
    assert sum("a cycle" in line for line in found) == 2
    assert any("there is no stage 'nope'" in line for line in found)


def test_a_name_that_two_stages_have_is_refused():
    assert "there are two stages 'a'" in problems(src("a"), src("a"), sink("b", ["a"]))[0]


def test_a_wrong_input_is_told_where_it_stands():
    entry = InputSpec("nope", place=Place("c.yaml", 7, 13))
    reader = StageSpec("z", "log", "consumer", inputs=(entry,), place=Place("c.yaml", 5, 3))
    assert problems(src(), reader)[0].startswith("c.yaml:7:13: stages.z.inputs: there is no")


def test_a_hint_does_not_list_hundreds_of_names():
    line = problems(*(src(f"s{i}") for i in range(300)), sink("z", ["nope"]))[0]
    assert len(line) < 200


names = st.integers(0, 7).map("abcdefgh".__getitem__)


@given(
    st.lists(
        st.tuples(names, st.sampled_from(["producer", "transform", "consumer"]),
                  st.none() | st.lists(names, max_size=3), st.booleans()),
        max_size=8,
    )
)  # fmt: skip
def test_a_graph_holds_its_law_or_is_refused(drawn):
    try:
        g = graph(*(stage(n, role, inputs, live=live) for n, role, inputs, live in drawn))
    except ConfigError as error:
        assert error.problems
        return
    order = [s.name for s in g.stages]
    assert len(set(order)) == len(order)
    assert all(order.index(e.source) < order.index(e.target) for e in g.edges)
    assert [e.index for e in g.edges] == list(range(len(g.edges)))
    assert all(e.streams for e in g.edges), "each edge is reached from a producer"
    assert all((e.when_full == "drop_oldest") == e.live for e in g.edges)
    for s in g.stages:
        assert (s.role == "producer") == (not any(e.target == s.name for e in g.edges))
    assert Graph.from_json(json.loads(json.dumps(g.to_json()))).to_json() == g.to_json()


def test_a_join_of_one_is_refused():
    join = StageSpec("both", "join", "transform", inputs=(InputSpec("src"),))
    assert "a join needs two inputs or more" in problems(src(), join)[0]


def test_a_receiver_knows_what_it_reads_and_which_streams_come_from_where():
    plan = make_plan(graph(src("a"), src("b"), stage("m", inputs=["b"]), sink("z", ["m", "a"])))
    assert plan.inputs("z") == {"m": ("b",), "a": ("a",)}
    assert plan.inputs("a") == {}


def test_liveness_goes_all_the_way_down_and_what_is_written_wins():
    a = StageSpec("a", "x", "transform", inputs=(InputSpec("live", when_full="block"),))
    b = StageSpec("b", "x", "transform", inputs=(InputSpec("a"), InputSpec("file")))
    z = StageSpec("z", "x", "consumer", inputs=(InputSpec("b", when_full="drop_newest"),))
    g = graph(src("live", live=True), src("file"), a, b, sink("y", ["b"]), z)
    policy = {(e.source, e.target): (e.when_full, e.live) for e in g.edges}
    assert policy == {
        ("live", "a"): ("block", True), ("a", "b"): ("drop_oldest", True),
        ("file", "b"): ("block", False), ("b", "y"): ("drop_oldest", True),
        ("b", "z"): ("drop_newest", True),
    }  # fmt: skip


# -- placement -----------------------------------------------------------------------------

INLINE = RunSpec(placement="inline")


def test_guests_live_where_the_first_of_their_chain_does():
    plan = make_plan(
        graph(
            src(), stage("det", inputs=["src"], overlaps=True), stage("a", inputs=["det"], run=INLINE),
            stage("b", inputs=["a"], run=INLINE), stage("c", inputs=["det"]),
            stage("z", "consumer", inputs=["det"], run=INLINE),
        )
    )  # fmt: skip
    number = {w.name: w.index for w in plan.workers}
    host = {w.name: plan.workers[plan.together(w.index)[0]].name for w in plan.workers}
    assert host == {"src": "src", "det": "det", "a": "det", "b": "det", "c": "c", "z": "det"}
    together = plan.together(number["b"])
    assert {plan.workers[i].name for i in together} == {"det", "a", "b", "z"}
    for i in together[1:]:
        neighbour = plan.workers[i].neighbour
        assert neighbour is not None
        assert together.index(neighbour) < together.index(i)
    called = {(link.sender, link.receiver) for link in plan.links if link.by_call}
    ends = [("det", "a"), ("a", "b"), ("det", "z")]
    assert called == {(number[a], number[b]) for a, b in ends}
    assert not any(x.with_capacity(1, resend=True).resend for x in plan.links if x.by_call)


@pytest.mark.parametrize(
    ("stages", "why"),
    [
        ([src(run=INLINE), sink()], "stages.src: cannot be inline: a producer reads no stage"),
        (
            [src(), stage("det", overlaps=True, run=INLINE), sink()],
            "stages.det: cannot be inline: a kind-det works on several frames at a time",
        ),
        (
            [src(), stage("m", run=RunSpec(placement="inline", replicas=3)), sink()],
            "stages.m: cannot be inline: its 3 replicas are processes",
        ),
        (
            [src("a"), src("b"), stage("m", inputs=["a", "b"], run=INLINE), sink("z", ["m"])],
            "stages.m: cannot be inline: it reads 2 stages and can live with one only",
        ),
        (
            [src(), stage("m", run=RunSpec(replicas=2)), stage("n", run=INLINE), sink()],
            "stages.n: cannot be inline: 'm' has 2 replicas, each in a process of its own",
        ),
        (
            [src(for_each={"x": {}, "y": {}}), stage("n", run=INLINE), sink()],
            "stages.n: cannot be inline: 'src' has 2 streams, each in its own process",
        ),
    ],
)
def test_what_cannot_live_with_its_neighbour_is_refused(stages, why):
    (problem,) = problems(*stages)
    assert problem.startswith(why)
    assert "leave out `placement: inline`" in problem


def test_a_source_of_one_named_stream_may_have_guests():
    plan = make_plan(graph(src(for_each={"x": {}}), stage("n", run=INLINE), sink()))
    assert plan.workers[1].neighbour == 0
