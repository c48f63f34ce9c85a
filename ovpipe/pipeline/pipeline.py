"""Pipeline: a graph, from YAML or built in Python, and the run of it.

A pipeline starts at `start()`, or at the first frame that is asked for or pushed; so everything
that is to be read can be named first, and no frame is missed. It runs in processes of its own: a
supervisor, and below it one per stage. `timeout` is in seconds, everywhere; None waits for ever.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import DTypeLike, NDArray

from ovpipe.errors import PipelineClosed, StageError, together
from ovpipe.frame import Frame
from ovpipe.graph import Graph
from ovpipe.pipeline.answers import Answers, Awaited
from ovpipe.pipeline.blueprint import Blueprint
from ovpipe.pipeline.callback import Callback
from ovpipe.pipeline.entrance import Entrance
from ovpipe.pipeline.reader import Reader
from ovpipe.pipeline.run import Run
from ovpipe.pipeline.source import Pushed, Source, as_frame
from ovpipe.pipeline.stats import EMPTY, Stats, stats_of
from ovpipe.spec import Placement, WhenFull
from ovpipe.supervisor.core import DRAIN_TIMEOUT_S

Exit = Reader | Callback | Answers


class Pipeline(Blueprint):
    """A pipeline, not yet running. `from_yaml` reads one; `add` builds one in Python."""

    def __init__(self, name: str = "pipeline", folder: str | Path = ".") -> None:
        super().__init__(name, folder)
        self._exits: dict[str, Exit] = {}
        self._answers: dict[str, Answers] = {}
        self._entrance = Entrance()
        self._run: Run | None = None
        self._forget: weakref.finalize[Any, Any] | None = None
        self._stats_lock = threading.Lock()
        self._last_reading: dict[str, Any] | None = None
        self._drain_timeout_s = DRAIN_TIMEOUT_S

    @property
    def _started(self) -> bool:
        return self._run is not None

    # -- reading -------------------------------------------------------------------------

    def read(
        self,
        stage: str,
        *,
        depth: int = 4,
        when_full: WhenFull | None = None,
        timeout: float | None = None,
    ) -> Reader:
        """Read what `stage` gives: `for` or `async for` over Frames, to the end of its streams.

        depth, when_full: as for `inputs:` in YAML. timeout: the longest wait for a frame, then
        TimeoutError. Raises PipelineClosed once the pipeline has started: name all readers first.
        """
        reader = Reader(self, stage, depth, when_full, timeout)
        self._name_exit("read", stage, reader)
        return reader

    def on_frame(
        self,
        stage: str,
        function: Callable[[Frame], object],
        *,
        depth: int = 4,
        when_full: WhenFull | None = None,
    ) -> Pipeline:
        """Have `function` called with each frame of `stage`, on a thread of the pipeline's.

        FrameError fails that frame; any other exception ends the pipeline with a StageError.
        Returns self. To be named before the start, as readers are.
        """
        self._name_exit("on", stage, Callback(stage, function, depth, when_full))
        return self

    def results(self, stage: str) -> Pipeline:
        """Make `stage` one that `submit` may name; the first `submit` does it by itself.

        Returns self. To be named before the start, as readers are.
        """
        with self._lock:
            if stage not in self._answers:
                answers = Answers(stage)
                self._name_exit("answers", stage, answers)
                self._answers[stage] = answers
        return self

    def _name_exit(self, what: str, stage: str, end: Exit) -> None:
        with self._lock:
            if self._run is not None:
                raise PipelineClosed(
                    f"name all that is to be read before the pipeline starts: '{stage}' too"
                )
            name = f"{what}-{len(self._exits)}-{stage}"
            self.graph.with_tap(stage, name, depth=end.depth, when_full=end.when_full)
            self._exits[name] = end

    def _tapped(self) -> Graph:
        graph = self.graph
        for name, end in self._exits.items():
            graph = graph.with_tap(end.stage, name, depth=end.depth, when_full=end.when_full)
        return graph

    # -- pushing -------------------------------------------------------------------------

    def push(
        self,
        source: str,
        data: Pushed,
        *,
        stream: str | None = None,
        pts_ns: int | None = None,
        meta: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> int:
        """Push one frame into the `app` stage `source`; returns its seq.

        data: an ndarray (uint8 (height, width, 3): BGR; (height, width): gray; any other: array
        "array"), Image, Frame, or a mapping of names to arrays. It is copied once, into shared
        memory, or not at all where it comes from `loan`, and is yours again on return.
        stream: a key of the stage's `for_each`, where it has several. pts_ns, meta: of the frame.

        Waits while there is no room (`live` sources never wait); after `timeout` TimeoutError is
        raised, and nothing was claimed. Any thread may push. Raises FrameError where the frame
        cannot travel, what made the pipeline fail, or PipelineClosed after its end.
        """
        where, frame = self._entering(source, stream, data, pts_ns, meta)
        try:
            return where.push(frame, timeout)
        except PipelineClosed:
            self.raise_failure()
            raise

    def loan(
        self, source: str, shape: tuple[int, ...], dtype: DTypeLike, *, stream: str | None = None
    ) -> NDArray[Any]:
        """An array in shared memory: write to it and push that very array, and it is not copied."""
        self.start()
        return self._entrance.find(source, stream).loan(shape, dtype)

    def submit(
        self,
        source: str,
        data: Pushed,
        result: str,
        *,
        stream: str | None = None,
        pts_ns: int | None = None,
        meta: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Future[Frame]:
        """Push as `push` does, and get a future: the frame that stage `result` makes of it.

        The frame has memory of its own. The future raises FrameError where the frame is dropped or
        fails (`reason`: as in the ledger), or what made the pipeline fail; it is cancelled where
        the pipeline is stopped. `asyncio.wrap_future` awaits it.
        """
        where, frame, awaited = self._asked(source, stream, data, pts_ns, meta, result)
        with self._setting_out(awaited):
            where.push(frame, timeout, awaited)
        return awaited.future

    async def aio(
        self,
        source: str,
        data: Pushed,
        result: str,
        *,
        stream: str | None = None,
        pts_ns: int | None = None,
        meta: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Frame:
        """`submit`, awaited whole: the event loop goes on, also while there is no room."""
        if self._forget is None:
            await asyncio.to_thread(self._prepare, result)
        where, frame, awaited = self._asked(source, stream, data, pts_ns, meta, result)
        with self._setting_out(awaited):
            await asyncio.wrap_future(where.begin(frame, timeout, awaited))
        return await asyncio.wrap_future(awaited.future)

    @contextmanager
    def _setting_out(self, awaited: Awaited) -> Iterator[None]:
        """Where it does not, nobody waits for it; what made the pipeline fail is raised first."""
        try:
            yield
        except BaseException as error:
            awaited.forget()
            if isinstance(error, PipelineClosed):
                self.raise_failure()
            raise

    def _prepare(self, result: str) -> None:
        if self._run is None:
            self.results(result)
        self.start()

    def _asked(
        self,
        source: str,
        stream: str | None,
        data: Pushed,
        pts_ns: int | None,
        meta: Mapping[str, Any] | None,
        result: str,
    ) -> tuple[Source, Frame, Awaited]:
        self._prepare(result)
        answers = self._answers.get(result)
        if answers is None:
            raise PipelineClosed(
                f"the pipeline runs, and nobody said that results of '{result}' will be asked for; "
                f"say pipeline.results('{result}') before it starts"
            )
        where, frame = self._entering(source, stream, data, pts_ns, meta)
        return where, frame, answers.awaited(where, self._entrance.way(source, result, answers.tap))

    def _entering(
        self,
        source: str,
        stream: str | None,
        data: Pushed,
        pts_ns: int | None,
        meta: Mapping[str, Any] | None,
    ) -> tuple[Source, Frame]:
        self.start()
        where = self._entrance.find(source, stream, data)
        return where, as_frame(data, where.stream, pts_ns, meta)

    def end(self, source: str, stream: str | None = None) -> None:
        """Say the end of a stream, or of all streams of a source; frames pushed before come first.

        When all streams have ended, so does the pipeline.
        """
        self.start()
        for each in self._entrance.all(source, stream):
            each.end()

    # -- life ----------------------------------------------------------------------------

    def start(self, placement: Placement = "process") -> Pipeline:
        """Start all processes; returns when all stages are open. Idempotent.

        placement: `inline` runs everything on threads of this process instead, for a debugger or a
        test: whatever ends a stage's process would end this one, and none of it can be killed.
        Raises what kept a stage from opening: PreflightError, StageError.
        """
        if self._forget is not None:
            return self
        with self._lock:
            if self._forget is not None:  # another thread was about it
                return self
            if self._run is not None:  # an earlier start has failed, or was interrupted
                self.raise_failure()
                raise PipelineClosed("the pipeline did not come to run; make another one")
            graph = self._tapped()
            for name, end in self._exits.items():
                if isinstance(end, Answers):
                    end.tap = name
            self._entrance.open(graph)
            members = {**self._exits, **self._entrance.members}
            run = self._run = Run(self._drain_timeout_s)
            channels = run.start(graph, members, placement)
            forget = weakref.finalize(self, run.abandon)
            try:
                for name, member in members.items():
                    member.join(channels[name])
                for member in members.values():
                    member.wait_for_start()
                run.wait_for_start()
            except PipelineClosed:
                for channel in channels.values():
                    channel.close()
                run.ended.wait()
                forget.detach()
                self.raise_failure()
                raise
            self._forget = forget
        return self

    def run(self, placement: Placement = "process") -> None:
        """Start, and wait for the end of all streams. Raises what made the pipeline fail."""
        self.start(placement)
        self.wait()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end; False where it did not come in time. Raises as run() does."""
        if self._run is None:
            raise PipelineClosed("the pipeline was not started")
        if not self._run.ended.wait(timeout):
            return False
        self.raise_failure()
        return True

    def drain(self) -> None:
        """Ask the producers to end; what is in flight is finished. Returns at once."""
        if self._run is not None:
            self._run.ask("drain")

    def stop(self) -> None:
        """End at once: what is in flight is lost, and counted. Returns at once."""
        if self._run is not None:
            self._run.ask("kill")

    def raise_failure(self) -> None:
        """Raise what made the pipeline fail, if it has ended and did."""
        if self._run is None or not self._run.ended.is_set():
            return
        for error in self._run.errors:
            end = self._exits.get(error.stage) if isinstance(error, StageError) else None
            if isinstance(end, Callback):
                error.__cause__ = end.error
        failure = together(self._run.errors)
        if failure is not None:
            raise failure

    # -- how it is -----------------------------------------------------------------------

    def stats(self) -> Stats:
        """How it is doing now, or how it was at the end; rates are since the call before."""
        if self._run is None:
            return EMPTY
        with self._stats_lock:
            phase, reading = self._run.look()
            if reading is None:
                return Stats(phase, 0, 0.0, (), ())
            before, self._last_reading = self._last_reading, reading
            if before is not None and before["at_ns"] >= reading["at_ns"]:
                before = None  # the last one, asked for again
            return stats_of(phase, reading, before)

    @property
    def ledger(self) -> list[dict[str, Any]]:
        """After the end: one dict per edge and stream, `claimed` = the sum of the others."""
        reading = None if self._run is None else self._run.reading
        return [] if reading is None else list(reading["accounts"])

    # -- the end -------------------------------------------------------------------------

    def close(self) -> None:
        """Drain what runs, wait for the end, give everything back. Idempotent; never raises
        what the pipeline failed with."""
        for end in self._exits.values():
            if isinstance(end, Reader):
                end.close()
        run = self._run
        if run is None:
            return
        run.close()
        for member in (*self._exits.values(), *self._entrance.members.values()):
            member.close()
        if self._forget is not None:
            self._forget.detach()

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

    async def __aenter__(self) -> Pipeline:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """As leaving `with`, while the event loop goes on."""
        if kind is not None:
            self.stop()
        await asyncio.to_thread(self.close)
