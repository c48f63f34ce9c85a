"""`ovpipe init`: a project that runs and whose test passes, to be changed into one's own.

Law: nothing that is there is overwritten: either all files are new, or none is written. Where one
cannot be written, what was made until then is taken away again.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from importlib import resources
from pathlib import Path
from shlex import quote

import click

from ovpipe.cli.examples import examples
from ovpipe.cli.status import say
from ovpipe.errors import PreflightError
from ovpipe.loader.kinds import cards
from ovpipe.loader.schema import schema

_FILES = {  # as it is called in a project -> as it lies here, where nothing must take it for ours
    "pipeline.yaml": "pipeline.yaml",
    "bright.py": "bright.py.txt",
    "test_bright.py": "test_bright.py.txt",
    "README.md": "README.md.txt",
    ".gitignore": "gitignore.txt",
    ".env.example": "env.example.txt",
}
_STAGE = "bright:Brightness"


@click.command(
    epilog=examples(
        ("ovpipe init yard", "a folder with all it needs"),
        ("cd yard && ovpipe run pipeline.yaml", "it runs as it is"),
        ("cd yard && pytest", "and so do its tests"),
    )
)
@click.argument("folder", default=".", type=click.Path(file_okay=False))
def init(folder: str) -> None:
    """Make a project in FOLDER (default: here): a configuration, a stage of your own, a test.

    It runs as it is, with nothing to download. Files that are there already are never
    overwritten.
    """
    where = Path(folder)
    try:
        there = [name for name in (*_FILES, "schema.json") if (where / name).exists()]
    except OSError as error:  # too long; none of ours to look into
        raise _unwritable(where, error) from None
    if there:
        raise click.ClickException(
            f"{where / there[0]} is there already{' (and others)' * (len(there) > 1)}, and nothing "
            "is overwritten; name another folder: ovpipe init FOLDER"
        )
    try:
        with ExitStack() as undo:
            _make(where, undo)
            undo.pop_all()
    except OSError as error:
        raise _unwritable(where, error) from None
    for file in (*_FILES, "schema.json"):
        say(sys.stdout, str(where / file))
    go = (
        ""
        if where.absolute() == Path.cwd()
        else f"cd {quote(f'./{where}' if str(where)[0] == '-' else str(where))} && "
    )
    say(sys.stderr, f"next: {go}ovpipe run pipeline.yaml")


def _make(where: Path, undo: ExitStack) -> None:
    """Make folder and files; `undo` knows how to take away each that was made."""
    for folder in (*reversed(where.parents), where):
        if not folder.is_dir():
            folder.mkdir()
            undo.callback(_gone, folder.rmdir)
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", where.absolute().name)[:64] or "pipeline"
    texts = resources.files("ovpipe.cli") / "project"
    for file, template in _FILES.items():
        text = (texts / template).read_text(encoding="utf-8").replace("NAME", name)
        _write(where / file, text, undo)
    own = cards([_STAGE], where.absolute())[_STAGE].card
    text = json.dumps(schema({_STAGE: own} if own else {}), indent=2, ensure_ascii=False)
    _write(where / "schema.json", text + "\n", undo)


def _write(path: Path, text: str, undo: ExitStack) -> None:
    with path.open("x", encoding="utf-8") as file:
        undo.callback(_gone, path.unlink)
        file.write(text)


def _gone(remove: Callable[[], None]) -> None:
    with suppress(OSError):  # a folder that somebody else has put a file into meanwhile stays
        remove()


def _unwritable(where: Path, error: OSError) -> PreflightError:
    reason = error.strerror or str(error)
    return PreflightError(f"{error.filename or where}: cannot be written: {reason}")
