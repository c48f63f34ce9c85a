"""Which decoder reads this model: what the user wrote, else by evidence, else `raw`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from ovpipe.errors import PreflightError
from ovpipe.stages.infer import custom, ssd, yolox, yunet
from ovpipe.stages.infer.classification import Classification
from ovpipe.stages.infer.decode import Decoder
from ovpipe.stages.infer.facts import ModelFacts
from ovpipe.stages.infer.labels import Keep, Labels
from ovpipe.stages.infer.raw import Raw
from ovpipe.stages.infer.ssd import Ssd
from ovpipe.stages.infer.yolox import YoloX
from ovpipe.stages.infer.yunet import YuNet

NEEDS = {
    "ssd": (Ssd.fits, "one output [1, 1, N, 7]"),
    "yunet": (YuNet.fits, "outputs cls, obj, bbox and kps of the strides 8, 16 and 32"),
    "yolox": (YoloX.fits, "one output [1, A, 5 + C] with a row for each cell of the grids"),
    "classification": (Classification.fits, "one output [1, C]"),
    "raw": (lambda facts: True, "anything"),
}
# `model_type` in model_info, lower case -> our name. Any other is no evidence.
MODEL_TYPES = {"ssd": "ssd", "yolox": "yolox", "classification": "classification"}


def kind_of(decode: str, facts: ModelFacts, labels: Labels) -> str:
    """The name of the decoder: `decode` where it is given and fits, else by evidence.

    PreflightError where the user's choice is unknown or cannot read this model.
    """
    if ":" in decode:
        return decode
    if decode:
        if decode not in NEEDS:
            close = difflib.get_close_matches(decode, NEEDS, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(NEEDS)}"
            raise PreflightError(
                f"decode: '{decode}' is unknown; {hint} (one of your own is 'module:function')"
            )
        fits, needs = NEEDS[decode]
        if not fits(facts):
            raise PreflightError(f"decode '{decode}' reads {needs}; this model gives {facts}")
        return decode
    said = MODEL_TYPES.get(facts.info.get("model_type", "").lower(), "")
    if said and NEEDS[said][0](facts):
        return said
    for kind in ("ssd", "yunet", "yolox"):
        if NEEDS[kind][0](facts):
            return kind
    return "classification" if Classification.shows(facts, len(labels)) else "raw"


def labels_of(kind: str, facts: ModelFacts, written: Labels) -> Labels:
    """Names of classes: the user's, else the model's own, else the decoder's."""
    if written:
        return written
    # model_info separates labels by spaces; a space in a name is written as `_`.
    own = [name.replace("_", " ") for name in facts.info.get("labels", "").split()]
    return dict(enumerate(own)) or (yunet.LABELS if kind == "yunet" else {})


def make(kind: str, facts: ModelFacts, keep: Keep, overlap: float | None, stage: str) -> Decoder:
    """The decoder. Thresholds: the user's, else the model's own, else the decoder's."""

    def pick(written: float | None, key: str, default: float) -> float:
        return written if written is not None else number(facts.info, key, default)

    if ":" in kind:
        return custom.Custom(kind, custom.find(kind), stage)
    if kind == "ssd":
        return Ssd(pick(keep.score, "confidence_threshold", ssd.SCORE))
    if kind in ("yunet", "yolox"):
        least, most = (yunet.SCORE, yunet.NMS) if kind == "yunet" else (yolox.SCORE, yolox.NMS)
        score = pick(keep.score, "confidence_threshold", least)
        most = pick(overlap, "iou_threshold", most)
        return YuNet(score, most) if kind == "yunet" else YoloX(score, most)
    return Classification(keep) if kind == "classification" else Raw()


def number(info: Mapping[str, str], key: str, default: float) -> float:
    """A number out of model_info; `default` where there is none that can be read."""
    try:
        return float(info[key])
    except (KeyError, ValueError):
        return default
