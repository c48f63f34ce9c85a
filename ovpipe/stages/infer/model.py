"""A model file -> a compiled model on a device. Here, and in the queue, openvino is imported.

Law: whatever is wrong with the file, the device or a property ends in a PreflightError of at
most three lines, without OpenVINO's stack. Once load() has returned, no change of the files
on disk matters: weights are read, not mapped, because a mapped file that is truncated kills the
process with SIGBUS (so does a mapped cache entry, which compiled models keep open).

Pixels enter as uint8 NHWC; type, layout, mean and scale are operations of the graph, where
they cost next to nothing. Resizing and colour stay outside, since the CPU is slow at them
in a graph, unless the user wants them there (`preprocess: graph`): then a picture of any size goes
in, and the kind of its pixels is a part of the graph.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ovpipe.errors import PreflightError
from ovpipe.hint import near
from ovpipe.image import yuv_matrix
from ovpipe.stages.infer import choose, ultralytics
from ovpipe.stages.infer.facts import InputFact, ModelFacts, OutputFact
from ovpipe.stages.infer.feed import Colour
from ovpipe.stages.infer.files import check_model_file
from ovpipe.stages.infer.picture import Plan
from ovpipe.stages.infer.watch import Seen, see
from ovpipe.stages.paths import cache_folder

_log = logging.getLogger(__name__)
T = TypeVar("T")

# What openvino raises; OSError is its own check of a file.
_REFUSALS = (RuntimeError, TypeError, ValueError, OSError)
# The frames of its stack, as it writes them into its messages.
_STACK = re.compile(
    r"Exception from \S+:\d+:|Check '.*?' failed at \S+:\d+:|FrontEnd API failed with \w+:", re.S
)
# Accepted by OpenVINO itself, whatever the device says that it supports.
_CORE_PROPERTIES = ("CACHE_DIR", "CACHE_MODE", "ENABLE_MMAP", "DEVICE_PROPERTIES")


@dataclass(frozen=True, eq=False)
class Source:
    """A model as read, `model` (openvino.Model) before any change, and what it shows.

    seen: its files as they were just before. batch: frames an inference, 0 where they are not
    gathered; `model` and `facts` are of batch size 1 then, too.
    """

    core: Any
    model: Any
    path: Path
    facts: ModelFacts
    seen: Seen
    batch: int = 0


@cache
def the_core() -> Any:
    """The openvino.Core of this process, never given back.

    OpenVINO's CPU plugin gives the thread that loads it an alternate signal stack, and unmaps it
    with the last owner of the core. Where another thread is that owner, the first one's next signal
    is handled in unmapped memory: the process dies without a word.
    """
    import openvino

    return openvino.Core()


def read(path: str, config: Mapping[str, Any], batch: int | None = None) -> Source:
    """Read the file and look at it. batch: frames to gather, 0: as many as the model says."""
    file = check_model_file(path)
    core = the_core()
    core.set_property({"ENABLE_MMAP": bool(config.get("ENABLE_MMAP", False))})
    seen = see(file)
    try:
        model = core.read_model(file)
    except _REFUSALS as error:
        raise PreflightError(f"cannot read model '{file}': {reason(error)}") from None
    if not model.inputs or not model.outputs:
        raise PreflightError(f"cannot read model '{file}': it has no inputs or no outputs")
    if batch is None:
        _make_batch_one(model)
    else:
        batch = batch or _own_batch(model, file)
        set_batch(model, 1)
    inputs = tuple(
        InputFact(_name(port, f"input_{i}"), port.get_element_type().to_dtype(), _shape(port))
        for i, port in enumerate(model.inputs)
    )
    outputs = outputs_of(model)
    layout, size, channels = _picture(inputs)
    suffix = file.suffix.lower()
    info = _model_info(model)
    export = ultralytics.export(_onnx_metadata(model)) or ultralytics.beside(file)
    facts = ModelFacts(outputs, inputs, size, channels, layout, suffix, info, export)
    return Source(core, model, file, choose.trusted(facts), seen, batch or 0)


def compile_model(
    source: Source,
    device: str,
    properties: Mapping[str, Any],
    picture: Plan | None,
    pixels: str = "",
    batch: int = 1,
) -> Any:
    """The openvino.CompiledModel; with a plan for pictures, one that takes uint8 NHWC.

    pixels: i420, i420/bt709, bgr, rgb or gray where pictures of any size are to go in, as they are.
    """
    check_device(device, source.core.available_devices)
    _check_properties(source.core, device, properties)
    model = source.model.clone()
    if batch > 1:
        set_batch(model, batch)
    try:
        if picture is not None:
            model = _with_picture_input(model, source.facts, picture, pixels)
        return source.core.compile_model(model, device, dict(properties))
    except _REFUSALS as error:
        raise refused(source, device, error) from None


def refused(source: Source, device: str, error: BaseException) -> PreflightError:
    """The device does not take this model, in OpenVINO's words."""
    return PreflightError(f"device '{device}' does not take model '{source.path}': {reason(error)}")


def shared_tensor(memory: NDArray[Any]) -> Any:
    """A tensor that the device reads in place; of memory with gaps, a copy."""
    from ovpipe.queue import tensor_over

    return tensor_over(np.ascontiguousarray(memory))


def check_device(device: str, available: list[str]) -> None:
    """PreflightError where `device` names one that is not there: OpenVINO blames a library."""
    if device.split(":")[0] in ("AUTO", "HETERO", "MULTI", "BATCH"):
        _, _, listed = device.partition(":")
        names = [part.split("(")[0] for part in listed.split(",") if part and part[0] != "-"]
    else:
        names = [device]
    for name in names:
        if name not in available and not any(a.split(".")[0] == name for a in available):
            raise PreflightError(
                f"device '{name}' does not exist here; there are: {', '.join(available)}, AUTO"
            )


def first_that_takes(devices: Sequence[str], load: Callable[[str], T], stage: str) -> T:
    """What `load` gives for the first of `devices` that it does not raise PreflightError for.

    One device alone is refused in its own words; of several, the last error names each.
    """
    refusals: list[str] = []
    for device in devices:
        try:
            loaded = load(device)
        except PreflightError as error:
            if len(devices) == 1:
                raise
            refusals.append(" ".join(str(error).split()))
            continue
        if refusals:
            _log.warning("%s: runs on device '%s': %s", stage, device, "; ".join(refusals))
        return loaded
    raise PreflightError(f"no device of {', '.join(devices)} takes it: {'; '.join(refusals)}")


def core_properties(device: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What lets several stages share the cores of one machine.

    OpenVINO pins threads from core 0 on, in each process. A stage that takes all cores loses by
    not being pinned, even beside another; two that take a part each would sit on the same ones
    (benchmarks/cores.py).
    """
    part = device == "CPU" and "INFERENCE_NUM_THREADS" in config
    return {"ENABLE_CPU_PINNING": False} if part else {}


def cache_properties(cache: str) -> dict[str, str]:
    """CACHE_DIR for a folder that can be written; nothing for `off`.

    A folder that the user named must work; without the default one we only start slower.
    """
    if cache == "off":
        return {}
    folder = Path(cache or "~/.cache/ovpipe/models")  # for the message, where there is no home
    try:
        folder = cache_folder(cache)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "cannot be written")
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        why = getattr(error, "strerror", None) or str(error)
        if cache:
            raise PreflightError(f"cache: folder '{folder}': {why}") from None
        _log.warning("no cache of compiled models in '%s': %s", folder, why)
        return {}
    return {"CACHE_DIR": str(folder)}


def reason(error: BaseException) -> str:
    """OpenVINO's own words, in one line: what follows the last place in its source."""
    said = [" ".join(part.split()) for part in _STACK.split(str(error))]
    text = next((part for part in reversed(said) if part), type(error).__name__)
    return text if len(text) <= 300 else text[:297] + "..."


def _check_properties(core: Any, device: str, config: Mapping[str, Any]) -> None:
    """A device refuses a property that it does not know; AUTO takes any and ignores it."""
    known = set(_CORE_PROPERTIES)
    for name in (device.split(":")[0], *core.available_devices):
        known.update(core.get_property(name, "SUPPORTED_PROPERTIES"))
    for key in config:
        if key not in known:
            hint = near(key, known, "")
            raise PreflightError(
                f"config: device '{device}' has no property '{key}'" + (hint and f"; {hint}")
            )


def _with_picture_input(model: Any, facts: ModelFacts, picture: Plan, pixels: str) -> Any:
    import openvino
    from openvino.preprocess import PrePostProcessor

    ppp = PrePostProcessor(model)
    port = ppp.input(0)
    port.tensor().set_element_type(openvino.Type.u8)
    port.model().set_layout(openvino.Layout(facts.layout))
    if pixels:
        _any_size(port, pixels, picture.colour)
    else:
        port.tensor().set_layout(openvino.Layout("NHWC"))
    mean, scale = picture.mean, picture.scale
    if mean or scale:
        steps = port.preprocess().convert_element_type(openvino.Type.f32)
        if mean:
            steps.mean(mean[0] if len(mean) == 1 else mean)
        if scale:
            steps.scale(scale[0] if len(scale) == 1 else scale)
    return ppp.build()


def _any_size(port: Any, pixels: str, colour: Colour) -> None:
    """Take pictures of any size and make them what the model takes: colour first, then size."""
    import openvino
    from openvino.preprocess import ColorFormat, ResizeAlgorithm

    planar = pixels.startswith("i420")
    formats = {"bgr": ColorFormat.BGR, "rgb": ColorFormat.RGB}
    if planar:
        port.tensor().set_color_format(ColorFormat.I420_SINGLE_PLANE)
    else:
        port.tensor().set_layout(openvino.Layout("NHWC"))
        if pixels in formats:
            port.tensor().set_color_format(formats[pixels])
    port.tensor().set_spatial_dynamic_shape()
    steps = port.preprocess()
    if pixels != colour:
        steps.convert_color(formats[colour])
    steps.resize(ResizeAlgorithm.RESIZE_LINEAR)
    if pixels == "i420/bt709":  # after the resize, where it is a few pixels' work
        steps.convert_element_type(openvino.Type.f32).custom(partial(_bt601_to_bt709, colour))


def _bt601_to_bt709(colour: Colour, pixels: Any) -> Any:
    """(1, height, width, 3) made of YUV by the matrix of BT.601, as if by that of BT.709."""
    from openvino import opset13 as op

    made, right = (yuv_matrix(m, False, colour).astype(np.float64) for m in ("bt601", "bt709"))
    turn = right[:, :3] @ np.linalg.inv(made[:, :3])
    offset = right[:, 3] - turn @ made[:, 3]
    turned = op.matmul(pixels, op.constant(turn.T.astype(np.float32)), False, False)
    shifted = op.add(turned, op.constant(offset.astype(np.float32)))
    return op.clamp(shifted, 0.0, 255.0).output(0)


def outputs_of(model: Any) -> tuple[OutputFact, ...]:
    """The outputs of an openvino.Model or CompiledModel."""
    return tuple(
        OutputFact(_output_name(port, i), _shape(port), _op(port))
        for i, port in enumerate(model.outputs)
    )


def set_batch(model: Any, size: int) -> None:
    """Make the first dimension of each input `size`; PreflightError where that cannot be."""
    shapes = {}
    for i, port in enumerate(model.inputs):
        shape = port.get_partial_shape()
        if shape.rank.is_dynamic or len(shape) < 2:
            raise PreflightError(f"batch: the model's input {i} has no first dimension for frames")
        shape[0] = size
        if any(shape[d].is_dynamic for d in range(len(shape))):
            raise PreflightError(
                f"batch: the model's input {i} is {shape}: frames of different shapes are not one"
            )
        shapes[i] = shape
    try:
        model.reshape(shapes)
    except _REFUSALS as error:
        raise PreflightError(
            f"batch: the model cannot be given a batch of {size}: {reason(error)}"
        ) from None


def _own_batch(model: Any, file: Path) -> int:
    shape = _shape(model.inputs[0])
    if not shape or shape[0] < 2:
        raise PreflightError(
            f"batch: model '{file}' has no batch of its own: say how many frames, `size: 4`"
        )
    return shape[0]


def _make_batch_one(model: Any) -> None:
    """One frame a job: a batch left open by the export becomes 1."""
    shape = model.inputs[0].get_partial_shape()
    if len(model.inputs) == 1 and shape.rank.is_static and len(shape) and shape[0].is_dynamic:
        shape[0] = 1
        model.reshape(shape)


def _picture(inputs: tuple[InputFact, ...]) -> tuple[str, tuple[int, int], int]:
    """Layout, (width, height) and channels of the picture that a single 4-D input takes."""
    shape = inputs[0].shape
    if len(inputs) == 1 and len(shape) == 4 and shape[0] == 1:
        if shape[1] in (1, 3) and min(shape[2:]) > 1:
            return "NCHW", (shape[3], shape[2]), shape[1]
        if shape[3] in (1, 3) and min(shape[1:3]) > 1:
            return "NHWC", (shape[2], shape[1]), shape[3]
    return "", (0, 0), 0


def _shape(port: Any) -> tuple[int, ...]:
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return ()
    return tuple(d.get_length() if d.is_static else -1 for d in shape)


def _name(port: Any, unnamed: str) -> str:
    """The first of its names in the alphabet."""
    return str(min(port.get_names(), default=unnamed))


def _output_name(port: Any, index: int) -> str:
    """As _name, but never `image`: that is a frame's picture."""
    name = _name(port, f"output_{index}")
    return f"output_{index}" if name == "image" else name


def _op(port: Any) -> str:
    """Type of the operation whose numbers these are; what only converts or reshapes is passed."""
    node = port.get_node().input(0).get_source_output().get_node()
    while node.get_type_name() in ("Convert", "Reshape", "Squeeze", "FakeQuantize"):
        node = node.input(0).get_source_output().get_node()
    return str(node.get_type_name())


def _model_info(model: Any) -> dict[str, str]:
    if not model.has_rt_info(["model_info"]):
        return {}
    keys = (
        "model_type",
        "labels",
        "confidence_threshold",
        "iou_threshold",
        "reverse_input_channels",
        "embedded_processing",
        "mean_values",
        "scale_values",
        "resize_type",
        "pad_value",
    )
    return {
        key: str(model.get_rt_info(["model_info", key]).astype(str))
        for key in keys
        if model.has_rt_info(["model_info", key])
    }


def _onnx_metadata(model: Any) -> dict[str, str]:
    """Those of an ONNX file's metadata_props that Ultralytics writes."""
    return {
        key: str(model.get_rt_info(["framework", key]).astype(str))
        for key in ("names", "stride", "task", "end2end", "args", "kpt_shape")
        if model.has_rt_info(["framework", key])
    }
