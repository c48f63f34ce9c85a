"""What decoding costs in a pipeline of processes, beside one process that does the same work.

    python benchmarks/decode.py --model FILE [--footage VIDEO] [--frames 900] [--rounds 5]
                                [--python-ms 0,5] [--preprocess planes] [--end process]
                                [--replicas 1] [--threads N] [--mbit 8] [--grain 9] [--json FILE]

A 1080p H.264 file goes through a light model, and nothing is done with the answers. Three sides
take turns, `--rounds` times, each time as fast as it goes:

    ovpipe  video -> infer -> consumer: three processes and a supervisor; the slots hold the picture
            as it was decoded, 1920x1080; with `--end inline` the consumer lives in the process of
            infer, with `--end none` there is none, with `--replicas 2` there are two of it
    thread  one process, as one would write it with care: PyAV in a thread of its own
            (threads of the decoder: as FFmpeg likes best), resized and turned into BGR by swscale
            at once, a queue with room for four, openvino.AsyncInferQueue, whose callback copies the
            outputs and hands them on to a thread
    callback  the same, but that the callback works on the answers itself

ovpipe is compared with the faster one of those two. All have the same model with the same
conversion in its graph (u8 to f32, layout), the hint THROUGHPUT and the number of requests that
OpenVINO calls optimal (ovpipe one more, as is its habit). The clip is made once per run:
`--footage` scaled up with grain on it, or moving patterns with grain, 300 frames at about 8 Mbit/s
by libx264; it is played again and again. With `--grain 0 --mbit 1` it is what a camera gives that
does not move and has light enough: half the work for the decoder, or less. `--threads 3` decodes
with so many on all sides, a frame each; by itself, ovpipe takes four, and FFmpeg one more than
there are cores.

With `--python-ms 5` whoever takes the answers works on each for that long in pure Python (a loop
whose length is measured once, for all sides): a stage of ours has an interpreter of its own, or one
for each of its replicas; a thread shares one with all others. That can be worth nothing where
decoding alone keeps all cores busy: what then counts is CPU per frame.

    frames/s  counted where the answers come out of infer, or by who takes them in one process; the
              first tenth is left out
    CPU ms    per frame over the same frames: user and system time of all processes of the side
    split     of ovpipe's: `decode` is the decoder and all its threads, `copy` from the decoder's
              planes into the slot, `convert` resizing and colour into the model's input, `infer`
              the device with its threads, `source` and `stage` what else the main threads of those
              two processes did (Python, sending and receiving, the ledger), `rest` what the
              consumer, the supervisor and other threads used

Medians over the rounds; ratios are made within each round. These figures compare within one run:
between machines, and between busy hours of one, they mean little.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from support import session_cpu

HERE = Path(__file__).parent
CLIP_FRAMES = 300
WIDTH, HEIGHT = 1920, 1080
IN_FLIGHT = 50
"""More frames than can be under way."""
GRAINS = 8
SIDES = ("ovpipe", "thread", "callback")
PARTS = ("decode", "copy", "convert", "infer", "source", "stage")


def make_clip(path: Path, footage: str, mbit: float, amplitude: int) -> None:
    """300 frames of 1080p, with grain of so many levels, as a camera of that size gives them."""
    import av
    import numpy as np

    random = np.random.default_rng(1)
    size = GRAINS, HEIGHT, WIDTH
    grain = random.integers(-amplitude, amplitude + 1, size, np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = round(mbit * 1e6)
        made = 0
        while made < CLIP_FRAMES:
            for planes in scenes(footage):
                luma = planes[:HEIGHT]
                luma[:] = np.clip(luma + grain[made % GRAINS], 16, 235)
                for packet in stream.encode(av.VideoFrame.from_ndarray(planes, "yuv420p")):
                    container.mux(packet)
                made += 1
                if made == CLIP_FRAMES:
                    break
        for packet in stream.encode():
            container.mux(packet)


def scenes(footage: str) -> Any:
    """Pictures without grain: those of the footage, or squares that move over a gradient."""
    import av
    import numpy as np

    if footage:
        with av.open(footage) as container:
            for frame in container.decode(video=0):
                yield frame.reformat(WIDTH, HEIGHT, "yuv420p").to_ndarray()
        return
    base = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
    base[:HEIGHT] = np.linspace(40, 200, WIDTH, dtype=np.uint8)
    for i in range(CLIP_FRAMES):
        planes = base.copy()
        for n in range(6):
            x, y = (n * 300 + 7 * i) % (WIDTH - 200), (n * 170 + 3 * i) % (HEIGHT - 200)
            planes[y : y + 200, x : x + 200] = 30 + 35 * n
        yield planes


def spin(loops: int) -> int:
    """Pure Python, for so many turns."""
    total = 0
    for i in range(loops):
        total += i & 7
    return total


def loops_for(ms: float) -> int:
    """How many turns take that long here; the quickest of several looks."""
    if not ms:
        return 0
    spin(100_000)
    best = min(_time(100_000) for _ in range(15))
    return int(100_000 * ms / 1e3 / best)


def _time(loops: int) -> float:
    began = time.thread_time()
    spin(loops)
    return time.thread_time() - began


class Tally:
    """Frames at the end of the line, and what the whole session used for them.

    From the first tenth on, and to where the source has not come to its end: a process that has
    ended is no longer there to be counted.
    """

    def __init__(self, count: int) -> None:
        self.first, self.last, self.frames = count // 10, count - IN_FLIGHT, 0
        self.began = (0.0, 0.0)
        self.figures: dict[str, float] = {}

    def frame(self) -> None:
        self.frames += 1
        if self.frames == self.first:
            self.began = time.perf_counter(), session_cpu()[0]
        elif self.frames == self.last:
            wall, cpu = time.perf_counter() - self.began[0], session_cpu()[0] - self.began[1]
            counted = self.last - self.first
            self.figures = {"rate": counted / wall, "cpu_ms": cpu / counted * 1e3}


# -- ovpipe ----------------------------------------------------------------------------------


def pipeline(job: dict[str, Any]) -> dict[str, float]:
    import ovpipe

    with tempfile.TemporaryDirectory() as folder:
        common = {"skip": job["frames"] // 10, "count": job["frames"]}
        paths = {name: str(Path(folder, name)) for name in ("film", "infer")}
        pipe = ovpipe.Pipeline("decode", folder=HERE)
        film = {"url": job["clip"], "loop": True, "threads": job["threads"], **common}
        film["report"] = paths["film"]
        pipe.add("film", "decode_stages:Film", film)
        infer = {"model": job["model"], "decode": "raw", "preprocess": job["preprocess"]}
        pipe.add("infer", "decode_stages:Infer", {**infer, "report": paths["infer"], **common})
        if job["end"] != "none":
            run = {"placement": job["end"], "replicas": job["replicas"]}
            pipe.add("end", "decode_stages:End", {"loops": job["loops"]}, run=run)
        with pipe:
            pipe.run()
        film, infer = (json.loads(Path(p).read_text()) for p in paths.values())
    figures = {name: infer.pop(name) for name in ("rate", "cpu_ms")}
    parts = {**film, **infer}
    figures["rest"] = figures["cpu_ms"] - sum(parts.values())
    return {**figures, **{p: parts[p] for p in PARTS}}


# -- one process ------------------------------------------------------------------------------


def single(job: dict[str, Any], in_callback: bool) -> dict[str, float]:
    import av
    import openvino as ov
    from openvino.preprocess import PrePostProcessor

    model = ov.Core().read_model(job["model"])
    pre = PrePostProcessor(model)
    pre.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    pre.input().model().set_layout(ov.Layout("NCHW"))
    _, _, height, width = model.input(0).shape
    compiled = ov.Core().compile_model(pre.build(), "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})
    infers = ov.AsyncInferQueue(compiled, 0)
    frames: queue.Queue[Any] = queue.Queue(4)
    answers: queue.Queue[Any] = queue.Queue()
    tally, counting = Tally(job["frames"]), threading.Lock()

    def decode() -> None:
        left = job["frames"]
        while left:
            with av.open(job["clip"]) as container:
                stream = container.streams.video[0]
                stream.thread_type, stream.thread_count = "FRAME", job["threads"]
                for frame in container.decode(video=0):
                    small = frame.reformat(width, height, "bgr24", threads=1)
                    frames.put(small.to_ndarray()[None])
                    left -= 1
                    if not left:
                        break
        frames.put(None)

    def use(_: list[Any]) -> None:
        spin(job["loops"])
        with counting:
            tally.frame()

    def use_all() -> None:
        while (answer := answers.get()) is not None:
            use(answer)

    take = use if in_callback else answers.put
    infers.set_callback(lambda request, _: take([t.data.copy() for t in request.output_tensors]))
    threads = [threading.Thread(target=decode), threading.Thread(target=use_all)]
    for thread in threads:
        thread.start()
    while (picture := frames.get()) is not None:
        infers.start_async(picture)
    infers.wait_all()
    answers.put(None)
    for thread in threads:
        thread.join()
    return tally.figures


# -- the comparison ---------------------------------------------------------------------------


def measure(side: str, job: dict[str, Any]) -> dict[str, float]:
    """One side in a session of its own, so that all its processes can be counted."""
    ended = subprocess.run(
        [sys.executable, __file__, "--side", side, "--job", json.dumps(job)],
        stdout=subprocess.PIPE, check=True, text=True, start_new_session=True,
        env={**os.environ, "CI": "true"},
    )  # fmt: skip
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def compare(job: dict[str, Any], rounds: int) -> dict[str, Any]:
    """All sides in turn, the order turned from round to round."""
    turns = []
    for i in range(rounds):
        order = SIDES if i % 2 == 0 else SIDES[::-1]
        turns.append({side: measure(side, job) for side in order})
        print(f"\r  round {i + 1} of {rounds}", end="", file=sys.stderr, flush=True)
    print("\r" + " " * 20 + "\r", end="", file=sys.stderr)
    result: dict[str, Any] = {
        side: {key: statistics.median(t[side][key] for t in turns) for key in turns[0][side]}
        for side in SIDES
    }
    best = max(SIDES[1:], key=lambda side: float(result[side]["rate"]))
    result["against"] = best
    for key, name in (("rate", "rate_ratio"), ("cpu_ms", "cpu_ratio")):
        result[name] = statistics.median(t["ovpipe"][key] / t[best][key] for t in turns)
    return result


def show(result: dict[str, Any]) -> None:
    ours, best = result["ovpipe"], result["against"]
    print(f"  ovpipe   {ours['rate']:7.1f} frames/s  {ours['cpu_ms']:6.2f} CPU ms per frame  = "
          + "  ".join(f"{p} {ours[p]:.2f}" for p in (*PARTS, "rest")))  # fmt: skip
    for side in SIDES[1:]:
        theirs = result[side]
        print(
            f"  {side:8} {theirs['rate']:7.1f} frames/s  {theirs['cpu_ms']:6.2f} CPU ms per frame"
        )
    print(f"  ovpipe / {best}: frames/s {result['rate_ratio']:.3f}, CPU {result['cpu_ratio']:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model")
    parser.add_argument("--footage", default="", help="a real video to make the clip of")
    parser.add_argument("--frames", type=int, default=900, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--python-ms", default="0,5", help="of pure Python per frame, one or more")
    parser.add_argument("--threads", type=int, default=0, help="of both decoders; 0: their habit")
    parser.add_argument("--preprocess", default="planes", help="of the infer stage: host, planes")
    parser.add_argument("--end", choices=["process", "inline", "none"], default="process",
                        help="who takes ovpipe's answers")  # fmt: skip
    parser.add_argument("--replicas", type=int, default=1, help="of that consumer")
    parser.add_argument("--mbit", type=float, default=8, help="Mbit/s of the clip")
    parser.add_argument("--grain", type=int, default=9, help="levels of grain in the clip")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        job = json.loads(given.job)
        figures = pipeline(job) if given.side == "ovpipe" else single(job, given.side == "callback")
        print(json.dumps(figures), flush=True)
        os._exit(0)  # OpenVINO's exit crashes now and then; that is not what is measured here
    if not given.model:
        parser.error("name a model with --model")
    spans = [float(ms) for ms in given.python_ms.split(",")]
    if given.end == "none" and any(spans):
        parser.error("with --end none nobody works on the answers; add --python-ms 0")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "clip.mp4")
        make_clip(clip, given.footage, given.mbit, given.grain)
        rate = clip.stat().st_size * 8 * 25 / CLIP_FRAMES / 1e6
        print(f"clip: {WIDTH}x{HEIGHT}, {CLIP_FRAMES} frames, {rate:.1f} Mbit/s at 25 frames/s")
        job = {"clip": str(clip), "model": given.model, "frames": given.frames,
               "preprocess": given.preprocess, "end": given.end, "replicas": given.replicas,
               "threads": given.threads}  # fmt: skip
        for ms in spans:
            print(f"{Path(given.model).stem}, {ms:g} ms of Python per frame")
            results[f"{ms:g}"] = compare({**job, "loops": loops_for(ms)}, given.rounds)
            show(results[f"{ms:g}"])
    if given.json:
        Path(given.json).write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
