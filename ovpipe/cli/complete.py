"""`ovpipe completion`, and what the shell is offered: files, kinds, runs.

Law: completing never says anything and never fails: where nothing can be told, nothing is offered.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from ovpipe.cli.examples import examples
from ovpipe.errors import OvpipeError

_SUFFIXES = (".yaml", ".yml")
_VARIABLE = "_OVPIPE_COMPLETE"  # what click takes from `ovpipe`


@click.command(
    epilog=examples(
        ('eval "$(ovpipe completion bash)"', "for this shell"),
        ("ovpipe completion bash >> ~/.bashrc", "for all to come"),
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that makes SHELL complete commands, options, files, kinds and runs.

    \b
    bash: eval "$(ovpipe completion bash)" in ~/.bashrc
    zsh:  eval "$(ovpipe completion zsh)" in ~/.zshrc, after compinit
    fish: ovpipe completion fish > ~/.config/fish/completions/ovpipe.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    click.echo(kind(root, {}, "ovpipe", _VARIABLE).source())


def configs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """YAML files, and folders on the way to them; any file where there are none."""
    folder, _, begun = incomplete.rpartition("/")
    where = f"{folder}/" if folder or incomplete.startswith("/") else ""
    found = []
    with suppress(OSError):
        for entry in sorted(os.scandir(Path(where or ".").expanduser()), key=lambda e: e.name):
            if entry.name.startswith(begun) and entry.name.startswith(".") <= begun.startswith("."):
                if entry.is_dir():
                    found.append(CompletionItem(f"{where}{entry.name}/"))
                elif entry.name.endswith(_SUFFIXES):
                    found.append(CompletionItem(f"{where}{entry.name}"))
    return found or [CompletionItem(incomplete, type="file")]


def kinds(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Kinds of stage, those of installed packages too; nothing of them is imported."""
    from ovpipe.stages.registry import kinds as known

    return [CompletionItem(kind) for kind in known() if kind.startswith(incomplete)]


def running(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Pipelines that run."""
    from ovpipe.supervisor.bulletin import runs

    with suppress(OvpipeError, OSError):
        names = dict.fromkeys(run.name for run in runs())
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return []
