"""What the numbers of an Ultralytics export mean: evidence for the decoder `yolo`.

For C classes, A anchors and E further numbers of each object:

    v8     [1, 4 + C + E, A]    x, y, w, h, scores      A: one for each cell of the grids
    v5     [1, A, 5 + C + E]    x, y, w, h, objectness, probabilities       A: three a cell
    end    [1, N, 6 + E]        x1, y1, x2, y2, score, class (obb: x, y, w, h first)

v8 stands for YOLOv8, v9, 11, 12, and 26 without its own end; v5 for YOLOv5, and YOLOv3 and v7,
which share its form; end for YOLOv10, 26, and whatever is exported with nms=True.
E by task: detect 0; segment M coefficients, beside an output [1, M, h, w] of prototypes; pose
K * 2 or K * 3; obb 1, an angle in radians.

Law: the shape must agree with all that the model says of itself, and where it says nothing,
with the grids of its input. v8's pose and obb alone look like detectors of more classes, so
without a word of the model the number of classes in COCO's pose (52 would be left) is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ovpipe.stages.infer.facts import Export, ModelFacts, OutputFact

Version = Literal["v8", "v5", "end"]
Task = Literal["detect", "segment", "pose", "obb"]

STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32))
COCO_POSE = (17, 3)
# `model_type` as Ultralytics, Model API and Deep Learning Streamer write it, lower case.
_TYPE = re.compile(r"yolo[-_]?(v?(5|8|9|10|11|12|26))?[-_]?(seg|pose|obb|det|)")
_TASKS: dict[str, Task] = {
    "det": "detect",
    "detect": "detect",
    "seg": "segment",
    "segment": "segment",
    "pose": "pose",
    "obb": "obb",
}


@dataclass(frozen=True)
class Layout:
    """Where the numbers of an object are.

    boxes        name of the output with the boxes
    protos       name of the output with the prototypes of masks, "" where there are none
    classes      C; 0 for `end`, which gives the class itself
    keypoints    points of an object and numbers of a point (2 or 3)
    """

    version: Version
    task: Task
    boxes: str
    protos: str = ""
    classes: int = 0
    keypoints: tuple[int, int] = (0, 0)


def is_yolo(model_type: str) -> bool:
    """True for a `model_type` that may be one of these."""
    return _TYPE.fullmatch(model_type.lower()) is not None


def layout_of(facts: ModelFacts, asked: bool = False) -> Layout | None:
    """The layout, None where the model is not surely one of these.

    asked: the user says that it is one. `.tflite` exports count in 0..1 and are not read.
    """
    flat = [output for output in facts.outputs if len(output.shape) == 3]
    maps = [output for output in facts.outputs if len(output.shape) == 4]
    if len(flat) != 1 or len(maps) > 1 or len(flat) + len(maps) != len(facts.outputs):
        return None
    _, rows, columns = flat[0].shape
    if facts.suffix == ".tflite" or flat[0].shape[0] not in (1, -1) or columns < 1:
        return None
    if facts.export is not None and facts.export.task not in {"", *_TASKS}:
        return None
    cells = _cells(facts.input_size)
    said = asked or facts.export is not None or is_yolo(facts.info.get("model_type", ""))
    known = facts.classes
    if columns in cells and (known or rows <= columns):  # else any number of rows would do
        found = _layout("v8", rows - 4, known, facts, flat[0], maps)
        if found is not None:
            return found
    if rows in {3 * n for n in cells}:
        found = _layout("v5", columns - 5, known, facts, flat[0], maps)
        if found is not None:
            return found
    return _layout("end", columns - 6, 0, facts, flat[0], maps) if said else None


def _layout(
    version: Version,
    rest: int,
    known: int,
    facts: ModelFacts,
    flat: OutputFact,
    maps: list[OutputFact],
) -> Layout | None:
    """`rest`: numbers of an object that are classes or further ones; `known`: classes, 0: any."""
    protos = maps[0].shape[1] if maps else 0
    if version == "end":
        classes, extra = 0, rest
    elif known:
        classes, extra = known, rest - known
    else:
        classes, extra = rest - protos, protos
        if not maps and classes == 1 + COCO_POSE[0] * COCO_POSE[1]:
            return None
    task = _said(facts) or _by_shape(extra, protos)
    keypoints = _points(extra, facts.export) if task == "pose" else (0, 0)
    further = {
        "detect": 0,
        "segment": protos,
        "pose": keypoints[0] * keypoints[1],
        "obb": 1,
    }
    if task is None or further[task] != extra or (protos > 0) != (task == "segment"):
        return None
    if version != "end" and classes < 1:
        return None
    if task == "pose" and not extra:
        return None
    return Layout(version, task, flat.name, maps[0].name if maps else "", classes, keypoints)


def _said(facts: ModelFacts) -> Task | None:
    if facts.export is not None:
        return _TASKS.get(facts.export.task)
    match = _TYPE.fullmatch(facts.info.get("model_type", "").lower())
    return _TASKS.get(match[3]) if match else None


def _by_shape(extra: int, protos: int) -> Task | None:
    if protos:
        return "segment"
    if extra == COCO_POSE[0] * COCO_POSE[1]:
        return "pose"
    return "detect" if extra == 0 else None


def _points(extra: int, export: Export | None) -> tuple[int, int]:
    if export is not None and export.keypoints != (0, 0):
        points, numbers = export.keypoints
        return (points, numbers) if numbers in (2, 3) and points > 0 else (0, 0)
    return (extra // 3, 3) if extra > 0 and extra % 3 == 0 else (0, 0)


def _cells(size: tuple[int, int]) -> set[int]:
    """How many cells the grids of an input of (width, height) may have together."""
    width, height = size
    return {sum((width // s) * (height // s) for s in strides) for strides in STRIDES} - {0}
