"""YAML -> spec, with all that is wrong in it, each with file, line and column.

tree          text -> values with places; the only file that knows yaml
interpolate   ${VAR}
options       the options of a class: checked and described; the only file with pydantic
kinds         which class a kind is; a user's own are looked at in a child process
describe      that child process
reading       a tree being read: problems noted, variables replaced, secrets kept
overrides     `--set` of the command line
card          what people and editors are told of a kind
secrets       which values are secrets, and what is shown instead
writing       values -> YAML
written       a pipeline -> YAML, as it was written
operation     `inputs:` and `run:`
http          `http:`, the page of a run
validate      tree -> spec
schema        the JSON schema of it all, for editors
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ovpipe.errors import ConfigError, Problem
from ovpipe.loader import tree
from ovpipe.loader.kinds import STAGE_KEYS
from ovpipe.loader.overrides import override
from ovpipe.loader.tree import Node
from ovpipe.loader.validate import Validator
from ovpipe.spec import PipelineSpec, Place, StageSpec

__all__ = ["load", "loads", "spec_of", "stage_spec", "tree_of"]


def load(
    path: str | Path, environ: Mapping[str, str], overrides: Sequence[str] = ()
) -> PipelineSpec:
    """The spec in a YAML file (`-`: stdin). `environ`: what `${VAR}` refers to.

    `overrides`: assignments such as `stages.cam.url=clip.mp4` (overrides.py).

    Raises ConfigError with every problem found.
    """
    return spec_of(tree_of(path, overrides), path, environ)


def tree_of(path: str | Path, overrides: Sequence[str] = ()) -> Node:
    """What stands in a YAML file, with what is assigned. Raises ConfigError."""
    return override(tree.parse(tree.read(path), str(path)), overrides)


def spec_of(root: Node, path: str | Path, environ: Mapping[str, str]) -> PipelineSpec:
    """The spec of what stands in the file `path`. Raises ConfigError."""
    standard_in = str(path) == "-"
    folder = Path() if standard_in else Path(path).parent
    name = "pipeline" if standard_in else Path(path).stem
    return Validator(environ, folder.absolute(), str(path)).pipeline(root, name)


def loads(
    text: str,
    *,
    folder: Path,
    environ: Mapping[str, str],
    file: str = "",
    name: str = "pipeline",
    overrides: Sequence[str] = (),
) -> PipelineSpec:
    """The spec in a YAML text; `folder` is where modules of the user's own are looked up."""
    root = override(tree.parse(text, file), overrides)
    return Validator(environ, folder.absolute(), file).pipeline(root, name)


def stage_spec(
    name: str,
    kind: str,
    options: Mapping[str, Any],
    *,
    inputs: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] | None = None,
    for_each: Mapping[str, Mapping[str, Any]] | None = None,
    run: Mapping[str, Any] | None = None,
    description: str = "",
    folder: Path,
) -> StageSpec:
    """One stage from Python values, checked as YAML is. Raises ConfigError."""
    path = f"stages.{name}"
    clash = [key for key in options if key in STAGE_KEYS]
    if clash:
        hint = "options are those of the kind; the words of every stage are arguments"
        raise ConfigError([Problem(f"'{clash[0]}' is no option", path, hint=hint)])
    stage: dict[str, Any] = {"kind": kind, **options}
    if inputs is not None:
        stage["inputs"] = inputs
    if for_each is not None:
        stage["for_each"] = for_each
    if run is not None:
        stage["run"] = run
    stage["description"] = description
    return Validator({}, folder.absolute(), "").stage(name, _node(stage, path))


def _node(value: Any, path: str) -> Node:
    """Python values as a tree without places; `$` is an ordinary character in them."""
    if path.count(".") + path.count("[") > tree.MAX_DEPTH:
        raise ConfigError([Problem(f"nested deeper than {tree.MAX_DEPTH} levels", path)])
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str | int) or isinstance(key, bool):
                raise ConfigError([Problem(f"the key {key!r} is no text", path)])
        entries = {str(k): _node(v, f"{path}.{k}") for k, v in value.items()}
        return Node(entries, Place(), keys=dict.fromkeys(entries, Place()))
    if isinstance(value, list | tuple):
        return Node([_node(v, f"{path}[{i}]") for i, v in enumerate(value)], Place())
    if isinstance(value, Path):
        return Node(str(value), Place())
    if value is None or isinstance(value, str | int | float):
        return Node(value, Place())
    message = f"a value of type {type(value).__name__} cannot be an option"
    hint = "a stage gets its options in another process: numbers, text, lists and mappings"
    raise ConfigError([Problem(message, path, hint=hint)])
