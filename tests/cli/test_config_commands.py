"""validate, graph, schema, stages: what they print where, and how they end."""

import json

import pytest
from click.testing import CliRunner

from ovpipe.cli import group
from ovpipe.errors import ConfigError

GOOD = "version: 1\nstages:\n  a: {kind: synthetic, count: 3}\n  b: {kind: annotate}\n"


def call(*arguments, **options):
    return CliRunner().invoke(group, arguments, **options)


def test_validate_reads_stdin_and_warns_on_stderr():
    ended = call("validate", "-", input=GOOD)
    assert ended.exit_code == 0
    assert ended.stdout == "-: ok: 2 stages, 1 edges, 1 streams\n"
    assert ended.stderr == "warning: stage 'b': nobody reads what it gives\n"


def test_wrong_options_and_wrong_inputs_are_said_together():
    source = GOOD.replace("count", "cuont") + "  c: {kind: log, inputs: bb}\n"
    ended = call("validate", "-", input=source)
    assert isinstance(ended.exception, ConfigError)
    lines = [str(problem) for problem in ended.exception.problems]
    assert [line.partition(" (")[0] for line in lines] == [
        "-:3:24: stages.a.cuont: unknown key",
        "-:5:26: stages.c.inputs: there is no stage 'bb'",
    ]


def test_variables_come_from_the_environment():
    source = GOOD.replace(
        "{kind: synthetic, count: 3}", "\n    kind: synthetic\n    count: ${N:?say how many}"
    )
    assert call("validate", "-", input=source, env={"N": "3"}).exit_code == 0
    assert "N is not set: say how many" in str(call("validate", "-", input=source).exception)


@pytest.mark.parametrize("format_", ["text", "mermaid", "svg"])
def test_a_picture_has_no_escape_codes(format_):
    ended = call("graph", "-", "--format", format_, input=GOOD, color=True)
    assert ended.exit_code == 0
    assert "\x1b" not in ended.stdout


def test_a_picture_that_cannot_be_written_is_one_error(tmp_path):
    ended = call("graph", "-", "-o", str(tmp_path / "no" / "picture"), input=GOOD)
    assert ended.exit_code != 0
    assert "cannot be written" in ended.output


def test_schema_and_stages_know_the_same_kinds():
    schema = json.loads(call("schema").stdout)
    kinds = schema["$defs"]["stage"]["properties"]["kind"]["anyOf"][0]["enum"]
    assert [line.split()[0] for line in call("stages").stdout.splitlines()] == kinds
    for kind in kinds:
        listed = call("stages", kind).stdout
        assert all(name in listed for name in schema["$defs"][f"options.{kind}"]["properties"])
