"""The entrance: all `app` stages of a pipeline, and their streams."""

from __future__ import annotations

from ovpipe.errors import ConfigError, PipelineClosed
from ovpipe.frame import Frame
from ovpipe.graph import Graph
from ovpipe.hint import near
from ovpipe.pipeline.source import Pushed, Source


class Entrance:
    """`members`: a source for each stream, by its key."""

    def __init__(self) -> None:
        self.members: dict[str, Source] = {}
        self._graph: Graph | None = None
        self._ways: dict[tuple[str, str], frozenset[int]] = {}

    def open(self, graph: Graph) -> None:
        """Know the sources of a graph that is to be run."""
        self._graph = graph
        for stage in graph.stages:
            if stage.external and stage.role == "producer":
                for worker in stage.workers:
                    stream = worker.stream or stage.name
                    self.members[stream] = Source(stage.name, stream)

    def all(self, stage: str, stream: str | None = None) -> list[Source]:
        """The sources of a stage, or the one of a stream: its short name, or its whole key."""
        found = [s for s in self.members.values() if s.stage == stage]
        if not found:
            raise ConfigError(self._nobody(stage))
        if stream is None:
            return found
        for source in found:
            if stream in (source.stream, source.stream.removeprefix(f"{stage}/")):
                return [source]
        names = [s.stream.removeprefix(f"{stage}/") for s in found]
        raise ConfigError(f"stage '{stage}' has no stream '{stream}'; {near(stream, names)}")

    def find(self, stage: str, stream: str | None, data: Pushed | None = None) -> Source:
        """The one that is meant; a Frame may say so itself."""
        if stream is None and isinstance(data, Frame) and data.stream:
            stream = data.stream
        found = self.all(stage, stream)
        if len(found) > 1:
            names = ", ".join(s.stream.removeprefix(f"{stage}/") for s in found)
            raise ConfigError(f"stage '{stage}' has several streams: say stream=, one of {names}")
        return found[0]

    def way(self, stage: str, result: str, tap: str) -> frozenset[int]:
        """The edges from a source to `tap`, which reads `result`.

        Raises ConfigError where there are none.
        """
        way = self._ways.get((stage, tap))
        if way is None:
            if self._graph is None:
                raise PipelineClosed("the pipeline was not started")
            way = self._ways[stage, tap] = self._graph.way(stage, tap)
        if not way:
            raise ConfigError(f"no frame of '{stage}' can reach '{result}'")
        return way

    def _nobody(self, stage: str) -> str:
        """Why nothing can be pushed there."""
        if self._graph is not None:
            kind = self._graph.stage(stage).kind
            return f"stage '{stage}' is of kind '{kind}': only a stage of kind 'app' is pushed into"
        return f"there is no stage '{stage}' to push into"
