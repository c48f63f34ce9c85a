"""The results of many inferences, one by one: AsyncInferQueue.map.

Law: at most 2 * jobs items are taken ahead of the results that were given out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from ovpipe.queue.slots import Slots

_END = object()


class Results:
    """Iterable with `for` and, where items come from an async source or not, `async for`."""

    def __init__(
        self,
        begin: Callable[[Any, bool], Future[Any]],
        submit: Callable[..., Future[Any]],
        slots: Slots,
        items: Iterable[Any] | AsyncIterable[Any],
        ordered: bool,
        share: bool,
    ) -> None:
        self._begin = begin
        self._submit = submit
        self._slots = slots
        self._items = items
        self._ordered = ordered
        self._share = share
        self._ahead = 2 * slots.jobs

    def __iter__(self) -> Iterator[Any]:
        if not isinstance(self._items, Iterable):
            raise TypeError("an async iterable: use `async for`")
        return self._in_order(self._items) if self._ordered else self._as_they_come(self._items)

    def _in_order(self, items: Iterable[Any]) -> Iterator[Any]:
        source = iter(items)
        window: deque[Future[Any]] = deque()
        more = True
        while more or window:
            while more and self._room(len(window), bool(window) and window[0].done()):
                item = next(source, _END)
                more = item is not _END
                if more:
                    window.append(self._begin(item, self._share))
            if window:
                yield window.popleft().result()

    def _as_they_come(self, items: Iterable[Any]) -> Iterator[Any]:
        source = iter(items)
        done: SimpleQueue[Future[Any]] = SimpleQueue()
        flying = 0
        more = True
        while more or flying:
            while more and self._room(flying, not done.empty()):
                item = next(source, _END)
                more = item is not _END
                if more:
                    self._begin(item, self._share).add_done_callback(done.put)
                    flying += 1
            if flying:
                flying -= 1
                yield done.get().result()

    def _room(self, ahead: int, result: bool) -> bool:
        """True where one more item is to be begun before a result is given out."""
        return ahead < self._ahead and (self._slots.ready or not result)

    async def __aiter__(self) -> AsyncIterator[Any]:
        source = _source(self._items)
        window: list[asyncio.Future[Any]] = []
        coming: asyncio.Future[Any] | None = asyncio.ensure_future(_next(source))
        try:
            while window or coming is not None:
                waited = window[:1] if self._ordered else list(window)
                if coming is not None and len(window) < self._ahead:
                    waited.append(coming)
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                if coming is not None and coming.done() and len(window) < self._ahead:
                    item = coming.result()
                    coming = None
                    if item is not _END:
                        job = self._submit(item, share_inputs=self._share)
                        window.append(asyncio.wrap_future(job))
                        coming = asyncio.ensure_future(_next(source))
                for done in [w for w in waited if w in window and w.done()]:
                    window.remove(done)
                    yield done.result()
        finally:
            for left in (*window, *([coming] if coming is not None else [])):
                left.cancel()


async def _source(items: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


async def _next(source: AsyncIterator[Any]) -> Any:
    return await anext(source, _END)
