"""What a hop costs, and what a whole graph costs beside a single-process loop, in one run.

    python benchmarks/overview.py [--part hop|graph] [--model FILE.xml] [--seconds 4] [--repeats 5]

Part (a), hop: producer -> consumer, and producer -> transform -> consumer, two and three
processes, `block`, loaned slots, the consumer reads every byte. Frames per second from the
consumer's first frame to its last; processor time per frame is the sum over all stages of what
each process used between its first frame and its last. Beside it, the same machine's cost of
copying one such frame (numpy), since that is what a hop without shared memory would add at
least once.

Part (b), graph: synthetic -> infer -> consumer against a plain single-process loop over
openvino.AsyncInferQueue, with the same model, hint, jobs and pre-processing graph (u8 NHWC in),
and frames of the model's own size, so that neither side resizes. Both sides copy each frame
once into memory of their own. Each side is measured as a whole process tree at two lengths and
the difference taken, which removes starting and compiling; the sides take turns, and the
medians of `--repeats` turns and their ratio are reported. Without --model, a small
convolutional network is built.

These figures are for comparing within one run; between machines they mean little.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import ovpipe

SIZES = {"640x480": (640, 480), "1080p": (1920, 1080), "4K": (3840, 2160)}
HERE = Path(__file__).parent


def hop(size: tuple[int, int], stages: int, count: int) -> tuple[float, float]:
    """(frames/s, CPU s per frame of all stages) of a chain of `stages` processes."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / f"{i}.json") for i in range(stages)]
        width, height = size
        pipeline = ovpipe.Pipeline("hop", folder=HERE)
        pipeline.add(
            "src",
            "stages:Source",
            {"count": count, "width": width, "height": height, "path": paths[0]},
        )
        for i in range(1, stages - 1):
            pipeline.add(f"mid{i}", "stages:Forward", {"path": paths[i]})
        pipeline.add("sink", "stages:Sink", {"path": paths[-1]})
        with pipeline:
            pipeline.run()
        reports = [json.loads(Path(p).read_text()) for p in paths]
    assert all(r["frames"] == count for r in reports)
    return count / reports[-1]["wall_s"], sum(r["cpu_s"] for r in reports) / count


def copy_cost(size: tuple[int, int]) -> float:
    """Seconds that one copy of a frame takes."""
    a, b = (np.ones(size[::-1], np.uint8) for _ in range(2))
    rounds = max(20, 200_000_000 // a.nbytes)
    began = time.perf_counter()
    for _ in range(rounds):
        np.copyto(a, b)
    return (time.perf_counter() - began) / rounds


def used() -> float:
    """Processor seconds of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def tree(run: object, count: int) -> tuple[float, float]:
    """(wall s, CPU s) of `run(count)` as a whole process tree."""
    wall, cpu = time.perf_counter(), used()
    run(count)  # type: ignore[operator]
    return time.perf_counter() - wall, used() - cpu


def steady(run: object, count: int) -> tuple[float, float]:
    """(frames/s, CPU s per frame), from the difference of two lengths."""
    wall_1, cpu_1 = tree(run, count)
    wall_2, cpu_2 = tree(run, 3 * count)
    return 2 * count / (wall_2 - wall_1), (cpu_2 - cpu_1) / (2 * count)


def make_model(folder: Path) -> Path:
    """A small convolutional network: 1x3x160x160, a few ms of work."""
    import openvino as ov
    from openvino import opset13 as op

    rng = np.random.default_rng(0)
    x = image = op.parameter([1, 3, 160, 160], np.float32, name="image")
    channels = 3
    for width in (32, 64, 128):
        weights = rng.normal(0, 0.1, (width, channels, 3, 3)).astype(np.float32)
        x = op.relu(op.convolution(x, weights, [2, 2], [1, 1], [1, 1], [1, 1]))
        channels = width
    path = folder / "net.xml"
    ov.save_model(ov.Model([op.reduce_mean(x, [2, 3], False)], [image]), path, False)
    return path


def graph_side(model: Path, size: tuple[int, int], jobs: int) -> object:
    def run(count: int) -> None:
        pipeline = ovpipe.Pipeline("graph", folder=HERE)
        pipeline.add("src", "synthetic", {"size": f"{size[0]}x{size[1]}", "count": count})
        options = {"model": str(model), "device": "CPU", "jobs": jobs, "decode": "raw"}
        pipeline.add("infer", "infer", {**options, "cache": "off"})
        with tempfile.NamedTemporaryFile() as file:
            pipeline.add("sink", "stages:Sink", {"path": file.name, "touch": False})
            with pipeline:
                pipeline.run()

    return run


def plain_side(model: Path, jobs: int) -> object:
    def run(count: int) -> None:
        command = [sys.executable, __file__, "--plain", str(count), str(jobs), str(model)]
        subprocess.run(command, check=True, env={**os.environ, "CI": "true"})

    return run


def plain(count: int, jobs: int, model: str) -> None:
    """The loop that a careful user would write over openvino.AsyncInferQueue."""
    import openvino as ov
    from openvino.preprocess import PrePostProcessor

    core = ov.Core()
    network = core.read_model(model)
    _, _, height, width = network.input(0).shape
    pre = PrePostProcessor(network)
    pre.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    pre.input().model().set_layout(ov.Layout("NCHW"))
    config = {"PERFORMANCE_HINT": "THROUGHPUT"}
    if jobs:
        config["PERFORMANCE_HINT_NUM_REQUESTS"] = str(jobs)
    queue = ov.AsyncInferQueue(core.compile_model(pre.build(), "CPU", config), jobs)
    results: dict[int, list[np.ndarray]] = {}
    queue.set_callback(
        lambda request, seq: results.__setitem__(
            seq % 64, [tensor.data.copy() for tensor in request.output_tensors]
        )
    )
    frame = np.random.default_rng(0).integers(0, 255, (1, height, width, 3), np.uint8)
    for seq in range(count):
        queue.start_async(frame, seq)  # copies the frame into the request's own memory
    queue.wait_all()
    os._exit(0)  # its exit crashes now and then; that is not what is measured here


def show_hop(seconds: float, repeats: int) -> None:
    """Part (a)."""
    print(f"{'hop':>18} {'frames/s':>10} {'CPU us/frame':>13} {'one copy us':>12}")
    for name, size in SIZES.items():
        copy = copy_cost(size)
        for stages in (2, 3):
            count = int(seconds * 3e9 / (size[0] * size[1] + 4e5))
            runs = [hop(size, stages, count) for _ in range(repeats)]
            rate, cpu = (statistics.median(r[i] for r in runs) for i in (0, 1))
            print(f"{name:>9} {stages} stages {rate:10.0f} {cpu * 1e6:13.1f} {copy * 1e6:12.1f}")


def show_graph(given: Path | None, jobs: int, seconds: float, repeats: int) -> None:
    """Part (b)."""
    with tempfile.TemporaryDirectory() as folder:
        model = given or make_model(Path(folder))
        import openvino as ov

        _, _, height, width = ov.Core().read_model(model).input(0).shape
        sides = {
            "ovpipe": graph_side(model, (width, height), jobs),
            "plain loop": plain_side(model, jobs),
        }
        probe, _ = steady(sides["plain loop"], 50)
        count = max(20, int(probe * seconds / 3))
        results: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        for _ in range(repeats):
            for name, run in sides.items():
                results[name].append(steady(run, count))
        print(f"{'graph':>18} {'infer/s':>10} {'CPU ms/infer':>13}")
        for name, values in results.items():
            rate, cpu = (statistics.median(v[i] for v in values) for i in (0, 1))
            print(f"{name:>18} {rate:10.1f} {cpu * 1e3:13.2f}")
        pairs = list(zip(results["ovpipe"], results["plain loop"], strict=True))
        rate, cpu = (statistics.median(a[i] / b[i] for a, b in pairs) for i in (0, 1))
        print(f"{'ovpipe / plain':>18} {rate:10.3f} {cpu:13.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a model with one image input, NCHW")
    parser.add_argument("--part", choices=["hop", "graph", "both"], default="both")
    parser.add_argument("--seconds", type=float, default=4.0, help="per measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--plain", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain:
        plain(int(arguments.plain[0]), int(arguments.plain[1]), arguments.plain[2])
    if arguments.part != "graph":
        show_hop(arguments.seconds, arguments.repeats)
    if arguments.part != "hop":
        show_graph(arguments.model, arguments.jobs, arguments.seconds, arguments.repeats)


if __name__ == "__main__":
    main()
