"""Who wants to see a frame of which edge: from a wish to the copy that a worker makes.

Law: a worker is asked for a frame of a stream once at a time, however many want to see it, and
again only when it has answered. A wish is answered once: by a frame, or by why there is none.
Copies that nobody wants any more are closed at once. A worker that dies takes what it was asked
with it; its successor is asked anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ovpipe.errors import ConfigError
from ovpipe.graph import Edge, Graph
from ovpipe.hint import near
from ovpipe.supervisor.launch import Plan
from ovpipe.supervisor.post import Post
from ovpipe.transport.look import ANY

Answer = Callable[[dict[str, Any], int | None], None]
"""Takes what is to be said, and the descriptor of a copy, which stays the caller's."""


def find_edge(graph: Graph, text: str, stream: str | None = None) -> Edge:
    """The edge that is called `a -> b`, or the first that leaves the stage of that name.

    Raises ConfigError where there is none, or where `stream` does not come along it.
    """
    source, arrow, target = (part.strip() for part in text.partition("->"))
    for edge in graph.edges:
        if edge.source == source and (not arrow or edge.target == target):
            if stream is not None and stream not in edge.streams:
                name = f"{edge.source} -> {edge.target}"
                raise ConfigError(
                    f"stream '{stream}' does not come along '{name}'; {near(stream, edge.streams)}"
                )
            return edge
    names = [f"{edge.source} -> {edge.target}" for edge in graph.edges]
    if arrow:
        raise ConfigError(f"no edge '{source} -> {target}'; {near(f'{source} -> {target}', names)}")
    into = [f"'{edge.source} -> {edge.target}'" for edge in graph.edges if edge.target == source]
    if into:
        raise ConfigError(f"stage '{source}' gives no frames; look at {' or '.join(into)}")
    known = [*dict.fromkeys(edge.source for edge in graph.edges), *names]
    raise ConfigError(f"no stage or edge '{source}'; {near(source, known)}")


@dataclass(eq=False)
class Wish:
    """Somebody wants to see the next frame of `stream` (an index, or ANY) that `workers` give."""

    edge: Edge
    stream: int
    workers: tuple[int, ...]
    until_s: float
    answer: Answer
    timeout_s: float = field(default=0.0)


class Viewing:
    """All wishes of a run."""

    def __init__(self, plan: Plan, posts: Sequence[Post]) -> None:
        self._plan = plan
        self._posts = posts
        self._wishes: list[Wish] = []
        self._asked: set[tuple[int, int]] = set()  # (worker, stream) without an answer yet

    def want(
        self, edge: str, stream: str | None, now_s: float, timeout_s: float, answer: Answer
    ) -> Wish:
        """Ask for the next frame on an edge. Raises ConfigError where there is no such edge."""
        found = find_edge(self._plan.graph, edge, stream)
        workers = tuple(
            worker.index
            for worker in self._plan.workers
            if worker.stage == found.source
            and (not worker.producer or stream in (None, worker.stream))
        )
        number = ANY if stream is None else self._plan.streams.index(stream)
        wish = Wish(found, number, workers, now_s + timeout_s, answer, timeout_s)
        self._wishes.append(wish)
        self._ask(wish)
        return wish

    def forget(self, wish: Wish) -> None:
        """Whoever wished is gone."""
        if wish in self._wishes:
            self._wishes.remove(wish)

    def _ask(self, wish: Wish) -> None:
        for index in wish.workers:
            post = self._posts[index]
            if post.state == "up" and post.member and (index, wish.stream) not in self._asked:
                self._asked.add((index, wish.stream))
                post.member.say("look", stream=wish.stream)

    def tick(self, now_s: float) -> None:
        """Ask those that have come since; give up what takes too long, or can never be."""
        for wish in list(self._wishes):
            name = f"{wish.edge.source} -> {wish.edge.target}"
            if all(self._posts[index].state in ("done", "gone") for index in wish.workers):
                self._end(wish, f"stage '{wish.edge.source}' has ended: nothing more comes")
            elif now_s >= wish.until_s:
                self._end(wish, f"no frame came along '{name}' within {wish.timeout_s:g} s")
            else:
                self._ask(wish)

    def _end(self, wish: Wish, why: str) -> None:
        self._wishes.remove(wish)
        wish.answer({"error": why, "kind": "none"}, None)

    def died(self, worker: int) -> None:
        """The process of a worker is dead."""
        self._asked = {key for key in self._asked if key[0] != worker}

    def seen(self, worker: int, said: dict[str, Any], fds: list[int]) -> None:
        """A worker's answer, and the copy that came with it, which is closed here.

        One that makes no sense answers nobody: who waits for it does so as long as it wants.
        """
        try:
            answers = [int(stream) for stream in said.get("answers", ())]
            frame: dict[str, Any] | None = None
            if fds and "error" not in said:
                frame = {key: int(said[key]) for key in ("length", "slots", "slot_bytes")}
                frame["stream"] = self._plan.streams[said["stream"]]
            self._answer(worker, answers, frame, str(said.get("error")), fds)
        except (KeyError, IndexError, TypeError, ValueError):
            pass
        finally:
            for fd in fds:
                os.close(fd)

    def _answer(
        self,
        worker: int,
        answers: Sequence[int],
        frame: dict[str, Any] | None,
        error: str,
        fds: Sequence[int],
    ) -> None:
        for stream in answers:
            self._asked.discard((worker, stream))
            fit = [w for w in self._wishes if worker in w.workers and w.stream == stream]
            for wish in fit:
                if frame is None:
                    self._end(wish, error)
                    continue
                self._wishes.remove(wish)
                wish.answer({**frame, "source": wish.edge.source}, fds[0])
