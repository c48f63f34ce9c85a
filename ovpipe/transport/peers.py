"""The other workers of a run, as a member was told of them.

    here   its inbox is open at `endpoint`
    away   dead, and a successor will be told as `back`
    gone   dead or finished, and nobody will take its place

Law: written by the control thread, read by any; a change replaces a whole value. Each death is
also put into `departed`, in order, so that the member's own thread can settle what the dead one
sent behind what has arrived from it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Peer:
    """One worker: `epoch` counts its processes, `endpoint` is the ZeroMQ address of the last."""

    state: Literal["here", "away", "gone"]
    epoch: int
    endpoint: str

    def to_json(self) -> dict[str, Any]:
        """As a plain dict."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Departed:
    """A death to be settled: all epochs of `worker` up to `epoch` are dead.

    `endpoint`: where the last of them was reached; "" where it died before we came.
    """

    worker: int
    epoch: int
    returns: bool
    endpoint: str = ""


class Peers:
    """All workers by index. `version` rises with each change."""

    def __init__(self, peers: Iterable[dict[str, Any]]) -> None:
        self._peers = [Peer(**peer) for peer in peers]
        self.version = 0
        self.departed: deque[Departed] = deque()
        for worker, peer in enumerate(self._peers):
            dead = peer.epoch - (peer.state == "here")
            if dead >= 0:  # it, or one before it, has died before we came
                self.departed.append(Departed(worker, dead, peer.state != "gone"))

    def __getitem__(self, worker: int) -> Peer:
        return self._peers[worker]

    def __iter__(self) -> Iterator[Peer]:
        return iter(tuple(self._peers))

    def leave(self, worker: int, epoch: int, returns: bool) -> None:
        """A worker is dead. Its `epoch` may be one that never came to work."""
        peer = self._peers[worker]
        state: Literal["away", "gone"] = "away" if returns else "gone"
        self._peers[worker] = Peer(state, epoch, peer.endpoint)
        self.departed.append(Departed(worker, epoch, returns, peer.endpoint))
        self.version += 1

    def back(self, worker: int, epoch: int, endpoint: str) -> None:
        """Its successor has opened its inbox."""
        self._peers[worker] = Peer("here", epoch, endpoint)
        self.version += 1
