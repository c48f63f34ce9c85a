"""The chains that ovpipe is measured beside: source -> [forward ->] sink, a process each.

    python chains.py NAME JOB        (JOB: a support.Job as JSON; run by hop.py)

Each is written as its own manual would have a careful user write it, with the fastest way that
it offers to Python: buffers loaned where it loans, forwarded by reference where it can. All of
them block when full, except dora, which has no such policy; what it loses is reported.
"""

from __future__ import annotations

import json
import mmap
import multiprocessing
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from support import DEPTH, END, Job, Meter, number, ring, stamp, ticks

Process = Callable[[], None]


def side_by_side(*processes: Process) -> None:
    """Run each in a process of its own, by fork; the last one here."""
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=run, daemon=True) for run in processes[:-1]]
    for child in children:
        child.start()
    processes[-1]()
    for child in children:
        child.join(10)


# -- the standard library ---------------------------------------------------------------------


def queue(job: Job) -> None:
    """multiprocessing.Queue: pickled into a pipe by a thread."""
    context = multiprocessing.get_context("fork")
    queues: list[Any] = [context.Queue(DEPTH) for _ in range(job.stages - 1)]

    def source() -> None:
        frames = ring(job)
        for seq, now in ticks(job):
            frame = frames[seq % len(frames)]
            stamp(frame, seq, now)
            queues[0].put(frame)
        queues[0].put(None)

    def forward() -> None:
        while (frame := queues[0].get()) is not None:
            queues[1].put(frame)
        queues[1].put(None)

    def sink() -> None:
        meter = Meter(job)
        while (frame := queues[-1].get()) is not None:
            meter(frame)

    side_by_side(source, *[forward] * (job.stages - 2), sink)


def pipe(job: Job) -> None:
    """multiprocessing.Pipe: raw bytes, read into a buffer that is there already."""
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(job.stages - 1)]

    def source() -> None:
        frames = ring(job)
        for seq, now in ticks(job):
            frame = frames[seq % len(frames)]
            stamp(frame, seq, now)
            pipes[0][1].send_bytes(frame.data.cast("B"))
        pipes[0][1].send_bytes(END.to_bytes(16, "little"))

    def forward() -> None:
        buffer = np.empty(job.shape, np.uint8).data.cast("B")
        while pipes[0][0].recv_bytes_into(buffer) == job.nbytes:
            pipes[1][1].send_bytes(buffer)
        pipes[1][1].send_bytes(END.to_bytes(16, "little"))

    def sink() -> None:
        meter = Meter(job)
        frame = np.empty(job.shape, np.uint8)
        while pipes[-1][0].recv_bytes_into(frame.data.cast("B")) == job.nbytes:
            meter(frame)

    side_by_side(source, *[forward] * (job.stages - 2), sink)


# -- pyzmq --------------------------------------------------------------------------------------


def zmq_ends(folder: str, name: str, bind: bool, send: bool) -> Any:
    """One end of a PUSH -> PULL pair."""
    import zmq

    socket = zmq.Context.instance().socket(zmq.PUSH if send else zmq.PULL)
    socket.set_hwm(DEPTH)
    address = f"ipc://{folder}/{name}"
    (socket.bind if bind else socket.connect)(address)
    return socket


def zmq_done(out: Any) -> None:
    """Say that it was the last one, and stay until it has left."""
    import zmq

    out.send(b"")
    zmq.Context.instance().destroy(linger=5000)


def zmq_copy(job: Job) -> None:
    """pyzmq, frames in the messages."""
    folder = tempfile.mkdtemp()

    def source() -> None:
        out = zmq_ends(folder, "0", bind=True, send=True)
        frames = ring(job)
        for seq, now in ticks(job):
            frame = frames[seq % len(frames)]
            stamp(frame, seq, now)
            out.send(frame)
        zmq_done(out)

    def forward() -> None:
        into = zmq_ends(folder, "0", bind=False, send=False)
        out = zmq_ends(folder, "1", bind=True, send=True)
        while data := into.recv():
            out.send(data)
        zmq_done(out)

    def sink() -> None:
        meter = Meter(job)
        into = zmq_ends(folder, str(job.stages - 2), bind=False, send=False)
        while data := into.recv():
            meter(np.frombuffer(data, np.uint8))

    side_by_side(source, *[forward] * (job.stages - 2), sink)


def bare(job: Job) -> None:
    """The floor: descriptors over pyzmq, slots in a memfd, and nothing else.

    The source may write to a slot when the sink has given it back, by a message; a forwarding
    process passes the descriptor on. No names, shapes, streams, credits per receiver,
    counters; nobody may die.
    """
    folder = tempfile.mkdtemp()
    descriptor = struct.Struct("<QIIII")
    size = -(-job.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    fd = os.memfd_create("bare")
    os.posix_fallocate(fd, 0, size * DEPTH)

    def slots() -> list[Any]:
        memory = memoryview(mmap.mmap(fd, size * DEPTH))
        return [
            np.frombuffer(memory[i * size : i * size + job.nbytes], np.uint8).reshape(job.shape)
            for i in range(DEPTH)
        ]

    def source() -> None:
        out = zmq_ends(folder, "0", bind=True, send=True)
        back = zmq_ends(folder, "back", bind=True, send=False)
        arrays, free = slots(), list(range(DEPTH))
        for seq, now in ticks(job):
            slot = free.pop() if free else back.recv()[0]
            stamp(arrays[slot], seq, now)
            out.send(descriptor.pack(seq, slot, *job.shape))
        zmq_done(out)

    def forward() -> None:
        into = zmq_ends(folder, "0", bind=False, send=False)
        out = zmq_ends(folder, "1", bind=True, send=True)
        while message := into.recv():
            descriptor.unpack(message)
            out.send(message)
        zmq_done(out)

    def sink() -> None:
        meter = Meter(job)
        into = zmq_ends(folder, str(job.stages - 2), bind=False, send=False)
        back = zmq_ends(folder, "back", bind=False, send=True)
        back.set_hwm(0)
        back.linger = 0
        arrays = slots()
        while message := into.recv():
            _, slot, *_ = descriptor.unpack(message)
            meter(arrays[slot])
            back.send(bytes((slot,)))

    side_by_side(source, *[forward] * (job.stages - 2), sink)


# -- frameworks -----------------------------------------------------------------------------------


def ezmsg(job: Job) -> None:
    """ezmsg: units in processes of their own, ndarrays as messages, shared memory of its own."""
    import ezmsg.core as ez

    room = job.nbytes + (1 << 16)

    class Source(ez.Unit):
        OUTPUT = ez.OutputStream(np.ndarray, num_buffers=DEPTH, buf_size=room)

        @ez.publisher(OUTPUT)
        async def run(self) -> Any:
            frames = ring(job)
            for seq, now in ticks(job):
                frame = frames[seq % len(frames)]
                stamp(frame, seq, now)
                yield self.OUTPUT, frame
            last = frames[0].reshape(-1)[:16].copy()
            stamp(last, END, 0)
            yield self.OUTPUT, last
            raise ez.Complete

    class Forward(ez.Unit):
        INPUT = ez.InputStream(np.ndarray)
        OUTPUT = ez.OutputStream(np.ndarray, num_buffers=DEPTH, buf_size=room)

        @ez.subscriber(INPUT)
        @ez.publisher(OUTPUT)
        async def run(self, frame: Any) -> Any:
            yield self.OUTPUT, frame
            if number(frame) == END:
                raise ez.Complete

    class Sink(ez.Unit):
        INPUT = ez.InputStream(np.ndarray)

        async def initialize(self) -> None:
            self.meter = Meter(job)

        @ez.subscriber(INPUT)
        async def run(self, frame: Any) -> None:
            if number(frame) == END:
                raise ez.NormalTermination
            self.meter(frame)

    units: dict[str, Any] = {"source": Source(), "sink": Sink()}
    last = units["source"]
    connections = []
    if job.stages == 3:
        units["forward"] = Forward()
        connections.append((last.OUTPUT, units["forward"].INPUT))
        last = units["forward"]
    connections.append((last.OUTPUT, units["sink"].INPUT))
    ez.run(components=units, connections=connections, process_components=list(units.values()))


def dora(job: Job) -> None:
    """dora: a daemon, nodes, Arrow arrays; the source fills a sample that it was loaned."""
    script, settings = str(Path(__file__).resolve()), json.dumps(asdict(job))

    def node(name: str, upstream: str, out: bool) -> dict[str, Any]:
        queued = {"source": f"{upstream}/x", "queue_size": 100, "queue_policy": "backpressure"}
        return {
            "id": name,
            "path": sys.executable,
            "args": f"{script} dora-{name} '{settings}'",
            **({"inputs": {"x": queued}} if upstream else {}),
            **({"outputs": ["x"]} if out else {}),
        }

    nodes = [node("source", "", True)]
    nodes += [node("forward", "source", True)] * (job.stages - 2)
    nodes.append(node("sink", nodes[-1]["id"], False))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "dataflow.yml"
        file.write_text(json.dumps({"nodes": nodes}))
        command = [
            str(Path(sys.executable).with_name("dora")),
            "run",
            "--log-level",
            "error",
            str(file),
        ]
        subprocess.run(command, cwd=folder, check=True)


def dora_source(job: Job) -> None:
    import pyarrow
    from dora import Node

    node = Node()
    frames = ring(job)
    for seq, now in ticks(job):
        frame = frames[seq % len(frames)]
        stamp(frame, seq, now)
        node.send_output("x", pyarrow.array(frame.reshape(-1)))


def dora_forward(job: Job) -> None:
    from dora import Node

    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("x", event["value"])


def dora_sink(job: Job) -> None:
    from dora import Node

    meter = Meter(job)
    for event in Node():
        if event["type"] == "INPUT":
            meter(event["value"].to_numpy(zero_copy_only=True))


def iceoryx2(job: Job) -> None:
    """iceoryx2: loaned samples, and its events, so that nobody polls."""
    import ctypes

    import iceoryx2 as iox

    name = f"hop-{os.getpid()}"
    iox.set_log_level(iox.LogLevel.Error)

    def node() -> Any:
        return iox.NodeBuilder.new().create(iox.ServiceType.Ipc)

    def data(node: Any, hop: int) -> Any:
        return (
            node.service_builder(iox.ServiceName.new(f"{name}-{hop}"))
            .publish_subscribe(iox.Slice[ctypes.c_uint8])
            .enable_safe_overflow(False)
            .subscriber_max_buffer_size(DEPTH)
            .subscriber_max_borrowed_samples(2)
            .open_or_create()
        )

    def events(node: Any, hop: int) -> Any:
        return node.service_builder(iox.ServiceName.new(f"{name}-{hop}")).event().open_or_create()

    class Out:
        def __init__(self, node: Any, hop: int) -> None:
            self.publisher = (
                data(node, hop)
                .publisher_builder()
                .initial_max_slice_len(job.nbytes)
                .backpressure_strategy(iox.BackpressureStrategy.RetryUntilDelivered)
                .create()
            )
            self.notifier = events(node, hop).notifier_builder().create()

        def loan(self, nbytes: int) -> tuple[Any, Any]:
            sample = self.publisher.loan_slice_uninit(nbytes)
            return sample, sample.payload().as_memory_view()

        def send(self, sample: Any) -> int:
            reached = sample.assume_init().send()
            self.notifier.notify()
            return int(reached)

    class In:
        def __init__(self, node: Any, hop: int) -> None:
            self.subscriber = data(node, hop).subscriber_builder().create()
            self.listener = events(node, hop).listener_builder().create()

        def receive(self) -> Any:
            while (sample := self.subscriber.receive()) is None:
                self.listener.timed_wait(iox.Duration.from_millis(1000))
            return sample

    context = multiprocessing.get_context("fork")
    ready: Any = context.Barrier(job.stages)

    def source() -> None:
        me = node()
        out = Out(me, 0)
        ready.wait()
        for seq, now in ticks(job):
            sample, view = out.loan(job.nbytes)
            stamp(view.cast("B"), seq, now)
            out.send(sample)
        sample, view = out.loan(16)
        stamp(view.cast("B"), END, 0)
        out.send(sample)
        ready.wait()

    def forward() -> None:  # a sample belongs to one service: to pass it on is to copy it
        me = node()
        into, out = In(me, 0), Out(me, 1)
        ready.wait()
        last = False
        while not last:
            received = into.receive()
            frame = np.frombuffer(received.payload().as_memory_view().cast("B"), np.uint8)
            last = number(frame) == END
            sample, view = out.loan(frame.size)
            np.frombuffer(view.cast("B"), np.uint8)[:] = frame
            out.send(sample)
            received.delete()
        ready.wait()

    def sink() -> None:
        meter = Meter(job)
        into = In(node(), job.stages - 2)
        ready.wait()
        while True:
            received = into.receive()
            frame = np.frombuffer(received.payload().as_memory_view().cast("B"), np.uint8)
            if number(frame) == END:
                break
            meter(frame)
            received.delete()
        ready.wait()

    side_by_side(source, *[forward] * (job.stages - 2), sink)


# -- ovpipe ---------------------------------------------------------------------------------------


def pipeline(job: Job, placement: str = "process") -> None:
    """ovpipe: stages of our own, slots loaned, frames forwarded by reference."""
    import ovpipe

    run = {"placement": placement}
    here = Path(__file__).parent
    chain = ovpipe.Pipeline("hop", folder=here)
    options = {"job": json.dumps(asdict(job))}
    depth = {"depth": DEPTH}
    chain.add("source", "stages:Source", options)
    for _ in range(job.stages - 2):
        chain.add("forward", "stages:Forward", inputs={"from": "source", **depth}, run=run)
    upstream = "forward" if job.stages > 2 else "source"
    chain.add("sink", "stages:Sink", options, inputs={"from": upstream, **depth}, run=run)
    with chain:
        chain.run()


def inline(job: Job) -> None:
    """The same stages, all in the process of the source."""
    pipeline(job, "inline")


CHAINS: dict[str, Callable[[Job], None]] = {
    "bare": bare,
    "ovpipe": pipeline,
    "inline": inline,
    "iceoryx2": iceoryx2,
    "zmq-copy": zmq_copy,
    "dora": dora,
    "ezmsg": ezmsg,
    "pipe": pipe,
    "queue": queue,
}
_NODES = {"dora-source": dora_source, "dora-forward": dora_forward, "dora-sink": dora_sink}

if __name__ == "__main__":
    {**CHAINS, **_NODES}[sys.argv[1]](Job(**json.loads(sys.argv[2])))
