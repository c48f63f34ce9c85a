"""Pictures of a graph: complete, legible, and without a way to inject anything."""

import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovpipe import drawing
from ovpipe.graph import resolve
from ovpipe.spec import InputSpec, PipelineSpec, RunSpec, StageSpec

SVG = "{http://www.w3.org/2000/svg}"
EVIL = '<img src=x onerror="alert(1)">]'


def stage(name, role="transform", inputs=None, **more):
    entries = None if inputs is None else tuple(InputSpec(i) for i in inputs)
    return StageSpec(name, f"kind-{name}", role, inputs=entries, **more)


def graph(*stages):
    return resolve(PipelineSpec("test", tuple(stages), Path("/x")))


FORK = graph(
    stage("src", "producer"), stage("mid", inputs=["src"]),
    stage("one", "consumer", ["mid"]), stage("two", "consumer", ["mid"]),
)  # fmt: skip


def boxes(picture):
    rects = [r for r in ElementTree.fromstring(picture).iter(f"{SVG}rect") if r.get("x")]
    return [tuple(float(r.get(k)) for k in ("x", "y", "width", "height")) for r in rects]


def points(path):
    numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", path.get("d"))]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


@pytest.mark.parametrize("draw", [drawing.as_text, drawing.as_mermaid, drawing.as_svg])
def test_pictures_name_every_stage_and_edge(draw):
    picture = draw(FORK)
    assert all(name in picture for name in ("src", "mid", "one", "two"))
    assert picture.count("block 4") in (3, 6)  # SVG: each with its outline


def test_edges_say_what_they_do():
    source = stage("cam", "producer", live=True, for_each={"a": {}, "b": {}})
    entry = InputSpec("cam", depth=2, max_age_s=0.5)
    text = drawing.as_text(graph(source, StageSpec("z", "log", "consumer", inputs=(entry,))))
    assert "cam  kind-cam (producer, 2 streams)" in text
    assert "─▶ z  [newest 2, 500 ms]" in text


@pytest.mark.parametrize("draw", [drawing.as_mermaid, drawing.as_svg])
def test_no_name_can_inject_markup(draw):
    picture = draw(graph(stage(EVIL, "producer", description=EVIL), stage("z", "consumer")))
    assert "<img" not in picture
    assert 'onerror="' not in picture


def test_mermaid_has_no_character_of_its_own_in_a_label():
    picture = drawing.as_mermaid(graph(stage('a"]; click x', "producer"), stage("z", "consumer")))
    assert 'a"]' not in picture
    assert picture.splitlines()[0] == "flowchart LR"


def test_words_do_not_cover_one_another_where_edges_meet():
    sources = [stage(f"s{i}", "producer") for i in range(5)]
    picture = drawing.as_svg(graph(*sources, stage("z", "consumer", [s.name for s in sources])))
    texts = ElementTree.fromstring(picture).iter(f"{SVG}text")
    heights = sorted({float(t.get("y")) for t in texts if t.text.startswith("block")})
    assert len(heights) == 5
    assert all(low - high >= 11 for high, low in pairwise(heights))


names = "abcdefgh"


@given(st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=3, unique=True), max_size=7))
def test_boxes_do_not_overlap_and_edges_stay_clear_of_them(drawn):
    """Stage i reads some of the stages before it: every acyclic shape of up to eight."""
    reads = [sorted({names[j % (i + 1)] for j in row}) for i, row in enumerate(drawn)]
    stages = [stage(names[i + 1], inputs=row) for i, row in enumerate(reads)]
    picture = drawing.as_svg(graph(stage("a", "producer"), *stages))
    found = boxes(picture)
    assert len(found) == len(stages) + 1
    for i, (x, y, w, h) in enumerate(found):
        for X, Y, W, H in found[:i]:
            assert x + w <= X or x >= X + W or y + h <= Y or y >= Y + H
    root = ElementTree.fromstring(picture)
    view = [float(n) for n in root.get("viewBox").split()]
    for path in [p for p in root.iter(f"{SVG}path") if p.get("marker-end")]:
        for px, py in points(path):
            assert 0 <= px <= view[2]
            assert 0 <= py <= view[3]
            assert not any(x < px < x + w and y < py < y + h for x, y, w, h in found)


def test_who_lives_with_the_one_it_reads_is_told():
    source = StageSpec("src", "video", "producer")
    sink = StageSpec("z", "log", "consumer", run=RunSpec(placement="inline"))
    text = drawing.as_text(graph(source, sink))
    assert "z    log (consumer, inline)" in text
    assert "src  video (producer)" in text
