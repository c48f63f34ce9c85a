"""Which decoder reads this model: what the user wrote, else by evidence, else `raw`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from ovpipe.errors import PreflightError
from ovpipe.hint import near
from ovpipe.stages import plugins
from ovpipe.stages.infer import custom, ssd, ultraface, yolo, yolox, yunet
from ovpipe.stages.infer.classification import Classification
from ovpipe.stages.infer.decode import Decoder
from ovpipe.stages.infer.embedding import Embedding
from ovpipe.stages.infer.facts import ModelFacts
from ovpipe.stages.infer.keypoints import Keypoints
from ovpipe.stages.infer.labels import Keep, Labels
from ovpipe.stages.infer.raw import Raw
from ovpipe.stages.infer.segmentation import Segmentation
from ovpipe.stages.infer.ssd import Ssd
from ovpipe.stages.infer.ultraface import UltraFace
from ovpipe.stages.infer.yolo import Yolo
from ovpipe.stages.infer.yolo_layout import is_yolo, layout_of
from ovpipe.stages.infer.yolox import YoloX
from ovpipe.stages.infer.yunet import YuNet

_log = logging.getLogger(__name__)

NEEDS = {
    "ssd": (Ssd.fits, "one output [1, 1, N, 7]"),
    "yunet": (YuNet.fits, "outputs cls, obj, bbox and kps of the strides 8, 16 and 32"),
    "ultraface": (UltraFace.fits, "two outputs [1, N, 2] and [1, N, 4]"),
    "yolox": (YoloX.fits, "one output [1, A, 5 + C] with a row for each cell of the grids"),
    "yolo": (
        lambda facts: layout_of(facts, asked=True) is not None,
        "an export of Ultralytics: [1, 4 + C, A], [1, A, 5 + C] or [1, N, 6] with the C of its "
        "metadata.yaml or model_info (no .tflite)",
    ),
    "keypoints": (Keypoints.fits, "one output [1, 1, K, 3], [1, 2K] or [1, 2K, 1, 1]"),
    "segmentation": (Segmentation.fits, "one output [1, C, H, W], [1, 1, H, W] or [1, H, W]"),
    "classification": (Classification.fits, "one output [1, C]"),
    "embedding": (Embedding.fits, "one output [1, D] or [1, D, 1, 1]"),
    "raw": (lambda facts: True, "anything"),
}
# `model_type` in model_info, lower case -> our name. Any other is no evidence.
MODEL_TYPES = {
    "ssd": "ssd",
    "yolox": "yolox",
    "classification": "classification",
    "segmentation": "segmentation",
    "embedding": "embedding",
}
# What the exports of Ultralytics are for, where it is not objects.
TASKS = {"classify": "classification", "semantic": "segmentation"}
# Shapes (and names) that nothing else has.
SHOWS = {
    "ssd": Ssd.fits,
    "yunet": YuNet.fits,
    "ultraface": UltraFace.shows,
    "yolox": YoloX.fits,
    "yolo": lambda facts: layout_of(facts) is not None,
    "keypoints": Keypoints.shows,
}
LABELS = {"yunet": yunet.LABELS, "ultraface": ultraface.LABELS}


def kind_of(decode: str, facts: ModelFacts, labels: Labels) -> str:
    """The name of the decoder: `decode` where it is given and fits, else by evidence.

    PreflightError where the user's choice is unknown or cannot read this model.
    """
    if ":" in decode:
        return decode
    if decode:
        if decode not in NEEDS:
            more = [plugin.name for plugin in plugins.plugins(plugins.DECODERS)]
            if decode in more:
                return decode
            raise PreflightError(
                f"decode: '{decode}' is unknown; {near(decode, [*NEEDS, *more])} "
                "(one of your own is 'module:function')"
            )
        for plugin in plugins.named(plugins.DECODERS, decode):
            _log.warning(
                "the package '%s' has a decoder '%s', which is ovpipe's own: for that one "
                "write '%s'", plugin.package, decode, plugin.where,
            )  # fmt: skip
        fits, needs = NEEDS[decode]
        if not fits(facts):
            raise PreflightError(f"decode '{decode}' reads {needs}; this model gives {facts}")
        return decode
    said = _said(facts)
    if said and NEEDS[said][0](facts):
        return said
    for kind, shows in SHOWS.items():
        if shows(facts):
            return kind
    if Segmentation.shows(facts, len(labels)):
        return "segmentation"
    return "classification" if Classification.shows(facts, len(labels)) else "raw"


def trusted(facts: ModelFacts) -> ModelFacts:
    """The facts without what Ultralytics wrote, where the outputs are not what that says.

    A folder may hold a `metadata.yaml` and models that it is not of.
    """
    if facts.export is None:
        return facts
    task, classes = facts.export.task, len(facts.export.names)
    if task == "classify":
        agrees = Classification.fits(facts) and facts.outputs[0].shape[1] == classes
    elif task == "semantic":
        shape, (width, height) = facts.outputs[0].shape, facts.input_size
        agrees = Segmentation.fits(facts) and (len(shape) == 3 or shape[1] in (1, classes))
        agrees = agrees and shape[-1] * height == shape[-2] * width  # the input's proportions
    else:
        agrees = layout_of(facts) is not None
    return facts if agrees else replace(facts, export=None)


def _said(facts: ModelFacts) -> str:
    """The decoder that the model speaks of, "" where it speaks of none."""
    if facts.export is not None:
        return TASKS.get(facts.export.task, "yolo")
    said = facts.info.get("model_type", "").lower()
    return MODEL_TYPES.get(said, "yolo" if is_yolo(said) else "")


def labels_of(kind: str, facts: ModelFacts, written: Labels) -> Labels:
    """Names of classes: the user's, else the model's own, else the decoder's."""
    if written:
        return written
    if facts.export is not None:
        return facts.export.names
    # model_info separates labels by spaces; a space in a name is written as `_`.
    own = [name.replace("_", " ") for name in facts.info.get("labels", "").split()]
    return dict(enumerate(own)) or LABELS.get(kind, {})


def make(kind: str, facts: ModelFacts, keep: Keep, overlap: float | None, stage: str) -> Decoder:
    """The decoder. Thresholds: the user's, else the model's own, else the decoder's."""

    def score(default: float) -> float:
        own = number(facts.info, "confidence_threshold", default)
        return own if keep.score is None else keep.score

    def most(default: float) -> float:
        return number(facts.info, "iou_threshold", default) if overlap is None else overlap

    if kind not in NEEDS:
        return custom.Custom(kind, custom.find(kind), stage)
    layout = layout_of(facts, asked=True) if kind == "yolo" else None
    if layout is not None:
        overlaps = most(yolo.NMS[layout.version])
        return Yolo(layout, score(yolo.SCORE), overlaps, keep)
    makers: dict[str, Callable[[], Decoder]] = {
        "ssd": lambda: Ssd(score(ssd.SCORE)),
        "yunet": lambda: YuNet(score(yunet.SCORE), most(yunet.NMS)),
        "ultraface": lambda: UltraFace(score(ultraface.SCORE), most(ultraface.NMS)),
        "yolox": lambda: YoloX(score(yolox.SCORE), most(yolox.NMS)),
        "keypoints": lambda: Keypoints.of(facts),
        "segmentation": lambda: Segmentation(keep, facts.classes > 256),
        "classification": lambda: Classification(keep),
        "embedding": Embedding,
    }
    return makers.get(kind, Raw)()


def number(info: Mapping[str, str], key: str, default: float) -> float:
    """A number out of model_info; `default` where there is none that can be read."""
    try:
        return float(info[key])
    except (KeyError, ValueError):
        return default
