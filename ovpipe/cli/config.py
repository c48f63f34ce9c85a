"""Commands that look at a configuration and start nothing: validate, graph, schema, stages."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ovpipe import drawing
from ovpipe.cli.source import Source, takes_source
from ovpipe.errors import ConfigError
from ovpipe.loader.options import model_of, near
from ovpipe.loader.schema import schema as make_schema
from ovpipe.stages.registry import BUILT_IN, stage_class


@click.command()
@takes_source
def validate(source: Source) -> None:
    """Say everything that is wrong with CONFIG, with file, line and column."""
    graph = source.graph()
    counts = f"{len(graph.stages)} stages, {len(graph.edges)} edges, {len(graph.streams)} streams"
    click.echo(f"{source.config}: ok: {counts}")


@click.command()
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


@click.command()
def schema() -> None:
    """Print the JSON schema of configurations, for editors."""
    click.echo(json.dumps(make_schema(), indent=2, ensure_ascii=False))


@click.command()
@click.argument("kind", required=False)
def stages(kind: str | None) -> None:
    """List the kinds of stage, or the options of KIND."""
    if kind is None:
        for name in BUILT_IN:
            click.echo(f"{name:14} {_summary(name)}")
        return
    if kind not in BUILT_IN:
        raise ConfigError(f"unknown kind '{kind}'; {near(kind, list(BUILT_IN))}")
    click.echo(f"{kind}: {_summary(kind)}\n")
    for name, field in model_of(stage_class(kind)).model_fields.items():
        default = (
            "required"
            if field.is_required()
            else repr(field.get_default(call_default_factory=True))
        )
        click.echo(f"  {name:14} {default:16} {field.description or ''}")


def _summary(kind: str) -> str:
    return (stage_class(kind).__doc__ or "").strip().partition("\n")[0]
