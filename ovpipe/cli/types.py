"""Types of options that are read as in a configuration: durations and sizes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ovpipe.loader.options import duration, size


class _Read(click.ParamType):  # type: ignore[type-arg]  # generic in some versions of click
    """A value that one of the loader's functions reads."""

    def __init__(self, name: str, read: Callable[[object], object]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(f"'{value}' {error}", param, ctx)


def _seconds(value: object) -> object:
    found = duration(value)
    if not isinstance(found, float) or not 0 < found < 1e6:
        raise ValueError("is no duration greater than 0; write 500ms, 5s, 2m or 1h")
    return found


SECONDS = _Read("duration", _seconds)
SIZE = _Read("size", size)


def writable(path: str) -> None:
    """Say now that a file cannot be written, and not after minutes of work."""
    folder = Path(path).absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise click.ClickException(f"{path}: cannot be written: no such folder, or not permitted")
