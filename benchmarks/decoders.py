"""What each decoder costs, beside the inference of a model of its kind.

    python benchmarks/decoders.py [--data FOLDER] [--objects 20] [--seconds 1]

Each decoder gets synthetic outputs in the shapes of real models: scores of noise far below its
threshold, and `--objects` strong objects at random places, the same in every run. A call is
timed on its own; the table has the median over as many calls as fit into `--seconds`, after
ten that do not count. numpy runs in one thread here, as it does in a worker.

With --data, the folder with the models named in MODELS below, the same row has the median time
of one synchronous inference (hint LATENCY, all cores, a blank picture) and the decoder's share
of it; the aim is at most a tenth. There is no Ultralytics model among them: their rows, for
inputs of 640x640 and more, stand beside yolox_nano at 416x416, which is several times lighter
than the lightest of theirs, so that the shares are far above the real ones. Nothing there is
near to semantic segmentation.

These figures are for comparing within one run; between machines they mean little.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ovpipe.frame import Frame
from ovpipe.stages.infer.classification import Classification
from ovpipe.stages.infer.decode import Decoder, Fit, FrameInfo
from ovpipe.stages.infer.embedding import Embedding
from ovpipe.stages.infer.keypoints import Keypoints
from ovpipe.stages.infer.segmentation import Segmentation
from ovpipe.stages.infer.ssd import Ssd
from ovpipe.stages.infer.ultraface import UltraFace
from ovpipe.stages.infer.yolo import Yolo
from ovpipe.stages.infer.yolo_layout import Layout
from ovpipe.stages.infer.yolox import YoloX
from ovpipe.stages.infer.yunet import YuNet

Outputs = dict[str, np.ndarray[Any, Any]]

MODELS = {
    "ssd": "omz/face-detection-retail-0004/FP16/face-detection-retail-0004.xml",
    "yunet": "yunet/face_detection_yunet_2023mar.onnx",
    "ultraface": "ultraface/version-RFB-320.onnx",
    "yolox": "yolox/yolox_nano.onnx",
    "yolo": "yolox/yolox_nano.onnx",
    "keypoints": "coral/movenet_single_pose_lightning_ptq.tflite",
    "classification": "coral/mobilenet_v2_1.0_224_quant.tflite",
    "embedding": "omz/face-reidentification-retail-0095/FP16/face-reidentification-retail-0095.xml",
}
RANDOM = np.random.default_rng(1)


def noise(*shape: int, most: float = 0.05) -> np.ndarray[Any, Any]:
    return RANDOM.uniform(0, most, shape).astype(np.float32)


def boxes(count: int, size: int) -> np.ndarray[Any, Any]:
    """(count, 4) x, y, w, h in pixels."""
    centre, sides = RANDOM.uniform(0, size, (count, 2)), RANDOM.uniform(20, size / 4, (count, 2))
    return np.concatenate([centre, sides], axis=1).astype(np.float32)


def v8(classes: int, extra: int, anchors: int, objects: int, size: int) -> Outputs:
    out = noise(1, 4 + classes + extra, anchors)
    out[0, :4] = boxes(anchors, size).T
    strong = RANDOM.choice(anchors, objects, replace=False)
    out[0, 4 + RANDOM.integers(0, classes, objects), strong] = 0.9
    out[0, 4 + classes :, strong] = RANDOM.normal(size=(objects, extra))
    return {"out": out}


def v5(objects: int) -> Outputs:
    out = noise(1, 25200, 85)
    out[0, :, :4] = boxes(25200, 640)
    out[0, RANDOM.choice(25200, objects, replace=False), 4:7] = 0.9
    return {"out": out}


def end(objects: int) -> Outputs:
    out = noise(1, 300, 6)
    xywh = boxes(300, 640)
    out[0, :, :4] = np.concatenate([xywh[:, :2] - xywh[:, 2:], xywh[:, :2] + xywh[:, 2:]], axis=1)
    out[0, :objects, 4] = 0.9
    return {"out": out}


def yolox(objects: int) -> Outputs:
    out = noise(1, 3549, 85)
    out[0, RANDOM.choice(3549, objects, replace=False), 4:7] = 0.9
    return {"out": out}


def yunet(objects: int) -> Outputs:
    outputs = {}
    for s in (8, 16, 32):
        cells = (640 // s) ** 2
        for part, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            outputs[f"{part}_{s}"] = noise(1, cells, width)
    strong = RANDOM.choice(6400, objects, replace=False)
    outputs["cls_8"][0, strong] = outputs["obj_8"][0, strong] = 0.9
    return outputs


def ultraface(objects: int) -> Outputs:
    scores, made = noise(1, 4420, 2), noise(1, 4420, 4, most=0.5)
    made[..., 2:] += made[..., :2]
    scores[0, RANDOM.choice(4420, objects, replace=False), 1] = 0.9
    return {"scores": scores, "boxes": made}


def ssd(objects: int) -> Outputs:
    out = noise(1, 1, 200, 7)
    out[..., 5:] = 0.5
    out[0, 0, :objects, 2] = 0.9
    return {"out": out}


def cases(n: int) -> list[tuple[str, str, Decoder, Outputs, int]]:
    """Decoder's name, what it reads, the decoder, its outputs, side of the input."""
    segment = Layout("v8", "segment", "out", "protos", classes=80)
    pose = Layout("v8", "pose", "out", classes=1, keypoints=(17, 3))
    obb = Layout("v8", "obb", "out", classes=15)
    protos = {"protos": RANDOM.normal(size=(1, 32, 160, 160)).astype(np.float32)}
    v8s = v8(80, 0, 8400, n, 640)
    return [
        ("ssd", "[1,1,200,7]", Ssd(), ssd(n), 300),
        ("yunet", "12 outputs, 640x640", YuNet(), yunet(n), 640),
        ("ultraface", "[1,4420,2] [1,4420,4]", UltraFace(), ultraface(n), 320),
        ("yolox", "[1,3549,85]", YoloX(), yolox(n), 416),
        ("yolo", "v8 [1,84,8400]", Yolo(Layout("v8", "detect", "out", classes=80)), v8s, 640),
        ("yolo", "v5 [1,25200,85]", Yolo(Layout("v5", "detect", "out", classes=80)), v5(n), 640),
        ("yolo", "end [1,300,6]", Yolo(Layout("end", "detect", "out")), end(n), 640),
        ("yolo", "pose [1,56,8400]", Yolo(pose), v8(1, 51, 8400, n, 640), 640),
        ("yolo", "segment [1,116,8400]", Yolo(segment), v8(80, 32, 8400, n, 640) | protos, 640),
        ("yolo", "obb [1,20,21504]", Yolo(obb), v8(15, 1, 21504, n, 1024), 1024),
        ("keypoints", "[1,1,17,3]", Keypoints(), {"out": noise(1, 1, 17, 3, most=1)}, 192),
        ("segmentation", "[1,21,512,512]", Segmentation(), {"out": noise(1, 21, 512, 512)}, 512),
        ("classification", "[1,1001]", Classification(), {"out": noise(1, 1001)}, 224),
        ("embedding", "[1,256,1,1]", Embedding(), {"out": noise(1, 256, 1, 1)}, 128),
    ]


def info(size: int, fit: Fit) -> FrameInfo:
    """A frame of 1920x1080 on its way into a square input."""
    if not fit.letterbox:
        return FrameInfo(Frame(), 1920, 1080, size, size, size / 1920, size / 1080)
    top = (size - size * 9 // 16) // 2 if fit.centred else 0
    return FrameInfo(Frame(), 1920, 1080, size, size, size / 1920, size / 1920, 0, top)


def median_s(call: Callable[[], Any], seconds: float) -> float:
    for _ in range(10):
        call()
    taken: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def inference_s(model: Path, seconds: float) -> float:
    import openvino

    core = openvino.Core()
    read = core.read_model(model)
    shape = [d.get_length() if d.is_static else 1 for d in read.inputs[0].get_partial_shape()]
    read.reshape(shape)
    request = core.compile_model(
        read, "CPU", {"PERFORMANCE_HINT": "LATENCY"}
    ).create_infer_request()
    return median_s(request.infer, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with models/ (or that folder itself)")
    parser.add_argument("--objects", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    folder = None
    if args.data:
        folder = args.data / "models" if (args.data / "models").is_dir() else args.data
    inferences: dict[str, float] = {}
    print(f"{'decoder':15}{'outputs':25}{'decoding':>12}{'inference':>13}{'share':>8}")
    for name, shape, decoder, outputs, size in cases(args.objects):
        frame = info(size, decoder.fit)
        took = median_s(lambda d=decoder, o=outputs, f=frame: d(o, f), args.seconds)
        row = f"{name:15}{shape:25}{took * 1e6:9.0f} us"
        model = folder / MODELS[name] if folder and name in MODELS else None
        if model is not None and model.exists():
            if str(model) not in inferences:
                inferences[str(model)] = inference_s(model, args.seconds)
            whole = inferences[str(model)]
            row += f"{whole * 1e3:10.1f} ms{100 * took / whole:6.1f} %"
        print(row, flush=True)


if __name__ == "__main__":
    main()
