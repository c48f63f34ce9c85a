"""What all commands that take a configuration share: CONFIG, --set, --env-file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import click

from ovpipe.cli import complete
from ovpipe.errors import ConfigError, Problem
from ovpipe.graph import Graph, resolve
from ovpipe.loader import load, tree_of
from ovpipe.loader.interpolate import NAME
from ovpipe.loader.tree import Node
from ovpipe.spec import PipelineSpec
from ovpipe.stages import registry

_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """A configuration as the command line names it."""

    config: str
    overrides: tuple[str, ...]
    env_file: str | None

    def with_set(self, path: str, text: str) -> Source:
        """This one with one more --set, of a text."""
        quoted = text.replace("'", "''")
        return replace(self, overrides=(*self.overrides, f"{path}='{quoted}'"))

    def environ(self) -> dict[str, str]:
        """What `${VAR}` refers to. Raises ConfigError."""
        return {**(read_env(self.env_file) if self.env_file else {}), **os.environ}

    def tree(self) -> Node:
        """What stands in it, with what is assigned. Raises ConfigError."""
        return tree_of(self.config, self.overrides)

    def spec(self) -> PipelineSpec:
        """What is written. Raises ConfigError."""
        return load(self.config, self.environ(), self.overrides)

    def graph(self, warn: Callable[[str], None] | None = None) -> Graph:
        """The resolved graph; its warnings are told, to stderr or `warn`. Raises ConfigError."""
        graph = resolve(self.spec())
        used = {f"'{stage.kind}'" for stage in graph.stages}
        shadowed = [text for text in registry.shadowed() if any(kind in text for kind in used)]
        for warning in (*graph.warnings, *shadowed):
            if warn is not None:
                warn(warning)
            else:
                click.echo(f"warning: {warning}", err=True)
        return graph


def takes_source(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a command whose first argument is a Source."""

    @click.argument(
        "config",
        type=click.Path(dir_okay=False, allow_dash=True),
        shell_complete=complete.configs,
    )
    @click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="PATH=VALUE",
        help="Change a value of CONFIG: --set stages.cam.url=clip.mp4. Repeatable.",
    )
    @click.option(
        "--env-file",
        type=click.Path(dir_okay=False),
        help="Take variables from this file, as NAME=value lines; those of the environment win.",
    )
    @wraps(command)
    def taking(config: str, overrides: tuple[str, ...], env_file: str | None, **rest: Any) -> Any:
        return command(Source(config, overrides, env_file), **rest)

    return taking


def read_env(path: str) -> dict[str, str]:
    """The variables in a file: NAME=value; quotes around a value go, `#` begins a comment line.

    Raises ConfigError, which names the line and never a value.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8") from None
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"{path}: larger than {_MAX_BYTES >> 20} MiB: no file of variables")
    found, problems = {}, []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.removeprefix("export ").partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not NAME.fullmatch(name):
            problems.append(Problem("not NAME=value", "", path, number, 1))
            continue
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        found[name] = value
    if problems:
        raise ConfigError(problems)
    return found
