"""Detections: a struct of arrays, one row per object found in a frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Detection(NamedTuple):
    """One row. `box` is (x1, y1, x2, y2) in pixels of the source frame."""

    label: str
    class_id: int
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Detections:
    """Objects found in one frame, in pixels of the source frame.

    xyxy (n, 4) float32, score (n,) float32, class_id (n,) int32; track_id (n,) int64 or None.
    `labels` names class ids; an id without a name is shown as its number.
    Raises ValueError where the lengths differ.
    """

    xyxy: NDArray[np.float32]
    score: NDArray[np.float32]
    class_id: NDArray[np.int32]
    labels: Mapping[int, str] = field(default_factory=dict)
    track_id: NDArray[np.int64] | None = None

    @classmethod
    def of(
        cls,
        xyxy: ArrayLike = (),
        score: ArrayLike = (),
        class_id: ArrayLike = (),
        labels: Mapping[int, str] | None = None,
        track_id: ArrayLike | None = None,
    ) -> Detections:
        """Build from anything array-like; without arguments, no objects."""
        return cls(
            np.asarray(xyxy, np.float32).reshape(-1, 4),
            np.asarray(score, np.float32).reshape(-1),
            np.asarray(class_id, np.int32).reshape(-1),
            labels or {},
            None if track_id is None else np.asarray(track_id, np.int64).reshape(-1),
        )

    def __post_init__(self) -> None:
        n = len(self.score)
        track = (n,) if self.track_id is None else self.track_id.shape
        if self.xyxy.shape != (n, 4) or not (
            self.score.shape == self.class_id.shape == track == (n,)
        ):
            raise ValueError(
                f"lengths differ: xyxy {self.xyxy.shape}, score {self.score.shape}, "
                f"class_id {self.class_id.shape}, track_id {track}"
            )

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, which: Any) -> Detections:
        """The rows picked by a mask, an index array or a slice."""
        track = None if self.track_id is None else self.track_id[which]
        return Detections(
            self.xyxy[which], self.score[which], self.class_id[which], self.labels, track
        )

    def __iter__(self) -> Iterator[Detection]:
        for box, score, class_id in zip(
            self.xyxy.tolist(), self.score.tolist(), self.class_id.tolist(), strict=True
        ):
            yield Detection(self.label(class_id), class_id, score, tuple(box))

    def label(self, class_id: int) -> str:
        """The name of a class id."""
        return self.labels.get(class_id, str(class_id))

    def to_supervision(self) -> Any:
        """As `supervision.Detections`, for its trackers, zones and annotators.

        Labels are its `data["class_name"]`. Needs ovpipe[annotate].
        """
        import supervision

        return supervision.Detections(
            xyxy=np.array(self.xyxy, np.float32),
            confidence=np.array(self.score, np.float32),
            class_id=np.array(self.class_id, int),
            tracker_id=None if self.track_id is None else np.array(self.track_id, int),
            data={"class_name": np.array([self.label(i) for i in self.class_id.tolist()], str)},
        )

    @classmethod
    def from_supervision(cls, found: Any, labels: Mapping[int, str] | None = None) -> Detections:
        """Of `supervision.Detections`; `labels`: else its `data["class_name"]`.

        Where it has no confidences they are 1, where it has no classes they are 0.
        """
        n = len(found.xyxy)
        class_id = np.zeros(n, np.int32) if found.class_id is None else found.class_id
        names = found.data.get("class_name")
        if labels is None and names is not None:
            labels = {int(i): str(name) for i, name in zip(class_id, names, strict=True)}
        score = np.ones(n, np.float32) if found.confidence is None else found.confidence
        return cls.of(found.xyxy, score, class_id, labels, found.tracker_id)

    def to_wire(self) -> dict[str, Any]:
        """As msgpack-able values; only the labels in use travel."""
        wire: dict[str, Any] = {
            "b": np.ascontiguousarray(self.xyxy, "<f4").tobytes(),
            "s": np.ascontiguousarray(self.score, "<f4").tobytes(),
            "c": np.ascontiguousarray(self.class_id, "<i4").tobytes(),
            "l": {i: self.labels[i] for i in set(self.class_id.tolist()) if i in self.labels},
        }
        if self.track_id is not None:
            wire["t"] = np.ascontiguousarray(self.track_id, "<i8").tobytes()
        return wire

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> Detections:
        """The inverse of to_wire. Raises ValueError, TypeError or KeyError on anything else."""
        if not isinstance(wire, dict) or not isinstance(wire["l"], dict):
            raise TypeError("detections and their labels must be dicts")
        track = wire.get("t")
        labels = wire["l"]
        if not all(type(k) is int and type(v) is str for k, v in labels.items()):
            raise TypeError("labels must map int to str")
        return cls(
            np.frombuffer(wire["b"], "<f4").reshape(-1, 4),
            np.frombuffer(wire["s"], "<f4"),
            np.frombuffer(wire["c"], "<i4"),
            labels,
            None if track is None else np.frombuffer(track, "<i8"),
        )
