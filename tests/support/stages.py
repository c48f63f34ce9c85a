"""Stages for tests, beside those of ovpipe.testing; used as `tests.support.stages:Name` in YAML.

A frame carries its seq in its first eight bytes, so that a reader can tell that it sees the
pixels meant for it.
"""

import ctypes
import itertools
import os
import signal
import sys
import time

import numpy as np

import ovpipe
from ovpipe.stages.base import AsyncTransform
from ovpipe.testing import Recorder


class Count(ovpipe.Producer):
    """Frames that carry their own number."""

    count: int = 100
    height: int = 64
    width: int = 64

    def frames(self):
        for seq in range(self.context.first_seq, self.count):
            yield self.make(seq)

    def make(self, seq):
        array = self.loan((self.height, self.width), np.uint8)
        array[:] = seq % 256
        array.reshape(-1)[:8] = np.frombuffer(seq.to_bytes(8, "little"), np.uint8)
        return ovpipe.Frame(arrays={"x": array})


class Endless(Count):
    """Goes on until it is drained."""

    def frames(self):
        for seq in itertools.count(self.context.first_seq):
            if seq == 100:
                print("under way", file=sys.stderr, flush=True)
            yield self.make(seq)


class LiveCount(Count):
    """The same, from a source that waits for nobody."""

    @property
    def live(self):
        return True


def number(frame):
    """The seq that the pixels carry; raises where they are not one frame's."""
    array = frame.arrays["x"]
    seq = int.from_bytes(array.reshape(-1)[:8].tobytes(), "little")
    if not (array.reshape(-1)[8:] == seq % 256).all():
        raise ValueError(f"frame {seq}: pixels of several frames")
    return seq


class Check(ovpipe.Consumer):
    """Fails unless each frame's pixels are its own and seqs rise; writes what it saw."""

    path: str = ""
    pause_s: float = 0.0

    def open(self):
        self.seen = {}

    def consume(self, frame):
        seen = self.seen.setdefault(frame.stream, [])
        if number(frame) != frame.seq or (seen and frame.seq <= seen[-1]):
            raise ValueError(f"seq {frame.seq}, pixels {number(frame)}, after {seen[-1:]}")
        if self.pause_s:
            time.sleep(self.pause_s)
        seen.append(frame.seq)

    def end_of_stream(self, stream):
        seen = self.seen.get(stream, [])
        if self.path:
            with open(self.path, "a") as file:
                print(stream, len(seen), seen[-1] if seen else None, file=file)


class Keep(ovpipe.Transform):
    """Passes on, and keeps a view of the frame before: its slot must not be reused."""

    def open(self):
        self.kept = None

    def process(self, frame):
        if self.kept is not None:
            seq, view = self.kept
            if int.from_bytes(view.tobytes(), "little") != seq:
                raise ValueError(f"a kept view of frame {seq} has changed")
        self.kept = frame.seq, frame.arrays["x"].reshape(-1)[:8]
        return frame


class Fresh(ovpipe.Transform):
    """Gives an array of its own, from outside of shared memory."""

    def process(self, frame):
        return frame.with_(arrays={"x": frame.arrays["x"].copy()})


def even(frame):
    """A plain function: every second frame ends here."""
    return frame if frame.seq % 2 == 0 else None


def tag(frame, text: str = "seen"):
    """A plain function with an option."""
    return frame.with_(meta={"tag": text})


class Reports(ovpipe.Transform):
    """Says with each frame how many there were."""

    def process(self, frame):
        self.context.report({"frames": frame.seq})
        return frame


class Finds(ovpipe.Transform):
    """Gives each frame a detection, an array, and metadata that would clear a terminal."""

    def process(self, frame):
        found = ovpipe.Detections.of([[5, 6, 30, 40]], [0.9], [1], {1: "person"}, [7])
        points = np.zeros((1, 17, 3), np.float32)
        return frame.with_(detections=found, arrays={"keypoints": points}, meta={"odd": "\x1b[2J"})


class Fails(ovpipe.Transform):
    """Every third frame fails, and only the frame."""

    def process(self, frame):
        if frame.seq % 3 == 0:
            raise ovpipe.FrameError("third", "infer_error")
        return frame


class Dies(ovpipe.Transform):
    """Ends in the way named, at the moment named, once frame `at` has come."""

    how: str = "raise"
    when: str = "process"
    at: int = 20

    def die(self):
        match self.how:
            case "raise":
                raise ValueError("on purpose")
            case "memory":
                raise MemoryError
            case "exit-0":
                sys.exit(0)
            case "_exit-0":
                os._exit(0)
            case "_exit-1":
                os._exit(1)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "abort":
                os.abort()
            case "segfault":
                ctypes.string_at(0)
            case "preflight":
                raise ovpipe.PreflightError("no such thing: /nowhere")

    def open(self):
        if self.when == "open":
            self.die()

    def process(self, frame):
        if self.when == "process" and frame.seq == self.at:
            self.die()
        return frame

    def close(self):
        if self.when == "close":
            self.die()


class Careless(Count):
    """Begins again at its first frame whenever it is started, but knows its numbers."""

    def frames(self):
        for seq in range(self.count):
            frame = self.make(seq)
            yield ovpipe.Frame(arrays=frame.arrays, seq=seq)


class DiesAsSource(Count):
    """Ends itself before each frame whose number is a multiple of `at`."""

    at: int = 40

    def frames(self):
        for seq in range(self.context.first_seq, self.count):
            if seq % self.at == 0 and seq != self.context.first_seq:
                os.kill(os.getpid(), signal.SIGKILL)
            yield self.make(seq)


class Deaf(ovpipe.Consumer):
    """Never returns from its first frame."""

    def consume(self, frame):
        print("deaf", file=sys.stderr, flush=True)
        while True:
            signal.pause()


class Stuck(ovpipe.Transform):
    """Never returns from frame `at`; native, where only a signal handler still gets through.

    With `once`, a path, it is the first frame from `at` on, and only while there is no such file.
    """

    at: int = 20
    native: bool = False
    once: str = ""

    def process(self, frame):
        late = self.once and frame.seq > self.at and not os.path.exists(self.once)
        if frame.seq == self.at or late:
            if self.once:
                open(self.once, "w").close()
            print("stuck", file=sys.stderr, flush=True)
            if self.native:
                ctypes.CDLL(None).pause()
            while True:
                signal.pause()
        return frame


class StuckAsync(AsyncTransform):
    """Never finishes frame `at`; all others at once."""

    at: int = 20

    @property
    def capacity(self):
        return 3

    def submit(self, frame, done):
        if frame.seq != self.at:
            done()
        return lambda: frame


class Hoards(ovpipe.Consumer):
    """Keeps every frame for ever."""

    def open(self):
        self.kept = []

    def consume(self, frame):
        self.kept.append(frame)


class Floods(ovpipe.Transform):
    """Writes lines to stderr as fast as they are taken."""

    lines: int = 2000

    def process(self, frame):
        os.write(2, b"a line of no use to anybody\n" * self.lines)
        return frame


class SlowToOpen(ovpipe.Consumer):
    """Is not ready for a long time."""

    def open(self):
        print("opening", file=sys.stderr, flush=True)
        signal.pause()

    def consume(self, frame):
        pass


class Shouts(ovpipe.Transform):
    """Writes a lot to stderr, some of it not text."""

    def process(self, frame):
        os.write(2, b"\xff\xfe noise " * 2000 + b"\n")
        return frame


class Never(ovpipe.Transform):
    """Passes nothing on."""

    def process(self, frame):
        return None


RUNS_CODE = (
    "pickle.find_class", "marshal.load", "marshal.loads", "exec", "compile", "code.__new__",
    "import", "os.system", "os.exec", "os.fork", "subprocess.Popen", "ctypes.dlopen",
)  # fmt: skip


def audit_to(path):
    """From now on, write each event that runs code to a file. There is no way back."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, b"begun\n")

    def note(event, arguments):
        if event in RUNS_CODE:
            os.write(fd, f"{event}\n".encode())

    sys.addaudithook(note)


class Audited(Recorder):
    """A recorder that listens, from its first frame to its end, for anything that runs code."""

    audit: str

    def consume(self, frame):
        super().consume(frame)
        if frame.seq == 0:
            audit_to(self.audit)


class Knots(ovpipe.Transform):
    """Leaves each frame in something that refers to itself, as an error kept with its traceback."""

    def process(self, frame):
        knot = [frame]
        knot.append(knot)
        return frame
