"""Stages that meet at edges: sources that say when they are done, readers that wait for it."""

import os
import random
import signal
import sys
import time

import numpy as np

import ovpipe
from ovpipe.stages.join import Join
from tests.support.stages import Check, Count, number

WATCHDOG_S = 30.0


def wait(path):
    """Return once the file is there."""
    deadline = time.monotonic() + WATCHDOG_S
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.002)


class Marks(Count):
    """Makes a file once its last frame has left it."""

    mark: str = ""
    alive: bool = False

    @property
    def live(self):
        return self.alive

    def frames(self):
        yield from super().frames()
        open(self.mark, "x").close()


class Waits(Check):
    """Holds its first frame until a file is there; writes the seqs that it saw."""

    until: str = ""
    seqs: str = ""

    def consume(self, frame):
        wait(self.until)
        super().consume(frame)

    def end_of_stream(self, stream):
        with open(self.seqs, "w") as file:
            print(*self.seen.get(stream, []), file=file)


class Echoes(Count):
    """Gives the next frame once somebody has answered the one before with a file."""

    folder: str = ""

    def frames(self):
        for seq in range(self.count):
            yield self.make(seq)
            wait(os.path.join(self.folder, str(seq)))


class Answers(Check):
    """Makes a file for each frame."""

    folder: str = ""

    def consume(self, frame):
        super().consume(frame)
        open(os.path.join(self.folder, str(frame.seq)), "x").close()


class Slow(ovpipe.Transform):
    """Takes its time."""

    pause_s: float = 0.003

    def process(self, frame):
        time.sleep(self.pause_s)
        return frame


class Last(ovpipe.Transform):
    """Gives the last frame of each stream when the stream has ended; `passes`: the others, too."""

    passes: bool = False

    def open(self):
        self.last = {}

    def process(self, frame):
        self.last[frame.stream] = frame
        if self.passes:
            time.sleep(0.003 if os.getpid() % 2 else 0)
            return frame
        return None

    def end_of_stream(self, stream):
        return self.last.pop(stream, None)


class Metas(ovpipe.Consumer):
    """Writes a line about each frame: stream, seq, meta, names of arrays."""

    path: str = ""

    def open(self):
        self.lines = []

    def consume(self, frame):
        if frame.source != next(iter(self.context.inputs)):
            raise ValueError(f"source {frame.source!r}, inputs {self.context.inputs}")
        meta = ",".join(f"{k}={v}" for k, v in sorted(frame.meta.items()))
        names = sorted(frame.arrays)
        self.lines.append(f"{frame.stream} {frame.seq} {number(frame)} {meta} {names}\n")

    def close(self):
        with open(self.path, "w") as file:
            file.writelines(self.lines)


def note(frame, name: str):
    """A word of the stage's own."""
    return frame.with_(meta={name: frame.seq})


def copied(frame):
    """The same array, at another place."""
    return frame.with_(arrays={"x": frame.arrays["x"].copy()})


class MortalJoin(Join):
    """Kills itself once, with frames in its hands."""

    at: int = 50
    mark: str = ""

    def process(self, frame):
        if frame.seq == self.at and not os.path.exists(self.mark):
            open(self.mark, "x").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().process(frame)


class Resizes(ovpipe.Producer):
    """Pictures of several sizes in turn, `each` of one, painted with their number.

    Waits for `until` at its end, so that somebody can look at the run.
    """

    sizes: list[str]
    each: int = 20
    rounds: int = 1
    until: str = ""

    def frames(self):
        seq = 0
        for size in self.sizes * self.rounds:
            width, height = map(int, size.split("x"))
            for _ in range(self.each):
                picture = self.loan((height, width, 3), np.uint8)
                picture[:] = paint(seq, width)
                yield ovpipe.Frame(image=ovpipe.Image(picture), meta={"size": size})
                seq += 1
        print("under way", file=sys.stderr, flush=True)
        if self.until:
            wait(self.until)


def paint(seq, width):
    """One row of the picture `seq`; each row and each picture is another."""
    return ((np.arange(width * 3) * 7 + seq * 31) % 251).astype(np.uint8).reshape(width, 3)


class Vectors(ovpipe.Producer):
    """Arrays `x`: four float32, then four uint8, then five float32, and again."""

    count: int

    def frames(self):
        for i in range(self.count):
            size, dtype = ((4, np.float32), (4, np.uint8), (5, np.float32))[i % 3]
            yield ovpipe.Frame(arrays={"x": np.ones(size, dtype)})


class Album(ovpipe.Consumer):
    """Keeps the last pictures, and looks at all of them again whenever one comes."""

    keep: int = 10
    path: str = ""

    def open(self):
        self.kept = []
        self.sizes = []

    def consume(self, frame):
        picture = frame.image.data
        width, height = map(int, frame.meta["size"].split("x"))
        if picture.shape != (height, width, 3):
            raise ValueError(f"{picture.shape} is not {frame.meta['size']}")
        self.kept = [*self.kept, (frame.seq, picture)][-self.keep - 1 :]
        for seq, old in self.kept:
            if not (old == paint(seq, old.shape[1])).all():
                raise ValueError(f"picture {seq} has changed")
        if self.sizes[-1:] != [frame.meta["size"]]:
            self.sizes.append(frame.meta["size"])

    def close(self):
        self.kept = []
        with open(self.path, "w") as file:
            print(*self.sizes, file=file)


def copied_image(frame):
    """The same picture, from outside of shared memory."""
    return frame.with_(image=ovpipe.Image(frame.image.data.copy()))


class Uneven(ovpipe.Transform):
    """Takes now long, now short, another time in each process; says in `by` which process it is.

    The process that finds no file `mark` makes it, and kills itself at its frame number `at`.
    """

    at: int = 0
    mark: str = ""
    times: int = 1

    def open(self):
        self._random = random.Random(os.getpid())
        self._count = 0

    def process(self, frame):
        self._count += 1
        if self.at and self._count == self.at and len(os.listdir(self.mark)) < self.times:
            open(os.path.join(self.mark, str(os.getpid())), "x").close()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self._random.choice([0, 0, 0.001, 0.004]))
        return frame.with_(meta={"by": os.getpid()})


class Who(Check):
    """Checks order and pixels; writes how many frames each process has worked on."""

    who: str = ""

    def open(self):
        super().open()
        self.by = {}

    def consume(self, frame):
        super().consume(frame)
        self.by[frame.meta["by"]] = self.by.get(frame.meta["by"], 0) + 1

    def close(self):
        with open(self.who, "w") as file:
            print(*self.by.values(), file=file)


class Twice(ovpipe.Transform):
    """Two frames for each, numbered anew; a generator, so that one is sent before the next is made."""

    def process(self, frame):
        for i in range(2):
            seq = 2 * frame.seq + i
            painted = frame.with_(arrays={"x": self.painted(seq)})
            yield painted.stamped(frame.stream, seq, frame.captured_ns)

    def painted(self, seq):
        array = self.loan((8, 8), np.uint8)
        array[:] = seq % 256
        array.reshape(-1)[:8] = np.frombuffer(seq.to_bytes(8, "little"), np.uint8)
        return array


class Meddles(Check):
    """Tries to change what it got: the pixels, and the metadata, down to what they hold."""

    def consume(self, frame):
        super().consume(frame)
        if frame.meta["list"] != [1, 2]:
            raise ValueError(f"another stage has changed {frame.meta}")
        try:
            frame.arrays["x"][:] = 0
        except ValueError:
            frame.meta["list"].append("changed")
            return
        raise ValueError("the pixels can be written to")


class Lists(Count):
    """Frames with a list in their metadata, and a look at what has become of it."""

    def frames(self):
        for seq in range(self.count):
            frame = self.make(seq).with_(meta={"list": [1, 2]})
            yield frame
            if frame.meta["list"] != [1, 2]:
                raise ValueError(f"a reader has changed {frame.meta}")


class Ticks(ovpipe.Transform):
    """Keeps the last frame back until a tick comes."""

    def open(self):
        self.last = None

    def process(self, frame):
        before, self.last = self.last, frame
        return before

    def tick(self):
        before, self.last = self.last, None
        return before

    def end_of_stream(self, stream):
        return self.tick()


class Sleeps(ovpipe.Transform):
    """Sleeps over frame `at` until a file is there."""

    at: int = 20
    until: str = ""

    def process(self, frame):
        if frame.seq == self.at:
            wait(self.until)
        return frame
