"""What of a configuration may be turned to make it faster, without another result. Pure.

Of each infer stage its hint, requests, streams, threads and batch; of any other stage that reads
one, whether it runs in a process of its own. Never a model, a device, a size, an edge's policy, or
how many replicas there are: those change what comes out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal

from ovpipe.bench.search import Knob, Setting
from ovpipe.spec import PipelineSpec, RunSpec, StageSpec

Goal = Literal["throughput", "latency"]

_JOBS = (0, 1, 2, 3, 4, 6, 8, 12, 16)
_BATCHES = (2, 4, 8, 16)
_PLACEMENTS = ("process", "inline")


def knobs(spec: PipelineSpec, goal: Goal, cores: int) -> list[Knob]:
    """All of a spec, in the order in which they matter."""
    infer = [_infer(stage, goal, cores) for stage in spec.stages if stage.kind == "infer"]
    placed = [_placement(s) for s in spec.stages if s.role != "producer" and s.kind != "infer"]
    return [knob for each in infer for knob in each] + [knob for knob in placed if knob]


def _infer(stage: StageSpec, goal: Goal, cores: int) -> list[Knob]:
    path, given = f"stages.{stage.name}", stage.options
    hint = ("latency", "throughput")
    found = [
        _knob(f"{path}.hint", hint, given.get("hint", "throughput")),
        _knob(f"{path}.jobs", _JOBS, given.get("jobs", 0)),
    ]
    device = str(given.get("device", "CPU")).upper()
    config: Mapping[str, Any] = given.get("config") or {}
    if "CPU" in device or device.startswith("AUTO"):
        counts = _counts(cores)
        found.append(_unset(f"{path}.config.NUM_STREAMS", counts, config))
        found.append(_unset(f"{path}.config.INFERENCE_NUM_THREADS", counts, config))
    elif device.startswith("GPU"):
        found.append(_unset(f"{path}.config.NUM_STREAMS", (1, 2, 3, 4), config))
    if goal == "throughput":
        batch = dict(given.get("batch") or {})
        sizes = tuple({**batch, "size": size} for size in _BATCHES)
        found.append(_knob(f"{path}.batch", ({}, *sizes), batch))
    return found


def _placement(stage: StageSpec) -> Knob | None:
    if not any(f.name == "placement" for f in fields(RunSpec)) or stage.run.replicas > 1:
        return None
    given = getattr(stage.run, "placement", "process")
    return _knob(f"stages.{stage.name}.run.placement", _PLACEMENTS, given)


def _counts(cores: int) -> tuple[int, ...]:
    """1, 2, 3, 4, 6, 8 and so on, up to all cores."""
    found = [n for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64) if n < cores]
    return (*found, cores)


def _unset(path: str, values: Sequence[int], config: Mapping[str, Any]) -> Knob:
    """One that need not be set: the device decides. Where it is set it stays so."""
    name = path.rpartition(".")[2]
    if name in config:
        return _knob(path, values, config[name])
    return Knob(path, (None, *values), 0)


def _knob(path: str, values: Sequence[Any], given: Any) -> Knob:
    """With what was given among its values, in its place where there is an order."""
    found = list(values)
    if given not in found:
        found.append(given)
        if all(isinstance(v, int) and not isinstance(v, bool) for v in found):
            found.sort()
    return Knob(path, tuple(found), found.index(given))


def assignments(setting: Setting) -> list[str]:
    """A setting as `--set` takes it."""
    return [f"{path}={json.dumps(value)}" for path, value in setting.items()]


def shown(setting: Setting) -> str:
    """A setting for people."""
    return (
        ", ".join(f"{p.removeprefix('stages.')}={_word(v)}" for p, v in setting.items())
        or "as given"
    )


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
