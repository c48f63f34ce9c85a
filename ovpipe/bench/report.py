"""What `ovpipe bench` found, as values and as text. Pure.

Where the time goes: at so many frames per second each frame has cores / rate seconds of processor
time. Part of that is the model's own, as benchmark_app needs it; the rest is the stages' work
beside it, or nobody's, or other programs'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from ovpipe.bench.app import Alone
from ovpipe.bench.measure import Measured


@dataclass(frozen=True)
class Part:
    """One part of a frame's processor time."""

    what: str
    cpu_ms: float
    share: float


@dataclass(frozen=True)
class Report:
    """All of it. `alone`: by infer stage; `share`: of what the device does alone, 0 to 1, None
    where that is not known."""

    name: str
    cores: int
    rounds: tuple[Measured, ...]
    alone: Mapping[str, Alone]
    told: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def typical(self) -> Measured:
        """The round in the middle."""
        return sorted(self.rounds, key=lambda m: m.frames_per_s)[(len(self.rounds) - 1) // 2]

    @property
    def frames_per_s(self) -> float:
        """The median of the rounds."""
        return median(m.frames_per_s for m in self.rounds)

    @property
    def share(self) -> float | None:
        """How much of the device's time alone the graph's inferences make up."""
        rates = {s.name: s.per_s for s in self.typical.stages}
        if not self.alone or any(not a.per_s for a in self.alone.values()):
            return None
        return sum(rates.get(name, 0.0) / a.per_s for name, a in self.alone.items())

    @property
    def parts(self) -> tuple[Part, ...]:
        """Where a frame's processor time goes, the largest first but for what is left."""
        rate = self.typical.frames_per_s
        if not rate:
            return ()
        whole = self.cores / rate * 1e3
        found = []
        for stage in self.typical.stages:
            if stage.home:  # it is in that one's time
                continue
            each = stage.cores / rate * 1e3  # for each frame of the graph, not of the stage
            inside = [s.name for s in self.typical.stages if s.home == stage.name]
            guests = f" with {', '.join(inside)}" if inside else ""
            alone = self.alone.get(stage.name)
            if alone is None:
                found.append(Part(stage.name + guests, each, each / whole))
                continue
            model = min(each, alone.cpu_ms * stage.per_s / rate)
            beside = f"{stage.name}{guests}: beside the model"
            found.append(Part(f"{stage.name}: the model, as it needs alone", model, model / whole))
            found.append(Part(beside, each - model, (each - model) / whole))
        found.sort(key=lambda part: -part.cpu_ms)
        left = whole - sum(part.cpu_ms for part in found)
        return (
            *found,
            Part("not used, or by other programs", max(0.0, left), max(0.0, left) / whole),
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "name": self.name,
            "cores": self.cores,
            "frames_per_s": self.frames_per_s,
            "at": self.typical.at,
            "benchmark_app": {name: asdict(a) for name, a in self.alone.items()},
            "share_of_benchmark_app": self.share,
            "parts": [asdict(part) for part in self.parts],
            "rounds": [asdict(m) for m in self.rounds],
            "verdict": list(self.typical.verdict),
            "changed": list(self.told),
            "notes": list(self.notes),
        }


def headline(report: Report) -> list[str]:
    """The first lines."""
    each = ", ".join(f"{m.frames_per_s:.1f}" for m in report.rounds)
    rounds = f" (rounds: {each})" if len(report.rounds) > 1 else ""
    said = [f"{report.name}: {report.frames_per_s:.1f} frames/s at '{report.typical.at}'{rounds}"]
    for name, alone in report.alone.items():
        said.append(
            f"benchmark_app, the model of '{name}' alone: {alone.per_s:.1f} inferences/s, "
            f"{alone.cpu_ms:.2f} ms of processor time each"
        )
    if report.share is not None:
        said.append(f"share of benchmark_app's throughput: {report.share:.1%}")
    return said


def stage_rows(measured: Measured) -> tuple[list[str], list[list[str]]]:
    """The table of stages: its head and its rows."""
    head = ["stage", "frames/s", "CPU ms/frame", "cores", "busy", "blocked", "waiting"]
    rows = [
        [s.name, f"{s.per_s:.1f}",
         *((f"in {s.home}", "") if s.home else (f"{s.cpu_ms:.3f}", f"{s.cores:.2f}")),
         *(f"{share:.0%}" for share in (s.busy, s.blocked, s.idle))]
        for s in measured.stages
    ]  # fmt: skip
    return head, rows


def part_rows(parts: Sequence[Part]) -> tuple[list[str], list[list[str]]]:
    """The table of where a frame's time goes."""
    head = ["where each frame's processor time goes", "ms", "share"]
    return head, [[p.what, f"{p.cpu_ms:.3f}", f"{p.share:.0%}"] for p in parts]
