"""No message holds a value that came from a variable; each place is told once."""

import pytest

from ovpipe.errors import ConfigError
from ovpipe.loader import loads

HEAD = "version: 1\nstages:\n"
SECRET = "hunter2"
SLOW = """\
import ovpipe
class Source(ovpipe.Producer):
    url: str = ""
    @property
    def live(self):
        raise ValueError(f"cannot read {self.url}")
    def frames(self):
        yield from ()
"""


def problems(body, tmp_path, value=SECRET):
    with pytest.raises(ConfigError) as error:
        loads(HEAD + body, folder=tmp_path, file="c.yaml", environ={"S": value})
    return [str(problem) for problem in error.value.problems]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("  a: {kind: synthetic, count: '$S'}", "c.yaml:3:31: stages.a.count: input should be a"),
        ("  a: {kind: synthetic, size: '$S'}", "the value is no size; write 640x480"),
        ("  a: {kind: synthetic, format: '$S'}", "stages.a.format: must be '"),
        ("  a: {kind: infer, model: m, labels: [['$S']]}", "stages.a.labels[0]: input should be"),
        ("  a: {kind: infer, model: m, config: {X: ['$S']}}", "stages.a.config.X: "),
        ("  a: {kind: synthetic, for_each: {g: {count: 'x$S'}}}", "stages.a.for_each.g.count: "),
        ("  a: {kind: '$S'}", "stages.a.kind: the kind cannot be used"),
        ("  a: {kind: '$S:Name'}", "stages.a.kind: the kind cannot be used"),
        ("  a: {kind: log, inputs: '$S'}", "there is no stage of the name that a variable gives"),
        ("  a: {kind: log, inputs: {from: a, depth: '$S'}}", "must be a whole number"),
        ("  a: {kind: log, inputs: {from: a, max_age: '$S'}}", "the value is no duration"),
        ("  a: {kind: log, inputs: {from: a, when_full: '$S'}}", "must be one of block"),
        ("  a: {kind: log, enabled: '$S'}", "must be true or false"),
        ("  a: {kind: jsonl, path: '${NO:?ask $S}'}", "the variable NO is not set: ask $S"),
        ("  a: {kind: 'slow:Source', url: '$S'}", "the kind cannot be used"),
    ],
)
def test_a_value_from_a_variable_is_never_shown(body, says, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    found = problems(body, tmp_path)
    assert len(found) == 1, found
    assert says in found[0]
    assert SECRET not in found[0]


def test_a_number_where_text_is_wanted_is_not_shown_and_has_a_way_out(tmp_path):
    (line,) = problems("  a:\n    kind: jsonl\n    path: $S\n", tmp_path, value="90210")
    assert "90210" not in line
    assert line.endswith("(put it into quotes)")


def test_a_value_as_written_is_shown(tmp_path):
    assert "not 'hunter2'" in problems("  a: {kind: synthetic, count: hunter2}", tmp_path)[0]


@pytest.mark.parametrize(
    "body",
    [
        "  a: {kind: synthetic, count: '$NO'}",
        "  a: {kind: '$NO'}",
        "  a: {kind: log, inputs: ['$NO']}",
        "  a: {kind: log, inputs: {from: '$NO'}}",
        "  a: {kind: log, enabled: '$NO'}",
        "  a: {kind: log, run: {start_timeout: '$NO'}}",
        "  a: {kind: synthetic, count: '$NO', for_each: {g: {}, h: {}}}",
    ],
)
def test_an_unset_variable_is_one_problem(body, tmp_path):
    found = problems(body, tmp_path)
    assert len(found) == 1, found
    assert "the variable NO is not set" in found[0]
