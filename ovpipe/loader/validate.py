"""Tree -> spec: every problem found, each with its place, its path and a way out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from ovpipe.errors import ConfigError, Problem
from ovpipe.loader.interpolate import InterpolationError, interpolate
from ovpipe.loader.kinds import Answer, Question, answers
from ovpipe.loader.options import UNKNOWN_KEY, duration, near
from ovpipe.loader.tree import Node, scalar
from ovpipe.spec import InputSpec, PipelineSpec, Place, RunSpec, StageSpec, WhenFull

TOP_KEYS = ("version", "name", "stages")
STAGE_KEYS = ("kind", "inputs", "for_each", "run", "enabled", "description")
INPUT_KEYS = ("from", "depth", "when_full", "max_age")
RUN_KEYS = ("start_timeout",)
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
PIPELINE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
MAX_DEPTH_OF_EDGE = 64


@dataclass
class _Draft:
    """A stage on its way: checked but for its options."""

    name: str
    node: Node
    kind: str
    options: dict[str, Node]
    for_each: dict[str, dict[str, Node]] | None = None
    inputs: tuple[InputSpec, ...] | None = None
    run: RunSpec = field(default_factory=RunSpec)
    description: str = ""


class Validator:
    """Turns one tree into a spec; collects problems instead of stopping at the first."""

    def __init__(self, environ: Mapping[str, str], folder: Path, file: str) -> None:
        self.problems: list[Problem] = []
        self._environ = environ
        self._folder = folder
        self._file = file

    # -- telling -------------------------------------------------------------------------

    def tell(self, where: Node | Place, path: str, message: str, hint: str = "") -> None:
        """Note a problem."""
        p = where.place if isinstance(where, Node) else where
        self.problems.append(Problem(message, path, p.file, p.line, p.column, hint))

    def plain(self, node: Node, path: str) -> Any:
        """The node as ordinary values, its variables replaced."""
        if isinstance(node.value, dict):
            return {k: self.plain(v, f"{path}.{k}") for k, v in node.value.items()}
        if isinstance(node.value, list):
            return [self.plain(v, f"{path}[{i}]") for i, v in enumerate(node.value)]
        if not isinstance(node.value, str) or "$" not in node.text:
            return node.value
        try:
            text = interpolate(node.text, self._environ)
        except InterpolationError as error:
            self.tell(node, path, str(error))
            return None
        return scalar(text) if node.plain else text

    def mapping(self, node: Node, path: str, what: str) -> dict[str, Node]:
        """The node's entries, or none and a problem."""
        if isinstance(node.value, dict):
            return node.value
        self.tell(node, path, f"must be a mapping: {what}")
        return {}

    def keys(self, node: Node, path: str, known: tuple[str, ...]) -> None:
        """Tell keys that are not known."""
        for key, place in (node.keys or {}).items():
            if key not in known and not key.startswith("x-"):
                self.tell(place, f"{path}.{key}" if path else key, UNKNOWN_KEY, near(key, [*known]))

    # -- the whole -----------------------------------------------------------------------

    def pipeline(self, root: Node, default_name: str) -> PipelineSpec:
        """The spec. Raises ConfigError with everything found."""
        top = self.mapping(root, "", "version, name, stages")
        if top:
            self.keys(root, "", TOP_KEYS)
        self._version(root, top)
        name = self._name(top, default_name)
        drafts: list[_Draft] = []
        off: dict[str, Node] = {}
        if "stages" not in top and isinstance(root.value, dict):
            self.tell(root, "stages", "is required")
        elif "stages" in top:
            stages = self.mapping(top["stages"], "stages", "a name for each stage")
            for key, node in stages.items():
                self._draft(key, node, top["stages"].keys or {}, drafts, off)
        self._references(drafts, off)
        specs = self._finish(drafts)
        if self.problems:
            raise ConfigError(sorted(self.problems, key=lambda p: (p.line, p.column)))
        return PipelineSpec(name, tuple(specs), self._folder, self._file)

    def _version(self, root: Node, top: Mapping[str, Node]) -> None:
        if "version" not in top:
            if isinstance(root.value, dict):
                self.tell(root, "version", "is required", "write: version: 1")
        elif self.plain(top["version"], "version") != 1:
            self.tell(top["version"], "version", "must be 1")

    def _name(self, top: Mapping[str, Node], default: str) -> str:
        if "name" not in top:
            return re.sub(r"[^A-Za-z0-9_.-]", "-", default)[:64] or "pipeline"
        name = self.plain(top["name"], "name")
        if not isinstance(name, str) or not PIPELINE_NAME.fullmatch(name):
            self.tell(top["name"], "name", "must be 1 to 64 letters, digits, '_', '.' or '-'")
        return str(name)

    # -- one stage -----------------------------------------------------------------------

    def _draft(
        self, name: str, node: Node, places: Mapping[str, Place], drafts: list[_Draft],
        off: dict[str, Node],
    ) -> None:  # fmt: skip
        path = f"stages.{name}"
        if not NAME.fullmatch(name):
            self.tell(places[name], path, "a stage's name is 1 to 64 letters, digits, '_' or '-'")
        entries = self.mapping(node, path, "kind and options")
        if not isinstance(node.value, dict):
            return
        enabled = (
            self.plain(entries["enabled"], f"{path}.enabled") if "enabled" in entries else True
        )
        if not isinstance(enabled, bool):
            self.tell(entries["enabled"], f"{path}.enabled", "must be true or false")
        elif not enabled:
            off[name] = node
            return
        kind = self.plain(entries["kind"], f"{path}.kind") if "kind" in entries else None
        if "kind" not in entries:
            self.tell(places[name], f"{path}.kind", "is required")
        elif not isinstance(kind, str) or not kind:
            self.tell(entries["kind"], f"{path}.kind", "must be the name of a kind")
            kind = None
        options = {k: v for k, v in entries.items() if k not in STAGE_KEYS}
        draft = _Draft(name, node, kind or "", options)
        if "description" in entries:
            draft.description = str(self.plain(entries["description"], f"{path}.description"))
        if "inputs" in entries:
            draft.inputs = self._inputs(entries["inputs"], f"{path}.inputs")
        if "run" in entries:
            draft.run = self._run(entries["run"], f"{path}.run")
        if "for_each" in entries:
            draft.for_each = self._for_each(entries["for_each"], f"{path}.for_each")
        drafts.append(draft)

    def _inputs(self, node: Node, path: str) -> tuple[InputSpec, ...]:
        items = node.value if isinstance(node.value, list) else [node]
        result = []
        for i, item in enumerate(items):
            where = f"{path}[{i}]" if isinstance(node.value, list) else path
            if isinstance(item.value, dict):
                found = self._input(item, where)
                if found is not None:
                    result.append(found)
            else:
                source = self.plain(item, where)
                if isinstance(source, str):
                    result.append(InputSpec(source))
                else:
                    self.tell(item, where, "must be the name of a stage, or {from: name, ...}")
        return tuple(result)

    def _input(self, node: Node, path: str) -> InputSpec | None:
        self.keys(node, path, INPUT_KEYS)
        values = {k: self.plain(v, f"{path}.{k}") for k, v in node.value.items()}

        def wrong(key: str, message: str) -> None:
            self.tell(node.value[key], f"{path}.{key}", message)

        source, depth = values.get("from"), values.get("depth")
        when_full, max_age = values.get("when_full"), None
        if "from" not in values:
            self.tell(node, f"{path}.from", "is required: the name of a stage")
            return None
        if not isinstance(source, str):
            wrong("from", "must be the name of a stage")
            return None
        if "depth" in values and (type(depth) is not int or not 1 <= depth <= MAX_DEPTH_OF_EDGE):
            wrong("depth", f"must be a whole number from 1 to {MAX_DEPTH_OF_EDGE}")
            depth = None
        policies = get_args(WhenFull)
        if "when_full" in values and when_full not in policies:
            place = node.value["when_full"]
            hint = near(str(when_full), [*policies], "")
            self.tell(place, f"{path}.when_full", f"must be one of {', '.join(policies)}", hint)
            when_full = None
        if "max_age" in values:
            max_age = self._duration(node.value["max_age"], f"{path}.max_age")
        return InputSpec(source, depth, cast(WhenFull | None, when_full), max_age)

    def _duration(self, node: Node, path: str) -> float | None:
        try:
            value = duration(self.plain(node, path))
        except ValueError as error:
            self.tell(node, path, str(error))
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
            self.tell(node, path, "must be a duration greater than 0, as 500ms or 5s")
            return None
        return float(value)

    def _run(self, node: Node, path: str) -> RunSpec:
        entries = self.mapping(node, path, ", ".join(RUN_KEYS))
        self.keys(node, path, RUN_KEYS)
        if "start_timeout" not in entries:
            return RunSpec()
        return RunSpec(self._duration(entries["start_timeout"], f"{path}.start_timeout"))

    def _for_each(self, node: Node, path: str) -> dict[str, dict[str, Node]]:
        entries = self.mapping(node, path, "a name for each stream")
        if isinstance(node.value, dict) and not entries:
            self.tell(node, path, "names no stream")
        result = {}
        for key, value in entries.items():
            if not NAME.fullmatch(key):
                message = "a stream's name is 1 to 64 letters, digits, '_' or '-'"
                self.tell((node.keys or {})[key], f"{path}.{key}", message)
            empty = value.value is None
            own = {} if empty else self.mapping(value, f"{path}.{key}", "options of the stream")
            result[key] = own
        return result

    # -- between stages ------------------------------------------------------------------

    def _references(self, drafts: list[_Draft], off: Mapping[str, Node]) -> None:
        """References to stages that are switched off; the rest is the graph's to say."""
        for draft in drafts:
            for entry in draft.inputs or ():
                if entry.source in off:
                    node = draft.node.value["inputs"]
                    path = f"stages.{draft.name}.inputs"
                    self.tell(
                        node, path, f"stage '{entry.source}' is switched off (enabled: false)"
                    )

    def _finish(self, drafts: list[_Draft]) -> list[StageSpec]:
        """Check all options, those of one's own kinds in one go."""
        sets = [self._sets(draft) for draft in drafts]
        asked = [
            (draft, options, Question(draft.kind, tuple(plain for _, plain in options)))
            for draft, options in zip(drafts, sets, strict=True)
            if draft.kind
        ]
        found = answers([question for _, _, question in asked], self._folder)
        return [
            spec
            for (draft, options, _), told in zip(asked, found, strict=True)
            if (spec := self._stage(draft, options, told)) is not None
        ]

    def _sets(self, draft: _Draft) -> list[tuple[str, dict[str, Any]]]:
        """The options, once per stream of a for_each: (path, plain values)."""
        path = f"stages.{draft.name}"
        shared = {k: self.plain(v, f"{path}.{k}") for k, v in draft.options.items()}
        if draft.for_each is None:
            return [(path, shared)]
        result = []
        for key, own in draft.for_each.items():
            where = f"{path}.for_each.{key}"
            values = {k: self.plain(v, f"{where}.{k}") for k, v in own.items()}
            result.append((where, {**shared, **values}))
        return result

    def _stage(
        self, draft: _Draft, sets: list[tuple[str, dict[str, Any]]], told: Answer
    ) -> StageSpec | None:
        path = f"stages.{draft.name}"
        kind = draft.node.value["kind"]
        if told.fault:
            self.tell(kind, f"{path}.kind", told.fault)
            return None
        for what in told.missing:
            self.tell(kind, path, f"kind '{draft.kind}' {what}")
        seen: set[tuple[str, ...]] = set()
        for (where, _), (_, faults), stream in zip(
            sets, told.checked, draft.for_each or [""], strict=True
        ):
            for fault in faults:
                node, full = self._where(
                    draft, stream, where, fault.path, fault.message == UNKNOWN_KEY
                )
                if (full, fault.message) not in seen:
                    seen.add((full, fault.message))
                    hint = fault.hint
                    if hint.startswith("known are") and not told.names:
                        hint = f"kind '{draft.kind}' has no options"
                    self.tell(node, full, fault.message, hint)
        if draft.for_each is not None and told.role != "producer":
            self.tell(draft.node.value["for_each"], f"{path}.for_each", "is for producers only")
        values = [options for options, _ in told.checked]
        each = None
        if draft.for_each is not None:
            each = dict(zip(draft.for_each, values, strict=True))
        return StageSpec(
            name=draft.name,
            kind=draft.kind,
            role=cast(Literal["producer", "transform", "consumer"], told.role),
            live=told.live,
            inputs=draft.inputs,
            options=values[0] if each is None else {},
            for_each=each,
            run=draft.run,
            description=draft.description,
            place=draft.node.place,
        )

    def _where(
        self, draft: _Draft, stream: str, where: str, path: tuple[str | int, ...], unknown: bool
    ) -> tuple[Node | Place, str]:
        """The nearest place of an option (its key, where that is unknown), and its full path."""
        own = (draft.for_each or {}).get(stream, {})
        first = path[0] if path else ""
        inside = first in own
        full = where if inside or first not in draft.options else f"stages.{draft.name}"
        for part in path:
            full += f"[{part}]" if isinstance(part, int) else f".{part}"
        node: Node | None = (own if inside else draft.options).get(str(first))
        if node is None:
            return draft.node, full
        if unknown and not inside and draft.node.keys:
            return draft.node.keys[str(first)], full
        for part in path[1:]:
            inner = node.value
            if isinstance(inner, dict) and part in inner:
                node = inner[str(part)]
            elif isinstance(inner, list) and isinstance(part, int) and part < len(inner):
                node = inner[part]
            else:
                break
        return node, full
