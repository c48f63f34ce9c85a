"""A post: one worker's place in the run, and whoever holds it now.

    new -> starting -> up -> done                     all its streams have ended
              |         |
              +---------+--> away -> starting (epoch + 1)
              +---------+---> gone                    nobody will hold it again

Law: every change of state is one of these; any other raises and changes nothing. `epoch` counts
the processes that held the post; a message, an address or a claim of one is told from those of
its successor by it.
"""

from __future__ import annotations

from typing import Literal

from ovpipe.errors import OvpipeError, StageError
from ovpipe.supervisor.launch import WorkerPlan
from ovpipe.supervisor.process import ExternalMember, WorkerMember, Workplace
from ovpipe.supervisor.restart import GiveUp, Restarts

State = Literal["new", "starting", "up", "away", "gone", "done"]

_NEXT: dict[State, tuple[State, ...]] = {
    "new": ("starting",),
    "starting": ("up", "away", "gone"),
    "up": ("done", "away", "gone"),
    "away": ("starting", "gone"),
    "done": (),
    "gone": (),
}


class Post:
    """One worker's place. `due_s`: when its next process is to be started, while away.

    `capacity`, `frame_bytes`: what its holder said of the frames that it works on, or makes;
    `open`: whether it has.
    """

    def __init__(self, plan: WorkerPlan) -> None:
        self.plan = plan
        self.state: State = "new"
        self.epoch = 0
        self.open = False
        self.capacity = 0
        self.frame_bytes = 0
        self.start_by_s = float("inf")
        self.due_s = float("inf")
        self.died_s = 0.0
        self.member: WorkerMember | ExternalMember | None = None
        self.restarts: Restarts[OvpipeError] = Restarts(plan.policy)

    def become(self, state: State) -> None:
        """Change the state. Raises ValueError where that is not one of the next."""
        if state not in _NEXT[self.state]:
            raise ValueError(f"post '{self.plan.name}': {self.state} -> {state}")
        self.state = state

    @property
    def process(self) -> Workplace | None:
        """The process that the post's holder lives in, where that is one of ours."""
        return self.member.process if isinstance(self.member, WorkerMember) else None

    @property
    def alive(self) -> bool:
        """True while a process of ours holds it."""
        return self.process is not None and self.process.alive

    @property
    def pushes(self) -> bool:
        """True while the application may push frames here."""
        member = self.member
        if not isinstance(member, ExternalMember) or not self.plan.producer:
            return False
        return not (member.finished or member.left)

    @property
    def next_s(self) -> float:
        """When something is to be done here at the latest."""
        return min(self.due_s, self.process.kill_at_s if self.process else float("inf"))

    @property
    def returns(self) -> bool:
        """True where its holder may get a successor."""
        return not self.plan.external and self.plan.policy.restart != "never"

    @property
    def peer_state(self) -> Literal["here", "away", "gone"]:
        """As its neighbours are told."""
        if self.state in ("new", "starting", "away"):
            return "away"
        return "here" if self.state == "up" else "gone"


def with_restarts(end: GiveUp[OvpipeError]) -> OvpipeError:
    """The first cause, and how often it was tried again."""
    first = end.cause
    if not end.restarts or not isinstance(first, StageError):
        return first
    times = "once" if end.restarts == 1 else f"{end.restarts} times"
    return StageError(first.stage, f"{first.cause} (restarted {times})", first.remote_traceback)
