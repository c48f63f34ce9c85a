"""What an application holds: Pipeline, and Readers of its stages.

    with ovpipe.Pipeline.from_yaml("yard.yaml") as pipeline:
        for frame in pipeline.read("detect"):
            print(frame.seq, len(frame.detections))

A pipeline starts at the first frame asked for, or at `start()`; so everything that is to be
read can be named first, and no frame is missed. It runs in processes of its own: a supervisor,
and below it one per stage. A reader gets frames as a stage does: read-only views of shared
memory, valid as long as anything refers to them, without a copy.

Law: the host's signals, arguments, logging and environment are not touched. A pipeline that
fails raises, from whatever call waits for it: StageError with the stage's own traceback,
PreflightError, DrainTimeout. Leaving the `with` block leaves no process, descriptor or file.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from ovpipe.errors import (
    ConfigError,
    OvpipeError,
    PipelineClosed,
    StageError,
    WireError,
    from_json,
)
from ovpipe.frame import Frame
from ovpipe.graph import Graph, resolve
from ovpipe.loader import load, stage_spec
from ovpipe.spec import PipelineSpec, Placement, StageSpec, WhenFull
from ovpipe.supervisor.threads import SupervisorThread
from ovpipe.transport import control, wire
from ovpipe.transport.lease import Lease
from ovpipe.transport.mail import Mail
from ovpipe.transport.member import Member
from ovpipe.transport.peers import Departed
from ovpipe.transport.receiver import Receiver

_TICK_MS = 500
_END_MARGIN_S = 10.0
DRAIN_TIMEOUT_S = 8.0


class Pipeline:
    """A pipeline, not yet running. `from_yaml` reads one; `add` builds one in Python."""

    def __init__(self, name: str = "pipeline", folder: str | Path = ".") -> None:
        self._name = name
        self._folder = Path(folder).absolute()
        self._stages: list[StageSpec] = []
        self._spec: PipelineSpec | None = None
        self._readers: dict[str, Reader] = {}
        self._process: subprocess.Popen[bytes] | SupervisorThread | None = None
        self._host: socket.socket | None = None
        self._ended: dict[str, Any] | None = None
        self._end = threading.Event()
        self._drain_timeout_s = DRAIN_TIMEOUT_S

    @classmethod
    def from_yaml(cls, path: str | Path, environ: Mapping[str, str] | None = None) -> Pipeline:
        """Read a configuration; `environ` (default: os.environ) is what `${VAR}` refers to.

        Raises ConfigError with everything that is wrong in it.
        """
        spec = load(path, os.environ if environ is None else environ)
        pipeline = cls(spec.name, spec.folder)
        pipeline._spec = spec
        resolve(spec)  # what is wrong with the graph is said here, not at the start
        return pipeline

    def add(
        self,
        name: str,
        kind: str,
        options: Mapping[str, Any] | None = None,
        *,
        inputs: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] | None = None,
        for_each: Mapping[str, Mapping[str, Any]] | None = None,
        run: Mapping[str, Any] | None = None,
    ) -> Pipeline:
        """Add a stage, with the words of YAML: `kind`, its options, its inputs. Returns self.

        Without any `inputs` each stage reads the one added before it. Raises ConfigError.
        """
        if self._spec is not None or self._process is not None:
            raise ConfigError("stages are added to a pipeline built in Python, before it starts")
        self._stages.append(
            stage_spec(
                name,
                kind,
                options or {},
                inputs=inputs,
                for_each=for_each,
                run=run,
                folder=self._folder,
            )
        )
        return self

    @property
    def graph(self) -> Graph:
        """The resolved graph, without readers. Raises ConfigError."""
        spec = self._spec or PipelineSpec(self._name, tuple(self._stages), self._folder)
        return resolve(spec)

    # -- reading -------------------------------------------------------------------------

    def read(
        self,
        stage: str,
        *,
        depth: int = 4,
        when_full: WhenFull | None = None,
        timeout_s: float | None = None,
    ) -> Reader:
        """Read what `stage` gives: an iterator of Frames, which ends when its streams do.

        depth, when_full: as for `inputs:` in YAML. timeout_s: the longest wait for a frame,
        then TimeoutError. Raises PipelineClosed once the pipeline has started: name all readers
        first.
        """
        if self._process is not None:
            raise PipelineClosed("name all readers before the pipeline starts")
        name = f"read-{len(self._readers)}-{stage}"
        self.graph.with_tap(stage, name, depth=depth, when_full=when_full)  # raises if unknown
        reader = Reader(self, stage, depth, when_full, timeout_s)
        self._readers[name] = reader
        return reader

    # -- life ----------------------------------------------------------------------------

    def start(self, placement: Placement = "process") -> Pipeline:
        """Start all processes; returns when all stages are open. Idempotent.

        placement: `inline` runs everything on threads of this process instead, for a debugger or a
        test: whatever ends a stage's process would end this one, and none of it can be killed.
        Raises what kept a stage from opening: PreflightError, StageError.
        """
        if self._process is not None:
            return self
        graph = self.graph
        for name, reader in self._readers.items():
            graph = graph.with_tap(
                reader.stage, name, depth=reader.depth, when_full=reader.when_full
            )
        host, child = control.pair()
        taps = {name: control.pair() for name in self._readers}
        fds = {name: theirs.fileno() for name, (_, theirs) in taps.items()}
        self._host = host
        if placement == "inline":
            self._process = SupervisorThread(child, {n: theirs for n, (_, theirs) in taps.items()})
        else:
            with child:
                self._process = subprocess.Popen(
                    [
                        sys.executable, "-P", "-m", "ovpipe.supervisor", str(child.fileno()),
                        *(f"{name}={fd}" for name, fd in fds.items()),
                    ],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(child.fileno(), *fds.values()),
                    process_group=0,
                )  # fmt: skip
            for _, theirs in taps.values():
                theirs.close()
        threading.Thread(target=self._listen, name="ovpipe-host", daemon=True).start()
        control.send(
            host,
            {"t": "graph", "graph": graph.to_json(), "drain_timeout_s": self._drain_timeout_s},
        )
        try:
            for name, reader in self._readers.items():
                reader.join(taps[name][0])
            for reader in self._readers.values():
                reader.wait_for_start()
        except PipelineClosed:
            for ours, _ in taps.values():
                ours.close()
            self._end.wait()
            self.raise_failure()
            raise
        return self

    def _listen(self) -> None:
        assert self._host is not None
        with suppress(OSError, WireError):
            while (received := control.receive(self._host)) is not None:
                if received[0].get("t") == "ended":
                    self._ended = received[0]
        self._end.set()

    def run(self, placement: Placement = "process") -> None:
        """Start, and wait for the end of all streams. Raises what made the pipeline fail."""
        self.start(placement)
        self.wait()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; False where it did not come in time. Raises as run() does."""
        if self._process is None:
            raise PipelineClosed("the pipeline was not started")
        if not self._end.wait(timeout_s):
            return False
        self.raise_failure()
        return True

    def drain(self) -> None:
        """Ask the producers to end; what is in flight is finished. Returns at once."""
        self._ask("drain")

    def stop(self) -> None:
        """End at once: what is in flight is lost, and counted. Returns at once."""
        self._ask("kill")

    def _ask(self, what: Literal["drain", "kill"]) -> None:
        if self._host is not None:
            with suppress(OSError):
                control.send(self._host, {"t": what})

    def raise_failure(self) -> None:
        """Raise what made the pipeline fail, if it did."""
        if not self._end.is_set():
            return
        if self._ended is None:
            raise StageError("supervisor", "the supervisor process died")
        if self._ended["error"] is not None:
            raise from_json(self._ended["error"])

    @property
    def ledger(self) -> list[dict[str, Any]]:
        """After the end: one dict per edge and stream, `claimed` = the sum of the others."""
        return list(self._ended["accounts"]) if self._ended else []

    def close(self) -> None:
        """Drain what runs, wait for the end, give everything back. Idempotent; never raises
        what the pipeline failed with."""
        for reader in self._readers.values():
            reader.close()
        if self._process is None:
            return
        self.drain()
        if not self._end.wait(self._drain_timeout_s + _END_MARGIN_S):
            self.stop()
            if not self._end.wait(_END_MARGIN_S):
                self._process.kill()
        self._process.wait()
        if self._host is not None:
            self._host.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.stop()
        self.close()


class Reader(Iterator[Frame]):
    """Iterates over the frames of one stage. Use from one thread at a time."""

    def __init__(
        self,
        pipeline: Pipeline,
        stage: str,
        depth: int,
        when_full: WhenFull | None,
        timeout_s: float | None,
    ) -> None:
        self.stage = stage
        self.depth = depth
        self.when_full = when_full
        self._timeout_s = timeout_s
        self._pipeline = pipeline
        self._member: Member | None = None
        self._receiver: Receiver | None = None
        self._leases: list[Lease] = []
        self._mail: Mail | None = None

    def join(self, channel: socket.socket) -> None:
        """Become a member of the run."""
        self._member = Member.join(channel)
        self._member.listen(on_lost=lambda: None)
        self._member.say("ready", capacity=1)

    def wait_for_start(self) -> None:
        """Return when all stages are ready."""
        assert self._member is not None
        self._receiver, _, self._mail = self._member.wait_for_start()

    def __next__(self) -> Frame:
        """The next frame; StopIteration at the end of all streams.

        Raises TimeoutError, or what made the pipeline fail.
        """
        self._pipeline.start()
        if self._receiver is None or self._member is None:
            raise PipelineClosed("this reader is closed")
        self._settle()
        deadline = None if self._timeout_s is None else time.monotonic() + self._timeout_s
        while not self._receiver.finished:
            message = self._next(deadline)
            if message is None:
                if self._member.lost and not self._mail:
                    break
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError(f"no frame of '{self.stage}' within {self._timeout_s} s")
                continue
            if isinstance(message, Departed):
                self._receiver.bury(message)
                continue
            if message.kind == wire.EOS:
                self._receiver.ended(message)
                continue
            taken = self._receiver.take(message)
            if taken is not None:
                frame, lease = taken
                self._leases.append(lease)
                return frame
        error = self._finish()
        if error is not None:
            raise error
        raise StopIteration

    def _finish(self) -> OvpipeError | None:
        """All streams have ended, or the supervisor has: what made them end early, if anything."""
        assert self._member is not None
        try:
            error = self._member.finish()
        except PipelineClosed:
            self.close()
            self._pipeline.wait()
            return None
        for lease in self._leases:  # nobody will write to their slots again
            lease.force()
        self.close()
        return error

    def _next(self, deadline: float | None) -> wire.Message | Departed | None:
        assert self._mail is not None
        left_ms = _TICK_MS
        if deadline is not None:
            left_ms = min(left_ms, max(0, int((deadline - time.monotonic()) * 1000)))
        return self._mail.next(left_ms)

    def _settle(self) -> None:
        """The frames given out before this one were delivered; those still kept, stay held."""
        for lease in self._leases:
            lease.finish()
        self._leases = [lease for lease in self._leases if lease.kept]

    def close(self) -> None:
        """Stop reading. What is in flight to this reader is counted `link_lost`. Idempotent."""
        if self._member is None:
            return
        self._settle()
        self._receiver = self._mail = None
        self._member.close()
        self._member = None
