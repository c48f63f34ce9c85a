"""Stages that meet at edges: sources that say when they are done, readers that wait for it."""

import os
import time

from tests.support.stages import Check, Count

WATCHDOG_S = 30.0


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
        deadline = time.monotonic() + WATCHDOG_S
        while not os.path.exists(self.until):
            if time.monotonic() > deadline:
                raise TimeoutError(self.until)
            time.sleep(0.002)
        super().consume(frame)

    def end_of_stream(self, stream):
        with open(self.seqs, "w") as file:
            print(*self.seen.get(stream, []), file=file)
