"""The command line: `ovpipe COMMAND`. Commands are imported when they are called."""

from __future__ import annotations

import importlib
import os
import sys

import click

from ovpipe import __version__
from ovpipe.descriptors import hold_standard
from ovpipe.errors import ConfigError, OvpipeError

_COMMANDS = {
    "run": "ovpipe.cli.run:run",
    "ps": "ovpipe.cli.running:ps",
    "top": "ovpipe.cli.running:top",
    "peek": "ovpipe.cli.asking:peek",
    "logs": "ovpipe.cli.asking:logs",
    "restart": "ovpipe.cli.asking:restart",
    "stop": "ovpipe.cli.running:stop",
    "validate": "ovpipe.cli.config:validate",
    "config": "ovpipe.cli.resolved:config",
    "graph": "ovpipe.cli.config:graph",
    "schema": "ovpipe.cli.config:schema",
    "init": "ovpipe.cli.init:init",
    "stages": "ovpipe.cli.stages:stages",
    "devices": "ovpipe.cli.devices:devices",
    "doctor": "ovpipe.cli.doctor:doctor",
    "bench": "ovpipe.cli.bench:bench",
    "tune": "ovpipe.cli.tune:tune",
    "completion": "ovpipe.cli.complete:completion",
}


class _Lazy(click.Group):
    """Knows its commands by name, and imports one when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        where = _COMMANDS.get(cmd_name)
        if where is None:
            return None
        module, _, name = where.partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command


_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=_Lazy, context_settings=_SETTINGS)
@click.version_option(__version__, prog_name="ovpipe")
def group() -> None:
    """Inference on live video and other array streams with OpenVINO.

    \b
    ovpipe init yard                      a project that runs, to be changed into yours
    ovpipe doctor                         whether this machine is fit, and what to do
    ovpipe stages video                   what a stage can do
    ovpipe validate yard.yaml             what is wrong with it, if anything
    ovpipe graph yard.yaml --format svg   a picture of it
    ovpipe run yard.yaml                  run it until its streams end, or Ctrl-C
    ovpipe top yard                       how it is doing, from another terminal
    ovpipe peek "cam -> detect"           what goes along an edge
    ovpipe stop yard                      drain it, from another terminal
    ovpipe bench yard.yaml                how fast it is, and where the time goes

    \b
    Each command shows examples: ovpipe COMMAND --help
    """


def main() -> None:
    """Entry of the `ovpipe` command: errors become one message and their exit code."""
    hold_standard()
    try:
        group.main(standalone_mode=False, prog_name="ovpipe")
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except click.exceptions.Abort:
        sys.exit(130)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(f"error: {problem}", err=True)
        if len(error.problems) > 1:
            click.echo(f"{len(error.problems)} problems", err=True)
        sys.exit(error.exit_code)
    except OvpipeError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except FileNotFoundError:
        if _somewhere():
            raise
        click.echo("error: the current folder has been deleted; go to one that is there", err=True)
        sys.exit(2)


def _somewhere() -> bool:
    """Whether the current folder is there."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True
