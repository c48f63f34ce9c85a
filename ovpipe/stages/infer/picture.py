"""How pictures are prepared for a model: what the user wrote, else by evidence.

Colour: the model's `reverse_input_channels` (made for BGR, swapped to RGB), rgb for .tflite,
whose makers train on RGB, else bgr, as Open Model Zoo, OpenCV Zoo and YOLOX do. Mean and
scale: the model's own, unless it says that they are operations of its graph already.
"""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Plan:
    """What is done to each picture; mean and scale are [] where there is nothing to do."""

    fit: Fit
    colour: Colour
    mean: list[float]
    scale: list[float]


def plan(wish: Wish, facts: ModelFacts, fit: Fit) -> Plan | None:
    """The plan, or None where arrays go into the model. `fit`: as the decoder wants it.

    PreflightError where the wishes contradict the model.
    """
    takes = ", ".join(str(fact) for fact in facts.inputs)
    if wish.feed == "arrays" or (not wish.feed and not facts.channels):
        if wish.mean or wish.scale or wish.resize or wish.colour:
            raise PreflightError(
                "mean, scale, resize and colour are for pictures, and arrays go into this "
                f"model, as they are: {takes}"
            )
        return None
    if not facts.channels:
        raise PreflightError(
            f"feed: image: the model takes {takes}, not one picture of a fixed size"
        )
    if wish.resize:
        letterbox = wish.resize == "letterbox"
        fit = fit if fit.letterbox == letterbox else Fit(letterbox, centred=letterbox)
    info = facts.info
    embedded = info.get("embedded_processing", "").lower() in _YES
    own = {} if embedded else info
    mean = wish.mean or _numbers(own.get("mean_values", ""))
    scale = wish.scale or _numbers(own.get("scale_values", ""))
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
        colour = "rgb" if swapped or facts.suffix == ".tflite" else "bgr"
    return Plan(fit, colour, mean, scale)


def _numbers(text: str) -> list[float]:
    """`123.7 116.3 103.5` -> numbers; nothing where it is not of that form."""
    try:
        return [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        return []
