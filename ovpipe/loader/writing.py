"""Values -> YAML text that `tree.parse` reads as the same values."""

from __future__ import annotations

from typing import Any

import yaml

from ovpipe.loader.secrets import Expression
from ovpipe.loader.tree import Node, scalar


class _Dumper(yaml.SafeDumper):
    """Without anchors; texts that YAML 1.2 takes for something else are quoted."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal values twice."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if scalar(text) == text and isinstance(scalar(text), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def dump(value: Any) -> str:
    """YAML of plain values."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def escaped(value: Any) -> Any:
    """Values as they are to be written: a dollar sign is one, but where it means a variable."""
    if isinstance(value, dict):
        return {k: escaped(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [escaped(v) for v in value]
    if isinstance(value, Expression):
        return str(value)
    return value.replace("$", "$$") if isinstance(value, str) else value


class _Plain(str):
    """A text that was written without quotes: a variable in it may give a number."""


class _Quoted(str):
    """A text that was written in quotes."""


_Dumper.add_representer(
    _Plain, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text)
)
_Dumper.add_representer(
    _Quoted, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'")
)


def as_written(node: Node) -> Any:
    """A tree as values to be dumped, its variables as they stand in it; comments are lost."""
    if isinstance(node.value, dict):
        return {key: as_written(inner) for key, inner in node.value.items()}
    if isinstance(node.value, list):
        return [as_written(inner) for inner in node.value]
    if isinstance(node.value, str) and "$" in node.value:
        return _Plain(node.value) if node.plain else _Quoted(node.value)
    return node.value
