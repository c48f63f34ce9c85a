"""How the page speaks HTTP: uvicorn, with a bound to all that a visitor can take or hold.

Law: a connection is there for an answer. One that has asked for nothing, be it that it is silent
or that what it asks comes a byte at a time, ends `patience_s` after it was made, or, behind an
answer, after the first byte; silence there ends it earlier. An answer may take as long as it likes.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

_MAX_CONNECTIONS = 200
_MAX_HEAD_BYTES = 1 << 14


class Impatient(H11Protocol):
    """One connection. What uvicorn waits for without an end, or anew with each byte, has one."""

    patience_s: ClassVar[float] = 10.0

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _look(self) -> None:
        """The time runs while no answer is under way."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.patience_s, self.timeout_keep_alive_handler)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def config(app: ASGIApp, protocol: type[Impatient] = Impatient) -> uvicorn.Config:
    """How uvicorn is to serve the application."""
    asgi: Any = app  # starlette's type of it and uvicorn's are two
    return uvicorn.Config(
        asgi,
        loop="asyncio",
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        limit_concurrency=_MAX_CONNECTIONS,
        h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
        timeout_graceful_shutdown=1,
    )
