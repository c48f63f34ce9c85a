"""Small models, built with OpenVINO's opsets, for tests that need no download.

Each function saves an IR into `folder` and returns its path. All of them take a picture,
[1, 3, size, size] float32, unless they say otherwise; `brightness` below is its mean / 255.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

SIZE = 16


@cache
def core() -> Any:
    """One for all tests: a core that ends in another thread spoils the first one's signal stack."""
    import openvino

    return openvino.Core()


def _save(folder: Path, name: str, outputs: dict[str, Any], inputs: list[Any], **info: Any) -> Path:
    import openvino
    from openvino import opset13 as op

    results = []
    for output_name, node in outputs.items():
        result = op.result(node)
        node.output(0).tensor.set_names({output_name})
        results.append(result)
    model = openvino.Model(results, inputs, name)
    for key, value in info.items():
        model.set_rt_info(value, ["model_info", key])
    path = folder / f"{name}.xml"
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


def _input(shape: Sequence[int], name: str = "data", dtype: str = "f32") -> Any:
    from openvino import PartialShape, Type
    from openvino import opset13 as op

    node = op.parameter(PartialShape(list(shape)), getattr(Type, dtype), name=name)
    node.output(0).tensor.set_names({name})
    return node


def _constant(values: Any) -> Any:
    from openvino import opset13 as op

    return op.constant(np.asarray(values, np.float32))


def _plus_brightness(picture: Any, values: Any, weight: Any) -> Any:
    """values + weight * brightness."""
    from openvino import opset13 as op

    mean = op.reduce_mean(picture, op.constant(np.array([0, 1, 2, 3])), keep_dims=False)
    bright = op.divide(mean, _constant(255))
    return op.add(_constant(values), op.multiply(_constant(weight), bright))


def echo(folder: Path, size: tuple[int, int] = (SIZE, SIZE), channels: int = 3) -> Path:
    """`pixels`: the input as it arrives, [1, channels, height, width]; size is (width, height)."""
    from openvino import opset13 as op

    picture = _input((1, channels, size[1], size[0]))
    return _save(folder, "echo", {"pixels": op.add(picture, _constant(0))}, [picture])


def ssd(folder: Path, rows: Sequence[Sequence[float]], name: str = "ssd", **info: str) -> Path:
    """`detection_out`: `rows` of seven numbers; brightness is added to the first confidence."""
    values = np.asarray(rows, np.float32).reshape(1, 1, -1, 7)
    weight = np.zeros_like(values)
    weight[0, 0, 0, 2] = 1
    picture = _input((1, 3, SIZE, SIZE))
    out = {"detection_out": _plus_brightness(picture, values, weight)}
    return _save(folder, name, out, [picture], **info)


def classifier(folder: Path, logits: Sequence[float], softmax: bool = True, **info: str) -> Path:
    """`prob` [1, C]: softmax of `logits`, brightness * 10 added to the last one."""
    from openvino import opset13 as op

    values = np.asarray([logits], np.float32)
    weight = np.zeros_like(values)
    weight[0, -1] = 10
    picture = _input((1, 3, SIZE, SIZE))
    out = _plus_brightness(picture, values, weight)
    return _save(
        folder, "classifier", {"prob": op.softmax(out, 1) if softmax else out}, [picture], **info
    )


def constant_picture_model(
    folder: Path, outputs: dict[str, Any], size: int = SIZE, name: str = "constant", **info: Any
) -> Path:
    """The named outputs, whatever the picture."""
    picture = _input((1, 3, size, size))
    nodes = {
        key: _plus_brightness(picture, value, np.zeros(np.shape(value)))
        for key, value in outputs.items()
    }
    return _save(folder, name, nodes, [picture], **info)


def add(folder: Path) -> Path:
    """`sum` of `a` and `b`, float32 vectors of any length; other lengths fail when it runs."""
    from openvino import opset13 as op

    a, b = _input((-1,), "a"), _input((-1,), "b")
    return _save(folder, "add", {"sum": op.add(a, b)}, [a, b])


def double(folder: Path) -> Path:
    """`twice` the vector `x`, float32 [4]."""
    from openvino import opset13 as op

    x = _input((4,), "x")
    return _save(folder, "double", {"twice": op.multiply(x, _constant(2))}, [x])


def ultralytics(
    folder: Path, outputs: dict[str, Any], size: int, names: dict[int, str], **metadata: Any
) -> Path:
    """The named outputs, with all that Ultralytics writes into an OpenVINO export and beside it."""
    import yaml

    said = {"description": "a model: of a test", "stride": 32, "task": "detect", "names": names}
    text = yaml.safe_dump(said | metadata, sort_keys=False, allow_unicode=True)
    (folder / "metadata.yaml").write_text(text, "utf-8")
    return constant_picture_model(
        folder,
        outputs,
        size,
        "best",
        model_type="YOLO",
        reverse_input_channels=True,
        pad_value=114,
        scale_values=[255.0],
        iou_threshold=0.7,
        labels=[name.replace(" ", "_") for name in names.values()],
        resize_type="fit_to_window_letterbox",
    )


def onnx_relu(folder: Path, shape: Sequence[int], metadata: dict[str, str]) -> Path:
    """An ONNX file: `y` = relu(`x`), both float32 of `shape`, with these metadata_props.

    Written by hand, as the fields of onnx.proto: nothing else here needs the onnx package.
    """

    def number(value: int) -> bytes:
        low, rest = value & 127, value >> 7
        return bytes([low | 128]) + number(rest) if rest else bytes([low])

    def field(tag: int, *parts: bytes) -> bytes:
        data = b"".join(parts)
        return number(tag << 3 | 2) + number(len(data)) + data

    def integer(tag: int, value: int) -> bytes:
        return number(tag << 3) + number(value)

    def port(name: bytes) -> bytes:
        sizes = [field(1, integer(1, size)) for size in shape]
        return field(1, name) + field(2, field(1, integer(1, 1), field(2, *sizes)))

    relu = field(1, field(1, b"x"), field(2, b"y"), field(4, b"Relu"))
    graph = field(7, relu, field(2, b"g"), field(11, port(b"x")), field(12, port(b"y")))
    props = [field(14, field(1, k.encode()), field(2, v.encode())) for k, v in metadata.items()]
    path = folder / "relu.onnx"
    path.write_bytes(b"".join([integer(1, 8), graph, field(8, integer(2, 13)), *props]))
    return path


def rows(folder: Path, batch: int = 1) -> Path:
    """`twice` the rows `x`, float32 [batch, 4]."""
    from openvino import opset13 as op

    x = _input((batch, 4), "x")
    return _save(folder, "rows", {"twice": op.multiply(x, _constant(2))}, [x])


def folded(folder: Path) -> Path:
    """`flat`: the numbers of `x`, float32 [1, 4], without the dimension that tells frames apart."""
    from openvino import opset13 as op

    x = _input((1, 4), "x")
    return _save(folder, "folded", {"flat": op.reshape(x, op.constant([1, -1]), False)}, [x])
