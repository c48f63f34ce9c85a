"""A run as the page sees it, without a run: a folder with a bulletin, and frames to look at."""

import asyncio
import fcntl
import json
import time
from dataclasses import replace
from pathlib import Path

import httpx

from ovpipe.graph import resolve
from ovpipe.spec import InputSpec, PipelineSpec, StageSpec
from ovpipe.supervisor.accountant import Account, Flow, Reading, WorkerReading
from ovpipe.supervisor.bulletin import Bulletin
from ovpipe.supervisor.rundir import LOCK
from ovpipe.transport.ages import BUCKETS, bucket

held = []
held = []
TOKEN = "correct-horse-battery"


def graph(name="cam", description=""):
    """name (two cameras) -> detect -> sink."""
    spec = PipelineSpec(
        "yard",
        (
            StageSpec(
                name, "video", "producer", live=True, description=description,
                for_each={"a": {"password": "hunter2-secret"}, "b": {}},
            ),
            StageSpec("detect", "infer", "transform", inputs=(InputSpec(name, depth=2),)),
            StageSpec("sink", "jsonl", "consumer", inputs=(InputSpec("detect"),)),
        ),
        Path("/x"),
    )  # fmt: skip
    return resolve(spec)


def ages(*milliseconds):
    """A histogram of frames of these ages."""
    counts = [0] * BUCKETS
    for ms in milliseconds:
        counts[bucket(round(ms * 1e6))] += 1
    return tuple(counts)


def reading(at_s=100.0, frames=0, dropped=0, name="cam", camera="streaming", why="frames come"):
    """The graph's own, `at_s` by the monotonic clock."""
    at_ns = round(at_s * 1e9)
    accounts, flows = [], []
    for source, target in ((name, "detect"), ("detect", "sink")):
        for stream in (f"{name}/a", f"{name}/b"):
            lost = {"queue_full": dropped} if dropped and target == "detect" else {}
            claimed = frames + sum(lost.values()) + 1
            accounts.append(Account(source, target, stream, claimed, frames, lost, {}, 1))
            flows.append(Flow(source, target, stream, ages(*[20] * frames), 1, 4))
    workers = []
    for worker, stage in (
        (f"{name}/a", name),
        (f"{name}/b", name),
        ("detect", "detect"),
        ("sink", "sink"),
    ):
        busy = 0.9 if stage == "detect" else 0.1
        facts = (
            {"camera": camera, "why": why, "since_ns": at_ns - 5 * 10**9} if stage == name else {}
        )
        workers.append(
            WorkerReading(
                worker,
                stage,
                "working",
                frames,
                frames,
                round(at_ns * busy),
                0,
                round(at_ns * (1 - busy)),
                20_000_000,
                0,
                0,
                at_ns,
                facts,
            )
        )
    return Reading(at_ns, tuple(accounts), tuple(workers), tuple(flows))


def post(folder, of, *readings, phase="running"):
    """Write bulletins, the last of which stays, as a run that is alive."""
    if not (folder / LOCK).exists():
        held.append(open(folder / LOCK, "w"))  # noqa: SIM115 - while the tests last
        fcntl.flock(held[-1], fcntl.LOCK_EX)
    bulletin = Bulletin(of, folder)
    for each in readings:
        bulletin.post(phase, each)


def told(folder, of=None, listen=("127.0.0.1", 8080), token="", hosts=()):
    """What the supervisor tells the page's process."""
    of = of or graph()
    bare = replace(
        of,
        stages=tuple(
            replace(s, workers=tuple(replace(w, options={}) for w in s.workers)) for s in of.stages
        ),
    )
    values = {"graph": bare.to_json(), "folder": str(folder), "listen": listen, "token": token,
              "hosts": hosts}  # fmt: skip
    return json.loads(json.dumps(values))


class Client:
    """Asks an application without a server."""

    def __init__(self, app):
        self._app = app

    def request(self, method, path, headers=None):
        async def asking():
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1:8080"
            ) as at:
                return await at.request(method, path, headers=headers)

        return asyncio.run(asking())

    def get(self, path, headers=None):
        return self.request("GET", path, headers)

    def head(self, path):
        return self.request("HEAD", path)


def now_s():
    return time.monotonic()
