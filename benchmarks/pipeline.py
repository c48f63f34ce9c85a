"""A whole graph against benchmark_app's own figure, and where the difference goes.

    python benchmarks/pipeline.py --model FILE [...] [--inline] [--seconds 10] [--rounds 3] [--json]

Method. For each model (one image input, NCHW) three programs take turns, `--rounds` times:

    benchmark_app   openvino's, with `-hint throughput -t SECONDS`: the device alone, its inputs
                    filled once before the clock starts
    ovpipe          synthetic -> infer -> consumer, three processes, frames of the model's size
    inline          with --inline: the same, the consumer in the process of the infer stage
    plain loop      one process: the same synthetic frames, copied into openvino.AsyncInferQueue,
                    the callback copies the outputs

with the same hint and the device's own number of jobs. Throughput of the graph is counted at
the consumer, of the loop in its callback, both without the first tenth. CPU time is each
process's own clock, user and system, over the same frames; the sum of the stages' is compared
with the loop's. Medians over the rounds, ratios per round.

The split by stage: CPU time per frame of each process. What the graph spends beyond the loop is
lost to the device where that uses every core. Beside it stands what three processes cost that
only hand on a message over pyzmq at the same rate (bare.py), which no such graph can go below.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ovpipe

HERE = Path(__file__).parent
STAGES = ("source", "infer", "sink")


def app(model: str, seconds: float) -> float:
    """benchmark_app's throughput in inferences/s."""
    tool = Path(sys.executable).with_name("benchmark_app")
    command = [tool, "-m", model, "-d", "CPU", "-hint", "throughput", "-t", str(int(seconds))]
    said = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "CI": "true"}
    )
    found = re.search(r"Throughput:\s+([\d.]+) FPS", said.stdout)
    assert found, said.stdout[-500:]
    return float(found[1])


def graph(model: str, size: str, count: int, placement: str) -> dict[str, dict[str, float]]:
    """Reports of the three stages. What the sink spends inline is in what infer's process does."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: str(Path(folder) / name) for name in STAGES}
        common = {"skip": count // 10}
        pipeline = ovpipe.Pipeline("graph", folder=HERE)
        source = {"size": size, "count": count, "report": paths["source"], **common}
        pipeline.add("source", "stages:Frames", source)
        infer = {"model": model, "decode": "raw", "report": paths["infer"], **common}
        pipeline.add("infer", "stages:Infer", infer)
        run = {"placement": placement}
        pipeline.add("sink", "stages:Count", {"report": paths["sink"], **common}, run=run)
        with pipeline:
            pipeline.run()
        told = {name: json.loads(Path(path).read_text()) for name, path in paths.items()}
        if placement == "inline":
            told["sink"]["cpu_s"] = 0.0
        return told


def loop(model: str, size: str, count: int) -> dict[str, float]:
    """The plain loop's report, from a process of its own."""
    command = [sys.executable, __file__, "--loop", model, size, str(count)]
    said = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "CI": "true"}
    )
    return dict(json.loads(said.stdout))


def plain(model: str, size: str, count: int) -> None:
    """What a careful user would write over openvino.AsyncInferQueue."""
    import openvino as ov
    from openvino.preprocess import PrePostProcessor

    from ovpipe.stages.synthetic import Synthetic

    core = ov.Core()
    pre = PrePostProcessor(core.read_model(model))
    pre.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    pre.input().model().set_layout(ov.Layout("NCHW"))
    compiled = core.compile_model(pre.build(), "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})
    queue = ov.AsyncInferQueue(compiled, 0)
    began, done = [0.0, 0.0], [0]
    kept: dict[int, list[object]] = {}

    def callback(request: ov.InferRequest, seq: int) -> None:
        kept[seq % 64] = [tensor.data.copy() for tensor in request.output_tensors]
        done[0] += 1
        if done[0] == count // 10:
            began[:] = time.perf_counter(), time.process_time()

    queue.set_callback(callback)
    width, height = (int(part) for part in size.split("x"))
    source = Synthetic(size=(width, height), count=count)
    source.open()
    for seq, frame in enumerate(source.frames()):
        queue.start_async(frame.image.bgr()[None], seq)
    queue.wait_all()
    wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    print(json.dumps({"frames": count - count // 10, "wall_s": wall, "cpu_s": cpu}), flush=True)
    os._exit(0)  # its exit crashes now and then; that is not what is measured here


def floor(rate: float) -> float:
    """CPU us per message of three processes over bare pyzmq."""
    command = [sys.executable, str(HERE / "bare.py"), "--json", "--rate", str(rate)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return sum(json.loads(said.stdout).values())


def spent(stages: dict[str, dict[str, float]]) -> dict[str, float]:
    """CPU us per frame of each stage."""
    return {f"{k}_cpu_us": v["cpu_s"] / v["frames"] * 1e6 for k, v in stages.items()}


def measure(model: str, seconds: float, rounds: int, inline: bool) -> dict[str, object]:
    """All programs in turn."""
    import openvino as ov

    _, _, height, width = ov.Core().read_model(model).input(0).shape
    size = f"{width}x{height}"
    count = max(60, int(app(model, 2) * seconds))
    turns = []
    for number in range(rounds):
        beside = {}
        for name in ("app", "graph", *["inline"] * inline, "loop"):
            print(f"\r{Path(model).stem}: {number + 1}/{rounds} {name:6}", end="", file=sys.stderr)
            if name == "app":
                rate = app(model, seconds)
            elif name == "graph":
                stages = graph(model, size, count, "process")
            elif name == "inline":
                fewer = graph(model, size, count, "inline")
                beside = {
                    "inline_per_s": fewer["sink"]["frames"] / fewer["sink"]["wall_s"],
                    "inline_cpu_us": sum(spent(fewer).values()),
                }
            else:
                alone = loop(model, size, count)
        turns.append(
            {
                "benchmark_app_per_s": rate,
                "ovpipe_per_s": stages["sink"]["frames"] / stages["sink"]["wall_s"],
                "loop_per_s": alone["frames"] / alone["wall_s"],
                "loop_cpu_us": alone["cpu_s"] / alone["frames"] * 1e6,
                **spent(stages),
                "ovpipe_cpu_us": sum(spent(stages).values()),
                **beside,
            }
        )
    print("\r" + " " * 70 + "\r", end="", file=sys.stderr)
    result = {key: statistics.median(t[key] for t in turns) for key in turns[0]}

    def ratio(a: str, b: str) -> float:
        return statistics.median(t[a] / t[b] for t in turns)

    if inline:
        result["inline_throughput_of_loop"] = ratio("inline_per_s", "loop_per_s")
        result["inline_cpu_of_loop"] = ratio("inline_cpu_us", "loop_cpu_us")
    return {
        "model": Path(model).stem,
        **result,
        "bare_chain_cpu_us": floor(result["ovpipe_per_s"]),
        "throughput_of_benchmark_app": ratio("ovpipe_per_s", "benchmark_app_per_s"),
        "throughput_of_loop": ratio("ovpipe_per_s", "loop_per_s"),
        "cpu_of_loop": ratio("ovpipe_cpu_us", "loop_cpu_us"),
    }


def show(r: dict) -> None:
    print(f"{r['model']}")
    print(f"  benchmark_app {r['benchmark_app_per_s']:8.1f} inferences/s")
    print(f"  plain loop    {r['loop_per_s']:8.1f}   CPU us per inference {r['loop_cpu_us']:8.0f}")
    split = "  ".join(f"{name} {r[name + '_cpu_us']:.0f}" for name in STAGES)
    print(
        f"  ovpipe        {r['ovpipe_per_s']:8.1f}   CPU us per inference "
        f"{r['ovpipe_cpu_us']:8.0f}   = {split}"
    )
    print(
        f"  ovpipe / benchmark_app {r['throughput_of_benchmark_app']:.3f}   "
        f"ovpipe / loop {r['throughput_of_loop']:.3f}   CPU {r['cpu_of_loop']:.3f}"
    )
    print(
        f"  beyond the loop {r['ovpipe_cpu_us'] - r['loop_cpu_us']:.0f} us; "
        f"three processes over bare pyzmq {r['bare_chain_cpu_us']:.0f} us"
    )

    if "inline_cpu_us" in r:
        print(
            f"  inline        {r['inline_per_s']:8.1f}   CPU us per inference "
            f"{r['inline_cpu_us']:8.0f}   inline / loop {r['inline_throughput_of_loop']:.3f}   "
            f"CPU {r['inline_cpu_of_loop']:.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", default=[], help="repeatable")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--inline", action="store_true", help="the sink in infer's process, too")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--loop", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop:
        plain(options.loop[0], options.loop[1], int(options.loop[2]))
    if not options.model:
        parser.error("name at least one model with --model")
    results = []
    for model in options.model:
        results.append(measure(model, options.seconds, options.rounds, options.inline))
        if not options.json:
            show(results[-1])
    if options.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
