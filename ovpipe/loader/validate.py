"""Tree -> spec: every problem found, each with its place, its path and a way out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from ovpipe.hint import near
from ovpipe.loader.http import http
from ovpipe.loader.kinds import STAGE_KEYS, Answer, Question, answers
from ovpipe.loader.operation import inputs, run
from ovpipe.loader.options import UNKNOWN_KEY, Fault
from ovpipe.loader.reading import Reading
from ovpipe.loader.streams import expand, filled
from ovpipe.loader.tree import Node
from ovpipe.spec import InputSpec, PipelineSpec, Place, RunSpec, StageSpec

TOP_KEYS = ("version", "name", "http", "stages")
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
PIPELINE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
MAX_STAGES = 500
"""Each stage, and each stream of a for_each, is a process."""


@dataclass
class _Draft:
    """A stage on its way: checked but for its options. `key`: where its name stands."""

    name: str
    node: Node
    key: Place
    kind: str
    options: dict[str, Node]
    for_each: Node | None = None
    numbers: dict[str, str] | None = None
    """Of the streams of a `for_each` that only names them."""
    inputs: tuple[InputSpec, ...] | None = None
    run: RunSpec = field(default_factory=RunSpec)
    description: str = ""


class Validator:
    """Turns one tree into a spec; collects problems instead of stopping at the first."""

    def __init__(self, environ: Mapping[str, str], folder: Path, file: str) -> None:
        self._reading = Reading(environ)
        self._tell, self._plain = self._reading.tell, self._reading.plain
        self._private = self._reading.private
        self._folder = folder
        self._file = file

    # -- the whole -----------------------------------------------------------------------

    def pipeline(self, root: Node, default_name: str) -> PipelineSpec:
        """The spec. Raises ConfigError with everything found."""
        top = self._reading.mapping(root, "", "version, name, stages")
        ours = {k: p for k, p in (root.keys or {}).items() if not k.startswith("x-")}
        self._reading.keys(Node({}, root.place, keys=ours), "", TOP_KEYS)
        if isinstance(root.value, dict):
            self._version(root)
        name = self._name(top, default_name)
        page = http(self._reading, top["http"]) if "http" in top else None
        drafts: list[_Draft] = []
        off: set[str] = set()
        stages: dict[str, Node] = {}
        if "stages" in top:
            stages = self._reading.mapping(top["stages"], "stages", "a name for each stage")
            if len(stages) > MAX_STAGES:
                self._tell(top["stages"], "stages", f"more than {MAX_STAGES} stages")
                self._reading.finish()
            for key, node in stages.items():
                self._draft(key, node, (top["stages"].keys or {})[key], drafts, off)
        elif isinstance(root.value, dict):
            self._tell(root, "stages", "is required")
        self._references(drafts, stages, off)
        specs = self._finish(drafts)
        self._reading.finish()
        return PipelineSpec(name, tuple(specs), self._folder, self._file, page)

    def stage(self, name: str, node: Node) -> StageSpec:
        """One stage alone; its inputs may be stages that are not here. Raises ConfigError."""
        drafts: list[_Draft] = []
        self._draft(name, node, node.place, drafts, set())
        specs = self._finish(drafts)
        self._reading.finish()
        return specs[0]

    def _version(self, root: Node) -> None:
        node = root.value.get("version")
        if node is None:
            self._tell(root, "version", "is required", "write: version: 1")
            return
        version = self._plain(node, "version")
        if type(version) is not int or version != 1:  # True == 1
            self._tell(node, "version", "must be 1")

    def _name(self, top: Mapping[str, Node], default: str) -> str:
        if "name" not in top:
            return re.sub(r"[^A-Za-z0-9_.-]", "-", default)[:64] or "pipeline"
        name = self._plain(top["name"], "name")
        if not isinstance(name, str) or not PIPELINE_NAME.fullmatch(name):
            self._tell(top["name"], "name", "must be 1 to 64 letters, digits, '_', '.' or '-'")
        return str(name)

    # -- one stage -----------------------------------------------------------------------

    def _draft(
        self, name: str, node: Node, key: Place, drafts: list[_Draft], off: set[str]
    ) -> None:
        path = f"stages.{name}"
        if not NAME.fullmatch(name):
            self._tell(key, path, "a stage's name is 1 to 64 letters, digits, '_' or '-'")
        entries = self._reading.mapping(node, path, "kind and options")
        if not isinstance(node.value, dict):
            return
        values = {
            k: self._plain(entries[k], f"{path}.{k}")
            for k in ("enabled", "kind", "description")
            if k in entries
        }
        enabled, kind = values.get("enabled", True), values.get("kind", "")
        if not isinstance(enabled, bool):
            self._tell(entries["enabled"], f"{path}.enabled", "must be true or false")
        elif not enabled:
            off.add(name)
            return
        if "kind" not in entries:
            self._tell(key, f"{path}.kind", "is required")
        elif not isinstance(kind, str) or not kind:
            self._tell(entries["kind"], f"{path}.kind", "must be the name of a kind")
            kind = ""
        options = {k: v for k, v in entries.items() if k not in STAGE_KEYS}
        draft = _Draft(name, node, key, kind, options)
        draft.description = values.get("description", "")
        if not isinstance(draft.description, str):
            self._tell(entries["description"], f"{path}.description", "must be text")
        if "inputs" in entries:
            draft.inputs = inputs(self._reading, entries["inputs"], f"{path}.inputs")
        if "run" in entries:
            draft.run = run(self._reading, entries["run"], f"{path}.run")
        if "for_each" in entries:
            each: Node | None = entries["for_each"]
            if each is not None and isinstance(each.value, str | int | list):
                each, draft.numbers = self._named(each, f"{path}.for_each")
            if each is not None:
                draft.for_each = self._for_each(each, f"{path}.for_each")
        drafts.append(draft)

    def _named(self, node: Node, path: str) -> tuple[Node | None, dict[str, str]]:
        """A `for_each` of names and ranges as a mapping, and the number in each name."""
        items = node.value if isinstance(node.value, list) else [node]
        numbers: dict[str, str] = {}
        streams: dict[str, Node] = {}
        places: dict[str, Place] = {}
        found = len(self._reading.problems)
        for i, item in enumerate(items):
            where = f"{path}[{i}]" if isinstance(node.value, list) else path
            text = self._plain(item, where)
            if isinstance(text, int) and not isinstance(text, bool):
                text = item.text  # 01 is a name here
            if not isinstance(text, str):
                self._tell(item, where, "must be a mapping, a name, or a list of names")
                continue
            try:
                names = expand(text, MAX_STAGES)
            except ValueError as error:
                self._tell(item, where, str(error))
                continue
            for name, number in names.items():
                if name in streams:
                    self._tell(item, where, f"stream '{name}' is named twice")
                streams[name], places[name] = Node({}, item.place), item.place
                numbers[name] = number
        if len(self._reading.problems) > found:
            return None, numbers
        return Node(streams, node.place, keys=places), numbers

    def _for_each(self, node: Node, path: str) -> Node | None:
        entries = self._reading.mapping(node, path, "a name for each stream")
        if not isinstance(node.value, dict):
            return None
        if not 0 < len(entries) <= MAX_STAGES:
            self._tell(node, path, f"must name 1 to {MAX_STAGES} streams")
            return None
        streams = {}
        for key, value in entries.items():
            if not NAME.fullmatch(key):
                message = "a stream's name is 1 to 64 letters, digits, '_' or '-'"
                self._tell((node.keys or {})[key], f"{path}.{key}", message)
            if value.value is not None:
                self._reading.mapping(value, f"{path}.{key}", "options of the stream")
            streams[key] = value if isinstance(value.value, dict) else Node({}, value.place)
        return Node(streams, node.place, keys=node.keys)

    # -- between stages ------------------------------------------------------------------

    def _references(self, drafts: list[_Draft], stages: Mapping[str, Node], off: set[str]) -> None:
        """Inputs that are no stage, or one that is switched off; the rest is the graph's."""
        for draft in drafts:
            path = f"stages.{draft.name}.inputs"
            for entry in draft.inputs or ():
                if entry.source in off:
                    message = f"stage '{entry.source}' is switched off (enabled: false)"
                    self._tell(entry.place, path, message)
                elif entry.source not in stages:
                    hint = near(entry.source, stages)
                    message = f"there is no stage '{entry.source}'"
                    if self._private(entry.place):
                        message, hint = "there is no stage of the name that a variable gives", ""
                    self._tell(entry.place, path, message, hint)

    # -- options -------------------------------------------------------------------------

    def _finish(self, drafts: list[_Draft]) -> list[StageSpec]:
        """Check all options, those of one's own kinds in one go."""
        asked = [(draft, self._sets(draft)) for draft in drafts if draft.kind]
        questions = [Question(draft.kind, tuple(sets.values())) for draft, sets in asked]
        found = answers(questions, self._folder)
        specs = [
            self._stage(draft, list(sets), told)
            for (draft, sets), told in zip(asked, found, strict=True)
        ]
        return [spec for spec in specs if spec is not None]

    def _sets(self, draft: _Draft) -> dict[str, dict[str, Any]]:
        """The options, once per stream of a for_each; of the stage itself under ""."""
        path = f"stages.{draft.name}"
        shared = {k: self._plain(v, f"{path}.{k}") for k, v in draft.options.items()}
        if draft.for_each is None:
            return {"": shared}
        if draft.numbers is not None:
            return {
                stream: {
                    k: filled(node, shared[k], {"key": stream, "n": number}, self._private)
                    for k, node in draft.options.items()
                }
                for stream, number in draft.numbers.items()
            }
        each = self._plain(draft.for_each, f"{path}.for_each")
        return {stream: {**shared, **own} for stream, own in each.items()}

    def _stage(self, draft: _Draft, streams: list[str], told: Answer) -> StageSpec | None:
        path, kind = f"stages.{draft.name}", draft.node.value["kind"]
        if told.fault:
            private = self._private(kind) or (told.private and self._any_private(draft.node))
            message = "the kind cannot be used with what its variables hold"
            self._tell(
                kind,
                f"{path}.kind",
                message if private else told.fault,
                "" if private else told.hint,
            )
            return None
        for what in told.missing:
            self._tell(kind, path, f"kind '{draft.kind}' {what}")
        if draft.for_each is not None and told.role != "producer":
            self._tell(draft.for_each, f"{path}.for_each", "is for producers only")
        seen: set[tuple[str, str]] = set()
        for stream, (_, faults) in zip(streams, told.checked, strict=True):
            for fault in faults:
                self._fault(draft, stream, fault, told.names, seen)
        each = dict(zip(streams, (values for values, _ in told.checked), strict=True))
        return StageSpec(
            name=draft.name,
            kind=draft.kind,
            role=cast(Literal["producer", "transform", "consumer"], told.role),
            live=told.live,
            one_process=told.one_process,
            overlaps=told.overlaps,
            inputs=draft.inputs,
            options={} if draft.for_each is not None else each[""],
            for_each=None if draft.for_each is None else each,
            run=draft.run,
            description=draft.description,
            place=draft.node.place,
        )

    def _any_private(self, node: Node) -> bool:
        inner = node.value.values() if isinstance(node.value, dict) else node.value
        if isinstance(node.value, dict | list):
            return any(self._any_private(n) for n in inner)
        return self._private(node)

    def _fault(
        self,
        draft: _Draft,
        stream: str,
        fault: Fault,
        names: tuple[str, ...],
        seen: set[tuple[str, str]],
    ) -> None:
        """Tell a fault of the options at the value it is about, once for all streams."""
        where, path = self._find(draft, stream, fault)
        message, hint = fault.message, fault.hint
        if fault.discreet and self._private(where):
            message, hint = fault.discreet, "" if "'" in fault.hint else fault.hint
        if hint.startswith("known are") and not names:
            hint = f"kind '{draft.kind}' has no options"
        if (path, message) not in seen:
            seen.add((path, message))
            self._tell(where, path, message, hint)

    def _find(self, draft: _Draft, stream: str, fault: Fault) -> tuple[Node | Place, str]:
        """The value that a fault is about, or its key, or what it is missing in; its path."""
        node, key, path = draft.node, draft.key, f"stages.{draft.name}"
        first = fault.path[0] if fault.path else ""
        if draft.for_each is not None and (
            first in draft.for_each.value[stream].value or first not in draft.options
        ):
            node, key = draft.for_each.value[stream], (draft.for_each.keys or {})[stream]
            path += f".for_each.{stream}"
        where: Node | Place = key
        for part in fault.path:
            path += f"[{part}]" if isinstance(part, int) else f".{part}"
            inner = node.value
            if isinstance(inner, dict) and part in inner:
                key = (node.keys or {}).get(str(part), Place())
                where = node = inner[str(part)]
            elif isinstance(inner, list) and isinstance(part, int) and part < len(inner):
                where = node = inner[part]
        return key if fault.message == UNKNOWN_KEY else where, path
