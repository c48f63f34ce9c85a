"""Commands that look at a configuration and start nothing: validate, graph, schema."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from ovpipe import drawing
from ovpipe.cli import complete
from ovpipe.cli.examples import examples
from ovpipe.cli.source import Source, takes_source
from ovpipe.loader import load
from ovpipe.loader.kinds import cards
from ovpipe.loader.schema import schema as make_schema
from ovpipe.stages.registry import BUILT_IN, is_own, kinds


@click.command(
    epilog=examples(
        ("ovpipe validate yard.yaml", "everything that is wrong, with line and column"),
        ("ovpipe validate yard.yaml --set stages.cam.fps=5", "with another value"),
        ("ovpipe validate - < yard.yaml", "from stdin"),
    )
)
@takes_source
def validate(source: Source) -> None:
    """Say everything that is wrong with CONFIG, with file, line and column."""
    graph = source.graph()
    counts = f"{len(graph.stages)} stages, {len(graph.edges)} edges, {len(graph.streams)} streams"
    click.echo(f"{source.config}: ok: {counts}")


@click.command(
    epilog=examples(
        ("ovpipe graph yard.yaml", "lines for the terminal"),
        ("ovpipe graph yard.yaml --format svg -o yard.svg", "a picture"),
        ("ovpipe graph yard.yaml --format mermaid", "for a README"),
    )
)
@takes_source
@click.option(
    "--format", "format_", type=click.Choice(["text", "mermaid", "svg"]), default="text",
    show_default=True,
)  # fmt: skip
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write to a file instead.")
def graph(source: Source, format_: str, output: str | None) -> None:
    """Draw the graph of CONFIG: as text, for Mermaid, or as an SVG picture."""
    draw = {"text": drawing.as_text, "mermaid": drawing.as_mermaid, "svg": drawing.as_svg}
    text = draw[format_](source.graph())
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        Path(output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{output}: cannot be written: {error.strerror}") from None


@click.command(
    epilog=examples(
        ("ovpipe schema > schema.json", "then: # yaml-language-server: $schema=schema.json"),
        ("ovpipe schema yard.yaml > schema.json", "with stages of your own"),
    )
)
@click.argument(
    "config",
    required=False,
    type=click.Path(dir_okay=False, allow_dash=True),
    shell_complete=complete.configs,
)
def schema(config: str | None) -> None:
    """Print the JSON schema of configurations, for editors.

    With CONFIG, the kinds of your own that it uses and those of installed packages are in it, too.
    """
    more: dict[str, dict[str, Any]] = {}
    if config is not None:
        spec = load(config, os.environ)
        names = [s.kind for s in spec.stages if is_own(s.kind)] + kinds()[len(BUILT_IN) :]
        for name, told in cards(list(dict.fromkeys(names)), spec.folder).items():
            if told.fault:
                click.echo(f"warning: {told.fault}", err=True)
            else:
                more[name] = told.card
    click.echo(json.dumps(make_schema(more), indent=2, ensure_ascii=False))
