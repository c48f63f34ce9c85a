"""How pictures are prepared for a model: what the user wrote, else by evidence.

Colour: the model's `reverse_input_channels` (made for BGR, swapped to RGB), what its decoder
knows, rgb for .tflite, whose makers train on RGB, else bgr, as Open Model Zoo, OpenCV Zoo and
YOLOX do. Mean and scale: the model's own, else the decoder's. Fit: the model's `resize_type`,
else the decoder's. A model that says that all this is in its graph already gets plain pixels.
Whatever Ultralytics exports takes RGB in 0..1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ovpipe.errors import PreflightError
from ovpipe.stages.infer.decode import Fit
from ovpipe.stages.infer.facts import ModelFacts
from ovpipe.stages.infer.feed import Colour

_YES = ("yes", "true", "1")


@dataclass(frozen=True)
class Wish:
    """The options that speak of pictures, as written."""

    feed: Literal["", "image", "arrays"]
    resize: Literal["", "stretch", "letterbox"]
    colour: Literal["", "bgr", "rgb"]
    mean: list[float]
    scale: list[float]
    preprocess: Literal["", "host", "planes", "graph"] = ""
    batch: bool = False


@dataclass(frozen=True)
class Plan:
    """What is done to each picture; mean and scale are [] where there is nothing to do.

    in_graph: also resizing and colour are operations of the graph. planes_first: what is made
    smaller is resized as it came, and converted then.
    """

    fit: Fit
    colour: Colour
    mean: list[float]
    scale: list[float]
    in_graph: bool = False
    planes_first: bool = False


def plan(wish: Wish, facts: ModelFacts, fit: Fit) -> Plan | None:
    """The plan, or None where arrays go into the model. `fit`: as the decoder wants it.

    PreflightError where the wishes contradict the model.
    """
    takes = ", ".join(str(fact) for fact in facts.inputs)
    if wish.feed == "arrays" or (not wish.feed and not facts.channels):
        if wish.mean or wish.scale or wish.resize or wish.colour or wish.preprocess:
            raise PreflightError(
                "mean, scale, resize, colour and preprocess are for pictures, and arrays go into "
                f"this model, as they are: {takes}"
            )
        return None
    if not facts.channels:
        raise PreflightError(
            f"feed: image: the model takes {takes}, not one picture of a fixed size"
        )
    info = facts.info
    embedded = info.get("embedded_processing", "").lower() in _YES
    own = {} if embedded else info
    fit = _fit(wish, own, fit)
    if wish.preprocess == "graph" and fit.letterbox:
        raise PreflightError(
            "preprocess: graph: pictures are stretched there, and this model wants them "
            "letterboxed; leave it out, or say `resize: stretch` too"
        )
    if wish.preprocess == "graph" and wish.batch:
        raise PreflightError(
            "preprocess: graph: pictures of any size cannot be one batch; leave one of both out"
        )
    if embedded:
        fit = replace(fit, colour="", mean=(), scale=())
    elif facts.export is not None:
        fit = replace(fit, colour="rgb", mean=(), scale=(255.0,))
    mean = wish.mean or _numbers(own.get("mean_values", "")) or list(fit.mean)
    scale = wish.scale or _numbers(own.get("scale_values", "")) or list(fit.scale)
    for name, values in (("mean", mean), ("scale", scale)):
        if len(values) not in (0, 1, facts.channels):
            raise PreflightError(
                f"{name}: {values} has {len(values)} numbers; the model's picture has "
                f"{facts.channels} channel(s)"
            )
    if 0 in scale:
        raise PreflightError(f"scale: {scale}: pixels cannot be divided by 0")
    colour: Colour = wish.colour or "bgr"
    if facts.channels == 1:
        colour = "gray"
    elif not wish.colour:
        swapped = own.get("reverse_input_channels", "").lower() in _YES
        trained_on = "rgb" if swapped else fit.colour
        colour = trained_on or ("rgb" if facts.suffix == ".tflite" else "bgr")
    how = wish.preprocess
    return Plan(fit, colour, mean, scale, how == "graph", how == "planes")


def _fit(wish: Wish, own: Mapping[str, str], fit: Fit) -> Fit:
    """As the user wishes, else as the model says (Model API's words), else as the decoder does."""
    letterboxes = {"fit_to_window": False, "fit_to_window_letterbox": True}
    said = own.get("resize_type", "")
    if said == "standard":
        fit = replace(fit, letterbox=False, centred=False)
    elif said in letterboxes:
        pad = own.get("pad_value", "0")
        pad_value = min(int(pad), 255) if pad.isdecimal() and len(pad) < 9 else 0
        fit = replace(fit, letterbox=True, pad=pad_value, centred=letterboxes[said])
    letterbox = wish.resize == "letterbox"
    if not wish.resize or fit.letterbox == letterbox:
        return fit
    return replace(fit, letterbox=letterbox, pad=Fit.pad, centred=letterbox)


def _numbers(text: str) -> list[float]:
    """`123.7 116.3 103.5` -> numbers; nothing where it is not of that form."""
    try:
        return [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        return []
