"""Kinds of one's own: what their options may be, and that no module harms who looks at it."""

import subprocess
import sys

import pytest

from ovpipe.errors import ConfigError
from ovpipe.loader import kinds, loads

HEAD = "version: 1\nstages:\n"
OWN = """\
from pathlib import Path
from typing import Annotated, Literal
import ovpipe
from annotated_types import Ge
from ovpipe.options import Duration, Size

class T(ovpipe.Transform):
    roi: tuple[int, int, int, int] = (0, 0, 1, 1)
    where: Path = Path(".")
    either: int | str | None = None
    table: dict[str, int] | None = None
    rate: float = 1.0
    wait: Annotated[Duration, Ge(0)] = 0.0
    size: Size | None = None
    mode: Literal["fast", "exact"] = "fast"
    def process(self, frame):
        return frame

class Reserved(ovpipe.Transform):
    run: int = 1
    def process(self, frame):
        return frame

class Half(ovpipe.Transform):
    pass

class Needs(ovpipe.Transform):
    requires = {"no.such.module": "moon"}
    def process(self, frame):
        return frame

def nothing(): ...
def anything(frame, **options): ...
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


def spec(body, folder):
    return loads(HEAD + body, folder=folder, file="c.yaml", environ={})


def problems(body, folder):
    with pytest.raises(ConfigError) as error:
        spec(body, folder)
    return [str(problem) for problem in error.value.problems]


def test_options_are_plain_values(folder):
    body = """\
  a:
    kind: own:T
    roi: [1, 2, 3, 4]
    where: rec
    either: x
    table: {my-key: 1}
    rate: 2
    wait: 500ms
    size: 64x48
    mode: exact
"""
    assert spec(body, folder).stages[0].options == {
        "roi": [1, 2, 3, 4], "where": "rec", "either": "x", "table": {"my-key": 1}, "rate": 2.0,
        "wait": 0.5, "size": [64, 48], "mode": "exact",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("roi: [1, 2, 3]", "c.yaml:3:27: stages.a.roi[3]: is required"),
        ("roi: [1, 2, 3, x]", "c.yaml:3:37: stages.a.roi[3]: input should be a valid integer"),
        ("either: [1]", "stages.a.either: input should be a valid integer, or a valid string"),
        ("table: {my-key: x}", "c.yaml:3:38: stages.a.table.my-key: input should be a valid int"),
        ("rate: .nan", "stages.a.rate: input should be a finite number, not nan"),
        ("rate: true", "stages.a.rate: input should be a valid number, not true"),
        ("rate: '1'", "stages.a.rate: input should be a valid number, not '1'"),
        ("rate: ~", "stages.a.rate: input should be a valid number, not nothing"),
        ("wait: -1s", "stages.a.wait: '-1s' is no duration"),
        ("wait: -1", "stages.a.wait: input should be greater than or equal to 0, not -1"),
        ("size: 64", "stages.a.size: 64 is no size; write 640x480"),
        ("mode: exat", "must be 'fast' or 'exact', not 'exat' (did you mean 'exact'?)"),
    ],
)
def test_each_wrong_option_is_one_problem_at_its_place(option, says, folder):
    found = problems(f"  a: {{kind: 'own:T', {option}}}\n", folder)
    assert len(found) == 1, found
    assert says in found[0]


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("own:Reserved", "has an option 'run', which is a word that every stage has"),
        ("own:Half", "does not define process()"),
        ("own:Needs", "pip install 'ovpipe[moon]'"),
        ("own:nothing", "must take a frame"),
        ("own:anything", "must take a frame, and then named options"),
    ],
)
def test_what_is_no_stage_is_said_before_the_run(kind, says, folder):
    (line,) = problems(f"  a: {{kind: '{kind}'}}\n", folder)
    assert says in line


def test_unknown_keys_are_told_at_the_key(folder):
    body = """\
  a:
    kind: synthetic
    for_each:
      g:
        cuont: 3
  b:
    kind: infer
    model: m
    inputs: a
    keep:
      clases: [x]
  c:
    kind: video
    for_each:
      h: {fps: 3}
"""
    assert [line.partition(" (")[0] for line in problems(body, folder)] == [
        "c.yaml:7:9: stages.a.for_each.g.cuont: unknown key",
        "c.yaml:13:7: stages.b.keep.clases: unknown key",
        "c.yaml:17:7: stages.c.for_each.h.url: is required",
    ]


def test_a_module_that_ends_the_process_is_the_only_one_blamed(folder):
    (folder / "bad.py").write_text("import os; os.abort()")
    body = "".join(f"  {n}: {{kind: '{k}'}}\n" for n, k in [
        ("a", "own:T"), ("b", "bad:X"), ("c", "own:T"), ("d", "bad:Y"), ("e", "own:T"),
    ])  # fmt: skip
    found = problems(body, folder)
    assert len(found) == 2
    assert found[0].startswith("c.yaml:4:13: stages.b.kind: kind 'bad:X' cannot be looked at")
    assert found[1].startswith("c.yaml:6:13: stages.d.kind: kind 'bad:Y' cannot be looked at")
    assert "killed by signal 6" in found[0]


def test_a_module_that_hangs_is_named_with_the_line_where_it_does(folder, monkeypatch):
    monkeypatch.setattr(kinds, "TIMEOUT_S", 1.0)
    (folder / "slow.py").write_text("import threading\n\nthreading.Event().wait()\n")
    (line,) = problems("  a: {kind: 'slow:X'}\n", folder)
    assert "it took longer than 1 s" in line


def test_a_process_that_a_module_leaves_behind_is_not_waited_for(folder):
    """It holds the module's stdout and stderr open until the test opens the fifo."""
    fifo = folder / "fifo"
    (folder / "leaves.py").write_text(
        "import os, subprocess, sys, ovpipe\n"
        f"os.mkfifo({str(fifo)!r})\n"
        f"subprocess.Popen([sys.executable, '-c', {f'open({str(fifo)!r}).read()'!r}])\n"
        "def keep(frame): return frame\n"
    )
    body = "  a: {kind: synthetic}\n  b: {kind: 'leaves:keep'}\n"
    assert spec(body, folder).stages[1].role == "transform"
    fifo.open("w").close()


def test_what_a_module_prints_is_no_answer(folder):
    (folder / "loud.py").write_text(
        "import os, sys\nprint('{}')\nos.write(1, b'{}\\n')\nsys.__stdout__.write('{}')\n"
        "def keep(frame): return frame\n"
    )
    assert spec("  a: {kind: 'loud:keep'}\n", folder).stages[0].role == "transform"


def test_the_child_is_a_program_of_its_own(folder):
    asked = '[{"kind": "own:T", "options": [{"rate": 3}]}]'
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "ovpipe.loader.describe", str(folder), "30"],
        input=asked, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert '"role": "transform"' in ended.stdout
    assert ended.stderr == ""


def test_an_option_that_is_a_mapping_of_its_own(folder):
    infer = "  find: {kind: infer, model: m.xml, batch: "
    head = "  clip: {kind: synthetic}\n"
    made = spec(head + infer + "{size: 4, wait: 20ms}}\n", folder)
    (find,) = (stage for stage in made.stages if stage.name == "find")
    assert find.options["batch"] == {"size": 4, "wait": 0.02}
    said = problems(head + infer + "{size: four, wayt: 1s, wait: soon}}\n", folder)
    for part in (
        "find.batch.size: input should be a valid integer, not 'four'",
        "find.batch.wayt: unknown key",
        "find.batch.wait: 'soon' is no duration",
    ):
        assert any(part in str(p) for p in said), said
