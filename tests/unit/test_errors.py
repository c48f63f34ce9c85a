"""Errors that travel, and several at a time."""

import traceback

import pytest

from ovpipe.errors import OvpipeError, PreflightError, StageError, from_json, to_json, together


def test_a_remote_traceback_is_shown_by_whoever_shows_the_error():
    error = from_json(to_json(StageError("detect", "ValueError: no", "Traceback:\n  here\n")))
    assert (error.stage, error.cause, error.remote_traceback) == (
        "detect", "ValueError: no", "Traceback:\n  here\n",
    )  # fmt: skip
    shown = "".join(traceback.format_exception(error))
    assert "in the process of stage 'detect':\n    Traceback:\n      here" in shown
    assert not hasattr(from_json(to_json(StageError("a", "died"))), "__notes__")


def test_none_one_and_several():
    one, two = StageError("a", "x"), PreflightError("y")
    assert together([]) is None
    assert together([one]) is one
    group = together([one, two])
    assert isinstance(group, ExceptionGroup)
    assert group.exceptions == (one, two)
    with pytest.raises(ExceptionGroup) as raised:
        raise group
    assert raised.value.subgroup(OvpipeError).exceptions == (one, two)
