"""Who waits for frames looks for knots: after a while without any, and seldom."""

from __future__ import annotations

import gc

import pytest

from ovpipe.worker.sweep import Sweep

MS = 10**6


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The generations that were collected."""
    found: list[int] = []
    monkeypatch.setattr(gc, "collect", lambda generation=2: found.append(generation))
    return found


def test_waits_that_other_things_end_are_no_reason(swept: list[int]) -> None:
    sweep = Sweep(lambda: True)
    for now_ms in range(0, 3000, 5):  # a frame every 20 ms, and an inference that ends between
        sweep.waited(now_ms % 20 == 0, now_ms * MS)
    assert swept == []


def test_silence_is_one_twice(swept: list[int]) -> None:
    sweep = Sweep(lambda: True)
    sweep.waited(True, 1000 * MS)
    assert sweep.patience_ms(500) == 50
    sweep.waited(False, 1050 * MS)
    assert sweep.patience_ms(500) == 500
    for now_ms in range(1060, 9000, 10):
        sweep.waited(False, now_ms * MS)
    assert swept == [1, 2]
    sweep.waited(True, 9000 * MS)
    sweep.waited(False, 9050 * MS)
    assert swept == [1, 2, 1]


def test_where_nothing_is_kept_there_is_none(swept: list[int]) -> None:
    sweep = Sweep(lambda: False)
    sweep.waited(True, 0)
    sweep.waited(False, 9000 * MS)
    assert sweep.patience_ms(500) == 500
    assert swept == []
