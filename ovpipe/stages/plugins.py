"""Kinds of stage, and decoders, that installed packages bring: entry points, by name.

    [project.entry-points."ovpipe.stages"]
    crowd = "crowd_package.stages:Crowd"

Law: looking imports nothing of theirs, and happens only when a name is asked for that ovpipe has
not itself. A package whose metadata cannot be read hides no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

STAGES = "ovpipe.stages"
DECODERS = "ovpipe.decoders"


@dataclass(frozen=True)
class Plugin:
    """A name that a package brings: `where` is `module:Name`, `package` its name and version."""

    name: str
    where: str
    package: str


@cache
def plugins(group: str) -> tuple[Plugin, ...]:
    """All of a group, in the order of their names."""
    from importlib import metadata  # it costs more than many a stage

    seen: set[str] = set()
    result = []
    for distribution in metadata.distributions():
        try:
            name, version = distribution.metadata["Name"], distribution.version
            if name.lower().replace("_", "-") in seen:
                continue  # further back on the path: Python does not see that one either
            seen.add(name.lower().replace("_", "-"))
            points = [p for p in distribution.entry_points if p.group == group]
        except Exception:  # noqa: BLE001, S112 - whatever is wrong with it is not ours to tell
            continue
        result += [Plugin(p.name, p.value.replace(" ", ""), f"{name} {version}") for p in points]
    return tuple(sorted(result, key=lambda plugin: (plugin.name, plugin.package)))


def named(group: str, name: str) -> tuple[Plugin, ...]:
    """Those of that name: none, one, or several that cannot be told apart by it."""
    return tuple(plugin for plugin in plugins(group) if plugin.name == name)


def several(of: tuple[Plugin, ...]) -> str:
    """What is wrong with more than one of a name, and what to do."""
    packages = ", ".join(f"'{plugin.package}'" for plugin in of)
    return f"is in several packages: {packages}; name the one you mean: '{of[0].where}'"
