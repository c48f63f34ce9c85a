"""A spec -> one that can be measured, with every change told in words. Pure but for paths.

Law: a source that is not a file becomes a synthetic one of the same size; of the sinks, those that
write files write them into a folder that is removed, those that send are replaced by one that does
nothing; log and stages of one's own stay as they are. Stages between are never changed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ovpipe.graph import Graph, resolve
from ovpipe.spec import InputSpec, PipelineSpec, StageSpec
from ovpipe.stages.registry import BUILT_IN

METER = "bench-meter"
_NULL, _METER = "ovpipe.bench.meter:Null", "ovpipe.bench.meter:Meter"
_HARMLESS = ("log", _NULL)
_METER_DEPTH = 16
DEFAULT_SIZE = (1280, 720)


@contextmanager
def folder() -> Iterator[Path]:
    """Where sinks may write: removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="ovpipe-bench-") as path:
        yield Path(path)


@dataclass(frozen=True)
class Variant:
    """`graph` is what runs, `told` what of it is not as written."""

    graph: Graph
    told: tuple[str, ...]


def at_full_speed(spec: PipelineSpec, folder: Path, size: tuple[int, int] | None = None) -> Variant:
    """Sources give frames as fast as they are taken, and no edge drops any."""
    stages, told = _harmless(spec, folder)
    result = []
    for stage in stages:
        if stage.role == "producer":
            stage, changed = _free(stage, size)
            told += changed
        elif stage.inputs is not None:
            if any(e.when_full not in (None, "block") or e.max_age_s for e in stage.inputs):
                told.append(f"what goes into '{stage.name}' waits where it would be dropped")
            entries = (replace(e, when_full="block", max_age_s=None) for e in stage.inputs)
            stage = replace(stage, inputs=tuple(entries))
        result.append(stage)
    return Variant(resolve(replace(spec, stages=tuple(result))), tuple(told))


def paced(
    spec: PipelineSpec,
    folder: Path,
    report: Path,
    *,
    streams: int | None,
    fps: float,
    warm_s: float,
    size: tuple[int, int] | None = None,
) -> Variant:
    """So many live synthetic streams at that rate (None: as many as there are), and a meter at the
    end. They are dealt out to the producers in turn, at least one to each."""
    stages, told = _harmless(spec, folder)
    stages = _explicit(replace(spec, stages=tuple(stages)))
    producers = [s.name for s in stages if s.role == "producer"]
    counts = {s.name: len(s.for_each or ("",)) for s in stages if s.role == "producer"}
    if streams is not None:
        whole, more = divmod(streams, len(producers))
        counts = {name: max(1, whole + (i < more)) for i, name in enumerate(producers)}
    result = []
    for stage in stages:
        if stage.role == "producer":
            picture, why = _picture(stage, size)
            told.append(f"'{stage.name}': live synthetic frames of {_shown(picture)}{why}")
            options = {**picture, "fps": fps, "live": True}
            each = {f"s{i}": {**options, "seed": i} for i in range(counts[stage.name])}
            stage = replace(stage, kind="synthetic", live=True, options={}, for_each=each)
        result.append(stage)
    crowded = {s.name for s in result if s.role == "producer" and counts[s.name] > 1}
    for i, stage in enumerate(result):
        if stage.run.placement == "inline" and crowded & {e.source for e in stage.inputs or ()}:
            result[i] = replace(stage, run=replace(stage.run, placement="process"))
            told.append(
                f"'{stage.name}' has a process of its own, since several streams come to it"
            )
    ends = _ends(result)
    result.append(
        StageSpec(
            METER, _METER, "consumer", one_process=True,
            inputs=tuple(InputSpec(name, depth=_METER_DEPTH) for name in ends),
            options={"report": str(report), "warm": warm_s},
        )
    )  # fmt: skip
    return Variant(resolve(replace(spec, stages=tuple(result))), tuple(told))


def _free(stage: StageSpec, size: tuple[int, int] | None) -> tuple[StageSpec, list[str]]:
    """A producer that does not wait for anything but its readers."""
    each = stage.for_each if stage.for_each is not None else {"": stage.options}
    is_file = not stage.live or all(own.get("pace") for own in each.values())
    if stage.kind == "synthetic" or (stage.kind == "video" and is_file):
        changes: dict[str, Any] = {"fps": 0.0, "count": 0, "live": False}
        if stage.kind == "video":
            changes = {"loop": True, "pace": False}
        options = {key: {**own, **changes} for key, own in each.items()}
        told = [f"'{stage.name}': again from its beginning at its end"] * (stage.kind == "video")
    elif stage.live or stage.kind in BUILT_IN:
        picture, why = _picture(stage, size)
        options = {key: {**picture, "fps": 0.0, "seed": i} for i, key in enumerate(each)}
        told = [f"'{stage.name}' is live: in its place synthetic frames of {_shown(picture)}{why}"]
        stage = replace(stage, kind="synthetic")
    else:
        return stage, [f"'{stage.name}' is of your own, and runs as it is"]
    if stage.for_each is None:
        return replace(stage, options=options[""], live=False), told
    return replace(stage, options={}, for_each=options, live=False), told


def _picture(stage: StageSpec, size: tuple[int, int] | None) -> tuple[dict[str, Any], str]:
    """Size and format of a producer's frames, and what is to be said of where they come from."""
    first: Mapping[str, Any] = next(iter((stage.for_each or {"": stage.options}).values()))
    written = first.get("size")
    form = str(first.get("format", "i420" if stage.kind == "video" else "bgr"))
    if size is None and written:
        return {"size": [*written], "format": form}, ""
    if size is None and stage.kind == "synthetic":
        return {"size": [640, 480], "format": form}, ""
    why = "" if size else ", since its own size is not written (--size says another)"
    return {"size": [*(size or DEFAULT_SIZE)], "format": form}, why


def _shown(picture: Mapping[str, Any]) -> str:
    return "x".join(map(str, picture["size"])) + f" ({picture['format']})"


def _harmless(spec: PipelineSpec, folder: Path) -> tuple[list[StageSpec], list[str]]:
    """The stages, with sinks that write nowhere and send nothing."""
    result, told = [], []
    for stage in spec.stages:
        if stage.role == "consumer" and stage.kind in BUILT_IN and stage.kind not in _HARMLESS:
            path = stage.options.get("path")
            a_file = isinstance(path, str) and path != "" and "://" not in path
            if a_file and stage.options.get("record") != "original":
                new = _elsewhere(folder / stage.name, str(path))
                stage = replace(stage, options={**stage.options, "path": new})
                told.append(f"'{stage.name}' writes to a folder that is removed")
            else:
                what = "records" if a_file else "sends"
                told.append(f"'{stage.name}' {what} nothing: one that does nothing is in its place")
                stage = replace(stage, kind=_NULL, options={})
        elif stage.role == "consumer" and stage.kind not in BUILT_IN:
            told.append(f"'{stage.name}' is of your own, and does what it does")
        result.append(stage)
    return result, told


def _elsewhere(folder: Path, path: str) -> str:
    """A path in `folder` that ends like another."""
    parts = [p for p in path.replace("~", "").split("/") if p not in ("", ".", "..")]
    return str(folder.joinpath(*(parts if path != "-" else []) or ["out"]))


def _explicit(spec: PipelineSpec) -> list[StageSpec]:
    """The stages with what they read written out."""
    edges = resolve(spec).edges
    return [
        stage
        if stage.role == "producer" or stage.inputs is not None
        else replace(
            stage, inputs=tuple(InputSpec(e.source) for e in edges if e.target == stage.name)
        )
        for stage in spec.stages
    ]


def _ends(stages: list[StageSpec]) -> list[str]:
    """The stages whose frames go to consumers, or to nobody: where a frame's way ends."""
    consumers = {s.name for s in stages if s.role == "consumer"}
    readers: dict[str, set[str]] = {s.name: set() for s in stages}
    for stage in stages:
        for entry in stage.inputs or ():
            readers[entry.source].add(stage.name)
    return [s.name for s in stages if s.name not in consumers and readers[s.name] <= consumers]
