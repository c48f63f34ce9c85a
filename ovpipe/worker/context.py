"""What a stage sees of its worker (stages.base.Context)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import DTypeLike, NDArray

from ovpipe.stages.facts import Fact
from ovpipe.transport.ledger import CODE, IDLE, WORKING

if TYPE_CHECKING:
    from ovpipe.worker.run import Worker


class WorkerContext:
    """The context of a stage that runs in a worker."""

    def __init__(self, worker: Worker, assignment: Mapping[str, Any]) -> None:
        self.stage: str = assignment["stage"]
        self.stream: str = assignment["stream"]
        self.run: str = assignment["run"]
        self.first_seq: int = assignment["first_seq"]
        self.restarted: bool = assignment["epoch"] > 0
        inputs: dict[str, list[str]] = assignment["inputs"]
        self.inputs: Mapping[str, tuple[str, ...]] = {k: tuple(v) for k, v in inputs.items()}
        self._worker = worker

    @property
    def stopping(self) -> bool:
        return self._worker.member.draining or self._worker.member.leaving

    def loan(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        return self._worker.sender.loan(shape, dtype)

    def count_failed(self, reason: str, frames: int = 1, stream: str = "") -> None:
        self._worker.count_failed(stream or self.stream, CODE[reason], frames)

    def end_run(self, why: str) -> None:
        self._worker.member.say("enough", why=why)

    def waiting(self) -> None:
        self._worker.at_turn(IDLE)

    def getting_on(self) -> None:
        self._worker.at_turn(WORKING)

    def report(self, facts: Mapping[str, Fact | None]) -> None:
        self._worker.facts.report(facts)
