"""What was written: frozen values, without defaults that depend on anything else.

A spec is what YAML or Python said, checked field by field; `graph` resolves it (defaults by
liveness, edges, order). No I/O and no import of anything but the standard library, since
workers import this module too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

WhenFull = Literal["block", "drop_oldest", "drop_newest"]

WhenRestart = Literal["always", "on-failure", "never"]

Placement = Literal["process", "inline"]

DEFAULT_DEPTH = 4
START_TIMEOUT_S = 30.0
INFER_START_TIMEOUT_S = 120.0
STALL_TIMEOUT_S = 5.0
LIVE_SOURCE_AGE_S = 1.0
"""Straight behind a live source a frame that is older is not worth the work that is to come."""
LIVE_AGE_S = 5.0
"""Further down, where the work on it is done, and a slow model's own time counts."""
INFER_STALL_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Place:
    """Where in the text a value stands; line and column count from 1."""

    file: str = ""
    line: int = 0
    column: int = 0


@dataclass(frozen=True)
class InputSpec:
    """One `inputs:` entry. None means: resolved by the graph from the sources' liveness.

    `max_age_s`: infinity where there is to be no limit.
    """

    source: str
    depth: int | None = None
    when_full: WhenFull | None = None
    max_age_s: float | None = None
    place: Place = field(default=Place(), compare=False)


@dataclass(frozen=True)
class RunSpec:
    """How a stage's worker is run. None: the default, which may depend on the kind.

    A worker that dies is restarted (`always`: a producer also when its frames have ended), at
    most `max_restarts` times `within_s`; `stall_timeout_s`: how long it may work on one frame.
    `replicas`: workers that share the stage's frames. `placement`: in a process of its own, or
    `inline` in that of the stage it reads.
    """

    start_timeout_s: float | None = None
    restart: WhenRestart = "on-failure"
    max_restarts: int = 5
    within_s: float = 60.0
    stall_timeout_s: float | None = None
    replicas: int = 1
    placement: Placement = "process"


@dataclass(frozen=True)
class StageSpec:
    """One stage as written. `options` are already validated values of the stage's own options.

    `role` and `live` are facts about the kind with these options: a `live` producer makes
    frames whether or not anybody takes them; `one_process`: it cannot have replicas;
    `overlaps`: it works on several frames at a time. `for_each` maps a stream's short name to
    the options of its own; `inputs` is None where nothing was written.
    """

    name: str
    kind: str
    role: Literal["producer", "transform", "consumer"]
    live: bool = False
    one_process: bool = False
    overlaps: bool = False
    inputs: tuple[InputSpec, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    for_each: Mapping[str, Mapping[str, Any]] | None = None
    run: RunSpec = RunSpec()
    description: str = ""
    place: Place = Place()


@dataclass(frozen=True)
class HttpSpec:
    """Where the page of a run listens. `token`: what a visitor must know, "" for nothing.

    `hosts`: names, beside those of this machine, under which visitors may ask for it.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    token: str = field(default="", repr=False)
    hosts: tuple[str, ...] = ()


def address(host: str, port: int) -> str:
    """As people write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True)
class PipelineSpec:
    """A whole configuration. `folder` is where user modules are looked up."""

    name: str
    stages: tuple[StageSpec, ...]
    folder: Path
    file: str = ""
    http: HttpSpec | None = None
