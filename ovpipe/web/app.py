"""What the page answers. Fixed routes; no file is looked up by what a request says.

/                                     the page, and /page.css /page.js /icon.svg
/healthz  /readyz                     200, or 503 with a reason
/metrics                              Prometheus
/api/v1/graph  status  history        JSON
/api/v1/edges/N/frame.json            what is known of a frame of edge N; ?stream=
/api/v1/edges/N/frame.jpg             its picture
/api/v1/edges/N/stream.mjpeg          pictures for as long as somebody watches
"""

from __future__ import annotations

import asyncio
import json
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ovpipe.errors import OvpipeError
from ovpipe.web import figures, metrics
from ovpipe.web.live import PATIENCE_S, Live, Picture, TooMany
from ovpipe.web.watch import Watch

_STATIC = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_BOUNDARY = "ovpipe-frame"
_MULTIPART = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
_BODY = {"type": "http.response.body", "more_body": True}


class _Json(JSONResponse):
    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


class App:
    """The routes over one run."""

    def __init__(self, watch: Watch, live: Live) -> None:
        self._watch = watch
        self._live = live
        self._graph = figures.graph_facts(watch.graph)

    def routes(self) -> Starlette:
        """The application, without its guard."""
        edge = "/api/v1/edges/{edge:int}"
        return Starlette(
            routes=[
                *(_static(path, *what) for path, what in _STATIC.items()),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._metrics),
                Route("/api/v1/graph", self._graph_facts),
                Route("/api/v1/status", self._status),
                Route("/api/v1/history", self._history),
                Route(f"{edge}/frame.json", self._frame_json),
                Route(f"{edge}/frame.jpg", self._frame_jpg),
                Route(f"{edge}/stream.mjpeg", self._stream),
            ],
            exception_handlers={HTTPException: _refused},
        )

    async def _healthz(self, _: Request) -> Response:
        return _well(self._watch.unwell())

    async def _readyz(self, _: Request) -> Response:
        return _well(self._watch.unready())

    async def _metrics(self, _: Request) -> Response:
        watch = self._watch
        text = metrics.exposition(watch.run, up=not watch.unwell())
        return Response(text, headers={"content-type": metrics.CONTENT_TYPE})

    async def _graph_facts(self, _: Request) -> Response:
        return _Json(self._graph)

    async def _status(self, _: Request) -> Response:
        return _Json({**self._watch.status, "viewers": self._live.viewers})

    async def _history(self, _: Request) -> Response:
        return _Json(self._watch.history)

    async def _frame_json(self, request: Request) -> Response:
        picture = await self._look(request)
        return _Json({"v": 1, "edge": request.path_params["edge"], **picture.facts})

    async def _frame_jpg(self, request: Request) -> Response:
        picture = await self._look(request)
        if picture.jpeg is None:
            raise HTTPException(404, picture.why)
        return Response(picture.jpeg, media_type="image/jpeg")

    async def _look(self, request: Request) -> Picture:
        edge, stream = self._asked(request)
        try:
            return await self._live.look(edge, stream)
        except TooMany as error:
            raise HTTPException(503, str(error), {"Retry-After": "1"}) from None
        except (TimeoutError, OSError, OvpipeError) as error:
            raise HTTPException(504, f"no frame: {error}") from None

    async def _stream(self, request: Request) -> Response:
        edge, stream = self._asked(request)
        if request.method == "HEAD":
            return Response(headers={"content-type": _MULTIPART})
        return _Motion(self._live, edge, stream)

    def _asked(self, request: Request) -> tuple[int, str]:
        """The edge and stream that are asked for. 404 for others than there are."""
        edges, number = self._watch.graph.edges, request.path_params["edge"]
        if number >= len(edges):
            raise HTTPException(404, f"no such edge; there are {len(edges)}, from 0 on")
        streams = edges[number].streams
        stream = request.query_params.get("stream", streams[0] if streams else "")
        if stream not in streams:
            raise HTTPException(404, "no such stream on this edge")
        return number, stream


class _Motion(Response):
    """Pictures, one after the other, until the viewer goes, or takes none any more."""

    def __init__(self, live: Live, edge: int, stream: str) -> None:
        super().__init__(headers={"content-type": _MULTIPART})
        del self.headers["content-length"]
        self._live = live
        self._asked = edge, stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with self._live.watching(*self._asked) as feed:
                begin = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                await send(begin)
                await send({**_BODY, "body": f"--{_BOUNDARY}\r\n".encode()})

                async def show() -> None:
                    number = -1
                    while True:
                        picture = await feed.after(number)
                        number = picture.number
                        if picture.jpeg is not None:
                            part = {**_BODY, "body": _part(picture.jpeg)}
                            await asyncio.wait_for(send(part), PATIENCE_S)

                async def gone() -> None:
                    while (await receive())["type"] != "http.disconnect":
                        pass

                tasks = [asyncio.create_task(show()), asyncio.create_task(gone())]
                try:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
        except TooMany as error:
            answer = _Json({"error": str(error)}, 503, {"Retry-After": "5"})
            await answer(scope, receive, send)


def _part(jpeg: bytes) -> bytes:
    """The boundary comes behind: browsers show a picture when they have seen its end."""
    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    return head.encode() + jpeg + f"\r\n--{_BOUNDARY}\r\n".encode()


def _well(why: str) -> Response:
    return _Json({"ok": not why, "why": why}, 503 if why else 200)


def _static(path: str, name: str, kind: str) -> Route:
    body = (files("ovpipe.web") / "static" / name).read_bytes()

    async def answer(_: Request) -> Response:
        return Response(body, headers={"content-type": kind})

    return Route(path, answer)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _Json({"error": error.detail}, error.status_code, error.headers)
