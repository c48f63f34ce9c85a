"""Compose's grammar of variables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovpipe.loader.interpolate import InterpolationError, interpolate

ENV = {"A": "one", "EMPTY": "", "B": "two"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("${A}", "one"),
        ("$A/$B", "one/two"),
        ("x${A}y${B}z", "xoneytwoz"),
        ("$$A $${A}", "$A ${A}"),
        ("${NO:-d}", "d"),
        ("${NO-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${A:-d}", "one"),
        ("${A:+o}", "o"),
        ("${EMPTY:+o}", ""),
        ("${EMPTY+o}", "o"),
        ("${NO+o}", ""),
        ("${A:?m}", "one"),
        ("${EMPTY?m}", ""),
        ("${NO:-${A}}", "one"),
        ("${NO:-${NO2:-x}y}z", "xyz"),
        ("${A:-${NO}}", "one"),
        ("${NO:-a$$b}", "a$b"),
        ("${NO:-}", ""),
        ("${NO:-a:b-c}", "a:b-c"),
    ],
)
def test_grammar(text, result):
    assert interpolate(text, ENV) == result


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("${NO}", "NO is not set"),
        ("$NO", "NO is not set"),
        ("${NO:?put it into .env}", "NO is not set: put it into .env"),
        ("${EMPTY:?m}", "EMPTY is not set: m"),
        ("${NO?m}", "NO is not set: m"),
        ("${NO:?see ${A}, $$5}", r"NO is not set: see \$\{A\}, \$5"),
        ("${A", "not closed"),
        ("${A:-x", "not closed"),
        ("${A!x}", "wrong operator"),
        ("${}", "without the name"),
        ("${env:NAME}", "env"),
        ("a $ b", "lone"),
        ("$", "lone"),
        ("${NO:-" * 20 + "x" + "}" * 20, "nested"),
    ],
)
def test_errors_name_the_variable_and_no_value(text, says):
    with pytest.raises(InterpolationError, match=says) as error:
        interpolate(text, {**ENV, "A": "s3cret"})
    assert "s3cret" not in str(error.value)


@given(st.text("ab${}:-?+$ABN", max_size=30))
def test_nothing_else_is_raised(text):
    try:
        interpolate(text, ENV)
    except InterpolationError as error:
        assert str(error)


@given(st.text(max_size=30))
def test_doubled_dollars_come_back(text):
    assert interpolate(text.replace("$", "$$"), {}) == text


def test_what_becomes_too_long_is_refused():
    with pytest.raises(InterpolationError, match="longer than 1 MiB"):
        interpolate("$A" * 100, {"A": "x" * 100_000})
