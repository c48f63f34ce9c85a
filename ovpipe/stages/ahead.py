"""Ahead: a file is decoded in a thread of its own while the pictures before are copied and sent.

A decoder that works on several frames at a time stands still while nobody asks it for the next one.

Law: pictures and losses come in the order of decoding, each once; at most `_ROOM` of them wait. All
calls of the container are made on that thread, until `close` has returned.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

_ROOM = 2
_LOST = object()


class Ahead:
    """Iterates over what `pictures(stopping, count_error)` gives; calls `lost` for each error."""

    def __init__(
        self,
        pictures: Callable[[Callable[[], bool], Callable[[], None]], Iterator[Any]],
        lost: Callable[[], None],
    ) -> None:
        self._pictures = pictures
        self._lost = lost
        self._closing = False
        self._items: SimpleQueue[Any] = SimpleQueue()
        self._room: SimpleQueue[None] = SimpleQueue()
        for _ in range(_ROOM):
            self._room.put(None)
        self._thread = threading.Thread(target=self._run, name="ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Any]:
        get, room = self._items.get, self._room.put
        while (item := get()) is not None:
            room(None)
            if item is _LOST:
                self._lost()
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
                del item  # or it stays while the next one is waited for

    def close(self) -> None:
        """Let go of the container. What was decoded and not taken is forgotten."""
        self._closing = True
        self._room.put(None)
        self._thread.join()

    def _run(self) -> None:
        last: BaseException | None = None
        try:
            self._room.get()
            for picture in self._pictures(lambda: self._closing, lambda: self._give(_LOST)):
                self._give(picture)
                del picture
                if self._closing:
                    break
        except BaseException as error:  # noqa: BLE001 - raised on the thread that takes them
            last = error
        self._items.put(last)

    def _give(self, item: Any) -> None:
        """Hand it over, and wait until there is room for one more."""
        if not self._closing:
            self._items.put(item)
            self._room.get()
