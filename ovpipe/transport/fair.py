"""Fair: whose turn it is, where several streams wait for one receiver. Pure.

Law: streams that have frames waiting are served in turn, one frame each, whatever their rates and
whoever sends them; each stream of a sender stays in its order. A frame that was dropped meanwhile
takes no turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ovpipe.transport.wire import Message


class Fair:
    """Messages that name frames, by sender and stream."""

    def __init__(self) -> None:
        self._queues: dict[tuple[int, int], deque[Message]] = {}  # the first one's turn it is

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, message: Message) -> None:
        """Put it behind all of its stream; a stream that had none waits for a whole round."""
        self._queues.setdefault((message.link, message.stream), deque()).append(message)

    def next(self, dropped: Callable[[Message], bool]) -> Message | None:
        """The first of the stream whose turn it is that was not `dropped`; None: there is none."""
        while self._queues:
            key, queue = next(iter(self._queues.items()))
            del self._queues[key]
            while queue:
                message = queue.popleft()
                if not dropped(message):
                    if queue:
                        self._queues[key] = queue
                    return message
        return None
