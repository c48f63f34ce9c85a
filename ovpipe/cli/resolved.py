"""`ovpipe config`: what a configuration comes to, as one with nothing left to be filled in."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from typing import Any

import click

from ovpipe.cli.examples import examples
from ovpipe.cli.source import Source, takes_source
from ovpipe.cli.status import say
from ovpipe.graph import Graph, resolve
from ovpipe.loader import spec_of
from ovpipe.loader.kinds import cards
from ovpipe.loader.secrets import Masker
from ovpipe.loader.tree import Node
from ovpipe.loader.writing import dump, escaped
from ovpipe.spec import HttpSpec, PipelineSpec, StageSpec, address
from ovpipe.supervisor.launch import make_plan


@click.command(
    epilog=examples(
        ("ovpipe config yard.yaml --env-file .env", "what is filled in where"),
        ("ovpipe config yard.yaml --set stages.cam.fps=5 > slow.yaml", "a variant of its own"),
        ("ovpipe config yard.yaml --json | jq .stages.cam", "for programs"),
    )
)
@takes_source
@click.option("--json", "json_", is_flag=True, help="As JSON, which `ovpipe run -` reads, too.")
def config(source: Source, json_: bool) -> None:
    """Print what CONFIG comes to: variables and `--set` filled in, all defaults written out.

    It is a configuration itself. Secrets are masked: values of options and variables that are
    called password, token, secret, api_key and the like, names and passwords in URLs. Where one
    came from a variable, the variable stands there; otherwise `***`.
    """
    environ = source.environ()
    root = source.tree()
    spec = spec_of(root, source.config, environ)
    values = resolved(spec, resolve(spec), root, Masker(environ))
    if json_:
        say(sys.stdout, json.dumps(escaped(values), indent=2, ensure_ascii=False))
    else:
        click.echo(dump(escaped(values)), nl=False)


def resolved(spec: PipelineSpec, graph: Graph, root: Node, masker: Masker) -> dict[str, Any]:
    """The values of a configuration that resolves to `graph`, its secrets masked."""
    told = cards(list(dict.fromkeys(stage.kind for stage in spec.stages)), spec.folder)
    defaults = {
        kind: {o["name"]: o["default"] for o in answer.card["options"] if not o["required"]}
        for kind, answer in told.items()
    }
    written = root.value["stages"].value
    stages = {}
    for stage in spec.stages:
        entry: dict[str, Any] = {"kind": stage.kind}
        if stage.description:
            entry["description"] = stage.description
        inputs = _inputs(graph, stage.name)
        if inputs:
            entry["inputs"] = inputs[0] if len(inputs) == 1 else inputs
        entry.update(_options(stage, defaults[stage.kind], written[stage.name], masker))
        entry["run"] = _run(stage, graph)
        stages[stage.name] = entry
    head: dict[str, Any] = {"version": 1, "name": spec.name}
    if spec.http is not None:
        head["http"] = _http(spec.http, root.value["http"], masker)
    return {**head, "stages": stages}


def _http(http: HttpSpec, written: Node, masker: Masker) -> dict[str, Any]:
    entry: dict[str, Any] = {"listen": address(http.host, http.port)}
    if http.token:
        entry["token"] = masker.shown("token", http.token, written.value["token"])
    return {**entry, "hosts": list(http.hosts)} if http.hosts else entry


def _inputs(graph: Graph, stage: str) -> list[dict[str, Any]]:
    found = []
    for edge in (edge for edge in graph.edges if edge.target == stage):
        age = "none" if edge.max_age_s is None else edge.max_age_s
        entry = {"from": edge.source, "depth": edge.depth, "when_full": edge.when_full}
        found.append({**entry, "max_age": age})
    return found


def _options(
    stage: StageSpec, defaults: dict[str, Any], written: Node, masker: Masker
) -> dict[str, Any]:
    """The options; those of a `for_each` that are alike in all streams stand above it."""

    def shown(name: str, values: Any, node: Node | None) -> Any:
        value = values[name] if name in values else defaults[name]
        return masker.shown(name, value, node)

    nodes = written.value
    if stage.for_each is None:
        names = dict.fromkeys([*stage.options, *defaults])
        return {name: shown(name, stage.options, nodes.get(name)) for name in names}
    streams = {k: n.value or {} for k, n in nodes["for_each"].value.items()}
    own = {name for inner in streams.values() for name in inner}
    names = dict.fromkeys([*(n for v in stage.for_each.values() for n in v), *defaults])
    first = next(iter(stage.for_each.values()))
    common = {n: shown(n, first, nodes.get(n)) for n in names if n not in own}
    each = {
        key: {
            n: shown(n, values, streams[key].get(n) or nodes.get(n))
            for n in names
            if n in own and (n in values or n in defaults)
        }
        for key, values in stage.for_each.items()
    }
    return {**common, "for_each": each}


def _run(stage: StageSpec, graph: Graph) -> dict[str, Any]:
    """All that stands under `run`, times in seconds."""
    worker = next(w for w in make_plan(graph).workers if w.stage == stage.name)
    known = {"start_timeout": worker.start_timeout_s, "stall_timeout": worker.stall_timeout_s}
    values = {}
    for field in dataclasses.fields(stage.run):
        name = field.name.removesuffix("_s")
        value = known.get(name, getattr(stage.run, field.name))
        if value is not None and not (isinstance(value, float) and math.isinf(value)):
            values[name] = list(value) if isinstance(value, tuple) else value
    return values
