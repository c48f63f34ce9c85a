"""YAML -> spec, with all that is wrong in it, each with file, line and column.

tree          text -> values with places; the only file that knows yaml
interpolate   ${VAR}
options       the options of a class: checked and described; the only file with pydantic
kinds         which class a kind is; a user's own are looked at in a child process
validate      tree -> spec
schema        the JSON schema of it all, for editors
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ovpipe.errors import ConfigError
from ovpipe.loader import tree
from ovpipe.loader.tree import Node
from ovpipe.loader.validate import Validator
from ovpipe.spec import PipelineSpec, Place, StageSpec

__all__ = ["load", "loads", "stage_spec"]


def load(path: str | Path, environ: Mapping[str, str]) -> PipelineSpec:
    """The spec in a YAML file (`-`: stdin). `environ`: what `${VAR}` refers to.

    Raises ConfigError with every problem found.
    """
    text = tree.read(path)
    standard_in = str(path) == "-"
    folder = Path() if standard_in else Path(path).parent
    name = "pipeline" if standard_in else Path(path).stem
    return loads(text, folder=folder, file=str(path), name=name, environ=environ)


def loads(
    text: str, *, folder: Path, environ: Mapping[str, str], file: str = "", name: str = "pipeline"
) -> PipelineSpec:
    """The spec in a YAML text; `folder` is where modules of the user's own are looked up."""
    root = tree.parse(text, file)
    return Validator(environ, folder.absolute(), file).pipeline(root, name)


def stage_spec(
    name: str,
    kind: str,
    options: Mapping[str, Any],
    *,
    inputs: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] | None = None,
    for_each: Mapping[str, Mapping[str, Any]] | None = None,
    folder: Path,
) -> StageSpec:
    """One stage from Python values, checked as YAML is. Raises ConfigError."""
    stage: dict[str, Any] = {"kind": kind, **options}
    if inputs is not None:
        stage["inputs"] = inputs
    if for_each is not None:
        stage["for_each"] = for_each
    root = _node({"version": 1, "stages": {name: stage}})
    spec = Validator({}, folder.absolute(), "").pipeline(root, "pipeline")
    if len(spec.stages) != 1:
        raise ConfigError(f"stage '{name}' is switched off")
    return spec.stages[0]


def _node(value: Any) -> Node:
    """Python values as a tree without places; `$` is an ordinary character in them."""
    if isinstance(value, Mapping):
        keys = {str(key): Place() for key in value}
        return Node({str(k): _node(v) for k, v in value.items()}, Place(), keys=keys)
    if isinstance(value, list | tuple):
        return Node([_node(v) for v in value], Place())
    return Node(str(value) if isinstance(value, Path) else value, Place())
