"""Wishes to see frames: whom to ask, how often, and that every wish ends once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ovpipe.errors import ConfigError
from ovpipe.graph import Graph, resolve
from ovpipe.loader import load
from ovpipe.supervisor.launch import make_plan
from ovpipe.supervisor.post import Post
from ovpipe.supervisor.viewing import Viewing, find_edge
from ovpipe.transport.look import ANY
from tests.support.processes import open_fds

YARD = """\
version: 1
stages:
  cam: {kind: synthetic, for_each: {gate: {}, dock: {}}}
  detect: {kind: "tests.support.stages:tag", inputs: cam, run: {replicas: 2}}
  draw: {kind: "tests.support.stages:tag", inputs: detect}
  out: {kind: log, inputs: [draw, cam]}
"""


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    path = tmp_path / "c.yaml"
    path.write_text(YARD)
    return resolve(load(path, {}))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cam -> detect", ("cam", "detect")), ("cam->out", ("cam", "out")),
        ("  draw->  out ", ("draw", "out")), ("cam", ("cam", "detect")), ("draw", ("draw", "out")),
    ],
)  # fmt: skip
def test_edges_are_found_by_both_ends_or_by_their_source(
    graph: Graph, text: str, found: tuple[str, str]
) -> None:
    edge = find_edge(graph, text)
    assert (edge.source, edge.target) == found


@pytest.mark.parametrize(
    ("text", "stream", "said"),
    [
        ("kam", None, "did you mean 'cam'?"),
        ("cam -> detekt", None, "did you mean 'cam -> detect'?"),
        ("cam -> draw", None, "no edge 'cam -> draw'"),
        ("out", None, "stage 'out' gives no frames; look at 'draw -> out' or 'cam -> out'"),
        ("zzz", None, "there are: cam, detect, draw"),
        ("", None, "no stage or edge ''"),
        ("cam", "cam/gade", "did you mean 'cam/gate'?"),
        ("cam", "x", "there are: cam/gate, cam/dock"),
    ],
)
def test_wrong_names_are_told_with_what_there_is(
    graph: Graph, text: str, stream: str | None, said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        find_edge(graph, text, stream)
    assert said in str(error.value)


class Member:
    def __init__(self) -> None:
        self.asked: list[int] = []

    def say(self, word: str, **values: Any) -> None:
        assert word == "look"
        self.asked.append(values["stream"])


class Yard:
    """cam/gate 0, cam/dock 1, detect#0 2, detect#1 3, draw 4, out 5; streams gate 0, dock 1."""

    def __init__(self, graph: Graph) -> None:
        plan = make_plan(graph)
        self.names = [worker.name for worker in plan.workers]
        self.posts = [Post(worker) for worker in plan.workers]
        for post in self.posts:
            post.state = "up"
            post.member = Member()  # type: ignore[assignment]
        self.viewing = Viewing(plan, self.posts)
        self.answers: list[tuple[dict[str, Any], bool]] = []

    def want(self, edge: str, stream: str | None = None, timeout_s: float = 5.0) -> Any:
        def answer(message: dict[str, Any], fd: int | None) -> None:
            self.answers.append((message, fd is not None))

        return self.viewing.want(edge, stream, 0.0, timeout_s, answer)

    def asked(self, name: str) -> list[int]:
        return self.posts[self.names.index(name)].member.asked  # type: ignore[union-attr]

    def seen(self, name: str, *answers: int, **more: Any) -> None:
        said = {"answers": list(answers), "stream": 0, "length": 1, "slots": 1,
                "slot_bytes": 4096, **more}  # fmt: skip
        fd = os.memfd_create("test")
        self.viewing.seen(self.names.index(name), said, [fd])
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


@pytest.fixture
def yard(graph: Graph):
    before = len(open_fds())
    yield Yard(graph)
    assert len(open_fds()) == before


def test_a_stream_is_asked_of_the_worker_that_makes_it(yard: Yard) -> None:
    yard.want("cam", "cam/dock")
    assert (yard.asked("cam/gate"), yard.asked("cam/dock")) == ([], [1])
    yard.seen("cam/dock", 1, stream=1)
    ((message, copy),) = yard.answers
    assert (message["stream"], message["source"], copy) == ("cam/dock", "cam", True)


def test_all_replicas_are_asked_and_the_first_answers(yard: Yard) -> None:
    yard.want("detect", "cam/gate")
    assert (yard.asked("detect#0"), yard.asked("detect#1")) == ([0], [0])
    yard.seen("detect#1", 0)
    yard.seen("detect#0", 0)  # nobody wants that any more
    assert len(yard.answers) == 1


def test_many_wishes_are_one_question_until_it_is_answered(yard: Yard) -> None:
    for _ in range(3):
        yard.want("draw")
    assert yard.asked("draw") == [ANY]
    yard.seen("draw", ANY)
    assert len(yard.answers) == 3
    yard.want("draw")
    assert yard.asked("draw") == [ANY, ANY]


def test_who_is_gone_gets_nothing_and_the_copy_is_closed(yard: Yard) -> None:
    wish = yard.want("draw")
    yard.viewing.forget(wish)
    yard.viewing.forget(wish)
    yard.seen("draw", ANY)
    yard.viewing.tick(100.0)
    assert yard.answers == []


def test_a_successor_is_asked_again(yard: Yard) -> None:
    yard.want("draw")
    post = yard.posts[yard.names.index("draw")]
    post.state = "away"
    yard.viewing.died(post.plan.index)
    yard.viewing.tick(1.0)
    assert yard.asked("draw") == [ANY]
    post.state = "up"
    yard.viewing.tick(2.0)
    assert yard.asked("draw") == [ANY, ANY]


@pytest.mark.parametrize(
    "lie",
    [{"answers": 5}, {"answers": ["x"]}, {"stream": 99}, {"stream": None}, {"slots": "many"}],
    ids=repr,
)
def test_an_answer_that_makes_no_sense_is_passed_over(yard: Yard, lie: dict[str, Any]) -> None:
    yard.want("draw")
    yard.seen("draw", **{"answers": [ANY], **lie})
    assert yard.answers == []
    yard.seen("draw", ANY)
    assert len(yard.answers) == 1


def test_wishes_end_with_time_with_the_stage_and_with_an_error(yard: Yard) -> None:
    yard.want("draw", timeout_s=1.0)
    yard.viewing.tick(0.9)
    assert yard.answers == []
    yard.viewing.tick(1.0)
    ((late, _),) = yard.answers
    assert late["error"] == "no frame came along 'draw -> out' within 1 s"
    yard.want("detect")
    for name in ("detect#0", "detect#1"):
        yard.posts[yard.names.index(name)].state = "done"
    yard.viewing.tick(2.0)
    assert "stage 'detect' has ended" in yard.answers[-1][0]["error"]
    yard.want("cam", "cam/gate")
    yard.seen("cam/gate", 0, error="no memory")
    assert yard.answers[-1][0]["error"] == "no memory"
    assert len(yard.answers) == 3
