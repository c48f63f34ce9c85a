"""docs/terminal.md: its commands and options are there, its code runs, its output is what is printed."""

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ovpipe.cli import group

TEXT = Path("docs/terminal.md").read_text()
SNIPPETS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.S)
LINES = [line for name, body in SNIPPETS if name == "sh" for line in body.splitlines()]


@pytest.mark.parametrize("line", [line for line in LINES if "ovpipe " in line])
def test_commands_are_there(line):
    for part in re.findall(r"ovpipe ([^|>)]*)", line):
        name, *words = shlex.split(part)
        command = group.get_command(click.Context(group), name)
        assert command is not None, line
        command.make_context(name, [w for w in words if w != "jq"], resilient_parsing=False)


def test_every_command_is_told():
    table = TEXT.partition("## ")[0]
    for name in group.list_commands(click.Context(group)):
        assert re.search(rf"`{name}[ `]", table), name


def test_a_stage_of_ones_own(tmp_path):
    (body,) = (body for name, body in SNIPPETS if name == "python")
    (tmp_path / "crowd.py").write_text(body)
    shown = next(body for name, body in SNIPPETS if name == "text" and body.startswith("crowd:"))
    ended = CliRunner().invoke(group, ["stages", "crowd:Crowd", "--folder", str(tmp_path)])
    assert ended.stdout == shown


def test_what_bench_prints_has_these_columns():
    from ovpipe.bench.measure import Measured, StageFigures
    from ovpipe.bench.report import Report, headline, part_rows, stage_rows
    from ovpipe.cli.status import table

    stages = (StageFigures("detect", 100, 5, 0.5, 1, 0, 0),)
    report = Report("yard", 2, (Measured(4, 100, "detect", stages, 0.5, 0),), {}, ())
    text = next(body for name, body in SNIPPETS if name == "text" and body.startswith("yard:"))
    for head in (stage_rows(report.typical)[0], part_rows(report.parts)[0]):
        assert re.search(r" +".join(map(re.escape, head)), text)
    assert headline(report)[0] == "yard: 100.0 frames/s at 'detect'"
    assert table(*part_rows(report.parts), left=1)
