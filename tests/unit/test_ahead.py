"""What is decoded ahead comes in order, each once, and ends when it is let go of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from ovpipe.stages.ahead import Ahead

Stopping = Callable[[], bool]
Lost = Callable[[], None]


def taken(make: Any) -> list[Any]:
    """All that comes, losses as None."""
    found: list[Any] = []
    with closing(Ahead(make, lambda: found.append(None))) as ahead:
        found_or_lost = iter(ahead)
        for item in found_or_lost:
            found.append(item)
    return found


def test_pictures_and_losses_in_order() -> None:
    def make(_: Stopping, lost: Lost) -> Iterator[int]:
        lost()
        for i in range(50):
            yield i
            if i % 7 == 0:
                lost()
                lost()

    wanted: list[Any] = [None]
    for i in range(50):
        wanted += [i, *([None, None] if i % 7 == 0 else [])]
    assert taken(make) == wanted


def test_nothing_at_all() -> None:
    assert taken(lambda _, __: iter(())) == []


def test_an_error_comes_behind_what_was_decoded() -> None:
    def make(_: Stopping, __: Lost) -> Iterator[int]:
        yield from range(5)
        raise OSError("gone")

    with closing(Ahead(make, lambda: None)) as ahead:
        pictures = iter(ahead)
        assert [next(pictures) for _ in range(5)] == list(range(5))
        with pytest.raises(OSError, match="gone"):
            next(pictures)


def test_it_is_never_far_ahead() -> None:
    given: list[int] = []

    def make(_: Stopping, __: Lost) -> Iterator[int]:
        for i in range(1000):
            given.append(i)
            yield i

    with closing(Ahead(make, lambda: None)) as ahead:
        for item in ahead:
            assert len(given) <= item + 3
            if item == 500:
                break  # the generator above does not ask whether to stop


def test_letting_go_in_the_middle_ends_the_thread() -> None:
    ended = threading.Event()

    def make(stopping: Stopping, lost: Lost) -> Iterator[int]:
        try:
            while not stopping():
                lost()
                yield 1
        finally:
            ended.set()

    with closing(Ahead(make, lambda: None)) as ahead:
        assert next(iter(ahead)) == 1
    assert ended.is_set()
    assert not any(t.name == "ahead" for t in threading.enumerate())
