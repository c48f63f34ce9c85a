"""Join: frames of several inputs that belong together become one.

Law: sets of frames leave in the order of their stream, and each frame that came is in at most
one of them. A frame taken in is delivered to the join. A set that stays incomplete ends when
one of its missing inputs is past it, after `timeout`, when an input has `hold` frames waiting
in all, or with its stream; with `incomplete: drop` it is then counted `policy_skip` on what
the join gives. A frame whose set has ended is refused, counted `policy_skip` on its own edge.

Held frames keep their slots and credits. The join asks for credits for all that it may hold,
so that it always reads on, and branches of unequal length cannot wait for one another for ever.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import numpy as np
from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray

from ovpipe.detections import Detection, Detections
from ovpipe.errors import FrameError, PreflightError
from ovpipe.frame import Frame
from ovpipe.options import Duration
from ovpipe.stages.base import Result, Transform
from ovpipe.stages.matching import Match, Matcher, TooLate

V = TypeVar("V")


class Join(Transform):
    """Brings together what several stages made of the same frame."""

    one_process: ClassVar[bool] = True

    match: Annotated[
        Literal["seq", "pts"], "what frames of one stream have in common: number, or time"
    ] = "seq"
    tolerance: Annotated[Duration, Ge(0), "times this far apart match (match: pts)"] = 0.02
    timeout: Annotated[Duration, Gt(0), "how long a frame waits for the others"] = 1.0
    incomplete: Annotated[
        Literal["drop", "pass"],
        "what becomes of frames that others did not join: counted policy_skip, or passed on "
        "with meta `missing`, the inputs that gave nothing",
    ] = "drop"
    hold: Annotated[int, Ge(1), Le(128), "frames of one input that may wait for others"] = 64
    image: Annotated[str | None, "the input whose image is taken; else the first with one"] = None

    _matchers: dict[str, Matcher[Frame]]
    _held: Counter[str]
    _now: Any = time.monotonic

    def open(self) -> None:
        """PreflightError where `image` is no input."""
        if self.image is not None and self.image not in self.context.inputs:
            raise PreflightError(
                f"image: '{self.image}' is no input of this stage; inputs are "
                + ", ".join(self.context.inputs)
            )
        self._matchers = {}
        self._held = Counter()

    @property
    def frames_held(self) -> int:
        """For each input."""
        return self.hold

    def process(self, frame: Frame) -> Result:
        """The sets that end now, as frames; at most one of them is complete by `frame`."""
        key = frame.seq if self.match == "seq" else frame.pts_ns
        if key is None:
            raise FrameError("a frame without pts cannot be joined by pts", "malformed")
        matcher = self._matchers.get(frame.stream)
        if matcher is None:
            matcher = self._matchers[frame.stream] = self._matcher(frame.stream)
        now = self._now()
        try:
            ended = matcher.put(frame.source, key, frame, now)
        except TooLate:
            raise FrameError("its set has ended", "policy_skip") from None
        self._held[frame.source] += 1
        results = self._results(matcher, ended)
        while self._held[frame.source] > self.hold:
            results += self._make_room(frame.source)
        return results + self._expired(now)

    def tick(self) -> Result:
        """What has waited too long."""
        return self._expired(self._now())

    def end_of_stream(self, stream: str) -> Result:
        """What nobody will join any more."""
        matcher = self._matchers.pop(stream, None)
        return None if matcher is None else self._results(matcher, matcher.flush())

    # -- which -----------------------------------------------------------------------------

    def _matcher(self, stream: str) -> Matcher[Frame]:
        """For those of the inputs that the stream comes along."""
        inputs = [name for name, streams in self.context.inputs.items() if stream in streams]
        tolerance = 0 if self.match == "seq" else int(self.tolerance * 1e9)
        return Matcher(inputs, tolerance)

    def _make_room(self, source: str) -> list[Frame]:
        """End the set that has waited longest among those with a frame of `source`."""
        firsts = [
            (first.since, matcher, first)
            for matcher in self._matchers.values()
            if (first := matcher.oldest(source)) is not None
        ]
        _, matcher, first = min(firsts, key=lambda entry: entry[0])
        return self._results(matcher, matcher.end_with(first))

    def _expired(self, now: float) -> list[Frame]:
        since = now - self.timeout
        return [
            frame
            for matcher in self._matchers.values()
            for frame in self._results(matcher, matcher.expire(since))
        ]

    def _results(self, matcher: Matcher[Frame], ended: list[Match[Frame]]) -> list[Frame]:
        """What becomes of sets that have ended, whole or not."""
        results = []
        for match in ended:
            self._held.subtract(match.parts.keys())
            parts = {name: match.parts[name] for name in matcher.inputs if name in match.parts}
            if matcher.complete(match):
                results.append(merge(parts, self.image))
            elif self.incomplete == "pass":
                missing = [name for name in matcher.inputs if name not in parts]
                results.append(merge(parts, self.image).with_(meta={"missing": missing}))
            else:
                stream = next(iter(parts.values())).stream
                self.context.count_failed("policy_skip", stream=stream)
        return results


def merge(parts: Mapping[str, Frame], image: str | None = None) -> Frame:
    """One frame of several, given in the order of their inputs; never fails.

    Image and header (stream, seq, pts) are those of the input `image`, or else of the first
    that has an image, or of the first; captured_ns is the earliest. Arrays and meta: a name
    that several give stays with the first, and is called `input.name` for each further one
    that gives something else by it. Detections are those of all, the same one once.
    """
    base = parts.get(image or "") or next(
        (frame for frame in parts.values() if frame.image is not None),
        next(iter(parts.values())),
    )
    arrays: dict[str, NDArray[Any]] = {}
    meta: dict[str, Any] = {}
    for name, frame in parts.items():
        _add(arrays, frame.arrays, name, _same_array)
        _add(meta, frame.meta, name, lambda a, b: bool(a == b))
    found = [frame.detections for frame in parts.values() if frame.detections is not None]
    return Frame(
        image=base.image,
        arrays=arrays,
        detections=_all(found) if found else None,
        meta=meta,
        stream=base.stream,
        seq=base.seq,
        pts_ns=base.pts_ns,
        captured_ns=min(frame.captured_ns for frame in parts.values()),
    )


def _add(
    into: dict[str, V], more: Mapping[str, V], source: str, same: Callable[[V, V], bool]
) -> None:
    for name, value in more.items():
        if name not in into:
            into[name] = value
        elif not same(into[name], value):
            into[f"{source}.{name}"] = value


def _same_array(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """True where both lie at one place: the same slot, forwarded along two ways."""
    return (
        a.shape == b.shape
        and a.dtype == b.dtype
        and a.strides == b.strides
        and a.ctypes.data == b.ctypes.data
    )


def _all(found: list[Detections]) -> Detections:
    """The rows of all; class ids that mean different things to two models become different."""
    if len(found) == 1:
        return found[0]
    labels: dict[int, str] = {}
    parts: list[Detections] = []
    seen: set[Detection] = set()
    for one in found:
        rows = list(one)
        one = one[[row not in seen for row in rows]]
        seen.update(rows)
        ids = {}
        for known in sorted(set(one.class_id.tolist())):
            label = one.label(known)
            ids[known] = known
            if labels.setdefault(known, label) != label:
                same = (i for i, name in labels.items() if name == label)
                ids[known] = next(same, max(labels) + 1)
                labels[ids[known]] = label
        class_id = [ids[i] for i in one.class_id.tolist()]
        parts.append(Detections.of(one.xyxy, one.score, class_id, {}, one.track_id))
    tracked = any(part.track_id is not None for part in parts)
    return Detections.of(
        np.concatenate([part.xyxy for part in parts]),
        np.concatenate([part.score for part in parts]),
        np.concatenate([part.class_id for part in parts]),
        labels,
        np.concatenate([np.full(len(p), -1) if p.track_id is None else p.track_id for p in parts])
        if tracked
        else None,
    )
