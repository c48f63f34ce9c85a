"""The kinds of stage: a name in YAML -> the class behind it.

Built-in kinds are named here by string, so that nothing is imported before it is used.
`module:Name` is a user's own class or function; an installed package may give its own a name
(plugins.py), but none that ovpipe has itself. A plain function is a transform whose further
parameters are its options.
"""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable
from dataclasses import MISSING, field
from functools import partial
from typing import Any, get_type_hints

from ovpipe.errors import ConfigError
from ovpipe.frame import Frame
from ovpipe.stages import plugins
from ovpipe.stages.base import Result, Stage, Transform

BUILT_IN: dict[str, str] = {
    "video": "ovpipe.stages.video:Video",
    "pipe": "ovpipe.stages.pipe:Pipe",
    "app": "ovpipe.stages.app:App",
    "zmq-in": "ovpipe.stages.zmq_in:ZmqIn",
    "synthetic": "ovpipe.stages.synthetic:Synthetic",
    "infer": "ovpipe.stages.infer:Infer",
    "annotate": "ovpipe.stages.annotate:Annotate",
    "jsonl": "ovpipe.stages.jsonl:Jsonl",
    "csv": "ovpipe.stages.csv:Csv",
    "sqlite": "ovpipe.stages.sqlite:Sqlite",
    "images": "ovpipe.stages.images:Images",
    "video-writer": "ovpipe.stages.video_writer:VideoWriter",
    "webhook": "ovpipe.stages.webhook:Webhook",
    "mqtt": "ovpipe.stages.mqtt:Mqtt",
    "kafka": "ovpipe.stages.kafka:Kafka",
    "redis": "ovpipe.stages.redis:Redis",
    "join": "ovpipe.stages.join:Join",
    "zmq-out": "ovpipe.stages.zmq_out:ZmqOut",
    "log": "ovpipe.stages.log:Log",
}


def is_own(kind: str) -> bool:
    """True where `kind` names code that is not ovpipe's, which must not be imported lightly."""
    return ":" in kind or (kind not in BUILT_IN and bool(plugins.named(plugins.STAGES, kind)))


def kinds() -> list[str]:
    """The names of all kinds that there are, those of installed packages last."""
    more = dict.fromkeys(p.name for p in plugins.plugins(plugins.STAGES))
    return [*BUILT_IN, *(name for name in more if name not in BUILT_IN)]


def shadowed() -> list[str]:
    """What is to be said of installed packages whose kinds nobody can name."""
    return [
        f"the package '{p.package}' has a kind '{p.name}', which is ovpipe's own: "
        f"to use that package's, write '{p.where}'"
        for p in plugins.plugins(plugins.STAGES)
        if p.name in BUILT_IN
    ]


def whose(kind: str) -> str:
    """`kind 'crowd'` for messages, with the package that it is of, if it is of one."""
    found = () if ":" in kind or kind in BUILT_IN else plugins.named(plugins.STAGES, kind)
    return f"kind '{kind}'" + (f" of the package '{found[0].package}'" if found else "")


def where_is(kind: str) -> str:
    """`module:Name` of a kind. Raises ConfigError where there is none, or more than one."""
    if ":" in kind or kind in BUILT_IN:
        return BUILT_IN.get(kind, kind)
    found = plugins.named(plugins.STAGES, kind)
    if len(found) > 1:
        raise ConfigError(f"kind '{kind}' {plugins.several(found)}")
    return found[0].where if found else ""


def stage_class(kind: str) -> type[Stage]:
    """The class of a kind; imports it. Raises ConfigError with a way out."""
    module_name, _, name = where_is(kind).partition(":")
    if not module_name or not name:
        raise ConfigError(f"unknown kind '{kind}'; a stage of your own is 'module:Name'")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"{whose(kind)}: cannot import '{module_name}': {error}") from error
    try:
        thing = getattr(module, name)
    except AttributeError:
        raise ConfigError(f"{whose(kind)}: module '{module_name}' has no '{name}'") from None
    if inspect.isclass(thing) and issubclass(thing, Stage):
        return thing
    if inspect.isfunction(thing):
        return function_stage(thing)
    raise ConfigError(f"{whose(kind)} is neither a Producer, Transform or Consumer nor a function")


def function_stage(function: Callable[..., Result]) -> type[Transform]:
    """A Transform around `function(frame, ...)`; its further parameters become options."""
    frame, *parameters = inspect.signature(function).parameters.values() or (None,)
    if frame is None or any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        raise ConfigError(
            f"function '{function.__name__}' must take a frame, and then named options"
        )
    hints = get_type_hints(function, include_extras=True)
    body: dict[str, Any] = {"__annotations__": {p.name: hints.get(p.name, Any) for p in parameters}}
    for p in parameters:
        if p.default is not inspect.Parameter.empty:
            mutable = isinstance(p.default, list | dict | set)
            body[p.name] = (
                field(default_factory=partial(copy.copy, p.default)) if mutable else p.default
            )
        else:
            body[p.name] = field(default=MISSING)

    def process(self: Transform, frame: Frame) -> Result:
        return function(frame, **{p.name: getattr(self, p.name) for p in parameters})

    body["process"] = process
    body["__doc__"] = function.__doc__
    body["__module__"] = function.__module__
    return type(function.__name__, (Transform,), body)
